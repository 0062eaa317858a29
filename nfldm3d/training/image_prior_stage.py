"""Trains our own prior: a denoiser of pictures that is told an embedding of the one that it is to draw.

It sees photographs and what scenes show, so that their embeddings mean something to it: guidance away from them is what
sharpens (NF-LDM, section 7).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.evaluation.features import EfficientNetFeatures
from nfldm3d.models.priors.image_denoiser import ImageDenoiser
from nfldm3d.training.image_denoising import draw_pictures, draw_steps, mean_error, velocity_errors, weighted_mean
from nfldm3d.training.restorer_stage import PairSource
from nfldm3d.training.stage import Evaluation

EFFICIENTNET, FEATURES = "efficientnet-lite0", 1280
DRAWN = 8
"""Pictures that are drawn to be looked at."""


@dataclass(frozen=True)
class Pictures:
    """Photographs and renders, all alike."""

    images: Float[Tensor, "views 3 height width"]
    """sRGB in [0, 1]."""
    keys: tuple[tuple[int, int, bool, bool], ...]
    """Of each the scene, the number in it, whether it is a render, and whether it is mirrored."""

    def to(self, device: torch.device) -> "Pictures":
        """The same on another device."""
        return Pictures(self.images.to(device), self.keys)


class PictureSource:
    """Draws pictures out of pairs; see ``SampleSource``."""

    def __init__(self, pairs: PairSource, renders: float = 0.5):
        """``renders`` is the share of pictures that scenes show, beside photographs."""
        self.pairs, self.renders = pairs, renders

    def __len__(self) -> int:
        return len(self.pairs)

    def sample(self, index: int, generator: torch.Generator) -> Pictures:
        """A few pictures of a scene, mirrored or not."""
        numbers, mirrored, pairs = self.pairs.draw(index, generator)
        rendered = torch.rand(len(numbers), 1, 1, 1, generator=generator) < self.renders
        keys = tuple((index, number, bool(way), mirrored) for number, way in zip(numbers, rendered, strict=True))
        return Pictures(torch.where(rendered, pairs.raw.render, pairs.photograph), keys)

    def collate(self, samples: Sequence[Pictures]) -> Pictures:
        """All pictures one after the other."""
        keys = tuple(key for sample in samples for key in sample.keys)
        return Pictures(torch.cat([sample.images for sample in samples]), keys)


class ImagePriorStage:
    """See ``Stage``."""

    name = "image-prior"
    optional_parameters = True

    def __init__(
        self,
        model: ImageDenoiser,
        source: PictureSource,
        held_out: PictureSource,
        *,
        embed: Callable[[Tensor], Tensor] | None = None,
        untold: float = 0.15,
        judged: int = 16,
    ):
        """Judges by two photographs of each of ``judged`` held-out scenes.

        Args:
            embed: from pictures to the vectors that the network is told; EfficientNet-Lite0's features by default.
            untold: share of pictures whose embedding is left out, for guidance without a classifier.
        """
        self.model, self.source, self.held_out = model, source, held_out
        self.embed = EfficientNetFeatures.load() if embed is None else embed
        self.untold, self.judged = untold, judged
        self.known: dict[tuple[int, int, bool], Tensor] = {}
        """Embeddings of the pictures that are learned from: each takes as long as ten pictures of a step."""

    def config(self) -> dict[str, Any]:
        """The network's constructor arguments."""
        return {name: value for name, value in self.model.config.items() if not name.startswith("_")}

    def to(self, device: torch.device) -> None:
        """Moves the networks."""
        torch.nn.Module.to(self.model, device)
        if isinstance(self.embed, torch.nn.Module):
            self.embed.to(device)

    def loss(self, batch: Pictures, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean squared error of v, weighed by the ratio of signal to noise."""
        views = len(batch.images)
        t = draw_steps(views, generator)
        told = self._tell(batch)
        silent = torch.rand(views, 1, generator=generator) < self.untold
        told = torch.where(silent.to(told.device), 0.0, told)
        errors = velocity_errors(self.model, batch.images, told, t, generator)
        return weighted_mean(errors, t), {"error": errors.detach().mean()}

    def evaluate(self, generator: torch.Generator) -> Evaluation:
        """Errors of v on held-out photographs that the network is told of, not told of, and told others of."""
        pairs = self.held_out.pairs.spread(self.judged)
        images = pairs.photograph.to(self.model.device)
        told, seed = self._embed(images), generator.initial_seed()
        variants = {
            "error": told,
            "error_untold": torch.zeros_like(told),
            "error_other": told.roll(max(1, len(told) // 2), 0),
        }
        scalars = {name: mean_error(self.model, images, variant, seed) for name, variant in variants.items()}
        shown = images[: 2 * DRAWN : 2]
        drawn = draw_pictures(self.model, told[: 2 * DRAWN : 2], seed)
        page = torch.cat([torch.cat(list(row), dim=-1) for row in (shown, drawn)], dim=-2)
        return Evaluation(-scalars["error"], scalars, {"told_and_drawn": page})

    def _tell(self, batch: Pictures) -> Float[Tensor, "views numbers"]:
        """The embeddings of a batch. Each picture is embedded once, as it was before it was mirrored, and alone: beside
        others sums are rounded otherwise, and a run that goes on meets it beside others."""
        for image, (scene, number, rendered, mirrored) in zip(batch.images, batch.keys, strict=True):
            if (scene, number, rendered) not in self.known:
                seen = image.flip(-1) if mirrored else image
                self.known[scene, number, rendered] = self._embed(seen[None])[0].half().cpu()
        told = [self.known[key[:3]].float() for key in batch.keys]  # autocast on CPUs stacks no halves
        return torch.stack(told).to(batch.images)

    @torch.no_grad()
    def _embed(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            return self.embed(images.float())


def make_image_prior(source: PictureSource, *, widths: tuple[int, ...] = (96, 192, 320)) -> ImageDenoiser:
    """A new prior for pictures of the size of those in ``source``, told EfficientNet-Lite0's features; 4 x 4 pixels are
    one, for speed."""
    size = int(source.pairs.spread(1).photograph.shape[-1])
    return ImageDenoiser(size, 4, widths, blocks=1, embedding=FEATURES, embedder=EFFICIENTNET, predicts="picture")


@torch.no_grad()
def sample_features(
    source: PictureSource, embed: Callable[[Tensor], Tensor], count: int = 200
) -> Float[Tensor, "samples numbers"]:
    """Embeddings of pictures of at most ``count`` scenes, for ``ImageDenoiser.tell_apart``."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(source), generator=generator)[:count].tolist()
    return torch.cat([embed(source.sample(number, generator).images) for number in chosen]).float().cpu()
