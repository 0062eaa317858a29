"""From what the image network saw to one vector and one judgement for each voxel."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from nfldm3d.geometry import Box
from nfldm3d.models.nfldm import lifting
from nfldm3d.models.nfldm.panorama import gather_panorama
from nfldm3d.models.nfldm.views import Views

PoolingKind = Literal["mean", "occupancy", "attention"]

PRIOR = 0.005
"""Weight with which the scene's mean colour stands in every voxel: what nothing was seen of gets it."""
SOLID = 3.0
"""Optical depth of the bin that a measured surface lies in."""
EVIDENCE = 7
"""Numbers that describe a voxel besides its features."""


@dataclass(frozen=True)
class Pooling:
    """How one scene's views become voxels."""

    kind: PoolingKind
    """``occupancy`` divides by the sum of the weights, ``mean`` by the number of bins as in the paper, ``attention``
    weighs views against each other."""
    grid: tuple[int, int, int]
    bins: int
    stride: int
    """Pixels of the image per pixel of the grid that rays are cast from."""
    sky_rows: int


@dataclass(frozen=True)
class Seen:
    """What the image network says of one scene's views."""

    features: Float[Tensor, "views height width channels"]
    logits: Float[Tensor, "views rows columns outputs"]
    """Of the density of each bin; the last one is the score that attention weighs by."""


@dataclass(frozen=True)
class Pooled:
    """What is known of each voxel, and of what lies beyond the box."""

    features: Float[Tensor, "x y z channels"]
    evidence: Float[Tensor, "x y z evidence"]
    """Hits, light that passed, their ratio, density and place of the hits, each of order one."""
    logit: Float[Tensor, "x y z"]
    """Of the density, as ``judge_evidence`` reads it from hits and light."""
    density: Float[Tensor, "x y z"]
    """Mean predicted density, per voxel edge."""
    panorama: Float[Tensor, "rows columns 3"]
    weights: Float[Tensor, "rays bins"]
    """O of each bin."""
    passed: Float[Tensor, "rays bins"]
    """The light that passed each bin."""


def pool_views(views: Views, box: Box, seen: Seen, pooling: Pooling) -> Pooled:
    """Lifts what was seen in one scene's views into its voxels; measured surfaces land where they were measured."""
    stride, count, grid = pooling.stride, pooling.bins, pooling.grid
    camera = views.camera.resized(views.camera.width // stride, views.camera.height // stride)
    frustums = lifting.build_frustums(camera, box, grid, count)
    logits, score = seen.logits.flatten(0, 2).split((count, 1), dim=-1)
    if views.depth is not None:
        nearest = views.depth[:, stride // 2 :: stride, stride // 2 :: stride].reshape(-1)
        weights = functional.one_hot(lifting.find_bins(nearest, box, grid, count), count + 1)[:, :count].float()
        passed, density = 1 - weights.cumsum(-1), SOLID * weights / frustums.lengths
    else:
        density = functional.softplus(logits) / frustums.lengths  # a bin absorbs as much near by as far away
        weights, passed = lifting.occupancy_weights(density, frustums.lengths)
    attention = score.exp() if pooling.kind == "attention" else torch.ones_like(score)
    coarse = functional.avg_pool2d(seen.features.movedim(-1, 1), stride).movedim(1, -1).flatten(0, 2)
    lifted = coarse[:, :1] if views.depth is not None else coarse
    sums = lifting.splat(lifted, weights * attention, passed, density, frustums, (box, grid))
    if views.depth is not None:
        sums = _deposit(views, box, seen, attention, sums)
    else:  # one entry stands for all pixels of its cell
        area = stride**2
        sums = replace(sums, features=area * sums.features, hits=area * sums.hits, offsets=area * sums.offsets)
    colors = functional.avg_pool2d(views.images, stride).movedim(1, -1).flatten(0, 2)
    leaving = 1 - (weights * lifting.inside(frustums, box)).sum(-1)
    return Pooled(
        features=_mean_features(sums, colors.mean(0), pooling),
        evidence=_describe(sums),
        logit=lifting.judge_evidence(sums.hits, sums.free),
        density=sums.density / sums.counts.clamp(min=1),
        panorama=gather_panorama(colors, leaving, frustums.directions, pooling.sky_rows),
        weights=weights,
        passed=passed,
    )


def _deposit(
    views: Views, box: Box, seen: Seen, attention: Float[Tensor, "rays 1"], sums: lifting.Evidence
) -> lifting.Evidence:
    """The evidence with features and hits of measured surfaces, pixel by pixel."""
    assert views.depth is not None
    grid = (sums.hits.shape[0], sums.hits.shape[1], sums.hits.shape[2])
    coarse = attention.reshape(1, *seen.logits.shape[:3])  # a channel axis, then the views
    fine = functional.interpolate(coarse, size=views.depth.shape[1:], mode="nearest")[0]
    points = lifting.sunken_points(views.depth, views.camera, box, grid)
    features, hits, offsets = lifting.deposit_surfaces(
        seen.features.flatten(0, 2), (fine * (views.depth > 0)).flatten(), points.reshape(-1, 3), (box, grid)
    )
    return replace(sums, features=features, hits=hits, offsets=offsets)


def _mean_features(
    sums: lifting.Evidence, color: Float[Tensor, " 3"], pooling: Pooling
) -> Float[Tensor, "x y z channels"]:
    """One vector for each voxel; ``color`` stands where nothing was seen."""
    if pooling.kind == "mean":
        entries = pooling.stride**2 * sums.counts.clamp(min=1)  # features are sums over pixels
        return sums.features / entries[..., None]
    features, weights = lifting.fill_neighbors(sums.features, sums.hits)
    prior = functional.pad(color, (0, features.shape[-1] - 3))
    return (features + PRIOR * prior) / (weights + PRIOR)[..., None]


def _describe(sums: lifting.Evidence) -> Float[Tensor, "x y z evidence"]:
    ratio = sums.hits / (sums.hits + sums.free + 1e-3)
    mean_offset = sums.offsets / (sums.hits[..., None] + PRIOR)
    mean_density = sums.density / sums.counts.clamp(min=1)
    parts = (torch.log1p(sums.hits), torch.log1p(sums.free), ratio, torch.log1p(mean_density))
    return torch.cat((torch.stack(parts, dim=-1), mean_offset), dim=-1)
