"""What hides what: rays through the matter that a mesh bounds."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nfldm3d import ops
from nfldm3d._types import Vector
from nfldm3d.fields import VoxelField
from nfldm3d.geometry import Box

HARDNESS = 1e3
"""Optical depth of a voxel whose density is twice the level: rays end where they enter the mesh."""


@dataclass(frozen=True)
class Occluder:
    """Opaque where a trilinear grid exceeds zero, which is inside the level set; free elsewhere."""

    excess: Float[Tensor, "x y z"]
    """Density over level, less one, at the voxel centres."""
    box: Box

    @classmethod
    def inside(cls, field: VoxelField, level: float, hole: Box | None) -> "Occluder":
        """What a field's density above a level hides; nothing in ``hole``."""
        excess = field.density.float() / level - 1
        if hole is not None:
            excess = torch.where(hole.contains(field.voxel_centers()), -1.0, excess)
        return cls(excess, field.box)

    @property
    def device(self) -> torch.device:
        """Where the grid lives."""
        return self.excess.device

    @property
    def voxel_size(self) -> Vector:
        """Extents of one voxel in metres."""
        return self.box.voxel_size(tuple(self.excess.shape))  # type: ignore[arg-type]

    @cached_property
    def solid(self) -> Bool[Tensor, "x y z"]:
        """The voxels with their centre in the matter."""
        return self.excess >= 0

    def locate(self, points: Float[Tensor, "points 3"]) -> Int[Tensor, "points 3"]:
        """The voxels nearest to points."""
        lower, size = points.new_tensor(self.box.lower), points.new_tensor(self.voxel_size)
        limit = torch.tensor(self.excess.shape, device=points.device) - 1
        return ((points - lower) / size).long().clamp(min=0).minimum(limit)

    def holds(self, points: Float[Tensor, "points 3"]) -> Bool[Tensor, " points"]:
        """Which points lie in matter."""
        inside = ops.interpolate(self.excess[..., None], points, (self.box.lower, self.box.upper))
        return inside[:, 0] > 0

    def measure(
        self, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"], far: Tensor | None = None
    ) -> Float[Tensor, " rays"]:
        """Metres to the matter along each ray, at most ``far``; infinite where there is none."""
        limits = None if far is None else torch.stack((torch.zeros_like(far), far), dim=-1)
        met = ops.integrate_rays(
            self._density,
            self._nothing,
            origins,
            directions,
            limits,
            ops.March((self.box.lower, self.box.upper), min(self.voxel_size) / 2, early_stop=0.5),
            occupancy=self._occupancy,
        )
        distance = met.distance / met.opacity.clamp(min=1e-6)
        return torch.where(met.opacity > 0.5, distance, torch.inf)

    @cached_property
    def _density(self) -> Float[Tensor, "x y z"]:
        return (self.excess * (HARDNESS / min(self.voxel_size))).contiguous()

    @cached_property
    def _nothing(self) -> Float[Tensor, "x y z 1"]:
        return torch.zeros_like(self.excess)[..., None]

    @cached_property
    def _occupancy(self) -> ops.Occupancy:
        return ops.build_occupancy(self._density)


def see(
    occluder: Occluder, points: Float[Tensor, "points 3"], eyes: Float[Tensor, "points 3"]
) -> Bool[Tensor, " points"]:
    """Which points can be seen, each from the eye beside it."""
    offset = eyes - points
    distance = offset.norm(dim=-1).clamp(min=1e-9)
    return occluder.measure(points, offset / distance[:, None], distance).isinf()
