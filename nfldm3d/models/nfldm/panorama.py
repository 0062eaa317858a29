"""What lies beyond the box, as a small panorama around its middle, and as a vector."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

BLURS = 6
LEAST_SPREAD = 1e-4
"""Components along which panoramas hardly differ are not blown up beyond this."""


class PanoramaCode(nn.Module):
    """Panoramas as few numbers: the principal components of those that it was measured on, each of unit variance.

    Nothing is learned. Of 96 test panoramas of roads, 96 components keep 31.9 dB; convolutional networks with as many
    numbers had come to 23.5 dB after 900 steps of stage 2.
    """

    mean: Float[Tensor, " values"]
    basis: Float[Tensor, "values dimensions"]
    spread: Float[Tensor, " dimensions"]

    def __init__(self, rows: int, dimensions: int):
        super().__init__()
        self.rows = rows
        values = rows * 2 * rows * 3
        if dimensions > values:
            raise ValueError(f"a panorama of {values} values has no {dimensions} components; ask for fewer")
        self.register_buffer("mean", torch.full((values,), 0.5))
        self.register_buffer("basis", torch.eye(values, dimensions))
        self.register_buffer("spread", torch.ones(dimensions))

    @torch.no_grad()
    def measure(self, skies: Float[Tensor, "scenes rows columns 3"]) -> None:
        """Finds the components of panoramas, turned by quarters and mirrored, as worlds are in training."""
        mirrored = torch.cat((skies, skies.flip(2)))
        quarter, size = skies.shape[2] // 4, len(self.spread)
        data = torch.cat([mirrored.roll(turn * quarter, 2) for turn in range(4)]).flatten(1)
        self.mean.copy_(data.mean(0))
        data, found = data - self.mean, min(size, *data.shape)
        with torch.random.fork_rng([]):  # the components are approximated from random directions
            torch.manual_seed(0)
            _, values, vectors = torch.svd_lowrank(data, q=found, niter=4)
        self.basis.zero_()
        self.basis[:, :found] = vectors
        self.spread[:found] = (values / len(data) ** 0.5).clamp(min=LEAST_SPREAD)

    def encode(self, sky: Float[Tensor, "scenes rows columns 3"]) -> Float[Tensor, "scenes dimensions"]:
        """Coordinates along the components."""
        return (sky.flatten(1) - self.mean) @ self.basis / self.spread

    def decode(self, code: Float[Tensor, "scenes dimensions"]) -> Float[Tensor, "scenes rows columns 3"]:
        """The panorama with these coordinates."""
        return (self.mean + (code * self.spread) @ self.basis.T).unflatten(-1, (self.rows, 2 * self.rows, 3))


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
