"""A bird's-eye map that is being painted: strokes, rectangles, floods, what was before, and its picture."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from nfldm3d.data.bev_map import to_rows
from nfldm3d.data.image_files import open_picture
from nfldm3d.files import DataFormatError
from nfldm3d.pipelines.bev_input import classes_of_colors

TOOLS = ("brush", "rectangle", "fill")
UNDO = 50
MAX_BYTES, MAX_SIDE = 2**20, 4096
"""Of a PNG that somebody sends."""
Cell = tuple[int, int]


@dataclass(frozen=True, eq=False)
class PaintedMap:
    """Class numbers [x, y], and what they were before the last strokes."""

    cells: Int64[Tensor, "x y"]
    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    past: tuple[Int64[Tensor, "x y"], ...] = ()

    @classmethod
    def blank(cls, size: int, names: Sequence[str], palette: Sequence[Sequence[int]]) -> "PaintedMap":
        """A map that is open everywhere."""
        colors = tuple((color[0], color[1], color[2]) for color in palette)
        return cls(torch.full((size, size), len(names)), tuple(names), colors)

    @property
    def choices(self) -> tuple[str, ...]:
        """Names of what can be painted, by number; the last one leaves cells open."""
        return (*self.names, "anything")

    def begin(self) -> "PaintedMap":
        """The map before a stroke, which ``undo`` comes back to."""
        return replace(self, past=(*self.past, self.cells)[-UNDO:])

    def undo(self) -> "PaintedMap":
        """The map before the last stroke; the same if there was none."""
        return replace(self, cells=self.past[-1], past=self.past[:-1]) if self.past else self

    def clear(self) -> "PaintedMap":
        """Open everywhere."""
        return replace(self.begin(), cells=torch.full_like(self.cells, len(self.names)))

    def brush(self, start: Cell, end: Cell, width: int, number: int) -> "PaintedMap":
        """A line of squares of ``width`` cells from one cell to another, the ends included."""
        steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
        cells, before, after = self.cells.clone(), (width - 1) // 2, width // 2
        for step in range(steps + 1):
            x, y = (round(a + (b - a) * step / steps) for a, b in zip(start, end, strict=True))
            cells[max(x - before, 0) : max(x + after + 1, 0), max(y - before, 0) : max(y + after + 1, 0)] = number
        return replace(self, cells=cells)

    def rectangle(self, start: Cell, end: Cell, number: int) -> "PaintedMap":
        """All cells between two corners, these included."""
        cells = self.cells.clone()
        (left, right), (low, high) = (sorted((max(a, 0), max(b, 0))) for a, b in zip(start, end, strict=True))
        cells[left : right + 1, low : high + 1] = number
        return replace(self, cells=cells)

    def fill(self, start: Cell, number: int) -> "PaintedMap":
        """The cells of one class that are connected to one of them by their sides."""
        x, y = start
        if not self.holds(start) or int(self.cells[x, y]) == number:
            return self
        same = self.cells == self.cells[x, y]
        region = torch.zeros_like(same)
        region[x, y] = True
        while True:
            grown = region.clone()
            grown[1:] |= region[:-1]
            grown[:-1] |= region[1:]
            grown[:, 1:] |= region[:, :-1]
            grown[:, :-1] |= region[:, 1:]
            grown &= same
            if torch.equal(grown, region):
                return replace(self, cells=torch.where(region, number, self.cells))
            region = grown

    def holds(self, cell: Cell) -> bool:
        """Whether a cell is one of the map."""
        return all(0 <= place < size for place, size in zip(cell, self.cells.shape, strict=True))

    def picture(self, scale: int = 1) -> UInt8[Tensor, "height width 4"]:
        """North up, in the palette's colours; transparent where anything may be."""
        colors = torch.tensor([*((*color, 255) for color in self.palette), (0, 0, 0, 0)], dtype=torch.uint8)
        return colors[to_rows(self.cells)].repeat_interleave(scale, 0).repeat_interleave(scale, 1)

    def encode(self) -> bytes:
        """A PNG, one pixel for each cell."""
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(self.picture().numpy(), "RGBA").save(file, "PNG")
        return file.getvalue()

    def decode(self, data: bytes) -> "PaintedMap":
        """What somebody's PNG shows, after what was there before.

        Raises:
            ValueError: too large, of another size, or of colours that are not in the palette.
            DataFormatError: it is no PNG.
        """
        if len(data) > MAX_BYTES:
            raise ValueError(f"the file has {len(data)} bytes, more than {MAX_BYTES}: a map is a small PNG")
        with open_picture(Path("the file"), ("PNG",), data) as image:
            if max(image.size) > MAX_SIDE:
                raise DataFormatError("the file", f"has {image.width} x {image.height} pixels; a map is a small PNG")
            pixels = torch.from_numpy(np.array(image.convert("RGBA")))
        size = tuple(self.cells.shape)
        if tuple(pixels.shape[:2]) != (size[1], size[0]):
            found = f"{pixels.shape[1]} x {pixels.shape[0]}"
            raise ValueError(f"the picture has {found} pixels, the map {size[0]} x {size[1]} cells: one for each")
        return replace(self.begin(), cells=classes_of_colors(pixels, self.palette, "the picture"))
