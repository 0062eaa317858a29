"""Small networks that judge what was generated: what a picture shows, and what lies where in a field."""

import itertools

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nfldm3d.blocks import ResidualBlock, UNet, fold
from nfldm3d.models.nfldm.scene_voxels import Voxels


class FrameClassifier(ModelMixin, ConfigMixin):
    """Which map a picture comes from, and which share of it each class takes.

    The vector before the answers is the space in which generated and real pictures are compared: a Fréchet distance
    that needs no downloaded weights.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, maps: int = 58, classes: int = 6, size: int = 64, features: int = 64, width: int = 32):
        """For square pictures of ``size`` pixels; others are resized."""
        super().__init__()
        widths = (width, 2 * width, 3 * width, 4 * width)
        self.stem = nn.Conv2d(3, widths[0], 4, 2, 1)
        self.blocks = nn.ModuleList(ResidualBlock(each, each) for each in widths)
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise(widths))
        self.norm = nn.GroupNorm(8, widths[-1])
        self.embedding = nn.Linear(2 * widths[-1], features)
        self.map_head, self.class_head = nn.Linear(features, maps), nn.Linear(features, classes)

    def embed(self, images: Float[Tensor, "views 3 height width"]) -> Float[Tensor, "views features"]:
        """What is compared; pictures are sRGB in [0, 1]."""
        size = int(self.config["size"])
        if images.shape[-2:] != (size, size):
            images = functional.interpolate(images, (size, size), mode="bilinear", antialias=True)
        hidden = self.stem(images - 0.5)
        for number, block in enumerate(self.blocks):
            hidden = block(hidden)
            if number < len(self.shrink):
                hidden = self.shrink[number](hidden)
        hidden = functional.silu(self.norm(hidden))
        return self.embedding(torch.cat((hidden.mean((-2, -1)), hidden.amax((-2, -1))), dim=-1))

    def forward(
        self, images: Float[Tensor, "views 3 height width"]
    ) -> tuple[Float[Tensor, "views maps"], Float[Tensor, "views classes"]]:
        """Logits of the map, and of the shares of the classes."""
        features = functional.silu(self.embed(images))
        return self.map_head(features), self.class_head(features)


class BevReader(ModelMixin, ConfigMixin):
    """The bird's-eye map of a field: which class each column of voxels has."""

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        resolution: tuple[int, int, int] = (64, 64, 16),
        channels: int = 12,
        classes: int = 10,
        widths: tuple[int, ...] = (32, 48, 64),
    ):
        """For fields of the scene auto-encoder; the map has as many cells as the field has columns."""
        super().__init__()
        self.network = UNet((1 + channels) * int(resolution[2]), classes, tuple(widths))

    def forward(self, voxels: Voxels) -> Float[Tensor, "scenes classes x y"]:
        """Logits of the classes."""
        return self.network(fold(torch.cat((voxels.occupancy[..., None] * 2 - 1, voxels.features), dim=-1)))
