"""In-place updates of the occupied 8x8x8 bricks of big grids: Adam and total variation at the cost of the surface.

A dense optimiser step over 256^3 voxels of 28 channels moves 7.5 GB; these touch only the listed bricks, and inside
them only the voxels that received a gradient, as masked Adam does (DVGO, Sun et al. 2022, sec. 4).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int32, Int64, Shaped
from torch import Tensor

from nfldm3d.ops.launch import launch
from nfldm3d.ops.records import BRICK, PoolMap

GRAIN = 64 * BRICK**2
"""Columns of voxels that one launch handles at least: below that, launching costs more than it saves."""


def gather_bricks(grid: Shaped[Tensor, "x y z *channels"], bricks: Int32[Tensor, "bricks 3"]) -> Tensor:
    """The listed bricks of a grid as ``(bricks, 8, 8, 8, *channels)``; zero beyond the grid's edge."""
    packed = grid.new_zeros(len(bricks), BRICK, BRICK, BRICK, *grid.shape[3:])
    for number, start in enumerate((bricks * BRICK).tolist()):
        block = grid[tuple(slice(first, first + BRICK) for first in start)]
        packed[number, : block.shape[0], : block.shape[1], : block.shape[2]] = block
    return packed


def scatter_bricks_(packed: Tensor, bricks: Int32[Tensor, "bricks 3"], grid: Shaped[Tensor, "x y z *channels"]) -> None:
    """Writes bricks that ``gather_bricks`` took back to their places in ``grid``."""
    for number, start in enumerate((bricks * BRICK).tolist()):
        block = grid[tuple(slice(first, first + BRICK) for first in start)]
        block.copy_(packed[number, : block.shape[0], : block.shape[1], : block.shape[2]])


def find_rows(places: PoolMap, voxels: Int[Tensor, "*batch 3"]) -> Int64[Tensor, "*batch"]:
    """The rows of voxels of a grid in its pool, 512 for each brick; -1 for those that the pool lacks."""
    number = places.numbers[(voxels // BRICK).long().unbind(-1)].long()
    x, y, z = (voxels % BRICK).unbind(-1)
    return torch.where(number < 0, -1, ((number * BRICK + x) * BRICK + y) * BRICK + z)


@dataclass(frozen=True)
class AdamState:
    """First and second moments, of the shape of the values they belong to."""

    mean: Float[Tensor, "*shape"]
    variance: Float[Tensor, "*shape"]

    @classmethod
    def zeros_like(cls, values: Float[Tensor, "*shape"]) -> "AdamState":
        """The state before the first step."""
        return cls(torch.zeros_like(values), torch.zeros_like(values))


@dataclass(frozen=True)
class AdamRates:
    """Step size and decay rates of one Adam step."""

    rate: float
    step: int
    """Number of this step, from 1."""
    beta1: float = 0.9
    beta2: float = 0.99

    @property
    def corrected_rate(self) -> float:
        """The step size with the bias of the first moment taken out."""
        return self.rate / (1 - self.beta1**self.step)

    @property
    def correction(self) -> float:
        """The factor that takes out the bias of the second moment."""
        return 1 / (1 - self.beta2**self.step)


def adam_features_(
    values: Float[Tensor, "x y z channels"],
    gradient: Float[Tensor, "x y z channels"],
    state: AdamState,
    rates: AdamRates,
    bricks: Int32[Tensor, "bricks 3"],
) -> None:
    """One Adam step on the voxels of ``bricks`` whose gradient is not zero; clears their gradient."""
    from nfldm3d.ops import brick_kernels

    x, y, z, channels = values.shape
    tensors = (values.view(-1), gradient.view(-1), state.mean.view(-1), state.variance.view(-1))
    inputs = [bricks.contiguous(), (x, y, z), channels, *tensors, *_numbers(rates)]
    launch(brick_kernels.adam_features, len(bricks) * BRICK**2, inputs, values.device, grain=GRAIN)


def adam_density_(
    log_density: Float[Tensor, "x y z"],
    density: Float[Tensor, "x y z"],
    gradient: Float[Tensor, "x y z"],
    state: AdamState,
    rates: AdamRates,
    bricks: Int32[Tensor, "bricks 3"],
    *,
    unit: float,
) -> None:
    """One Adam step on ``log_density``, given its gradient, and ``density = exp(log_density) / unit`` after it.

    Args:
        unit: the length in metres in which ``log_density`` counts, e.g. a voxel's edge.
    """
    from nfldm3d.ops import brick_kernels

    tensors = (log_density, density, gradient, state.mean, state.variance)
    inputs = [
        bricks.contiguous(),
        tuple(density.shape),
        *(tensor.view(-1) for tensor in tensors),
        unit,
        *_numbers(rates),
    ]
    launch(brick_kernels.adam_density, len(bricks) * BRICK**2, inputs, density.device, grain=GRAIN)


def to_log_gradient_(
    gradient: Float[Tensor, "x y z"], density: Float[Tensor, "x y z"], bricks: Int32[Tensor, "bricks 3"], decay: float
) -> None:
    """Turns the gradient by density into that by its logarithm where there is one, plus ``decay``, which thins fog."""
    from nfldm3d.ops import brick_kernels

    inputs = [bricks.contiguous(), tuple(density.shape), density.view(-1), gradient.view(-1), decay]
    launch(brick_kernels.log_gradient, len(bricks) * BRICK**2, inputs, density.device, grain=GRAIN)


def add_smoothness_(
    values: Float[Tensor, "pool 8 8 8 *channels"],
    gradient: Float[Tensor, "pool 8 8 8 *channels"],
    places: PoolMap,
    bricks: Int32[Tensor, "bricks 3"],
    weight: float,
    limit: float = 1.0,
) -> None:
    """Adds the gradient of a pool's total variation, differences clipped to ``limit``, where there is one already.

    Voxels that the pool lacks are as their neighbours.

    Args:
        bricks: where those lie that are asked, of which the pool has all.
    """
    from nfldm3d.ops import brick_kernels

    channels = values.shape[4:].numel()
    where = [bricks.contiguous(), places.numbers.contiguous(), places.resolution]
    inputs = [*where, channels, values.view(-1), gradient.view(-1), weight, limit]
    launch(brick_kernels.smooth, len(bricks) * BRICK**2, inputs, values.device, grain=GRAIN)


def _numbers(rates: AdamRates) -> tuple[float, float, float, float]:
    return rates.corrected_rate, rates.beta1, rates.beta2, rates.correction
