"""What lies beyond the box, as a small panorama around its middle, and as a vector."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

BLURS = 6
WIDTH, LEAST_ROWS = 48, 4
"""Channels of the networks between panoramas and vectors, and the rows that they come down to."""


class PanoramaEncoder(nn.Module):
    """Panoramas to vectors: convolutions that go around the horizon, halved down to about four rows."""

    def __init__(self, rows: int, outputs: int):
        super().__init__()
        levels = _levels(rows)
        small = rows >> levels
        self.stem = nn.Conv2d(3, WIDTH, 3)
        self.shrink = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, 2) for _ in range(levels))
        self.head = nn.Linear(WIDTH * small * 2 * small, outputs)

    def forward(self, sky: Float[Tensor, "scenes rows columns 3"]) -> Float[Tensor, "scenes outputs"]:
        hidden = self.stem(_wrap(sky.movedim(-1, 1)))
        for shrink in self.shrink:
            hidden = shrink(_wrap(functional.silu(hidden)))
        return self.head(functional.silu(hidden).flatten(1))


class PanoramaDecoder(nn.Module):
    """The way back."""

    def __init__(self, rows: int, inputs: int):
        super().__init__()
        levels = _levels(rows)
        self.rows = rows >> levels
        self.stem = nn.Linear(inputs, WIDTH * self.rows * 2 * self.rows)
        self.grow = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3) for _ in range(levels))
        self.head = nn.Conv2d(WIDTH, 3, 3)

    def forward(self, vector: Float[Tensor, "scenes inputs"]) -> Float[Tensor, "scenes rows columns 3"]:
        hidden = self.stem(vector).unflatten(1, (WIDTH, self.rows, 2 * self.rows))
        for grow in self.grow:
            larger = functional.interpolate(functional.silu(hidden), scale_factor=2.0, mode="nearest")
            hidden = grow(_wrap(larger))
        return self.head(_wrap(functional.silu(hidden))).movedim(1, -1)


def _levels(rows: int) -> int:
    """How often a number of rows can be halved, down to ``LEAST_ROWS``."""
    levels = 0
    while rows % 2 == 0 and rows > LEAST_ROWS:
        rows, levels = rows // 2, levels + 1
    return levels


def _wrap(picture: Float[Tensor, "scenes channels rows columns"]) -> Float[Tensor, "scenes channels rows2 columns2"]:
    """One pixel more on each side: around the horizon, and at the poles what is there."""
    around = torch.cat((picture[..., -1:], picture, picture[..., :1]), dim=-1)
    return torch.cat((around[..., :1, :], around, around[..., -1:, :]), dim=-2)


def gather_panorama(
    colors: Float[Tensor, "rays 3"], weights: Float[Tensor, " rays"], directions: Float[Tensor, "rays 3"], rows: int
) -> Float[Tensor, "rows columns 3"]:
    """Mean colour of the rays that leave the box in each direction; directions without any take their neighbours'.

    Rows and columns are those of ``EnvironmentMap``, with twice as many columns as rows.
    """
    columns = 2 * rows
    x, y, z = directions.unbind(-1)
    column = ((torch.atan2(y, x) / (2 * math.pi) + 0.5) * columns).long().clamp(0, columns - 1)
    row = (torch.acos(z.clamp(-1, 1)) / math.pi * rows).long().clamp(0, rows - 1)
    weighted = torch.cat((colors * weights[:, None], weights[:, None]), dim=-1)
    sums = (
        weighted.new_zeros(rows * columns, 4).index_add_(0, row * columns + column, weighted).unflatten(0, (rows, -1))
    )
    result = sums
    spread = sums
    for level in range(BLURS):
        spread = _blur(spread)
        result = result + spread * 10.0 ** (-2 * level - 2)  # the nearest neighbours outweigh the farther ones
    mean = weighted.sum(0)
    result = result + 1e-14 * mean
    return result[..., :3] / result[..., 3:].clamp(min=1e-20)


def _blur(picture: Float[Tensor, "rows columns channels"]) -> Float[Tensor, "rows columns channels"]:
    """The mean of each pixel and its neighbours, around the horizon and up to the poles."""
    around = (picture + picture.roll(1, 1) + picture.roll(-1, 1)) / 3
    above, below = torch.cat((around[:1], around[:-1])), torch.cat((around[1:], around[-1:]))
    return (around + above + below) / 3
