"""Which bricks of a grid are needed: those of given voxels, those that samples read, and those of a finer grid."""

from collections.abc import Iterator, Sequence
from itertools import product

import torch
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor

from nfldm3d import ops
from nfldm3d._types import Vector
from nfldm3d.geometry import Box
from nfldm3d.memory import require_pool_memory
from nfldm3d.ops.bricks import find_rows
from nfldm3d.ops.records import BRICK, TILE

BRICKS_AT_ONCE = 1024
"""Bricks of which the voxel centres are laid out at a time: 6 MB of points."""

assert 2 * TILE == BRICK, "a tile of cells becomes a brick of twice the resolution"


def place_voxels(
    voxels: Int[Tensor, "voxels 3"], resolution: tuple[int, int, int]
) -> tuple[Int32[Tensor, "bricks 3"], Int[Tensor, " voxels"]]:
    """The bricks that hold some voxels of a grid, and each voxel's row in the pool of these bricks."""
    held = torch.zeros([-(-count // BRICK) for count in resolution], dtype=torch.bool, device=voxels.device)
    held[(voxels // BRICK).long().unbind(-1)] = True
    places = held.nonzero().int()
    return places, find_rows(ops.PoolMap.of(places, resolution), voxels)


def read_block(
    pool: Float[Tensor, "bricks 8 8 8"], places: ops.PoolMap, start: Sequence[int], end: Sequence[int]
) -> Float[Tensor, "x y z"] | None:
    """The voxels ``start`` to ``end`` - 1 of a grid; None where its pool has no brick."""
    part = tuple(slice(a // BRICK, -(-b // BRICK)) for a, b in zip(start, end, strict=True))
    numbers = places.numbers[part].long()
    if not bool((numbers >= 0).any()):
        return None
    blocks = pool[numbers.clamp(min=0)] * (numbers >= 0)[..., None, None, None]
    x, y, z = numbers.shape
    whole = blocks.permute(0, 3, 1, 4, 2, 5).reshape(x * BRICK, y * BRICK, z * BRICK)
    bounds = zip(start, end, part, strict=True)
    return whole[tuple(slice(a - cut.start * BRICK, b - cut.start * BRICK) for a, b, cut in bounds)]


def touched_bricks(found: ops.PoolOccupancy) -> Bool[Tensor, "bricks_x bricks_y bricks_z"]:
    """The bricks with a corner of an occupied cell: all that samples in such cells read."""
    places = (found.numbers >= 0).nonzero()
    marks = found.marks[found.numbers[places.unbind(-1)].long()].bool()
    touched = torch.zeros([count + 1 for count in found.numbers.shape], dtype=torch.bool, device=places.device)
    for upper in product((False, True), repeat=3):
        border = marks[(slice(None), *(slice(-1, None) if far else slice(None) for far in upper))]
        used = places[border.flatten(1).any(1)]
        touched[(used + used.new_tensor(upper)).unbind(-1)] = True
    return touched[:-1, :-1, :-1]


@torch.no_grad()
def subdivide(
    density: Float[Tensor, "coarse 8 8 8"],
    features: Float[Tensor, "coarse 8 8 8 channels"],
    coarse: ops.PoolMap,
    box: Box,
    resolution: tuple[int, int, int],
) -> tuple[Float[Tensor, "bricks 8 8 8"], Float[Tensor, "bricks 8 8 8 channels"], Int32[Tensor, "bricks 3"]]:
    """Density, features and places of the bricks of twice the resolution that samples denser than zero read."""
    device = density.device
    near = ops.build_pool_occupancy(density, coarse).leaps == 0
    for axis in range(3):  # the first voxels of a brick lie in the last cells of the tile before
        before = torch.nn.functional.pad(near, [0, 0] * (2 - axis) + [1, 0]).narrow(axis, 0, near.shape[axis])
        near = near | before
    places = near.nonzero().int()
    require_pool_memory(len(places) * BRICK**3, 1, resolution, device)

    made = read_centers(density[..., None], coarse, box, resolution, places)[..., 0]
    found = ops.build_pool_occupancy(made, ops.PoolMap.of(places, resolution))
    kept = touched_bricks(found)[places.long().unbind(-1)]
    require_pool_memory(int(kept.sum()) * BRICK**3, features.shape[-1], resolution, device)
    return made[kept], read_centers(features, coarse, box, resolution, places[kept]), places[kept]


def read_centers(
    pool: Float[Tensor, "coarse 8 8 8 values"],
    places: ops.PoolMap,
    box: Box,
    resolution: tuple[int, int, int],
    bricks: Int32[Tensor, "bricks 3"],
) -> Float[Tensor, "bricks 8 8 8 values"]:
    """Trilinear values of a pool at the voxel centres of some bricks of another grid over the same box."""
    made = pool.new_zeros(len(bricks), BRICK, BRICK, BRICK, pool.shape[-1])
    for part, points in lay_out_centers(bricks, box.lower, box.voxel_size(resolution)):
        made[part] = ops.interpolate_pool(pool, places, points, (box.lower, box.upper)).view(-1, *made.shape[1:])
    return made


def lay_out_centers(
    places: Int32[Tensor, "bricks 3"], lower: Vector, voxel_size: Vector
) -> Iterator[tuple[slice, Float[Tensor, "points 3"]]]:
    """Voxel centres of some bricks at a time, in the order of a pool's rows, and which bricks they are."""
    axis = torch.arange(BRICK, device=places.device)
    within = torch.cartesian_prod(axis, axis, axis)
    origin, size = (torch.tensor(values, device=places.device) for values in (lower, voxel_size))
    for first in range(0, len(places), BRICKS_AT_ONCE):
        part = slice(first, first + BRICKS_AT_ONCE)
        voxels = places[part, None] * BRICK + within
        yield part, (origin + (voxels + 0.5) * size).reshape(-1, 3)
