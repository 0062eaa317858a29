"""Rays through occupied voxels: validation, launches and gradients around the march kernels."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from nfldm3d.ops.checks import field_dtypes, require, require_rays
from nfldm3d.ops.launch import launch, launch_scatter
from nfldm3d.ops.occupancy import build_occupancy
from nfldm3d.ops.records import BRICK, FieldGradient, March, Occupancy, RayIntegral

SCRATCH_BYTES = {"cpu": 6 << 20, "cuda": 32 << 20}
"""Size of the buffer through which the backward pass streams its records of visited cells."""
VISIT_BYTES = 80


def integrate_rays(
    density: Float[Tensor, "x y z"],
    features: Float[Tensor, "x y z channels"],
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    near_far: Float[Tensor, "rays 2"] | None,
    march: March,
    *,
    occupancy: Occupancy | None = None,
    gradient: FieldGradient | None = None,
) -> RayIntegral:
    """Emission and absorption along rays through a voxel grid, integrated by the midpoint rule.

    Densities below zero count as zero. Differentiable with respect to ``density`` and ``features``, where it costs
    another walk along the rays but no memory per sample. The result does not depend on the number of threads.

    Args:
        near_far: range of distances along each ray; None goes from max(0, entry of the box) to its exit. Samples
            outside the box contribute nothing.
        occupancy: from ``build_occupancy``; None builds it.
        gradient: buffers that the backward pass adds into; the field's tensors then receive no gradient of their own.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together, or rays require a gradient.
    """
    _check(density, features, occupancy, gradient)
    require_rays(origins, directions, near_far, density.device)
    occupancy = build_occupancy(density) if occupancy is None else occupancy
    near_far = origins.new_zeros(0, 2) if near_far is None else near_far
    rays = tuple(tensor.contiguous() for tensor in (origins, directions, near_far))
    # The buffers' gradient needs a graph even if the field itself asks for none.
    root = torch.zeros((), requires_grad=True) if gradient is not None else None
    results = _Integral.apply(density, features, root, rays, march, occupancy, gradient)
    return RayIntegral(*results)


class _Integral(torch.autograd.Function):
    @staticmethod
    def forward(ctx, density, features, root, rays, march, occupancy, gradient):
        from nfldm3d.ops import march_kernels as kernels

        density, features = density.contiguous(), features.contiguous()
        count = len(rays[0])
        total = features.new_zeros(count, features.shape[-1], dtype=torch.float32)
        opacity, distance, distortion = (total.new_zeros(count) for _ in range(3))
        visits = torch.zeros(count, dtype=torch.int32, device=total.device)
        inputs = [*_walk(density, features, rays, march, occupancy), total, opacity, distance, distortion, visits]
        launch(kernels.march_forward, count, inputs, density.device, grain=64)
        ctx.save_for_backward(density, features, total, opacity, distance, distortion, visits)
        ctx.rays, ctx.march, ctx.occupancy, ctx.gradient = rays, march, occupancy, gradient
        return total, opacity, distance, distortion

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):  # pyright: ignore[reportIncompatibleMethodOverride]
        from nfldm3d.ops import march_kernels as kernels

        density, features, total, opacity, distance, distortion, visits = ctx.saved_tensors
        target = ctx.gradient
        if target is None:
            target = FieldGradient(*(torch.zeros_like(part, dtype=torch.float32) for part in (density, features)))
        grad_features = grads[0].contiguous()
        grad_sums = torch.stack(grads[1:], dim=-1)  # rays 3
        value = torch.linalg.vecdot(grad_features, total)
        value = value + grads[1] * opacity + grads[2] * distance + 2 * grads[3] * distortion
        slots = torch.nn.functional.pad(visits.cumsum(0, dtype=torch.int64), (1, 0))

        inputs = _walk(density, features, ctx.rays, ctx.march, ctx.occupancy)
        inputs += [opacity, distance, value, grad_features, grad_sums, slots]
        capacity = max(SCRATCH_BYTES[density.device.type] // VISIT_BYTES, int(visits.amax()) if len(visits) else 0)
        capacity = min(capacity, int(slots[-1]))
        visited = torch.zeros(capacity, 4, dtype=torch.int32, device=density.device)
        shares = [total.new_zeros(capacity, 8) for _ in range(2)]
        sums = [grad_features, target.density.view(-1), target.features]
        for first, end, used in _blocks(slots, capacity):
            launch(kernels.march_backward, end - first, [first, *inputs, visited, *shares], density.device, grain=64)
            launch_scatter(kernels.march_scatter, used, [visited, *shares, *sums], density.device)
        if ctx.gradient is not None:
            return None, None, None, None, None, None, None
        return target.density.to(density.dtype), target.features.to(features.dtype), None, None, None, None, None


def _blocks(slots: Tensor, capacity: int):
    """Consecutive blocks of rays whose visits fit into the scratch buffer: (first ray, end ray, visits)."""
    ends, first = slots.cpu(), 0
    while first < len(ends) - 1 and ends[first] < ends[-1]:
        end = int(torch.searchsorted(ends, ends[first] + capacity, right=True)) - 1
        yield first, end, int(ends[end] - ends[first])
        first = end


def _walk(density, features, rays, march: March, occupancy: Occupancy) -> list:
    """The kernel arguments that forward and backward have in common."""
    where = (occupancy.cells.contiguous(), occupancy.leaps.contiguous())
    return [density, features, *where, *rays, *march.box, march.step, march.early_stop]


def _check(density, features, occupancy: Occupancy | None, gradient: FieldGradient | None) -> None:
    device = density.device
    require("density", density, ("x", "y", "z"), device, *field_dtypes(device))
    grid = tuple(density.shape)
    require("features", features, (*grid, "channels"), device, density.dtype)
    if occupancy is not None:
        require("occupancy.cells", occupancy.cells, grid, device, torch.uint8)
        require("occupancy.leaps", occupancy.leaps, tuple(-(-size // BRICK) for size in grid), device, torch.uint8)
    if gradient is not None:
        for name, buffer, shape in (
            ("density", gradient.density, grid),
            ("features", gradient.features, features.shape),
        ):
            require(f"gradient.{name}", buffer, tuple(shape), device, torch.float32)
            if not buffer.is_contiguous():
                raise ValueError(f"gradient.{name} must be contiguous, because it is added to in place")
