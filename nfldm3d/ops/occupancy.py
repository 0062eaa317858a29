"""Which cells and tiles of a grid can be visible, so that rays leap over the rest."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nfldm3d.ops.checks import field_dtypes, require, require_pool
from nfldm3d.ops.launch import launch
from nfldm3d.ops.records import BRICK, TILE, Occupancy, PoolMap, PoolOccupancy


def build_occupancy(density: Float[Tensor, "x y z"], threshold: float = 0.0) -> Occupancy:
    """Where trilinear samples of a density can exceed the threshold (1/metre); the outer clamped half voxel, too.

    Raises:
        ValueError: the density is not a float32 grid (on CUDA also float16).
    """
    from nfldm3d.ops import occupancy_kernels as kernels

    require("density", density, ("x", "y", "z"), density.device, *field_dtypes(density.device))
    density = density.detach().contiguous()
    tiles = [-(-size // TILE) for size in density.shape]
    cells = torch.zeros(density.shape, dtype=torch.uint8, device=density.device)
    leaps, rest = (cells.new_zeros(tiles) for _ in range(2))
    launch(kernels.mark_cells, tiles[0] * tiles[1], [density, threshold, cells, leaps], density.device, grain=64)
    return Occupancy(cells, _spread(leaps, rest))


def build_pool_occupancy(
    density: Float[Tensor, "bricks 8 8 8"], places: PoolMap, threshold: float = 0.0
) -> PoolOccupancy:
    """As ``build_occupancy`` for a grid of which a pool holds the bricks; takes a byte for each voxel near matter.

    Raises:
        ValueError: the pool and its map do not fit together, or the dtype is none that kernels take.
    """
    from nfldm3d.ops import occupancy_kernels as kernels

    require_pool("density", density, places)
    density, device = density.detach().contiguous(), density.device
    held = places.numbers >= 0
    for axis in range(3):  # a cell belongs to the brick of its lower corner, which the pool may lack
        after = held.narrow(axis, 1, held.shape[axis] - 1)
        padding = [0, 0] * (2 - axis) + [0, 1]
        held = held | torch.nn.functional.pad(after, padding)
    bricks = held.nonzero().int()
    marks = torch.zeros(len(bricks), BRICK, BRICK, BRICK, dtype=torch.uint8, device=device)
    tiles = [-(-size // TILE) for size in places.resolution]
    leaps, rest = (torch.full(tiles, 255, dtype=torch.uint8, device=device) for _ in range(2))
    flat = (density.view(density.numel()), places.numbers.contiguous(), places.resolution, threshold)
    inputs = [*flat, bricks, marks.view(len(bricks), BRICK**3), leaps]
    launch(kernels.mark_brick, len(bricks), inputs, device, grain=64)
    launch(kernels.sweep_column, tiles[0] * tiles[1], [leaps], device, grain=256)
    used = marks.flatten(1).any(1).bool()
    numbers = PoolMap.of(bricks[used], places.resolution).numbers
    return PoolOccupancy(numbers, marks[used], _spread(leaps, rest), places.resolution)


def _spread(leaps: UInt8[Tensor, "x y z"], rest: UInt8[Tensor, "x y z"]) -> UInt8[Tensor, "x y z"]:
    """Distances along z become those in all directions; overwrites both."""
    from nfldm3d.ops import occupancy_kernels as kernels

    for axis in (1, 0):
        launch(kernels.spread_distances, leaps.numel(), [axis, leaps, rest], leaps.device, grain=4096)
        leaps, rest = rest, leaps
    return leaps
