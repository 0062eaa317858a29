"""The readable torch twin of every kernel: any dtype, any device, differentiable, and as slow as that sounds.

Same names and signatures as ``nfldm3d.ops``. Memory grows with rays x samples x channels.
"""

from itertools import product

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from nfldm3d.ops.hash_grids import HashLevels
from nfldm3d.ops.records import (
    MOST_VIEWS,
    TILE,
    Bounds,
    FieldGradient,
    March,
    Occupancy,
    PinholeViews,
    RayIntegral,
    Splat,
)


def integrate_rays(
    density: Float[Tensor, "x y z"],
    features: Float[Tensor, "x y z channels"],
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    near_far: Float[Tensor, "rays 2"] | None,
    march: March,
    *,
    occupancy: Occupancy | None = None,
    gradient: FieldGradient | None = None,
) -> RayIntegral:
    """Emission and absorption along rays, integrated by the midpoint rule; see ``nfldm3d.ops.integrate_rays``."""
    if gradient is not None:
        root = torch.zeros((), requires_grad=True)  # wants a gradient even if the field itself does not
        density, features = (
            _Divert.apply(values, buffer, root)
            for values, buffer in ((density, gradient.density), (features, gradient.features))
        )
    distances, inside = _samples(origins, directions, near_far, march)
    points = origins[:, None] + distances[..., None] * directions[:, None]  # rays samples 3
    base, fraction = _cells(points, march.box, density.shape)
    visible = inside if occupancy is None else inside & (occupancy.cells[base.unbind(-1)] > 0)
    extinction = torch.where(visible, _trilinear(density[..., None], base, fraction)[..., 0], 0).relu()

    optical_depth = (extinction * march.step).cumsum(-1)
    before = torch.cat([torch.zeros_like(optical_depth[:, :1]), optical_depth[:, :-1]], -1)
    transmittance = torch.exp(-before)
    transmittance = torch.where(transmittance >= march.early_stop, transmittance, 0)
    weights = transmittance * -torch.expm1(-extinction * march.step)
    opacity = weights.sum(-1)

    total = features.new_zeros(len(origins), features.shape[-1])
    for corner, share in _corners(base, fraction, density.shape):
        total = total + torch.einsum("rs,rsc->rc", weights * share, features[corner.unbind(-1)])
    distance = (weights * distances).sum(-1)
    return RayIntegral(total, opacity, distance, _distortion(weights, distances, march.step))


def build_occupancy(density: Float[Tensor, "x y z"], threshold: float = 0.0) -> Occupancy:
    """Where trilinear samples of a density can exceed the threshold (1/metre)."""
    solid = (density.detach() > threshold).float()[None]
    padded = torch.nn.functional.pad(solid, (0, 1, 0, 1, 0, 1))
    cells = torch.nn.functional.max_pool3d(padded, 2, stride=1)
    whole = torch.nn.functional.pad(cells, [n for size in cells.shape[:0:-1] for n in (0, -size % TILE)])
    tiles = torch.nn.functional.max_pool3d(whole, TILE)
    leaps = torch.where(tiles > 0, 0, 255)
    for distance in range(1, min(255, max(tiles.shape))):
        tiles = torch.nn.functional.max_pool3d(tiles, 3, stride=1, padding=1)
        leaps = torch.where((tiles > 0) & (leaps == 255), distance, leaps)
    return Occupancy(cells[0].byte(), leaps[0].byte())


def interpolate(
    values: Float[Tensor, "x y z channels"], points: Float[Tensor, "points 3"], box: Bounds
) -> Float[Tensor, "points channels"]:
    """Trilinear values at points; zero outside the box, constant within its outer half voxel."""
    base, fraction = _cells(points, box, values.shape[:3])
    lower, upper = points.new_tensor(box[0]), points.new_tensor(box[1])
    inside = ((points >= lower) & (points <= upper)).all(-1, keepdim=True)
    return torch.where(inside, _trilinear(values, base, fraction), 0)


def splat_frustums(
    features: Float[Tensor, "rays channels"],
    weights: Float[Tensor, "rays depths"],
    distances: Float[Tensor, "rays depths"],
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    box: Bounds,
    resolution: tuple[int, int, int],
    *,
    values: Float[Tensor, "rays depths values"] | None = None,
) -> Splat:
    """Weighted sums of ray features over the voxels that contain their entries; see ``nfldm3d.ops``."""
    points = origins[:, None] + distances[..., None] * directions[:, None]  # rays depths 3
    lower, upper, size = (points.new_tensor(v) for v in (*box, resolution))
    voxel = ((points - lower) * (size / (upper - lower))).floor()
    inside = ((voxel >= 0) & (voxel < size)).all(-1)
    ray, depth = inside.nonzero(as_tuple=True)
    x, y, z = voxel[inside].long().unbind(-1)
    index = (x * resolution[1] + y) * resolution[2] + z

    def gather(entries: Float[Tensor, "entries n"]) -> Float[Tensor, "x y z n"]:
        total = entries.new_zeros(resolution[0] * resolution[1] * resolution[2], entries.shape[-1])
        return total.index_add(0, index, entries).reshape(*resolution, -1)

    share = weights[ray, depth][:, None]
    counts = gather(torch.ones_like(share))[..., 0].to(torch.int32)
    sums = None if values is None else gather(values[ray, depth])
    return Splat(gather(share * features[ray]), gather(share)[..., 0], counts, sums)


def rank_views(
    points: Float[Tensor, "points 3"],
    normals: Float[Tensor, "points 3"],
    views: PinholeViews,
    *,
    pictured: Bool[Tensor, "views points"] | None = None,
) -> tuple[Int64[Tensor, "points nearest"], Float[Tensor, "points nearest"]]:
    """The views that picture each point best, and their weights; see ``nfldm3d.ops.views``."""
    count = len(views.centers)
    if pictured is None:
        turned = views.camera_from_world[:, None, :3, :3] @ points[..., None]  # (views points 3 1)
        local = turned[..., 0] + views.camera_from_world[:, None, :3, 3]
        depth = -local[..., 2:]
        plane = local[..., :2] * local.new_tensor((1.0, -1.0)) / depth
        pixels = plane * views.focal[:, None] + views.principal[:, None]
        size = pixels.new_tensor((views.width, views.height))
        pictured = (depth[..., 0] > 0) & ((pixels >= 0) & (pixels <= size)).all(-1)
    offset = points - views.centers[:, None]
    distance = offset.norm(dim=-1).clamp(min=1e-9)
    cosine = torch.where(normals.norm(dim=-1) > 0.5, -(offset * normals).sum(-1) / distance, 1.0)
    weight = torch.where(pictured, cosine.clamp(min=0) / distance.square(), 0.0).T  # (points views)
    best = weight.topk(min(MOST_VIEWS + 1, count), dim=1)
    weights = best.values[:, :MOST_VIEWS]
    if count > MOST_VIEWS:
        weights = weights - 0.999 * best.values[:, MOST_VIEWS:]  # the rest decides where all are alike
    return best.indices[:, :MOST_VIEWS], weights / weights.sum(1, keepdim=True).clamp(min=1e-30)


class _Divert(torch.autograd.Function):
    """The identity, whose gradient is added into a buffer and goes no further."""

    @staticmethod
    def forward(ctx, values, buffer, root):
        ctx.buffer = buffer
        return values.view_as(values)

    @staticmethod
    def backward(ctx, *gradients):
        ctx.buffer.add_(gradients[0])
        return None, None, None


def read_hash_grid(
    table: Float[Tensor, "rows features"], points: Float[Tensor, "points 3"], levels: HashLevels
) -> Float[Tensor, "points channels"]:
    """The features of all levels at points; see ``nfldm3d.ops.hash_grids``."""
    features = []
    for number, (scale, side) in enumerate(zip(levels.scales, levels.resolutions.tolist(), strict=True)):
        first, end = levels.offsets[number : number + 2].tolist()
        position = (scale.double() * points.double() + 0.5).to(points.dtype)  # rounded once, like a fused product
        base = position.detach().floor()
        total = 0
        for corner in product((0, 1), repeat=3):
            upper = base.new_tensor(corner)
            share = torch.where(upper > 0, position - base, 1 - (position - base)).prod(-1)
            total = total + share[:, None] * table[first + _hash_rows((base + upper).long(), side, end - first)]
        features.append(total)
    return torch.cat(features, dim=-1)


def _hash_rows(nodes: Int64[Tensor, "*n 3"], side: int, size: int) -> Int64[Tensor, "*n"]:
    """Rows of nodes within a level of ``size`` rows; all numbers are 32 bits without a sign."""
    whole = 2**32 - 1
    x, y, z = (nodes & whole).unbind(-1)
    if side**3 > size:
        return (x ^ (y * 2654435761 & whole) ^ (z * 805459861 & whole)) % size
    return (x + (y + z * side) * side & whole) % size


def _span(origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"], box: Bounds):
    """Distances at which rays enter and leave a box; entry > exit where they miss it."""
    lower, upper = origins.new_tensor(box[0]), origins.new_tensor(box[1])
    parallel = directions == 0
    slope = torch.where(parallel, 1, directions)
    a, b = (lower - origins) / slope, (upper - origins) / slope
    between = (origins >= lower) & (origins <= upper)
    infinity = torch.where(between, torch.inf, -torch.inf)  # a parallel ray is between two faces for ever, or never
    entry = torch.where(parallel, -infinity, torch.minimum(a, b)).amax(-1)
    leave = torch.where(parallel, infinity, torch.maximum(a, b)).amin(-1)
    return entry, leave


def _samples(origins: Tensor, directions: Tensor, near_far: Tensor | None, march: March):
    """Sample distances (rays samples), and which of them lie between near and far and in the box."""
    entry, leave = _span(origins, directions, march.box)
    near, far = (entry.clamp_min(0), leave) if near_far is None else near_far.unbind(-1)
    stop = torch.minimum(far, leave)
    hit = (stop > torch.maximum(near, entry)) & torch.isfinite(stop)
    first, last = (entry - near) / march.step, (stop - near) / march.step
    count = int(last[hit].amax().ceil()) if bool(hit.any()) else 0
    middle = torch.arange(count, dtype=origins.dtype, device=origins.device) + 0.5
    inside = hit[:, None] & (middle >= first[:, None]) & (middle < last[:, None])
    return torch.where(inside, near[:, None] + middle * march.step, 0), inside


def _cells(points: Float[Tensor, "*n 3"], box: Bounds, resolution: tuple[int, ...]):
    """The lowest of the 8 voxels around each point, and the point's position between their centres in [0, 1]."""
    lower, upper = points.new_tensor(box[0]), points.new_tensor(box[1])
    size = points.new_tensor(resolution)
    position = (points - lower) * (size / (upper - lower)) - 0.5
    position = torch.minimum(position.clamp_min(0), size - 1)
    base = torch.minimum(position.detach().floor(), size - 2).clamp_min(0)
    return base.long(), position - base


def _corners(base: Int64[Tensor, "*n 3"], fraction: Float[Tensor, "*n 3"], resolution: tuple[int, ...]):
    """The 8 voxels around each point and their shares in it."""
    last = base.new_tensor(resolution) - 1
    for offset in product((0, 1), repeat=3):
        upper = base.new_tensor(offset)
        share = torch.where(upper > 0, fraction, 1 - fraction).prod(-1)
        yield torch.minimum(base + upper, last), share


def _trilinear(values: Float[Tensor, "x y z channels"], base: Tensor, fraction: Tensor) -> Tensor:
    corners = _corners(base, fraction, values.shape[:3])
    return torch.stack([values[corner.unbind(-1)] * share[..., None] for corner, share in corners]).sum(0)


def _distortion(weights: Float[Tensor, "rays samples"], distances: Float[Tensor, "rays samples"], step: float):
    """Sum over i, j of w_i w_j |t_i - t_j|, plus a third of sum w_i^2 * step."""
    distances = distances - distances[:, :1]
    weight_before = weights.cumsum(-1) - weights
    moment_before = (weights * distances).cumsum(-1) - weights * distances
    return (2 * weights * (distances * weight_before - moment_before)).sum(-1) + weights.square().sum(-1) * step / 3
