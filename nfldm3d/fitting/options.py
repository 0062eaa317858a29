"""How a scene is fitted: one flat record that the command line and the scene's metadata share."""

import math
from dataclasses import dataclass
from typing import Literal

from nfldm3d._types import LARGEST_SEED, Vector


@dataclass(frozen=True)
class FitOptions:
    """Options of ``fit``; the defaults suit a laptop and ten minutes."""

    steps: int = 6000
    """Optimiser steps at most."""
    time_budget: float | None = None
    """Seconds at most, or None; the schedule is stretched over whichever limit comes first."""
    rays_per_step: int = 8192
    """Random pixels in each step."""
    voxels: int | None = None
    """Number of voxels of the field in focus, cubes as nearly as whole numbers allow, of which those near matter take
    memory; by default 25 million of one colour, 8 million with first-degree spherical harmonics, and of photographs
    without depth or outlines one for 2.5 of their pixels, from a million on."""
    surrounding_voxels: int | None = None
    """Number of voxels of each surrounding field; by default half as many."""
    degree: int | None = None
    """Degree of the spherical harmonics, 0 (the same from every side) to 3; by default 1, or 0 where the capture's
    metadata say ``view_dependent: false``."""
    box: tuple[Vector, Vector] | None = None
    """Lower and upper corner of the field in focus; by default from the capture's metadata, depth or cameras."""
    surroundings: int | None = None
    """How many surrounding fields, each twice as large as the one before; by default as many as the capture needs."""
    background: Literal["auto", "none", "environment"] = "auto"
    """``auto``: the colour that transparent images were put on, or the plain one around an object in opaque ones, else
    an environment map, which is learned; the other two do not look for plain colours."""
    exposure: bool | None = None
    """Whether each view has an exposure of its own, a factor for each colour; the scene gets the mean. By default that
    of photographs (JPEG) which are not put on a known background."""
    depth_weight: float = 0.1
    """Weight of the depth loss where the capture has depth."""
    distortion_weight: float = 0.01
    """Weight of the distortion loss (mip-NeRF 360, eq. 15, in units of the box), which gathers each ray's matter."""
    smoothness: float = 1.0
    """Factor on the total-variation weights of density and colour."""
    sparse: bool = False
    """Whether the fields of the scene keep just the bricks that hold anything (``SparseField``), or all voxels."""
    seed: int = 0
    """Seeds the choice of pixels."""

    def __post_init__(self):
        for name in ("steps", "rays_per_step", "voxels", "surrounding_voxels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.seed > LARGEST_SEED:
            raise ValueError(f"seed must be at most {LARGEST_SEED}, got {self.seed}")
        for name in ("depth_weight", "distortion_weight", "smoothness", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a finite number, not below 0, got {getattr(self, name)}")
        if self.time_budget is not None and not self.time_budget > 0:
            raise ValueError(f"time_budget must be a number of seconds above 0, got {self.time_budget}")
        if self.surroundings is not None and not 0 <= self.surroundings <= 8:
            raise ValueError(f"surroundings must lie between 0 and 8, got {self.surroundings}")
