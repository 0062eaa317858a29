"""Which cells and bricks of a grid can be visible, so that rays leap over the rest."""

from jaxtyping import Float
from torch import Tensor

from nfldm3d.ops import reference
from nfldm3d.ops.records import Occupancy


def build_occupancy(density: Float[Tensor, "x y z"], threshold: float = 0.0) -> Occupancy:
    return reference.build_occupancy(density, threshold)
