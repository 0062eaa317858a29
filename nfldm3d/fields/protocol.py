"""What every field offers: density and features at every point of a box."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from nfldm3d import ops
from nfldm3d._types import Vector
from nfldm3d.geometry import Box


class Brick(NamedTuple):
    """A block of a field: voxels ``start`` to ``start + density.shape``."""

    start: tuple[int, int, int]
    density: Float[Tensor, "x y z"]
    features: Float[Tensor, "x y z channels"]


@runtime_checkable
class Field(Protocol):
    """What renderer and exporters need of a field; a sparse grid or a hash grid can stand where a VoxelField stands."""

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
        """The finest detail along x, y and z, in metres."""
        ...

    def query(
        self, points: Float[Tensor, "*batch 3"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch channels"]]:
        """Density and features at world points."""
        ...

    def occupancy(self, threshold: float = 0.0) -> ops.Occupancy:
        """Where the density exceeds ``threshold`` (1/metre)."""
        ...

    def bricks(self) -> Iterator[Brick]:
        """The blocks that hold anything, as dense pieces of the grid."""
        ...
