"""What lies beyond the box, as a small panorama around its middle."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

BLURS = 6


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
