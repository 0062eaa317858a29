"""What every field offers, and the three things that some offer besides: a march, a grid, a place in scene files.

A field is density and features at every point of a box. Whatever looks at scenes, edits, exports or trains them asks
for nothing else than ``Field``; a class of its own takes some twenty lines.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nfldm3d import ops
from nfldm3d._types import Vector
from nfldm3d.geometry import Box, Rays

FoundOccupancy: TypeAlias = Bool[Tensor, "x y z"] | ops.Occupancy | ops.PoolOccupancy
"""What fields know of their empty space."""


@runtime_checkable
class Field(Protocol):
    """Density and features in a box: a grid, a network, a formula."""

    @property
    def box(self) -> Box:
        """Where the field lives; the density is zero outside."""
        ...

    @property
    def channels(self) -> int:
        """Number of feature channels."""
        ...

    @property
    def voxel_size(self) -> Vector:
        """The finest detail along x, y and z, in metres: what steps along rays and grids of exporters follow."""
        ...

    @property
    def device(self) -> torch.device:
        """Where queries are answered."""
        ...

    def to(self, target: torch.device | torch.dtype | str) -> "Field":
        """The field on another device or in another dtype; scenes copy fields that are modules before they move."""
        ...

    def query(
        self, points: Float[Tensor, "*batch 3"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch channels"]]:
        """Density (1/metre, not negative) and features at world points in the box; differentiable by parameters."""
        ...

    def query_density(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        """The density of ``query``, where features are not needed."""
        ...

    def normals(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Unit vectors from dense to empty space; zero where there is no such direction."""
        ...

    def occupancy(self, threshold: float = 0.0) -> FoundOccupancy:
        """Where the density may exceed ``threshold`` (1/metre); elsewhere nobody asks.

        A mask over any number of cells that divide the box evenly, or what ``ops.build_occupancy`` or
        ``ops.build_pool_occupancy`` makes of densities at voxel centres.
        """
        ...


def find_missing(field: object) -> list[str]:
    """What an object lacks to be a field."""
    return [name for name in vars(Field) if not name.startswith("_") and not hasattr(field, name)]


@runtime_checkable
class FusedField(Protocol):
    """A field with a march of its own: the sums over the samples that the renderer would query, but faster."""

    def integrate(
        self,
        rays: Rays,
        near_far: Float[Tensor, "rays 2"],
        step: float,
        early_stop: float,
        occupancy: FoundOccupancy | None = None,
        gradient: ops.FieldGradient | None = None,
    ) -> ops.RayIntegral:
        """What ``ops.integrate_rays`` computes.

        Args:
            occupancy: what the field's own ``occupancy`` gave, if it is known already.
            gradient: buffers that the backward pass adds into, for fields that can.
        """
        ...


class Brick(NamedTuple):
    """A block of a field: voxels ``start`` to ``start + density.shape``."""

    start: tuple[int, int, int]
    density: Float[Tensor, "x y z"]
    features: Float[Tensor, "x y z channels"]


@runtime_checkable
class GridField(Protocol):
    """A field that keeps a regular grid, dense or sparse; exporters read others at ``voxel_size``."""

    @property
    def resolution(self) -> tuple[int, int, int]:
        """Voxels along x, y and z."""
        ...

    def bricks(self) -> Iterator[Brick]:
        """The blocks that hold anything, as dense pieces of the grid."""
        ...


class FieldState(NamedTuple):
    """What a scene file keeps of a field."""

    config: dict[str, object]
    """Plain JSON values."""
    tensors: dict[str, Tensor]


@runtime_checkable
class StoredField(Protocol):
    """A field that scene files can keep: they note the class's name, its config and its tensors, never code."""

    def state(self) -> FieldState:
        """All that ``from_state`` needs."""
        ...

    @classmethod
    def from_state(cls, state: FieldState) -> Field:
        """The field that ``state`` was taken from; whatever does not fit together raises a ValueError."""
        ...


def occupied_cells(field: Field, threshold: float = 0.0) -> Bool[Tensor, "x y z"]:
    """The occupancy of any field as a mask over cells that divide its box evenly."""
    found = field.occupancy(threshold)
    if isinstance(found, Tensor):
        if found.dim() != 3 or found.dtype != torch.bool or 0 in found.shape:
            raise ValueError(
                f"{type(field).__name__}.occupancy gave {found.dtype} of shape {tuple(found.shape)}; "
                "it must give a mask (bool) over cells along x, y and z"
            )
        return found
    if isinstance(found, ops.PoolOccupancy):
        return _even_tiles(found)
    cells = found.cells.bool()  # from each voxel centre to the next; an even cell meets the halves of two of them
    for axis, count in enumerate(cells.shape):
        before = torch.nn.functional.pad(cells, [0, 0] * (2 - axis) + [1, 0]).narrow(axis, 0, count)
        cells = cells | before
    return cells


def _even_tiles(found: ops.PoolOccupancy) -> Bool[Tensor, "x y z"]:
    """The tiles of 4x4x4 cells that hold an occupied one, as cells that divide the box evenly."""
    mask = found.leaps == 0
    for axis, (voxels, tiles) in enumerate(zip(found.resolution, found.leaps.shape, strict=True)):
        edges = torch.arange(tiles + 1, device=mask.device) * (voxels / tiles) - 0.5  # cells begin at voxel centres
        first = ((edges[:-1] - 1e-4) / ops.TILE).floor().long().clamp(0, tiles - 1)
        last = ((edges[1:] + 1e-4) / ops.TILE).floor().long().clamp(0, tiles - 1)
        mask = torch.stack([mask.index_select(axis, (first + k).minimum(last)) for k in range(3)]).any(0)
    return mask
