"""Rays through occupied voxels: validation, launches and gradients around the march kernels."""

from types import ModuleType
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from nfldm3d.ops.allocation import zeros
from nfldm3d.ops.checks import field_dtypes, require, require_pool, require_rays
from nfldm3d.ops.launch import launch, launch_scatter
from nfldm3d.ops.occupancy import build_occupancy, build_pool_occupancy
from nfldm3d.ops.records import (
    BRICK,
    TILE,
    FieldGradient,
    March,
    Occupancy,
    PoolMap,
    PoolOccupancy,
    RayIntegral,
)

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
    rays = _lay_out(origins, directions, near_far)
    return _integrate(density, features, _Walk(rays, march, occupancy, gradient))


def integrate_rays_in_pool(
    density: Float[Tensor, "bricks 8 8 8"],
    features: Float[Tensor, "bricks 8 8 8 channels"],
    places: PoolMap,
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    near_far: Float[Tensor, "rays 2"] | None,
    march: March,
    *,
    occupancy: PoolOccupancy | None = None,
    gradient: FieldGradient | None = None,
) -> RayIntegral:
    """``integrate_rays`` through a grid of which a pool holds the bricks; the others are empty.

    The gradient is that of the pool, so it takes no more memory than the pool itself.

    Args:
        places: where the bricks lie in the grid.
        near_far, march, gradient: as for ``integrate_rays``; the buffers have the pool's shapes.
        occupancy: from ``build_pool_occupancy``; None builds it.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together, or rays require a gradient.
    """
    _check_pool(density, features, places, occupancy, gradient)
    require_rays(origins, directions, near_far, density.device)
    occupancy = build_pool_occupancy(density, places) if occupancy is None else occupancy
    rays = _lay_out(origins, directions, near_far)
    return _integrate(density, features, _Walk(rays, march, occupancy, gradient, places))


def _lay_out(origins: Tensor, directions: Tensor, near_far: Tensor | None) -> tuple[Tensor, ...]:
    near_far = origins.new_zeros(0, 2) if near_far is None else near_far
    return tuple(tensor.contiguous() for tensor in (origins, directions, near_far))


def _integrate(density: Tensor, features: Tensor, walk: "_Walk") -> RayIntegral:
    # The buffers' gradient needs a graph even if the field itself asks for none.
    root = torch.zeros((), requires_grad=True) if walk.gradient is not None else None
    return RayIntegral(*_Integral.apply(density, features, root, walk))


class _Integral(torch.autograd.Function):
    @staticmethod
    def forward(ctx, density, features, root, walk):
        density, features = density.contiguous(), features.contiguous()
        count, device = len(walk.rays[0]), density.device
        total = torch.zeros(count, features.shape[-1], device=device)
        opacity, distance, distortion = (total.new_zeros(count) for _ in range(3))
        visits = torch.zeros(count, dtype=torch.int32, device=device)
        results = (total, opacity, distance, distortion)
        inputs = [*walk.lay_out(density, features), *walk.inputs, *results, visits]
        launch(walk.kernels.march_forward, count, inputs, device, grain=64)
        ctx.save_for_backward(density, features, *results, visits)
        ctx.walk = walk
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):  # pyright: ignore[reportIncompatibleMethodOverride]
        density, features, total, opacity, distance, distortion, visits = ctx.saved_tensors
        walk, device = ctx.walk, density.device
        target = walk.gradient or FieldGradient(*(zeros(*t.shape, device=device) for t in (density, features)))
        grad_features, grad_sums = grads[0].contiguous(), torch.stack(grads[1:], dim=-1)
        value = (grad_features * total).sum(-1)  # sum of w dL/dw; the distortion is quadratic in w, hence its 2
        value += grads[1] * opacity + grads[2] * distance + 2 * grads[3] * distortion

        ends = torch.nn.functional.pad(visits.cumsum(0, dtype=torch.int64), (1, 0))
        inputs = [
            *walk.lay_out(density, features),
            *walk.inputs,
            opacity,
            distance,
            value,
            grad_features,
            grad_sums,
            ends,
        ]
        blocks, capacity = _blocks(ends.cpu(), SCRATCH_BYTES[device.type] // VISIT_BYTES)
        visited = torch.zeros(capacity, 4, dtype=torch.int32, device=device)
        records = [visited, total.new_zeros(capacity, 8), total.new_zeros(capacity, 8)]
        sums = [grad_features, *walk.lay_out_sums(target)]
        for first, end, used in blocks:
            launch(walk.kernels.march_backward, end - first, [first, *inputs, *records], device, grain=64)
            launch_scatter(walk.kernels.march_scatter, used, [*records, *sums], device)
        if walk.gradient is not None:
            return (None,) * 4
        return target.density.to(density.dtype), target.features.to(features.dtype), None, None


class _Walk(NamedTuple):
    """Everything but the field that forward and backward pass must have in common."""

    rays: tuple[Tensor, ...]
    march: March
    occupancy: Occupancy | PoolOccupancy
    gradient: FieldGradient | None
    places: PoolMap | None = None
    """Where the bricks of a pool lie; None for a dense grid."""

    @property
    def kernels(self) -> ModuleType:
        """The march kernels for the layout of the field."""
        if self.places is None:
            from nfldm3d.ops import march_kernels
        else:
            from nfldm3d.ops import pool_kernels as march_kernels
        return march_kernels

    def lay_out(self, density: Tensor, features: Tensor) -> list:
        """A field as the kernels take it, and where its voxels lie."""
        if self.places is None:
            return [density, features, density.new_zeros(0, 0, 0, dtype=torch.int32), tuple(density.shape)]
        rows = density.numel()
        where = self.places.numbers.contiguous(), self.places.resolution
        return [density.view(rows), features.view(rows, features.shape[-1]), *where]

    def lay_out_sums(self, gradient: FieldGradient) -> list:
        """Its gradient as the scattering kernel takes it."""
        if self.places is None:
            return [gradient.density.view(-1), gradient.features]
        return self.lay_out(gradient.density, gradient.features)

    @property
    def inputs(self) -> list:
        """The other arguments of the kernels, in their order."""
        found = self.occupancy
        if isinstance(found, PoolOccupancy):
            marks = found.marks.view(len(found.marks), BRICK**3)
            cells = [found.numbers.contiguous(), marks.contiguous()]
        else:
            cells = [found.cells.new_zeros(0, 0, 0, dtype=torch.int32), found.cells.contiguous()]
        leaps = found.leaps.contiguous()
        return [*cells, leaps, *self.rays, *self.march.box, self.march.step, self.march.early_stop]


def _blocks(ends: Tensor, capacity: int) -> tuple[list[tuple[int, int, int]], int]:
    """Blocks of rays whose visits fit into the scratch buffer as (first ray, end ray, visits), and the largest of them.

    ``ends`` counts the visits of all rays before each ray. A ray with more visits than the buffer holds is a block.
    """
    blocks, first, rays = [], 0, len(ends) - 1
    while first < rays and ends[first] < ends[-1]:
        end = max(int(torch.searchsorted(ends, ends[first] + capacity, right=True)) - 1, first + 1)
        blocks.append((first, end, int(ends[end] - ends[first])))
        first = end
    return blocks, max((used for *_, used in blocks), default=0)


def _check(density, features, occupancy: Occupancy | None, gradient: FieldGradient | None) -> None:
    device = density.device
    require("density", density, ("x", "y", "z"), device, *field_dtypes(device))
    grid = tuple(density.shape)
    require("features", features, (*grid, "channels"), device, density.dtype)
    if occupancy is not None:
        require("occupancy.cells", occupancy.cells, grid, device, torch.uint8)
        require("occupancy.leaps", occupancy.leaps, tuple(-(-size // TILE) for size in grid), device, torch.uint8)
    _check_buffers(gradient, density, features)


def _check_pool(density, features, places: PoolMap, occupancy, gradient: FieldGradient | None) -> None:
    device = density.device
    require_pool("density", density, places)
    require("features", features, (*density.shape, "channels"), device, density.dtype)
    if occupancy is not None:
        tiles = tuple(-(-size // TILE) for size in places.resolution)
        require("occupancy.numbers", occupancy.numbers, tuple(places.numbers.shape), device, torch.int32)
        require("occupancy.marks", occupancy.marks, ("occupied", BRICK, BRICK, BRICK), device, torch.uint8)
        require("occupancy.leaps", occupancy.leaps, tiles, device, torch.uint8)
    _check_buffers(gradient, density, features)


def _check_buffers(gradient: FieldGradient | None, density: Tensor, features: Tensor) -> None:
    if gradient is None:
        return
    for name, buffer, like in (("density", gradient.density, density), ("features", gradient.features, features)):
        require(f"gradient.{name}", buffer, tuple(like.shape), density.device, torch.float32)
        if not buffer.is_contiguous():
            raise ValueError(f"gradient.{name} must be contiguous, because it is added to in place")
