"""The scene auto-encoder: posed images to a voxel field and back to pictures (NF-LDM, stage 1).

A network looks at each image by itself and predicts, on a coarser grid of pixels, densities along the ray and one
feature vector phi. Lifting puts O * phi into the voxels (see ``lifting``), pooling makes one vector of what fell into
each, and a network over the folded grid repairs and completes it. Rendering the field and decoding gives pictures.

Additions to the paper, each of which can be switched off: depth as an input; features pooled by their weights; a
density read from hits and from light that passed; the completing network; colours carried along as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from nfldm3d.field import VoxelField
from nfldm3d.geometry import Box, Rays
from nfldm3d.image_decoder import ImageDecoder
from nfldm3d.models import lifting
from nfldm3d.models.panorama import gather_panorama
from nfldm3d.models.views import Views, check_views
from nfldm3d.rendering import MIN_OPACITY

Pooling = Literal["mean", "occupancy", "attention"]
DensityFrom = Literal["explicit", "inferred"]

PRIOR = 0.005
"""Weight with which the scene's mean colour stands in every voxel: what nothing was seen of gets it."""
CLEAR = 0.01
"""Densities below this many per voxel become zero: no fog, and rays leap over empty space."""
EVIDENCE = 7
SOLID = 3.0
"""Optical depth of the bin that a measured surface lies in."""


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
    """Encodes posed images into a ``VoxelField``, renders it and decodes the features to pictures."""

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
        pooling: Pooling = "occupancy",
        density: DensityFrom = "explicit",
        complete: bool = True,
        weigh_evidence: bool = True,
        carry_colors: bool = True,
        sky_rows: int = 16,
    ):
        """Sets the widths; the resolution is that of the field.

        Args:
            channels: features of a voxel, of which the first three are sRGB.
            bins: depths along the ray of each pixel.
            stride: pixels of the image per pixel of the grid on which features are predicted.
            octaves: of the decoder's position code.
            pooling: ``occupancy`` divides by the sum of the weights, ``mean`` by the number of bins as in the paper,
                ``attention`` weighs views against each other.
            density: ``explicit`` from the predicted densities, ``inferred`` from the pooled features alone.
            complete: whether a network over the folded grid repairs and completes what was pooled.
            weigh_evidence: whether a small map turns hits and passing light into density; else it is the mean of the
                predicted densities, as in the paper.
            carry_colors: whether the first seven features start from the pictures' own colours and contrasts.
            sky_rows: of the panorama of what lies beyond the box; it has twice as many columns.
        """
        super().__init__()
        if channels < 3 or stride < 1 or bins < 1 or min(resolution) < 1:
            raise ValueError(
                "a scene auto-encoder needs at least 3 channels, and a stride, bins and a resolution of at least 1, "
                f"got {channels}, {stride}, {bins} and {tuple(resolution)}"
            )
        self.grid = (int(resolution[0]), int(resolution[1]), int(resolution[2]))
        self.image_network = UNet(6 * stride**2, channels + image_widths[0], tuple(image_widths))
        self.head = nn.Linear(image_widths[0], bins + 1)
        nn.init.constant_(self.head.bias[:bins], -5.0)  # all bins together absorb a quarter
        nn.init.zeros_(self.head.bias[bins:])  # the score: no view outweighs another
        self.evidence = nn.Sequential(nn.Linear(EVIDENCE + channels, 32), nn.SiLU(), nn.Linear(32, 1 + 8))
        inputs = (8 + channels) * self.grid[2]
        self.grid_network = UNet(inputs, (1 + channels) * self.grid[2], tuple(grid_widths)) if complete else None
        if carry_colors:
            nn.init.zeros_(self.image_network.head.weight[:channels])
            nn.init.zeros_(self.image_network.head.bias[:channels])  # type: ignore[index]
        if weigh_evidence:  # the networks start from what lifting knows, and learn what to change
            nn.init.zeros_(self.evidence[2].weight[:1])  # type: ignore[index]
            nn.init.zeros_(self.evidence[2].bias[:1])  # type: ignore[index]
            for parameter in () if self.grid_network is None else self.grid_network.head.parameters():
                nn.init.zeros_(parameter)
        self.sky_code = nn.Parameter(torch.zeros(channels - 3))
        self.decoder = ImageDecoder(channels, widths=tuple(decoder_widths), octaves=octaves)

    def encode(self, views: Views, box: Box) -> Encoding:
        """The field that the views of one scene give; see ``encode_batch``.

        Raises:
            ValueError: views show nothing of the box, are not finite, or have depth in other units than metres; or the
                box's voxels are no cubes.
        """
        check_views(views, box, self.grid)
        return self.encode_batch([views], [box])[0]

    def encode_batch(self, scenes: Sequence[Views], boxes: Sequence[Box]) -> list[Encoding]:
        """One field per scene; pictures of all scenes must have one size, a multiple of the stride.

        Without depth the network judges by colour alone; with it, surfaces land where they were measured.
        """
        predicted = self._look(scenes)
        with _full_precision(self.device):
            pooled = [self._pool(views, box, part) for views, box, part in zip(scenes, boxes, predicted, strict=True)]
        density, features = self._complete(torch.stack([part.inputs for part in pooled]))
        encodings = []
        for number, (part, box) in enumerate(zip(pooled, boxes, strict=True)):
            field = VoxelField(density[number] / min(box.voxel_size(self.grid)), features[number], box)
            sky = torch.cat((part.panorama, self.sky_code.expand(*part.panorama.shape[:2], -1)), dim=-1)
            encodings.append(Encoding(field, EnvironmentMap(sky), part.weights, part.passed))
        return encodings

    def render(self, field: VoxelField, background: EnvironmentMap, rays: Rays) -> "FeatureImages":
        """Composited features of rays ``(views height width)``, half a voxel a step."""
        flat = rays.reshape(-1)
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

    def _look(self, scenes: Sequence[Views]) -> list["_Seen"]:
        """The image network on all views of all scenes at once."""
        stride, channels = int(self.config["stride"]), int(self.config["channels"])
        images = torch.cat([views.images for views in scenes])
        height, width = images.shape[-2:]
        if height % stride or width % stride:
            raise ValueError(f"pictures must be multiples of {stride} pixels, got {width}x{height}; resize them")
        extra = torch.cat([_depth_channels(views, self.grid) for views in scenes])
        network_input = functional.pixel_unshuffle(torch.cat((images - 0.5, extra), dim=1), stride)
        hidden = self.image_network(network_input.contiguous(memory_format=torch.channels_last)).float()
        features, trunk = hidden.movedim(1, -1).split((channels, hidden.shape[1] - channels), dim=-1)
        features = features.repeat_interleave(stride, dim=1).repeat_interleave(stride, dim=2)
        if self.config["carry_colors"]:
            carried = torch.cat((images.movedim(1, -1), local_contrast(images)), dim=-1)
            features = functional.pad(carried, (0, channels - carried.shape[-1])) + 0.3 * features
        logits = self.head(functional.silu(trunk)).float()
        counts = [len(views.images) for views in scenes]
        return [_Seen(*part) for part in zip(features.split(counts), logits.split(counts), strict=True)]

    def _pool(self, views: Views, box: Box, seen: "_Seen") -> "_Pooled":
        """Lifts what was seen in one scene's views into its voxels."""
        stride, count = int(self.config["stride"]), int(self.config["bins"])
        camera = views.camera.resized(views.camera.width // stride, views.camera.height // stride)
        frustums = lifting.build_frustums(camera, box, self.grid, count)
        logits, score = seen.logits.flatten(0, 2).split((count, 1), dim=-1)
        measured = views.depth is not None
        if views.depth is not None:
            nearest = views.depth[:, stride // 2 :: stride, stride // 2 :: stride].reshape(-1)
            bins = lifting.find_bins(nearest, box, self.grid, count)
            weights = functional.one_hot(bins, count + 1)[:, :count].float()
            passed, density = 1 - weights.cumsum(-1), SOLID * weights / frustums.lengths
        else:
            density = functional.softplus(logits) / frustums.lengths  # a bin absorbs as much near by as far away
            weights, passed = lifting.occupancy_weights(density, frustums.lengths)
        attention = score.exp() if self.config["pooling"] == "attention" else torch.ones_like(score)
        coarse = functional.avg_pool2d(seen.features.movedim(-1, 1), stride).movedim(1, -1).flatten(0, 2)
        lifted = coarse[:, :1] if measured else coarse
        sums = lifting.splat(lifted, weights * attention, passed, density, frustums, (box, self.grid))
        if measured:
            sums = self._deposit(views, box, seen, attention.reshape(*seen.logits.shape[:3], 1), sums)
        else:  # one entry stands for all pixels of its cell
            area = stride**2
            sums = replace(sums, features=area * sums.features, hits=area * sums.hits, offsets=area * sums.offsets)
        colors = functional.avg_pool2d(views.images, stride).movedim(1, -1).flatten(0, 2)
        leaving = 1 - (weights * lifting.inside(frustums, box)).sum(-1)
        panorama = gather_panorama(colors, leaving, frustums.directions, int(self.config["sky_rows"]))
        pooled = self._mean_features(sums, colors.mean(0))
        return _Pooled(torch.cat((pooled, _describe(sums)), dim=-1), panorama, weights, passed)

    def _deposit(
        self,
        views: Views,
        box: Box,
        seen: "_Seen",
        attention: Float[Tensor, "views rows columns 1"],
        sums: lifting.Evidence,
    ) -> lifting.Evidence:
        """The evidence with features and hits of measured surfaces, pixel by pixel."""
        assert views.depth is not None
        stride = int(self.config["stride"])
        fine = attention.repeat_interleave(stride, dim=1).repeat_interleave(stride, dim=2)[..., 0]
        weights = fine * (views.depth > 0)
        points = lifting.sunken_points(views.depth, views.camera, box, self.grid)
        features, hits, offsets = lifting.deposit_surfaces(
            seen.features.flatten(0, 2), weights.flatten(), points.reshape(-1, 3), (box, self.grid)
        )
        return replace(sums, features=features, hits=hits, offsets=offsets)

    def _mean_features(self, sums: lifting.Evidence, color: Float[Tensor, " 3"]) -> Float[Tensor, "x y z channels"]:
        """One vector for each voxel; ``color`` stands where nothing was seen."""
        if self.config["pooling"] == "mean":
            entries = int(self.config["stride"]) ** 2 * sums.counts.clamp(min=1)  # features are sums over pixels
            return sums.features / entries[..., None]
        features, weights = lifting.fill_neighbors(sums.features, sums.hits)
        prior = functional.pad(color, (0, features.shape[-1] - 3))
        return (features + PRIOR * prior) / (weights + PRIOR)[..., None]

    def _complete(
        self, inputs: Float[Tensor, "scenes x y z inputs"]
    ) -> tuple[Float[Tensor, "scenes x y z"], Float[Tensor, "scenes x y z channels"]]:
        """Density per voxel, and features, from what was pooled."""
        channels = int(self.config["channels"])
        features, evidence = inputs.split((channels, EVIDENCE), dim=-1)
        density_mean = torch.expm1(evidence[..., 3])
        if self.config["density"] == "inferred":
            evidence = torch.zeros_like(evidence)
        logits, summary = self.evidence(torch.cat((features, evidence), dim=-1)).float().split((1, 8), dim=-1)
        if self.config["density"] == "explicit" and self.config["weigh_evidence"]:
            logits = logits + lifting.judge_evidence(*torch.expm1(evidence[..., :2]).unbind(-1))[..., None]
        if self.grid_network is not None:
            folded = fold(torch.cat((features, summary), dim=-1)).contiguous(memory_format=torch.channels_last)
            change = unfold(self.grid_network(folded).float(), self.grid[2])
            logits = logits + change[..., :1]
            color, rest = change[..., 1:4], change[..., 4:]
            features = features + torch.cat((0.3 * color, rest), dim=-1)
        density = functional.softplus(logits[..., 0])
        if self.config["density"] == "explicit" and not self.config["weigh_evidence"]:
            density = density_mean
        return functional.relu(density - CLEAR), features


PAPER = {"pooling": "mean", "complete": False, "weigh_evidence": False, "carry_colors": False}
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


@dataclass(frozen=True)
class _Seen:
    features: Float[Tensor, "views height width channels"]
    logits: Float[Tensor, "views rows columns outputs"]


@dataclass(frozen=True)
class _Pooled:
    inputs: Float[Tensor, "x y z inputs"]
    panorama: Float[Tensor, "rows columns 3"]
    weights: Float[Tensor, "rays bins"]
    passed: Float[Tensor, "rays bins"]


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


def _describe(sums: lifting.Evidence) -> Float[Tensor, "x y z evidence"]:
    """The evidence about density, each number of order one."""
    ratio = sums.hits / (sums.hits + sums.free + 1e-3)
    mean_offset = sums.offsets / (sums.hits[..., None] + PRIOR)
    mean_density = sums.density / sums.counts.clamp(min=1)
    parts = (torch.log1p(sums.hits), torch.log1p(sums.free), ratio, torch.log1p(mean_density))
    return torch.cat((torch.stack(parts, dim=-1), mean_offset), dim=-1)
