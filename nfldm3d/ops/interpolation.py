"""Trilinear values of a grid at arbitrary points, with gradients to both."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from nfldm3d.ops.allocation import zeros
from nfldm3d.ops.checks import field_dtypes, require
from nfldm3d.ops.launch import launch, launch_scatter
from nfldm3d.ops.records import Bounds, check_bounds


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
    return _Interpolation.apply(values, points, box)


class _Interpolation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, points: Tensor, box: Bounds) -> Tensor:
        from nfldm3d.ops import point_kernels as kernels

        values, points = values.contiguous(), points.contiguous()
        result = points.new_zeros(len(points), values.shape[-1])
        launch(kernels.interpolate_forward, len(points), [values, points, *box, result], points.device)
        ctx.save_for_backward(values, points)
        ctx.box = box
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        from nfldm3d.ops import point_kernels as kernels

        values, points = ctx.saved_tensors
        grad, box, device = grads[0].contiguous(), ctx.box, points.device
        grad_values = grad_points = None
        if ctx.needs_input_grad[0]:
            grad_values = zeros(*values.shape, device=device)
            launch_scatter(kernels.interpolate_scatter, len(points), [points, *box, grad, grad_values], device)
            grad_values = grad_values.to(values.dtype)
        if ctx.needs_input_grad[1]:
            grad_points, products = torch.zeros_like(points), points.new_zeros(len(points), 8)
            launch(kernels.interpolate_slopes, len(points), [values, points, *box, grad, products, grad_points], device)
        return grad_values, grad_points, None
