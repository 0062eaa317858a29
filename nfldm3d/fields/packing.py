"""Grids as the 8x8x8 bricks that hold anything: loses nothing and makes the files of sparse scenes small."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nfldm3d.memory import require_bytes, require_memory
from nfldm3d.ops.bricks import BRICK, gather_bricks, scatter_bricks_

LARGEST_UNASKED = 2**30
"""Bytes of a grid that any file may ask for, however little it holds."""
LARGEST_RATIO = 1000
"""Times by which a larger grid may exceed its bricks: 1 in 1000 is less than any scene holds."""

MAP_BYTES = 24
"""For each brick of a grid, held or not: its numbers in map and occupancy, and the leaps of its 8 tiles, twice."""


def find_bricks(
    density: Float[Tensor, "x y z"], features: Float[Tensor, "x y z channels"]
) -> Bool[Tensor, "bricks_x bricks_y bricks_z"]:
    """Which blocks of 8x8x8 voxels hold any density or feature that is not zero."""
    return mark_bricks((density != 0) | (features != 0).any(-1))


def mark_bricks(used: Bool[Tensor, "x y z"]) -> Bool[Tensor, "bricks_x bricks_y bricks_z"]:
    """Which blocks of 8x8x8 voxels hold any of the given ones."""
    padded = torch.nn.functional.pad(used, [amount for count in reversed(used.shape) for amount in (0, -count % BRICK)])
    x, y, z = (count // BRICK for count in padded.shape)
    return padded.view(x, BRICK, y, BRICK, z, BRICK).permute(0, 2, 4, 1, 3, 5).flatten(3).any(-1)


def pack_grid(density: Float[Tensor, "x y z"], features: Float[Tensor, "x y z channels"]) -> dict[str, Tensor]:
    """The bricks in raster order, with their indices."""
    bricks = find_bricks(density, features).nonzero().int()
    return {
        "resolution": bricks.new_tensor(features.shape),
        "bricks": bricks,
        "density": gather_bricks(density, bricks),
        "features": gather_bricks(features, bricks),
    }


def unpack_grid(tensors: dict[str, Tensor]) -> tuple[Float[Tensor, "x y z"], Float[Tensor, "x y z channels"]]:
    """The grids that ``pack_grid`` took apart; a ValueError if the tensors do not fit together."""
    x, y, z, channels = tensors["resolution"].tolist()
    require_memory((x, y, z), channels, torch.device("cpu"))
    bricks, packed, packed_features = (tensors[name] for name in ("bricks", "density", "features"))
    needed, held = 4 * x * y * z * (channels + 1), packed.nbytes + packed_features.nbytes
    require_share(needed, held, f"a grid of {x}x{y}x{z} voxels with {channels} channels")
    check_bricks(bricks, packed, packed_features, (x, y, z))
    if packed_features.shape[-1] != channels:
        raise ValueError(f"there are {packed_features.shape[-1]} channels, not {channels}")
    density, features = packed.new_zeros(x, y, z), packed_features.new_zeros(x, y, z, channels)
    scatter_bricks_(packed, bricks, density)
    scatter_bricks_(packed_features, bricks, features)
    return density, features


def require_share(needed: int, held: int, what: str) -> None:
    """Raises a ValueError when something that a file asks for takes far more bytes than are there in bricks."""
    if needed > max(LARGEST_UNASKED, LARGEST_RATIO * held):
        raise ValueError(
            f"{what} takes {needed / 2**30:.1f} GiB, of which only {held / 2**10:.0f} KiB are there; crop the scene or "
            "save it on a coarser grid"
        )


def require_map(resolution: tuple[int, int, int], device: torch.device, *, held: int | None = None) -> None:
    """Raises a ValueError when what finds the bricks of a grid does not fit in memory; it says how much that takes.

    Args:
        held: bytes of a file's bricks, to which the same bounds apply as to a dense grid.
    """
    x, y, z = resolution
    what, needed = f"the map of a grid of {x}x{y}x{z} voxels", MAP_BYTES * math.prod(-(-n // BRICK) for n in resolution)
    if held is not None:
        require_share(needed, held, what)
    require_bytes(needed, what, "lower the resolution", device)


def check_bricks(
    bricks: Tensor, density: Tensor, features: Tensor, resolution: tuple[int, int, int], count: int | None = None
) -> None:
    """Raises a ValueError unless these are bricks of a grid: each within it and there once, with all its voxels.

    Args:
        count: how many there must be.
    """
    if bricks.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"indices of bricks are {bricks.dtype}, not whole numbers")
    if min(resolution) < 1:
        raise ValueError(f"a grid needs at least one voxel along each axis, got {resolution}")
    shape = (len(bricks), BRICK, BRICK, BRICK)
    if bricks.shape != (len(bricks), 3) or density.shape != shape or features.shape[:-1] != shape:
        raise ValueError(
            f"there are {len(bricks)} bricks but densities of shape {tuple(density.shape)} and features of shape "
            f"{tuple(features.shape)}"
        )
    if count is not None and len(bricks) != count:
        raise ValueError(f"there are {len(bricks)} of {count} bricks, the others are missing; save the scene again")
    places, grid = bricks.long(), [-(-count // BRICK) for count in resolution]
    if bool(((places < 0) | (places >= places.new_tensor(grid))).any()):
        x, y, z = resolution
        raise ValueError(f"there are bricks outside its {x}x{y}x{z} voxels")
    _, counts = ((places[:, 0] * grid[1] + places[:, 1]) * grid[2] + places[:, 2]).unique(return_counts=True)
    repeated = int((counts > 1).sum())
    if repeated:
        raise ValueError(f"{repeated} bricks are there more than once; save the scene again")
