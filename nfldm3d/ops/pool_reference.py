"""The readable torch twins of the operations on pools: lay the bricks into a dense grid, then do as ``reference``.

Same names and signatures as ``nfldm3d.ops``; memory grows with the whole grid.
"""

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from nfldm3d.ops import reference
from nfldm3d.ops.bricks import find_rows
from nfldm3d.ops.records import BRICK, Bounds, FieldGradient, March, PoolMap, PoolOccupancy, RayIntegral, Splat


def spread(pool: Shaped[Tensor, "bricks 8 8 8 *channels"], places: PoolMap) -> Shaped[Tensor, "x y z *channels"]:
    """The dense grid of a pool, zero where that has no brick; differentiable."""
    rows = _rows(places)
    padded = torch.cat((pool.flatten(0, 3), pool.new_zeros(1, *pool.shape[4:])))
    return padded[rows]  # row -1 is the zero at the end


def gather(grid: Shaped[Tensor, "x y z *channels"], places: PoolMap) -> Shaped[Tensor, "bricks 8 8 8 *channels"]:
    """The bricks of a dense grid that a pool holds."""
    rows, bricks = _rows(places), places.count
    pool = grid.new_zeros(bricks * BRICK**3, *grid.shape[3:])
    return pool.index_put((rows[rows >= 0],), grid[rows >= 0]).unflatten(0, (bricks, BRICK, BRICK, BRICK))


def _rows(places: PoolMap) -> Int64[Tensor, "x y z"]:
    """The row of every voxel of the grid in the pool, or -1."""
    axes = [torch.arange(size, device=places.numbers.device) for size in places.resolution]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    return find_rows(places, torch.stack((x, y, z), dim=-1))


def integrate_rays_in_pool(
    density: Float[Tensor, "bricks 8 8 8"],
    features: Float[Tensor, "bricks 8 8 8 channels"],
    places: PoolMap,
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    near_far: Float[Tensor, "rays 2"] | None,
    march: March,
    *,
    occupancy: PoolOccupancy | None = None,
    gradient: FieldGradient | None = None,
) -> RayIntegral:
    """Emission and absorption along rays; buffers and what is known of the occupancy make no difference here."""
    grids = spread(density, places), spread(features, places)
    return reference.integrate_rays(*grids, origins, directions, near_far, march)


def build_pool_occupancy(
    density: Float[Tensor, "bricks 8 8 8"], places: PoolMap, threshold: float = 0.0
) -> PoolOccupancy:
    """Where trilinear samples of a density can exceed the threshold (1/metre), for a threshold of at least 0."""
    found = reference.build_occupancy(spread(density.detach(), places), threshold)
    padding = [n for size in reversed(places.resolution) for n in (0, -size % BRICK)]
    bx, by, bz = places.numbers.shape
    whole = torch.nn.functional.pad(found.cells, padding).view(bx, BRICK, by, BRICK, bz, BRICK)
    marks = whole.permute(0, 2, 4, 1, 3, 5)  # (bx by bz 8 8 8)
    used = marks.flatten(3).any(-1).bool()
    numbers = torch.where(used, used.flatten().cumsum(0).view(used.shape) - 1, -1)
    return PoolOccupancy(numbers.int(), marks[used], found.leaps, places.resolution)


def interpolate_pool(
    values: Float[Tensor, "bricks 8 8 8 channels"], places: PoolMap, points: Float[Tensor, "points 3"], box: Bounds
) -> Float[Tensor, "points channels"]:
    """Trilinear values at points."""
    return reference.interpolate(spread(values, places), points, box)


def splat_frustums_into_pool(
    features: Float[Tensor, "rays channels"],
    weights: Float[Tensor, "rays depths"],
    distances: Float[Tensor, "rays depths"],
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    box: Bounds,
    places: PoolMap,
    *,
    values: Float[Tensor, "rays depths values"] | None = None,
) -> Splat:
    """Weighted sums of ray features over the voxels of the pool that contain their entries."""
    rays = (features, weights, distances, origins, directions)
    whole = reference.splat_frustums(*rays, box, places.resolution, values=values)
    sums = None if whole.values is None else gather(whole.values, places)
    pools = [gather(grid, places) for grid in (whole.features, whole.weights, whole.counts)]
    return Splat(pools[0], pools[1], pools[2], sums)
