"""The scene auto-encoder: posed images to a voxel field and back to pictures (NF-LDM, stage 1).

A network looks at each image by itself and predicts, on a coarser grid of pixels, densities along the ray and one
feature vector phi. Lifting puts O * phi into the voxels (see ``lifting``), pooling makes one vector of what fell into
each, and a network over the folded grid repairs and completes it. Rendering the field and decoding gives pictures.

Additions to the paper, each of which can be switched off: depth as an input; features pooled by their weights; a
density read from hits and from light that passed; the completing network; colours carried along as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nfldm3d import ops
from nfldm3d.appearance import EnvironmentMap
from nfldm3d.blocks import UNet, fold, unfold
from nfldm3d.fields import Field, VoxelField, require_voxels
from nfldm3d.geometry import Box, Rays
from nfldm3d.image_decoder import ImageDecoder
from nfldm3d.models.nfldm.pooling import EVIDENCE, Pooled, Pooling, PoolingKind, Seen, pool_views
from nfldm3d.models.nfldm.scene_voxels import LEAST
from nfldm3d.models.nfldm.views import Views, check_views, cubic_box
from nfldm3d.rendering import MIN_OPACITY

DensityFrom = Literal["explicit", "inferred"]

THICK = 3.0
"""Added to the logits of signed densities before anything is learned: thin walls would leak."""
CLEAR = 0.01
"""Densities below this many per voxel become zero: no fog, and rays leap over empty space."""


@dataclass(frozen=True)
class Encoding:
    """A scene as the encoder sees it, with what training looks at besides."""

    field: VoxelField
    background: EnvironmentMap
    """Features of what lies beyond the box."""
    weights: Float[Tensor, "rays bins"]
    """O of each bin."""
    passed: Float[Tensor, "rays bins"]
    """The light that passed each bin."""


class SceneAutoencoder(ModelMixin, ConfigMixin):
    """Encodes posed images into a ``VoxelField``, renders it and decodes the features to pictures.

    Args:
        channels: features of a voxel, of which the first three are sRGB.
        bins: depths along the ray of each pixel.
        stride: pixels of the image per pixel of the grid on which features are predicted.
        octaves: of the decoder's position code.
        pixel_angle: radians between neighbouring rays in the middle of the pictures to train on: 64 pixels over 90
            degrees by default.
        pooling: ``occupancy`` divides by the sum of the weights, ``mean`` by the number of bins as in the paper,
            ``attention`` weighs views against each other.
        density: ``explicit`` from the predicted densities, ``inferred`` from the pooled features alone.
        complete: whether a network over the folded grid repairs and completes what was pooled.
        weigh_evidence: whether a small map turns hits and passing light into density; else it is the mean of the
            predicted densities, as in the paper.
        carry_colors: whether the first seven features start from the pictures' own colours and contrasts.
        signed: whether densities of empty voxels are negative, so that surfaces lie anywhere between voxels.
        sky_rows: of the panorama of what lies beyond the box; it has twice as many columns.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        resolution: tuple[int, int, int] = (64, 64, 16),
        channels: int = 12,
        bins: int = 48,
        image_widths: tuple[int, ...] = (64, 96, 128),
        grid_widths: tuple[int, ...] = (96, 128, 160),
        decoder_widths: tuple[int, ...] = (48, 64),
        stride: int = 2,
        octaves: int = 4,
        pixel_angle: float = 1 / 32,
        pooling: PoolingKind = "occupancy",
        density: DensityFrom = "explicit",
        complete: bool = True,
        weigh_evidence: bool = True,
        carry_colors: bool = True,
        signed: bool = True,
        sky_rows: int = 16,
    ):
        """Sets the widths; the resolution is that of the field."""
        super().__init__()
        if channels < 3 or stride < 1 or bins < 1 or min(resolution) < 1 or sky_rows < 1:
            raise ValueError(
                "a scene auto-encoder needs at least 3 channels, and a stride, bins, rows of sky and a resolution of "
                f"at least 1, got {channels}, {stride}, {bins}, {sky_rows} and {tuple(resolution)}"
            )
        self.grid = (int(resolution[0]), int(resolution[1]), int(resolution[2]))
        self.pooling = Pooling(pooling, self.grid, int(bins), int(stride), int(sky_rows))
        self.image_network = UNet(6 * stride**2, channels + image_widths[0], tuple(image_widths))
        self.head = nn.Linear(image_widths[0], bins + 1)
        nn.init.constant_(self.head.bias[:bins], -5.0)  # all bins together absorb a quarter
        nn.init.zeros_(self.head.bias[bins:])  # the score: no view outweighs another
        self.evidence = nn.Sequential(nn.Linear(EVIDENCE + channels, 32), nn.SiLU(), nn.Linear(32, 1 + 8))
        inputs = (8 + channels) * self.grid[2]
        self.grid_network = UNet(inputs, (1 + channels) * self.grid[2], tuple(grid_widths)) if complete else None
        self.sky_code = nn.Parameter(torch.zeros(channels - 3))
        self.decoder = ImageDecoder(channels, widths=tuple(decoder_widths), octaves=octaves, pixel_angle=pixel_angle)
        if carry_colors:
            self._start_from_pictures(channels)
        if weigh_evidence:
            self._start_from_evidence(THICK if signed else 0.0)

    def _start_from_pictures(self, channels: int) -> None:
        """The features are at first the pictures' own colours; training finds what to change."""
        nn.init.zeros_(self.image_network.head.weight[:channels])
        nn.init.zeros_(self.image_network.head.bias[:channels])  # type: ignore[index]

    def _start_from_evidence(self, logit: float) -> None:
        """Densities are at first what lifting knows, with ``logit`` added; training finds what to change."""
        nn.init.zeros_(self.evidence[2].weight[:1])  # type: ignore[index]
        nn.init.constant_(self.evidence[2].bias[:1], logit)  # type: ignore[index]
        for parameter in () if self.grid_network is None else self.grid_network.head.parameters():
            nn.init.zeros_(parameter)

    def encode(self, views: Views, box: Box) -> Encoding:
        """The field that the views of one scene give; see ``encode_batch``.

        Raises:
            ValueError: views show nothing of the box, are not finite, or have depth in other units than metres.
        """
        check_views(views, cubic_box(box, self.grid))
        return self.encode_batch([views], [box])[0]

    def encode_batch(self, scenes: Sequence[Views], boxes: Sequence[Box]) -> list[Encoding]:
        """One field per scene, in its box, enlarged until its voxels are cubes.

        Pictures of all scenes must have one size, a multiple of the stride.

        Without depth the network judges by colour alone; with it, surfaces land where they were measured.
        """
        predicted, boxes = self._look(scenes), [cubic_box(box, self.grid) for box in boxes]
        with _full_precision(self.device):
            pooled = [
                pool_views(views, box, seen, self.pooling)
                for views, box, seen in zip(scenes, boxes, predicted, strict=True)
            ]
        density, features = self._complete(pooled)
        encodings = []
        for number, (part, box) in enumerate(zip(pooled, boxes, strict=True)):
            size, signed = min(box.voxel_size(self.grid)), bool(self.config["signed"])
            field = VoxelField(density[number] / size, features[number], box, signed)
            code = self.sky_code.to(part.panorama).expand(*part.panorama.shape[:2], -1)
            sky = torch.cat((part.panorama, code), dim=-1)
            encodings.append(Encoding(field, EnvironmentMap(sky), part.weights, part.passed))
        return encodings

    def render(self, field: Field, background: EnvironmentMap, rays: Rays) -> "FeatureImages":
        """Composited features of rays ``(views height width)``, half a voxel a step."""
        field, flat = require_voxels(field, "the auto-encoder"), rays.reshape(-1)
        march = ops.March((field.box.lower, field.box.upper), 0.5 * min(field.voxel_size), 1e-3)
        with _full_precision(self.device):
            sums = ops.integrate_rays(field.density, field.features, flat.origins, flat.directions, None, march)
            features = sums.features + (1 - sums.opacity)[:, None] * background.query(flat.directions)
        images, opacity, distance = (
            value.unflatten(0, rays.shape) for value in (features, sums.opacity, sums.distance)
        )
        return FeatureImages(images, opacity, distance, rays)

    def decode(self, rendered: "FeatureImages") -> Float[Tensor, "views 3 height width"]:
        """The pictures, sRGB, not clamped."""
        seen = rendered.opacity > MIN_OPACITY
        mean = torch.where(seen, rendered.distance / rendered.opacity.clamp(min=MIN_OPACITY), 0.0)
        return self.decoder(rendered.features, torch.ones_like(mean), rendered.rays, mean)

    def _look(self, scenes: Sequence[Views]) -> list[Seen]:
        """The image network on all views of all scenes at once."""
        stride, channels = int(self.config["stride"]), int(self.config["channels"])
        images = torch.cat([views.images for views in scenes])
        height, width = images.shape[-2:]
        if height % stride or width % stride:
            raise ValueError(f"pictures must be multiples of {stride} pixels, got {width}x{height}; resize them")
        extra = torch.cat([_depth_channels(views, self.grid) for views in scenes])
        network_input = functional.pixel_unshuffle(torch.cat((images - 0.5, extra), dim=1), stride).to(self.dtype)
        hidden = self.image_network(network_input.contiguous(memory_format=torch.channels_last)).float()
        features, trunk = hidden.movedim(1, -1).split((channels, hidden.shape[1] - channels), dim=-1)
        features = features.repeat_interleave(stride, dim=1).repeat_interleave(stride, dim=2)
        if self.config["carry_colors"]:
            carried = torch.cat((images.movedim(1, -1), local_contrast(images)), dim=-1)
            features = functional.pad(carried, (0, channels - carried.shape[-1])) + 0.3 * features
        logits = self.head(functional.silu(trunk).to(self.dtype)).float()
        counts = [len(views.images) for views in scenes]
        return [Seen(*part) for part in zip(features.split(counts), logits.split(counts), strict=True)]

    def _complete(
        self, pooled: Sequence[Pooled]
    ) -> tuple[Float[Tensor, "scenes x y z"], Float[Tensor, "scenes x y z channels"]]:
        """Density per voxel edge, and features, from what was pooled."""
        explicit = self.config["density"] == "explicit"
        features, evidence = torch.stack([p.features for p in pooled]), torch.stack([p.evidence for p in pooled])
        if not explicit:
            evidence = torch.zeros_like(evidence)
        seen = torch.cat((features, evidence), dim=-1).to(self.dtype)
        logits, summary = self.evidence(seen).float().split((1, 8), dim=-1)
        if explicit and self.config["weigh_evidence"]:
            logits = logits + torch.stack([p.logit for p in pooled])[..., None]
        if self.grid_network is not None:
            folded = fold(torch.cat((features, summary), dim=-1)).to(self.dtype)
            change = self.grid_network(folded.contiguous(memory_format=torch.channels_last)).float()
            change = unfold(change, self.grid[2])
            logits = logits + change[..., :1]
            features = features + torch.cat((0.3 * change[..., 1:4], change[..., 4:]), dim=-1)
        if explicit and not self.config["weigh_evidence"]:
            return functional.relu(torch.stack([p.density for p in pooled]) - CLEAR), features
        if self.config["signed"]:
            return functional.elu(logits[..., 0], LEAST), features
        return functional.relu(functional.softplus(logits[..., 0]) - CLEAR), features


PAPER = {"pooling": "mean", "complete": False, "weigh_evidence": False, "carry_colors": False, "signed": False}
"""Constructor arguments that leave out what we added."""


@dataclass(frozen=True)
class FeatureImages:
    """What rendering gives the decoder."""

    features: Float[Tensor, "views height width channels"]
    """Composited over the background."""
    opacity: Float[Tensor, "views height width"]
    distance: Float[Tensor, "views height width"]
    """Sum of weight * distance in metres."""
    rays: Rays


def local_contrast(images: Float[Tensor, "views 3 height width"]) -> Float[Tensor, "views height width 4"]:
    """Mean differences of brightness along rows, columns and both diagonals around each pixel.

    Voxels cannot hold a texture's phase; its strength and direction let the decoder draw one.
    """
    gray = functional.pad(images.mean(1, keepdim=True), (0, 1, 0, 1), mode="replicate")
    corner, right, below, across = gray[..., :-1, :-1], gray[..., :-1, 1:], gray[..., 1:, :-1], gray[..., 1:, 1:]
    differences = torch.cat((right - corner, below - corner, across - corner, right - below), dim=1).abs()
    return 4 * functional.avg_pool2d(differences, 5, 1, 2, count_include_pad=False).movedim(1, -1)


def _full_precision(device: torch.device) -> torch.autocast:
    """Switches off mixed precision: positions and sums along rays need single precision."""
    return torch.autocast(device.type, enabled=False)


def _depth_channels(views: Views, resolution: tuple[int, int, int]) -> Float[Tensor, "views 3 height width"]:
    """Logarithm of the depth, whether there is a surface, and whether depth was measured at all."""
    zero = torch.zeros_like(views.images[:, 0])
    if views.depth is None:
        return torch.stack((zero, zero, zero), dim=1)
    valid = (views.depth > 0).float()
    return torch.stack((torch.log1p(views.depth) / 2, valid, zero + 1), dim=1)
