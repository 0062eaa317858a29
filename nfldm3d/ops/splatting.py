"""Lifts image features into voxels along the rays of their pixels."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int32
from torch import Tensor
from torch.autograd.function import once_differentiable

from nfldm3d.ops.allocation import zeros
from nfldm3d.ops.checks import require, require_map, require_rays
from nfldm3d.ops.launch import launch, launch_scatter
from nfldm3d.ops.records import BRICK, Bounds, PoolMap, Splat, check_bounds


def splat_frustums(
    features: Float[Tensor, "rays channels"],
    weights: Float[Tensor, "rays depths"],
    distances: Float[Tensor, "rays depths"],
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    box: Bounds,
    resolution: tuple[int, int, int],
    *,
    values: Float[Tensor, "rays depths values"] | None = None,
) -> Splat:
    """Adds weight * feature of each ray to the voxels that contain its points at ``distances``.

    Entries outside the box are dropped. Differentiable with respect to ``features``, ``weights`` and ``values``; no
    tensor of entries x channels is ever made. The sums divided by the sums of weights are the weighted mean.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together, or rays or distances require a gradient.
    """
    _check(features, weights, distances, origins, directions, box, resolution, values)
    rays = (distances.contiguous(), origins.contiguous(), directions.contiguous())
    return _splat(features, weights, values, rays, _Target(box, resolution))


def splat_frustums_into_pool(
    features: Float[Tensor, "rays channels"],
    weights: Float[Tensor, "rays depths"],
    distances: Float[Tensor, "rays depths"],
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    box: Bounds,
    places: PoolMap,
    *,
    values: Float[Tensor, "rays depths values"] | None = None,
) -> Splat:
    """``splat_frustums`` into the bricks that a pool holds; entries that fall into others are dropped.

    The sums have the pool's shape, ``(bricks, 8, 8, 8)``, for all bricks that ``places`` numbers.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together, or rays or distances require a gradient.
    """
    _check(features, weights, distances, origins, directions, box, places.resolution, values)
    require_map(places, features.device)
    rays = (distances.contiguous(), origins.contiguous(), directions.contiguous())
    return _splat(features, weights, values, rays, _Target(box, places.resolution, places))


def _check(features, weights, distances, origins, directions, box, resolution, values) -> None:
    device, entries = features.device, (len(origins), "depths")
    require_rays(origins, directions, None, device)
    require("features", features, (len(origins), "channels"), device, torch.float32)
    require("distances", distances, entries, device, torch.float32)
    require("weights", weights, tuple(distances.shape), device, torch.float32)
    if distances.requires_grad:
        raise ValueError("distances requires a gradient, but splatting has none for positions: detach() it")
    if values is not None:
        require("values", values, (*distances.shape, "values"), device, torch.float32)
    check_bounds(box)
    if min(resolution) < 1 or resolution[0] * resolution[1] * resolution[2] >= 2**31:
        raise ValueError(f"a splat needs a resolution of 1 to 2^31 - 1 voxels, got {resolution}")


class _Target(NamedTuple):
    """Where entries fall: into a dense grid, or into the pool of its bricks."""

    box: Bounds
    resolution: tuple[int, int, int]
    places: PoolMap | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the sums."""
        if self.places is None:
            return self.resolution
        return (self.places.count, BRICK, BRICK, BRICK)

    def locate(self, rays: tuple[Tensor, ...], voxels: Int32[Tensor, "rays depths"]) -> None:
        """Writes where each entry falls as a row of the sums, -1 outside."""
        from nfldm3d.ops.entry_kernels import locate_entries

        launch(locate_entries, len(voxels), [*rays, *self.box, self.resolution, voxels], voxels.device)
        if self.places is not None:
            from nfldm3d.ops.pool_point_kernels import find_rows

            inputs = [self.places.numbers.contiguous(), self.resolution, voxels.view(voxels.numel())]
            launch(find_rows, voxels.numel(), inputs, voxels.device, grain=4096)


def _splat(
    features: Tensor, weights: Tensor, values: Tensor | None, rays: tuple[Tensor, ...], target: _Target
) -> Splat:
    listed = weights.new_zeros(*weights.shape, 0) if values is None else values
    sums, weight_sums, counts, value_sums = _Splatting.apply(features, weights, listed, rays, target)
    return Splat(sums, weight_sums, counts, None if values is None else value_sums)


class _Splatting(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, weights, values, rays, target):
        from nfldm3d.ops import point_kernels as kernels

        features, weights, values = features.contiguous(), weights.contiguous(), values.contiguous()
        device = features.device
        voxels = torch.zeros_like(weights, dtype=torch.int32)
        target.locate(rays, voxels)
        shape = target.shape
        weight_sums, counts = features.new_zeros(shape), voxels.new_zeros(shape)
        sums, value_sums = (zeros(*shape, entries.shape[-1], device=device) for entries in (features, values))
        inputs = [voxels, features, weights, values.view(weights.numel(), values.shape[-1])]
        rows = [_as_grid(entries) for entries in (sums, value_sums)]
        outputs = [rows[0], weight_sums.view(-1), counts.view(-1), rows[1]]
        launch_scatter(kernels.splat_scatter, len(voxels), inputs + outputs, device)
        ctx.mark_non_differentiable(counts)
        ctx.save_for_backward(features, weights, voxels)
        return sums, weight_sums, counts, value_sums

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):  # pyright: ignore[reportIncompatibleMethodOverride]
        from nfldm3d.ops import point_kernels as kernels

        features, weights, voxels = ctx.saved_tensors
        grad_sums, grad_weight_sums, _, grad_value_sums = (grad.contiguous() for grad in grads)
        channels = grad_value_sums.shape[-1]
        grad_weight_sums = _as_grid(grad_weight_sums[..., None])[..., 0]
        grad_features, grad_weights = torch.zeros_like(features), torch.zeros_like(weights)
        grad_values = weights.new_zeros(*weights.shape, channels)
        inputs = [
            voxels,
            features,
            weights,
            _as_grid(grad_sums),
            grad_weight_sums,
            grad_value_sums.view(grad_weight_sums.numel(), channels),
        ]
        outputs = [grad_features, grad_weights, grad_values]
        launch(kernels.splat_gather, len(voxels), inputs + outputs, features.device)
        return grad_features, grad_weights, grad_values, None, None


def _as_grid(sums: Float[Tensor, "*voxels channels"]) -> Float[Tensor, "x y z channels"]:
    """A pool as the kernels take it, which go by rows."""
    return sums if sums.dim() == 4 else sums.flatten(0, 1)
