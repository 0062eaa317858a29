"""What a dream is drawn on: a neural field, or a voxel grid with activations; both begin as a blob."""

import math
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn import functional

from nfldm3d.fields import Field, NeuralField, VoxelField, occupied_cells
from nfldm3d.fields.neural import BLOBS, EMPTY_OPACITY
from nfldm3d.geometry import Box

Kind = Literal["hash", "voxels"]
ENCODING = {"levels": 8, "features": 2, "log2_rows": 15, "base_resolution": 16, "growth": 1.35}
"""Fine enough for pictures of 64 pixels: from 16 to 128 nodes."""
COLORS = 3
LEVELS, COARSEST = 4, 6
"""Of the voxels that are drawn on: how many grids, and the fewest voxels along a side of one."""


class VoxelCanvas(nn.Module):
    """Densities before their softplus and albedo before its sigmoid, in the voxels of a cube around zero.

    Both are sums over grids, each half as fine as the next: what an optimiser moves at once is then not single voxels,
    whose gradients are mostly noise, but also the shape as a whole.
    """

    def __init__(self, radius: float, detail: int):
        super().__init__()
        self.box = Box.from_center((0.0, 0.0, 0.0), (2 * radius,) * 3)  # type: ignore[arg-type]
        self.radius, self.detail = radius, detail
        sides = [side for level in range(LEVELS) if (side := -(-detail // 2**level)) >= COARSEST or not level]
        self.grids = nn.ParameterList(torch.zeros(1, 1 + COLORS, side, side, side) for side in reversed(sides))
        strength, size = BLOBS["softplus"]
        distance = self.box.voxel_centers((detail,) * 3, torch.zeros(())).norm(dim=-1) / radius  # type: ignore[arg-type]
        with torch.no_grad():
            self.grids[-1][0, 0] = torch.where(distance < 1, strength * (1 - distance / size), -20.0)

    def field(self) -> VoxelField:
        """What the parameters mean."""
        values = self.grids[0]
        for finer in self.grids[1:]:
            values = finer + functional.interpolate(values, size=finer.shape[2:], mode="trilinear")
        density = functional.softplus(values[0, 0]) / self.radius
        return VoxelField(density, torch.sigmoid(values[0, 1:]).movedim(0, -1).contiguous(), self.box)


Canvas = NeuralField | VoxelCanvas


def make_canvas(
    kind: Kind,
    *,
    radius: float,
    detail: int,
    activation: Literal["exp", "softplus"],
    generator: torch.Generator | None = None,
) -> Canvas:
    """An empty one of either kind."""
    if kind == "voxels":
        return VoxelCanvas(radius, detail)
    if kind != "hash":
        raise ValueError(f"field must be 'hash' or 'voxels', got {kind!r}")
    return NeuralField(radius=radius, detail=detail, activation=activation, encoding=ENCODING, generator=generator)


def field_of(canvas: Canvas) -> Field:
    """The field as it stands, with gradients to the canvas."""
    return canvas if isinstance(canvas, NeuralField) else canvas.field()


def faint_density(field: Field) -> float:
    """The density at which a voxel shows too little to be anything."""
    return -math.log1p(-EMPTY_OPACITY) / min(field.voxel_size)


@torch.no_grad()
def cells_of(field: Field) -> Bool[Tensor, "x y z"]:
    """Where there is anything to be seen."""
    return occupied_cells(field, 0.0 if isinstance(field, NeuralField) else faint_density(field))


@torch.no_grad()
def finish(canvas: Canvas, generator: torch.Generator | None = None) -> Field:
    """The field to keep: frozen, looked at anew, and empty where it is too faint to be seen."""
    if isinstance(canvas, NeuralField):
        canvas.update_occupancy(generator=generator, decay=0.0, samples=4)
        return canvas.requires_grad_(False)
    grid = canvas.field().detach()
    return replace(grid, density=torch.where(grid.density > faint_density(grid), grid.density, 0.0))
