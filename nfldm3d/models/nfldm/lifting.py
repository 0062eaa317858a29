"""From pixels to voxels: where along its ray each pixel puts its features (NF-LDM, section 3.1; Lift-Splat-Shoot).

Depth bins are depths along the optical axis, spaced evenly in their logarithm; lengths are counted in voxels, so that
a network serves boxes of any size. With sigma_d the density of bin d and delta_d its length along the ray, the light
that ends there is O_d = exp(-sum_{j<d} sigma_j delta_j) (1 - exp(-sigma_d delta_d)).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from nfldm3d import ops
from nfldm3d.camera import Camera
from nfldm3d.geometry import Box

SINK = 0.25
"""Voxels by which measured surfaces are put behind where they were measured."""
FILL = 0.1
"""Weight of the mean of a voxel's neighbourhood beside its own."""
MARGIN = 1e-3
"""Voxels between the faces of the box and what is put into it."""
SLACK = 1e-4
"""Share of the box by which a surface may lie outside."""
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
    cosine = camera.depth_per_distance(rays).reshape(-1, 1)
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


def estimate_normals(
    depth: Float[Tensor, "views height width"], camera: Camera
) -> Float[Tensor, "views height width 3"]:
    """Unit normals of measured surfaces, towards the camera; along the ray where there is no measured neighbour."""
    rays = camera.rays()
    points = camera.unproject(depth)
    along_row, along_column = _nearest_step(points, depth, 2), _nearest_step(points, depth, 1)
    normal = torch.linalg.cross(along_row, along_column)
    length = normal.norm(dim=-1, keepdim=True)
    normal = torch.where(length > 1e-12, normal / length.clamp(min=1e-12), -rays.directions)
    return torch.where((normal * rays.directions).sum(-1, keepdim=True) > 0, -normal, normal)


def sunken_points(
    depth: Float[Tensor, "views height width"], camera: Camera, box: Box, resolution: tuple[int, int, int]
) -> Float[Tensor, "views height width 3"]:
    """Points a quarter of a voxel behind the measured surfaces.

    Density is trilinear: a voxel that holds a surface absorbs up to half a voxel in front of it, which a ray that
    grazes a floor meets metres too early. Sunken a little, surfaces stand where they were measured. Those that lie on
    a face of the box, as ceilings often do, stay in it.
    """
    voxel, surface = min(box.voxel_size(resolution)), camera.unproject(depth)
    sunken = surface - SINK * voxel * estimate_normals(depth, camera)
    lower, upper = sunken.new_tensor(box.lower), sunken.new_tensor(box.upper)
    kept = sunken.clamp(lower + MARGIN * voxel, upper - MARGIN * voxel)
    return torch.where(in_box(surface, box)[..., None], kept, sunken)


def in_box(points: Float[Tensor, "*batch 3"], box: Box) -> Bool[Tensor, "*batch"]:
    """Which surfaces a field over the box can show: those on its faces too, whatever rounding makes of them."""
    return box.scaled(1 + SLACK).contains(points)


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


def inside(frustums: Frustums, box: Box) -> Float[Tensor, "rays bins"]:
    """1 where the middle of a bin lies in the box."""
    points = frustums.origins[:, None] + frustums.directions[:, None] * frustums.distances[..., None]
    return box.contains(points).float()


def judge_evidence(hits: Float[Tensor, "*voxels"], free: Float[Tensor, "*voxels"]) -> Float[Tensor, "*voxels"]:
    """The logit of a voxel's density: solid where hits are a tenth of the light that passed, or more."""
    return (4 + 4 * torch.log((hits + 0.005) / (0.1 * free + 0.1))).clamp(-8, 3)


def deposit_surfaces(
    features: Float[Tensor, "points channels"],
    weights: Float[Tensor, " points"],
    points: Float[Tensor, "points 3"],
    grid: tuple[Box, tuple[int, int, int]],
) -> tuple[Float[Tensor, "x y z channels"], Float[Tensor, "x y z"], Float[Tensor, "x y z 3"]]:
    """Sums of weighted features, of weights and of weighted places in the voxel, of measured surface points."""
    box, resolution = grid
    place = (points - points.new_tensor(box.lower)) / points.new_tensor(box.voxel_size(resolution))
    values = (place - place.floor() - 0.5) * weights[:, None]
    up = torch.zeros_like(points) + points.new_tensor((0.0, 0.0, 1.0))
    here = torch.zeros_like(weights)[:, None]
    bounds = (box.lower, box.upper)
    sums = ops.splat_frustums(features, weights[:, None], here, points, up, bounds, resolution, values=values[:, None])
    assert sums.values is not None
    return sums.features, sums.weights, sums.values


def fill_neighbors(
    features: Float[Tensor, "x y z channels"], weights: Float[Tensor, "x y z"]
) -> tuple[Float[Tensor, "x y z channels"], Float[Tensor, "x y z"]]:
    """Adds a little of the neighbours' sums, which is all there is in voxels beside a surface."""
    sums = torch.cat((features, weights[..., None]), dim=-1).movedim(-1, 0)[None]  # (1 channels+1 x y z)
    around = torch.nn.functional.avg_pool3d(sums, 3, 1, 1)[0].movedim(0, -1)
    return features + FILL * around[..., :-1], weights + FILL * around[..., -1]


def _nearest_step(
    points: Float[Tensor, "views height width 3"], depth: Float[Tensor, "views height width"], axis: int
) -> Float[Tensor, "views height width 3"]:
    """From each point to the neighbour before or behind along an axis of the picture, whichever is nearer."""
    step, known = points.diff(dim=axis), (depth > 0).narrow(axis, 1, depth.shape[axis] - 1)
    known = known & (depth > 0).narrow(axis, 0, depth.shape[axis] - 1)
    length = torch.where(known, step.norm(dim=-1), torch.inf)
    edge, no = torch.zeros_like(points.narrow(axis, 0, 1)), torch.full_like(depth.narrow(axis, 0, 1), torch.inf)
    forward, backward = torch.cat((step, edge), dim=axis), torch.cat((edge, step), dim=axis)
    ahead, behind = torch.cat((length, no), dim=axis), torch.cat((no, length), dim=axis)
    nearer = torch.where((ahead <= behind)[..., None], forward, backward)
    return torch.where(torch.isfinite(ahead.minimum(behind))[..., None], nearer, 0.0)
