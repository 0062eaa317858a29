"""Bird's-eye maps: what is where on the ground, seen from above.

The array is ``bev[x, y]``, as the field's grids are; as a picture row 0 is the largest y, so that north (+y) is up.
On disk the classes are a palette PNG, the heights an .npy array indexed [x, y], and the rest JSON.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from nfldm3d.data import image_files
from nfldm3d.data.json_record import Record
from nfldm3d.files import DataFormatError, resolve_inside

UNSEEN = -1
"""Stands for a cell of which the views of a scene tell nothing."""
VOID = "void"
"""The class of cells where there is no world."""


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

    def seen_from(self, points: Float[Tensor, "points 3"]) -> Int64[Tensor, "x y"]:
        """The classes of cells that hold surface points, in world metres; ``UNSEEN`` elsewhere and in the void."""
        points = points.to(self.classes.device)
        cells = ((points[:, :2] - points.new_tensor(self.lower)) / self.cell_size).floor().long()
        inside = ((cells >= 0) & (cells < cells.new_tensor(self.classes.shape))).all(-1)
        seen = torch.zeros_like(self.classes, dtype=torch.bool)
        seen[tuple(cells[inside].unbind(-1))] = True
        if VOID in self.class_names:
            seen &= self.classes != self.class_names.index(VOID)
        return torch.where(seen, self.classes.long(), UNSEEN)

    def picture(self) -> UInt8[Tensor, "3 height width"]:
        """The classes in their colours, north up."""
        colors = torch.tensor(self.palette, dtype=torch.uint8, device=self.classes.device)
        return colors[to_rows(self.classes).long()].permute(2, 0, 1)


def to_rows(bev: Tensor) -> Tensor:
    """The picture ``(height, width)`` of an array ``(x, y)``: row 0 is the largest y, column 0 the smallest x."""
    return bev.T.flip(0).contiguous()


def from_rows(picture: Tensor) -> Tensor:
    """The array ``(x, y)`` of a picture ``(height, width)``: the inverse of ``to_rows``."""
    return picture.flip(0).T.contiguous()


def read_bev(record: Record, root: Path) -> BevMap:
    """The map that ``write_bev`` described in ``record``, with its files below ``root``."""
    classes_path = resolve_inside(root, record.text("classes_path"), source=record.source)
    classes = from_rows(image_files.read_labels(classes_path))
    height = None
    if "height_path" in record:
        height_path = resolve_inside(root, record.text("height_path"), source=record.source)
        height = torch.from_numpy(np.array(image_files.open_array(height_path), dtype=np.float32))
        if not bool(torch.isfinite(height).all()):
            raise DataFormatError(height_path, "holds NaN or infinity; write heights in metres")
        if height.shape != classes.shape:
            shapes = f"has shape {tuple(height.shape)} but the classes have {tuple(classes.shape)}"
            raise DataFormatError(height_path, f"{shapes}; write heights as an array [x, y] of that shape")
    lower, names = record.numbers("lower"), record.items("class_names")
    palette = [Record(record.source, {"color": c}, "bev.palette").numbers("color") for c in record.items("palette")]
    if len(lower) != 2 or any(len(color) != 3 or not all(0 <= c <= 255 for c in color) for color in palette):
        raise record.problem("palette", "write lower as [x, y] in metres and the palette as [r, g, b] from 0 to 255")
    try:
        return BevMap(
            classes,
            height,
            (lower[0], lower[1]),
            record.number("cell_size"),
            tuple(str(name) for name in names),
            tuple((int(r), int(g), int(b)) for r, g, b in palette),
        )
    except ValueError as error:
        raise DataFormatError(record.source, f"{record.where}: {error}") from error


def write_bev(bev: BevMap, root: Path) -> dict[str, object]:
    """Writes ``bev.png`` and ``bev_height.npy`` (indexed [x, y]) below ``root``; returns their description."""
    image_files.write_labels(root / "bev.png", to_rows(bev.classes).cpu(), bev.palette)
    description: dict[str, object] = {
        "classes_path": "bev.png",
        "lower": bev.lower,
        "cell_size": bev.cell_size,
        "class_names": bev.class_names,
        "palette": bev.palette,
    }
    if bev.height is not None:
        np.save(root / "bev_height.npy", bev.height.float().cpu().numpy())
        description["height_path"] = "bev_height.npy"
    return description
