"""From samples of density and features, packed ray by ray, to what the rays see; differentiable by both.

It is what ``integrate_rays`` computes inside its march, for fields that can only be asked at points.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from nfldm3d.ops.records import RayIntegral
from nfldm3d.ops.segments import running_sum


def composite_samples(
    density: Float[Tensor, " samples"],
    features: Float[Tensor, "samples channels"],
    distances: Float[Tensor, " samples"],
    counts: Int64[Tensor, " rays"],
    step: float,
) -> RayIntegral:
    """Emission and absorption of samples that each stand for ``step`` metres of their ray, front to back.

    Densities below zero count as zero.

    Args:
        distances: of the samples along their rays.
        counts: how many samples each ray has; they follow one another.
    """
    dtype = torch.promote_types(density.dtype, torch.float32)
    density, features, distances = (values.to(dtype) for values in (density, features, distances))
    starts, rays = counts.cumsum(0) - counts, torch.repeat_interleave(counts)
    depth = density.relu() * step
    weights = torch.exp(-_RunningSum.apply(depth, starts, counts)) * -torch.expm1(-depth)

    def add_up(values: Float[Tensor, "samples ..."]) -> Float[Tensor, "rays ..."]:
        return values.new_zeros(len(counts), *values.shape[1:]).index_add(0, rays, values)

    moments = weights * (offsets := distances - distances[starts[rays]])  # small numbers, so that little cancels
    before, moment_before = (_RunningSum.apply(values, starts, counts) for values in (weights, moments))
    spread = 2 * weights * (offsets * before - moment_before) + weights.square() * (step / 3)
    return RayIntegral(
        add_up(weights[:, None] * features), add_up(weights), add_up(weights * distances), add_up(spread)
    )


@torch.no_grad()
def find_visible(
    density: Float[Tensor, " samples"], counts: Int64[Tensor, " rays"], step: float, early_stop: float
) -> Bool[Tensor, " samples"]:
    """Which samples absorb anything and lie before the transmittance falls below ``early_stop``."""
    depth = density.to(torch.promote_types(density.dtype, torch.float32)).relu() * step
    before = running_sum(depth, counts.cumsum(0) - counts, counts, exclusive=True)
    return (depth > 0) & (torch.exp(-before) >= early_stop)


class _RunningSum(torch.autograd.Function):
    """The sum of what comes before each element of its segment."""

    @staticmethod
    def forward(ctx, values: Tensor, starts: Tensor, counts: Tensor) -> Tensor:
        ctx.save_for_backward(starts, counts)
        return running_sum(values, starts, counts, exclusive=True)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return running_sum(grads[0].contiguous(), *ctx.saved_tensors, exclusive=True, reverse=True), None, None
