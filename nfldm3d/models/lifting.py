"""From pixels to voxels: where along its ray each pixel puts its features (NF-LDM, section 3.1; Lift-Splat-Shoot).

Depth bins are depths along the optical axis, spaced evenly in their logarithm; lengths are counted in voxels, so that
a network serves boxes of any size. With sigma_d the density of bin d and delta_d its length along the ray, the light
that ends there is O_d = exp(-sum_{j<d} sigma_j delta_j) (1 - exp(-sigma_d delta_d)).
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nfldm3d import ops
from nfldm3d.camera import Camera
from nfldm3d.geometry import Box

NEAREST = 0.6
"""Voxels from the camera to the first bin."""


@dataclass(frozen=True)
class Frustums:
    """The bins of all pixels of one scene's views, flattened to rays."""

    origins: Float[Tensor, "rays 3"]
    directions: Float[Tensor, "rays 3"]
    distances: Float[Tensor, "rays bins"]
    """Metres along the ray to the middle of each bin."""
    lengths: Float[Tensor, "rays bins"]
    """Of each bin along the ray, in voxels."""


def bin_edges(bins: int, resolution: tuple[int, int, int], device: torch.device) -> Float[Tensor, " edges"]:
    """Depths in voxels between which the bins lie: from just before the camera to the far corner of the box."""
    return torch.logspace(math.log10(NEAREST), math.log10(math.hypot(*resolution)), bins + 1, device=device)


def build_frustums(camera: Camera, box: Box, resolution: tuple[int, int, int], bins: int) -> Frustums:
    """The bins of every pixel of ``camera``; resize the camera first to the grid on which features are predicted."""
    voxel = min(box.voxel_size(resolution))
    rays = camera.rays()
    cosine = (rays.directions * camera.forward[:, None, None]).sum(-1).reshape(-1, 1)  # depth of a unit of distance
    edges = bin_edges(bins, resolution, camera.device)
    middle = (edges[1:] * edges[:-1]).sqrt()
    flat = rays.reshape(-1)
    return Frustums(flat.origins, flat.directions, middle * voxel / cosine, edges.diff() / cosine)


def find_bins(
    depth: Float[Tensor, "*batch"], box: Box, resolution: tuple[int, int, int], bins: int
) -> Int64[Tensor, "*batch"]:
    """The bin that holds each depth in metres; ``bins`` for depths beyond the last, and for 0, which is no surface."""
    voxel = min(box.voxel_size(resolution))
    edges = bin_edges(bins, resolution, depth.device)
    found = torch.bucketize(depth / voxel, edges[1:], right=True)
    return torch.where(depth > 0, found, bins)


def snap_distances(
    frustums: Frustums, depth: Float[Tensor, " rays"], bins: Int64[Tensor, " rays"], camera: Camera
) -> Frustums:
    """The frustums with the bin of each measured surface moved to where it was measured."""
    forward = camera.forward.repeat_interleave(len(depth) // len(camera), dim=0)
    distance = depth / (frustums.directions * forward).sum(-1)
    rows = (bins < frustums.distances.shape[1]).nonzero()[:, 0]
    distances = frustums.distances.clone()
    distances[rows, bins[rows]] = distance[rows]
    return replace(frustums, distances=distances)


def occupancy_weights(
    density: Float[Tensor, "rays bins"], lengths: Float[Tensor, "rays bins"]
) -> tuple[Float[Tensor, "rays bins"], Float[Tensor, "rays bins"]]:
    """O of each bin, and the light that passes it: ``exp(-sum_{j<=d} sigma_j delta_j)``."""
    passed = torch.exp(-(density * lengths).cumsum(-1))
    before = torch.nn.functional.pad(passed[:, :-1], (1, 0), value=1.0)
    return before - passed, passed


@dataclass(frozen=True)
class Evidence:
    """What all views together say of each voxel."""

    features: Float[Tensor, "x y z channels"]
    """Sum of weight * feature."""
    hits: Float[Tensor, "x y z"]
    """Sum of the weights."""
    free: Float[Tensor, "x y z"]
    """Sum of the light that passed."""
    offsets: Float[Tensor, "x y z 3"]
    """Sum of weight * where in the voxel, from -0.5 to 0.5 along each axis."""
    density: Float[Tensor, "x y z"]
    """Sum of the densities."""
    counts: Float[Tensor, "x y z"]
    """Number of bins."""


def splat(
    features: Float[Tensor, "rays channels"],
    weights: Float[Tensor, "rays bins"],
    passed: Float[Tensor, "rays bins"],
    density: Float[Tensor, "rays bins"],
    frustums: Frustums,
    grid: tuple[Box, tuple[int, int, int]],
) -> Evidence:
    """Adds up what falls into each voxel of the box and resolution ``grid``."""
    box, resolution = grid
    points = frustums.origins[:, None] + frustums.directions[:, None] * frustums.distances[..., None]
    place = (points - points.new_tensor(box.lower)) / points.new_tensor(box.voxel_size(resolution))
    offsets = (place - place.floor() - 0.5) * weights[..., None]
    values = torch.cat((passed[..., None], density[..., None], offsets), dim=-1)
    sums = ops.splat_frustums(
        features,
        weights,
        frustums.distances,
        frustums.origins,
        frustums.directions,
        (box.lower, box.upper),
        resolution,
        values=values,
    )
    assert sums.values is not None
    free, densities, places = sums.values.split((1, 1, 3), dim=-1)
    return Evidence(sums.features, sums.weights, free[..., 0], places, densities[..., 0], sums.counts.float())
