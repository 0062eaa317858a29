"""What hides what: rays through the matter that a mesh bounds."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nfldm3d._types import Vector
from nfldm3d.fields import FoundOccupancy, SparseField, VoxelField
from nfldm3d.geometry import Box, Rays
from nfldm3d.ops.bricks import BRICK
from nfldm3d.rendering import integrate

HARDNESS = 1e3
"""Optical depth of a voxel whose density is twice the level: rays end where they enter the mesh."""
MOST_CELLS = 2**24
"""Where sparse fields are solid is known for so many cells: a dense mask of all their voxels could outgrow them."""


@dataclass(frozen=True)
class Occluder:
    """Opaque where a trilinear grid exceeds zero, which is inside the level set; free elsewhere."""

    field: VoxelField | SparseField
    """Signed; its density is density over level, less one, times what makes it opaque."""

    @classmethod
    def inside(cls, field: VoxelField | SparseField, level: float, hole: Box | None) -> "Occluder":
        """What a field's density above a level hides; nothing in ``hole``."""
        if isinstance(field, SparseField):
            field = field.covering(level)  # next to the level set no brick may be missing, which would read as zero
        excess = field.density.float() / level - 1
        if hole is not None:
            excess = torch.where(hole.contains(field.voxel_centers()), -1.0, excess)
        density = excess * (HARDNESS / min(field.voxel_size))
        return cls(replace(field, density=density, features=torch.zeros_like(density)[..., None], signed=True))

    @property
    def device(self) -> torch.device:
        """Where the grid lives."""
        return self.field.device

    @property
    def box(self) -> Box:
        """Of the grid."""
        return self.field.box

    @property
    def voxel_size(self) -> Vector:
        """Extents of one voxel in metres."""
        return self.field.voxel_size

    @cached_property
    def solid(self) -> Bool[Tensor, "x y z"]:
        """The cells with the centre of a voxel in the matter: voxels, or blocks of those of large sparse fields."""
        if isinstance(self.field, VoxelField):
            return self.field.density >= 0
        edge, count = self._cell_edge, BRICK // self._cell_edge
        blocks = ((self.field.density >= 0) & self.field.inside).view(-1, *(count, edge) * 3)
        blocks = blocks.any(6).any(4).any(2)  # (bricks count count count)
        grid = blocks.new_zeros(*self.field.map.numbers.shape, count, count, count)
        grid[self.field.places.long().unbind(-1)] = blocks
        solid = grid.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3).flatten(0, 1)
        x, y, z = (-(-size // edge) for size in self.field.resolution)
        return solid[:x, :y, :z]

    @property
    def cell_size(self) -> Vector:
        """Extents of the cells of ``solid`` in metres."""
        x, y, z = self.voxel_size
        return (self._cell_edge * x, self._cell_edge * y, self._cell_edge * z)

    @property
    def _cell_edge(self) -> int:
        """In voxels."""
        edge = 1
        while isinstance(self.field, SparseField) and edge < BRICK:
            if math.prod(-(-size // edge) for size in self.field.resolution) <= MOST_CELLS:
                break
            edge *= 2
        return edge

    def locate(self, points: Float[Tensor, "points 3"]) -> Int[Tensor, "points 3"]:
        """The cells nearest to points."""
        lower, size = points.new_tensor(self.box.lower), points.new_tensor(self.cell_size)
        limit = torch.tensor(self.solid.shape, device=points.device) - 1
        return ((points - lower) / size).long().clamp(min=0).minimum(limit)

    def holds(self, points: Float[Tensor, "points 3"]) -> Bool[Tensor, " points"]:
        """Which points lie in matter."""
        return self.field.query_density(points) > 0

    def measure(
        self, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"], far: Tensor | None = None
    ) -> Float[Tensor, " rays"]:
        """Metres to the matter along each ray, at most ``far``; infinite where there is none."""
        rays = Rays(origins, directions)
        near_far = torch.stack(self.box.clip(rays) if far is None else (torch.zeros_like(far), far), dim=-1)
        met = integrate(self.field, rays, near_far, min(self.voxel_size) / 2, 0.5, self._occupancy)
        distance = met.distance / met.opacity.clamp(min=1e-6)
        return torch.where(met.opacity > 0.5, distance, torch.inf)

    @cached_property
    def _occupancy(self) -> FoundOccupancy:
        return self.field.occupancy()


def see(
    occluder: Occluder, points: Float[Tensor, "points 3"], eyes: Float[Tensor, "points 3"]
) -> Bool[Tensor, " points"]:
    """Which points can be seen, each from the eye beside it."""
    offset = eyes - points
    distance = offset.norm(dim=-1).clamp(min=1e-9)
    return occluder.measure(points, offset / distance[:, None], distance).isinf()
