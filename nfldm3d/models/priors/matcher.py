"""A small network that tells which text belongs to which picture: the judge of dreams, as CLIP is the paper's."""

import itertools

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nfldm3d.blocks import ResidualBlock
from nfldm3d.models.priors.image_denoiser import require_patches
from nfldm3d.models.priors.told import Whitening

LARGEST_SCALE = 100.0


class PictureTextMatcher(ModelMixin, ConfigMixin):
    """Pictures and sentences become unit vectors, which lie near each other where they belong together."""

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        size: int = 64,
        patch: int = 4,
        widths: tuple[int, ...] = (64, 96, 160),
        sentence: int = 384,
        embedder: str = "",
        features: int = 96,
        directions: int = 128,
    ):
        """For square pictures; others are resized.

        Args:
            patch: pixels along each side that become the channels of one.
            sentence: numbers of a sentence's embedding.
            embedder: the network that embeds sentences.
            directions: in which sentences differ, of which it is told; see ``tell_apart``.
        """
        super().__init__()
        require_patches(size, patch, len(widths))
        self.stem = nn.Conv2d(3 * patch**2, widths[0], 3, padding=1)
        pairs = itertools.pairwise((widths[0], *widths))
        self.blocks = nn.ModuleList(ResidualBlock(a, b) for a, b in pairs)
        self.norm = nn.LayerNorm(2 * widths[-1])
        self.picture = nn.Linear(2 * widths[-1], features)
        self.whitening = Whitening(sentence, min(directions, sentence))
        self.text = nn.Sequential(nn.Linear(min(directions, sentence), 256), nn.SiLU(), nn.Linear(256, features))
        self.log_scale = nn.Parameter(torch.tensor(2.5))

    def tell_apart(self, sentences: Float[Tensor, "samples numbers"]) -> None:
        """Before training: by which directions a sample of sentences differs."""
        self.whitening.fit(sentences)

    def look(self, images: Float[Tensor, "views 3 height width"]) -> Float[Tensor, "views features"]:
        """Of sRGB pictures in [0, 1]."""
        size, patch = int(self.config["size"]), int(self.config["patch"])
        if images.shape[-2:] != (size, size):
            images = functional.interpolate(images, (size, size), mode="bilinear", antialias=True)
        hidden = self.stem(functional.pixel_unshuffle((images - 0.5).to(self.dtype), patch))
        for number, block in enumerate(self.blocks):
            hidden = block(functional.avg_pool2d(hidden, 2) if number else hidden)
        pooled = self.norm(torch.cat((hidden.mean((-2, -1)), hidden.amax((-2, -1))), dim=-1))
        return functional.normalize(self.picture(pooled).float(), dim=-1)

    def read(self, sentences: Float[Tensor, "texts numbers"]) -> Float[Tensor, "texts features"]:
        """Of embeddings of whole sentences."""
        return functional.normalize(self.text(self.whitening(sentences.to(self.dtype))).float(), dim=-1)

    @property
    def scale(self) -> Float[Tensor, ""]:
        """What cosines are multiplied with before a softmax."""
        return self.log_scale.float().exp().clamp(max=LARGEST_SCALE)

    def forward(
        self, images: Float[Tensor, "views 3 height width"], sentences: Float[Tensor, "texts numbers"]
    ) -> Float[Tensor, "views texts"]:
        """How well each text fits each picture, as logits."""
        return self.scale * self.look(images) @ self.read(sentences).T
