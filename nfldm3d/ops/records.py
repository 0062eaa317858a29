"""What the kernels take and what they give: plain tensors, bundled and named."""

import math
from dataclasses import dataclass
from typing import TypeAlias

from jaxtyping import Float, Int32, UInt8
from torch import Tensor

from nfldm3d._types import Vector

BRICK = 8
"""Edge in voxels of the bricks that files and optimisers touch as a whole."""
TILE = 4
"""Edge in voxels of the tiles that ``Occupancy.leaps`` describes."""

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
    """Buffers that a backward pass adds the gradient of a field into, instead of allocating one per step."""

    density: Float[Tensor, "x y z"]
    features: Float[Tensor, "x y z channels"]


@dataclass(frozen=True)
class Splat:
    """Sums over the entries that fell into each voxel."""

    features: Float[Tensor, "x y z channels"]
    """Sum of weight * feature."""
    weights: Float[Tensor, "x y z"]
    """Sum of weights."""
    counts: Int32[Tensor, "x y z"]
    """Number of entries."""
    values: Float[Tensor, "x y z values"] | None
    """Sum of the entries' own values, without weights; None if none were given."""
