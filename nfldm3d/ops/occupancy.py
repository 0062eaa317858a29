"""Which cells and tiles of a grid can be visible, so that rays leap over the rest."""

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.ops.checks import field_dtypes, require
from nfldm3d.ops.launch import launch
from nfldm3d.ops.records import TILE, Occupancy


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
    for axis in (1, 0):
        launch(kernels.spread_distances, leaps.numel(), [axis, leaps, rest], density.device, grain=4096)
        leaps, rest = rest, leaps
    return Occupancy(cells, leaps)
