"""What the kernels take and what they give: plain tensors, bundled and named."""

import math
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float, Int, Int32, UInt8
from torch import Tensor

from nfldm3d._types import Vector

BRICK = 8
"""Edge in voxels of the bricks that files and optimisers touch as a whole."""
TILE = 4
"""Edge in voxels of the tiles that ``Occupancy.leaps`` describes."""
MOST_VIEWS = 3
"""How many views ``rank_views`` keeps of each point."""

Bounds: TypeAlias = tuple[Vector, Vector]
"""Lower and upper corner of a box, in metres."""


def check_bounds(box: Bounds) -> None:
    """Raises a ValueError if a box has no volume."""
    lower, upper = box
    if not all(-math.inf < a < b < math.inf for a, b in zip(lower, upper, strict=True)):
        raise ValueError(f"a box needs finite corners, the lower below the upper on each axis, got {lower} and {upper}")


@dataclass(frozen=True)
class March:
    """How to walk along a ray: sample k sits at near + (k + 1/2) * step."""

    box: Bounds
    step: float
    """Metres between two samples."""
    early_stop: float = 1e-4
    """Samples behind a transmittance below this are left out; 0 keeps them all."""

    def __post_init__(self):
        if not 0 < self.step < math.inf:
            raise ValueError(f"a march needs a positive step in metres, got {self.step}")
        if not 0 <= self.early_stop < 1:
            raise ValueError(f"early_stop is a transmittance of at least 0 and below 1, got {self.early_stop}")
        check_bounds(self.box)


@dataclass(frozen=True)
class Occupancy:
    """Where samples can be non-zero: lets a ray leap over the rest, changes no value."""

    cells: UInt8[Tensor, "x y z"]
    """1 where a sample between the centres of voxel (i, j, k) and its upper neighbours can be non-zero."""
    leaps: UInt8[Tensor, "tiles_x tiles_y tiles_z"]
    """Per tile of 4 x 4 x 4 cells: Chebyshev distance in tiles to the nearest one with a set cell, at most 255."""


@dataclass(frozen=True)
class PoolMap:
    """Which bricks of 8x8x8 voxels of a grid a pool holds; the others are zero."""

    numbers: Int32[Tensor, "bricks_x bricks_y bricks_z"]
    """The number of each brick in the pool, -1 for those that it lacks."""
    resolution: tuple[int, int, int]
    """Voxels of the grid along x, y and z; those of a brick beyond it count for nothing."""
    count: int
    """Bricks of the pool."""

    @classmethod
    def of(cls, places: Int[Tensor, "bricks 3"], resolution: tuple[int, int, int]) -> "PoolMap":
        """The map of a pool that holds the bricks at ``places``, in this order and each once."""
        shape = [-(-size // BRICK) for size in resolution]
        numbers = torch.full(shape, -1, dtype=torch.int32, device=places.device)
        numbers[places.long().unbind(-1)] = torch.arange(len(places), dtype=torch.int32, device=places.device)
        return cls(numbers, resolution, len(places))


@dataclass(frozen=True)
class PoolOccupancy:
    """As ``Occupancy``, for grids of which a pool holds the bricks."""

    numbers: Int32[Tensor, "bricks_x bricks_y bricks_z"]
    """The row of ``marks`` for each brick of cells, -1 where none is set."""
    marks: UInt8[Tensor, "occupied 8 8 8"]
    """1 where a sample between the centres of voxel (i, j, k) and its upper neighbours can be non-zero."""
    leaps: UInt8[Tensor, "tiles_x tiles_y tiles_z"]
    """As in ``Occupancy``."""
    resolution: tuple[int, int, int]
    """Voxels of the grid along x, y and z."""


@dataclass(frozen=True)
class RayIntegral:
    """Sums over the samples of each ray, with weights w = transmittance * (1 - exp(-density * step))."""

    features: Float[Tensor, "rays channels"]
    """Sum of w * feature."""
    opacity: Float[Tensor, " rays"]
    """Sum of w; 1 - opacity is what passes."""
    distance: Float[Tensor, " rays"]
    """Sum of w * t in metres: divide by the opacity for the mean distance along the ray."""
    distortion: Float[Tensor, " rays"]
    """How far the weights are spread, in metres: mip-NeRF 360 (arXiv:2111.12077), equation 15."""


@dataclass(frozen=True)
class FieldGradient:
    """Buffers that a backward pass adds the gradient of a field into, instead of allocating one per step.

    They have the shapes of what they are the gradient of: a grid, or a pool ``(bricks, 8, 8, 8)``.
    """

    density: Float[Tensor, "*voxels"]
    features: Float[Tensor, "*voxels channels"]


@dataclass(frozen=True)
class Splat:
    """Sums over the entries that fell into each voxel: of a grid (x y z), or of a pool's bricks (bricks 8 8 8)."""

    features: Float[Tensor, "*voxels channels"]
    """Sum of weight * feature."""
    weights: Float[Tensor, "*voxels"]
    """Sum of weights."""
    counts: Int32[Tensor, "*voxels"]
    """Number of entries."""
    values: Float[Tensor, "*voxels values"] | None
    """Sum of the entries' own values, without weights; None if none were given."""


@dataclass(frozen=True)
class PinholeViews:
    """Where views stand and what part of the world their pictures show."""

    camera_from_world: Float[Tensor, "views 4 4"]
    centers: Float[Tensor, "views 3"]
    focal: Float[Tensor, "views 2"]
    """In pixels."""
    principal: Float[Tensor, "views 2"]
    """In pixels, the first of which has its centre at (0.5, 0.5)."""
    width: int
    height: int
