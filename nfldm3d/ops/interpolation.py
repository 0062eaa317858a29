"""Trilinear values of a grid at arbitrary points, with gradients to both."""

from types import ModuleType
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from nfldm3d.ops.allocation import zeros
from nfldm3d.ops.checks import field_dtypes, require, require_pool
from nfldm3d.ops.launch import launch, launch_scatter
from nfldm3d.ops.records import Bounds, PoolMap, check_bounds


def interpolate(
    values: Float[Tensor, "x y z channels"], points: Float[Tensor, "points 3"], box: Bounds
) -> Float[Tensor, "points channels"]:
    """Trilinear values at points in metres; zero outside the box, constant within its outer half voxel.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
    """
    require("values", values, ("x", "y", "z", "channels"), values.device, *field_dtypes(values.device))
    require("points", points, ("points", 3), values.device, torch.float32)
    check_bounds(box)
    return _Interpolation.apply(values, points, _Grid(box))


def interpolate_pool(
    values: Float[Tensor, "bricks 8 8 8 channels"], places: PoolMap, points: Float[Tensor, "points 3"], box: Bounds
) -> Float[Tensor, "points channels"]:
    """``interpolate`` on a grid of which a pool holds the bricks; the others are zero.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
    """
    require_pool("values", values, places, "channels")
    require("points", points, ("points", 3), values.device, torch.float32)
    check_bounds(box)
    return _Interpolation.apply(values, points, _Grid(box, places))


class _Grid(NamedTuple):
    """Where values lie: in a dense grid, or in a pool of its bricks."""

    box: Bounds
    places: PoolMap | None = None

    @property
    def kernels(self) -> ModuleType:
        """The kernels for this layout."""
        if self.places is None:
            from nfldm3d.ops import point_kernels
        else:
            from nfldm3d.ops import pool_point_kernels as point_kernels
        return point_kernels

    def lay_out(self, values: Tensor) -> list:
        """The values as these kernels take them."""
        if self.places is None:
            return [values]
        rows = values.numel() // values.shape[-1]
        return [values.view(rows, values.shape[-1]), self.places.numbers.contiguous(), self.places.resolution]


class _Interpolation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, points: Tensor, grid: _Grid) -> Tensor:
        values, points = values.contiguous(), points.contiguous()
        result = points.new_zeros(len(points), values.shape[-1])
        inputs = [*grid.lay_out(values), points, *grid.box, result]
        launch(grid.kernels.interpolate_forward, len(points), inputs, points.device)
        ctx.save_for_backward(values, points)
        ctx.grid = grid
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        values, points = ctx.saved_tensors
        grad, grid, device = grads[0].contiguous(), ctx.grid, points.device
        grad_values = grad_points = None
        if ctx.needs_input_grad[0]:
            grad_values = zeros(*values.shape, device=device)
            inputs = [points, *grid.box, grad, *grid.lay_out(grad_values)]
            launch_scatter(grid.kernels.interpolate_scatter, len(points), inputs, device)
            grad_values = grad_values.to(values.dtype)
        if ctx.needs_input_grad[1]:
            grad_points, products = torch.zeros_like(points), points.new_zeros(len(points), 8)
            inputs = [*grid.lay_out(values), points, *grid.box, grad, products, grad_points]
            launch(grid.kernels.interpolate_slopes, len(points), inputs, device)
        return grad_values, grad_points, None
