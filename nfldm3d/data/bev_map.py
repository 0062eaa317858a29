"""Bird's-eye maps: what is where on the ground, seen from above.

The array is ``bev[x, y]``, as the field's grids are; as a picture row 0 is the largest y, so that north (+y) is up.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


@dataclass(frozen=True)
class BevMap:
    """Classes and heights of the ground; cell (i, j) of the grid is centred at ``lower + (ij + 0.5) * cell_size``."""

    classes: UInt8[Tensor, "x y"]
    """Indices into ``class_names``."""
    height: Float[Tensor, "x y"] | None
    """World z of the ground in metres, or None."""
    lower: tuple[float, float]
    """The corner with the smallest x and y, in metres."""
    cell_size: float
    """Edge of a cell in metres."""
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    """One sRGB colour (0-255) per class."""

    def __post_init__(self):
        shape = tuple(self.classes.shape)
        if self.height is not None and self.height.shape != shape:
            raise ValueError(f"a BEV map needs height of the shape of classes, {shape}, got {tuple(self.height.shape)}")
        if len(self.palette) != len(self.class_names):
            raise ValueError(
                f"a BEV map needs one colour per class, got {len(self.palette)} for {len(self.class_names)} class names"
            )
        if self.classes.numel() == 0 or int(self.classes.max()) >= len(self.class_names):
            raise ValueError(
                f"a BEV map of shape {shape} must hold classes below {len(self.class_names)}, the number of class names"
            )
        if not self.cell_size > 0:
            raise ValueError(f"a BEV map needs a positive cell_size in metres, got {self.cell_size}")

    def picture(self) -> UInt8[Tensor, "3 height width"]:
        """The classes in their colours, north up."""
        colors = torch.tensor(self.palette, dtype=torch.uint8)
        return colors[to_rows(self.classes).long()].permute(2, 0, 1)


def to_rows(bev: Tensor) -> Tensor:
    """The picture ``(height, width)`` of an array ``(x, y)``: row 0 is the largest y, column 0 the smallest x."""
    return bev.T.flip(0).contiguous()


def from_rows(picture: Tensor) -> Tensor:
    """The array ``(x, y)`` of a picture ``(height, width)``: the inverse of ``to_rows``."""
    return picture.flip(0).T.contiguous()
