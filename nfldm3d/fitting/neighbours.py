"""Voxels of a pool and those beside them, across the faces of bricks: shifts, sums, masks that grow."""

from itertools import product

import torch
from jaxtyping import Bool, Float, Int32, Shaped
from torch import Tensor

from nfldm3d.ops import PoolMap
from nfldm3d.ops.records import BRICK

REACH = 3
"""So many fine voxels around matter may be needed: two of its rim, and the next ones, which samples there read."""


def shift(
    pool: Shaped[Tensor, "bricks 8 8 8 *values"],
    bricks: Int32[Tensor, "bricks 3"],
    places: PoolMap,
    axis: int,
    way: int,
) -> Shaped[Tensor, "bricks 8 8 8 *values"]:
    """What the next voxel along an axis holds, up for a ``way`` of 1, down for -1; zero if it is missing."""
    moved, dim, last = torch.zeros_like(pool), axis + 1, BRICK - 1
    first = max(way, 0)
    moved.narrow(dim, 1 - first, last).copy_(pool.narrow(dim, first, last))
    others = bricks.long().clone()
    others[:, axis] += way
    inside = (others[:, axis] >= 0) & (others[:, axis] < places.numbers.shape[axis])
    numbers = torch.full_like(others[:, 0], -1)
    numbers[inside] = places.numbers[others[inside].unbind(-1)].long()
    held = numbers >= 0
    moved.select(dim, last * first)[held] = pool.select(dim, last * (1 - first))[numbers[held]]
    return moved


def grow(
    mask: Bool[Tensor, "bricks 8 8 8"], bricks: Int32[Tensor, "bricks 3"], places: PoolMap
) -> Bool[Tensor, "bricks 8 8 8"]:
    """The voxels of a mask and the 26 around each, as far as they are kept."""
    for axis in range(3):
        mask = mask | shift(mask, bricks, places, axis, 1) | shift(mask, bricks, places, axis, -1)
    return mask


def sum_around(
    pool: Float[Tensor, "bricks 8 8 8 values"], bricks: Int32[Tensor, "bricks 3"], places: PoolMap
) -> Float[Tensor, "bricks 8 8 8 values"]:
    """Sums over the 5x5x5 voxels around each, as far as they are kept."""
    for axis in range(3):
        total = pool.clone()
        for way in (1, -1):
            beside = shift(pool, bricks, places, axis, way)
            total += beside
            total += shift(beside, bricks, places, axis, way)
        pool = total
    return pool


def find_finer(
    bricks: Int32[Tensor, "bricks 3"], coarse: tuple[int, int, int], fine: tuple[int, int, int]
) -> Int32[Tensor, "finer 3"]:
    """The bricks of a finer grid over the same box that matter in the given ones can need; see ``REACH``."""
    needed = torch.zeros([-(-count // BRICK) for count in fine], dtype=torch.bool, device=bricks.device)
    ratio = torch.tensor([b / a for a, b in zip(coarse, fine, strict=True)], dtype=torch.float64, device=bricks.device)
    limit = torch.tensor(needed.shape, device=bricks.device) - 1
    first = ((bricks * BRICK - 0.5) * ratio - REACH).floor().long() // BRICK
    last = ((bricks * BRICK + BRICK + 0.5) * ratio + REACH).floor().long() // BRICK
    first, last = first.clamp(min=0).minimum(limit), last.clamp(min=0).minimum(limit)
    widest = int((last - first).max()) + 1 if len(bricks) else 0
    for offset in product(range(widest), repeat=3):
        needed[(first + first.new_tensor(offset)).minimum(last).unbind(-1)] = True
    return needed.nonzero().int()
