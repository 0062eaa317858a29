"""Multi-resolution hash grids (Müller et al. 2022), read at points, by tiny-cuda-nn's rules.

Level l has the scale s = base * growth^l - 1 and nodes at whole numbers of s * point + 1/2, ceil(s) + 1 of them along
each axis of the unit cube. Node (i, j, k) is row i + n (j + n k) of its level, modulo the level's size, where that
holds all of them; else i xor 2654435761 j xor 805459861 k. Features of a point are trilinear between nodes.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int32
from torch import Tensor
from torch.autograd.function import once_differentiable

from nfldm3d.ops.allocation import zeros
from nfldm3d.ops.checks import require
from nfldm3d.ops.launch import launch


class HashLevels(NamedTuple):
    """The levels of a hash grid, on the device of its table."""

    scales: Float[Tensor, " levels"]
    resolutions: Int32[Tensor, " levels"]
    """Nodes along each axis."""
    offsets: Int32[Tensor, " edges"]
    """First row of each level, and the number of all rows."""


def read_hash_grid(
    table: Float[Tensor, "rows features"], points: Float[Tensor, "points 3"], levels: HashLevels
) -> Float[Tensor, "points channels"]:
    """The features of all levels at points, coarsest first; differentiable by both, twice.

    Points lie in the unit cube; those beyond it read rows that belong to others.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
    """
    _check(table, points, levels)
    return _Reading.apply(table, points, levels)


def hash_grid_gradient(
    table: Float[Tensor, "rows features"],
    points: Float[Tensor, "points 3"],
    levels: HashLevels,
    slopes: Float[Tensor, "points channels"],
) -> Float[Tensor, "points 3"]:
    """The gradient by points of what ``read_hash_grid`` gives, times ``slopes``; differentiable by all three."""
    _check(table, points, levels)
    require("slopes", slopes, (len(points), len(levels.scales) * table.shape[1]), table.device, torch.float32)
    return _PointGradient.apply(table, points, slopes, levels)


def _check(table: Tensor, points: Tensor, levels: HashLevels) -> None:
    count, device = len(levels.scales), table.device
    require("points", points, ("points", 3), device, torch.float32)
    require("table", table, ("rows", "features"), device, torch.float32)
    require("scales", levels.scales, (count,), device, torch.float32)
    require("resolutions", levels.resolutions, (count,), device, torch.int32)
    require("offsets", levels.offsets, (count + 1,), device, torch.int32)


class _Reading(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table: Tensor, points: Tensor, levels: HashLevels) -> Tensor:
        ctx.save_for_backward(table, points)
        ctx.levels = levels
        return _read(table, points, levels)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        table, points = ctx.saved_tensors
        by_table = by_points = None
        if ctx.needs_input_grad[0]:
            by_table = _TableGradient.apply(points, grads[0], ctx.levels, table.shape)
        if ctx.needs_input_grad[1]:
            by_points = _PointGradient.apply(table, points, grads[0], ctx.levels)
        return by_table, by_points, None


class _TableGradient(torch.autograd.Function):
    """Of ``slopes`` times the reading: linear in the slopes, whatever the table holds."""

    @staticmethod
    def forward(ctx, points: Tensor, slopes: Tensor, levels: HashLevels, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(points, slopes)
        ctx.levels = levels
        return _scatter(points, levels, slopes, shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        points, slopes = ctx.saved_tensors
        by_points = _slope(grads[0], points, ctx.levels, slopes) if ctx.needs_input_grad[0] else None
        by_slopes = _read(grads[0], points, ctx.levels) if ctx.needs_input_grad[1] else None
        return by_points, by_slopes, None, None


class _PointGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table: Tensor, points: Tensor, slopes: Tensor, levels: HashLevels) -> Tensor:
        ctx.save_for_backward(table, points, slopes)
        ctx.levels = levels
        return _slope(table, points, levels, slopes)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        table, points, slopes = ctx.saved_tensors
        levels, along = ctx.levels, grads[0].contiguous()
        wanted = ctx.needs_input_grad
        return (
            _scatter(points, levels, slopes, table.shape, along) if wanted[0] else None,
            _slope(table, points, levels, slopes, along) if wanted[1] else None,
            _read(table, points, levels, along) if wanted[2] else None,
            None,
        )


def _read(table: Tensor, points: Tensor, levels: HashLevels, along: Tensor | None = None) -> Tensor:
    from nfldm3d.ops import hash_kernels as kernels

    table, points = table.contiguous(), points.contiguous()
    result = points.new_zeros(len(points), len(levels.scales) * table.shape[1])
    size = len(levels.scales) * len(points)
    launch(kernels.encode_forward, size, [table, points, _directions(along, points), *levels, result], points.device)
    return result


def _scatter(
    points: Tensor, levels: HashLevels, slopes: Tensor, shape: torch.Size, along: Tensor | None = None
) -> Tensor:
    """On the CPU each level is one thread's: no two of them add to one row, and sums have one order."""
    from nfldm3d.ops import hash_kernels as kernels

    points, slopes = points.contiguous(), slopes.contiguous()
    result, stride = zeros(*shape, device=points.device), len(points) if points.is_cuda else 1
    if len(points):
        inputs = [stride, points, _directions(along, points), *levels, slopes, result]
        launch(kernels.encode_scatter, len(levels.scales) * stride, inputs, points.device, grain=1)
    return result


def _slope(table: Tensor, points: Tensor, levels: HashLevels, slopes: Tensor, along: Tensor | None = None) -> Tensor:
    from nfldm3d.ops import hash_kernels as kernels

    table, points, slopes = table.contiguous(), points.contiguous(), slopes.contiguous()
    result = torch.zeros_like(points)
    inputs = [table, points, _directions(along, points), *levels, slopes, result]
    launch(kernels.encode_slopes, len(points), inputs, points.device)
    return result


def _directions(along: Tensor | None, points: Tensor) -> Tensor:
    return points.new_zeros(0, 3) if along is None else along
