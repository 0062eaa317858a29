"""Lifts image features into voxels along the rays of their pixels."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from nfldm3d.ops.allocation import zeros
from nfldm3d.ops.checks import require, require_rays
from nfldm3d.ops.launch import launch, launch_scatter
from nfldm3d.ops.records import Bounds, Splat, check_bounds


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

    listed = distances.new_zeros(*distances.shape, 0) if values is None else values
    rays = (distances.contiguous(), origins.contiguous(), directions.contiguous())
    sums, weight_sums, counts, value_sums = _Splatting.apply(features, weights, listed, rays, box, resolution)
    return Splat(sums, weight_sums, counts, None if values is None else value_sums)


class _Splatting(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, weights, values, rays, box, resolution):
        from nfldm3d.ops import point_kernels as kernels
        from nfldm3d.ops.entry_kernels import locate_entries

        features, weights, values = features.contiguous(), weights.contiguous(), values.contiguous()
        device = features.device
        voxels = torch.zeros_like(weights, dtype=torch.int32)
        launch(locate_entries, len(voxels), [*rays, *box, resolution, voxels], device)
        weight_sums, counts = features.new_zeros(resolution), voxels.new_zeros(resolution)
        sums, value_sums = (zeros(*resolution, entries.shape[-1], device=device) for entries in (features, values))
        inputs = [voxels, features, weights, values.view(weights.numel(), values.shape[-1])]
        outputs = [sums, weight_sums.view(-1), counts.view(-1), value_sums]
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
        grad_features, grad_weights = torch.zeros_like(features), torch.zeros_like(weights)
        grad_values = weights.new_zeros(*weights.shape, channels)
        inputs = [
            voxels,
            features,
            weights,
            grad_sums,
            grad_weight_sums,
            grad_value_sums.view(grad_weight_sums.numel(), channels),
        ]
        outputs = [grad_features, grad_weights, grad_values]
        launch(kernels.splat_gather, len(voxels), inputs + outputs, features.device)
        return grad_features, grad_weights, grad_values, None, None, None
