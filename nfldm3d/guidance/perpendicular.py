"""Perp-Neg (Armandpour et al. 2023): guidance away from several texts that leaves the wanted direction alone.

With d = e(y) - e(y') and d_i = e(y_i) - e(y'), e_hat = e(y') + s (d + sum_i w_i (d_i - d (d · d_i) / |d|²)), w_i <= 0;
the rest is as in ``distillation``.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nfldm3d.guidance.distillation import Distillation
from nfldm3d.guidance.prior import LEAST_NOISE, Prior, add_noise, share_at


class OtherSides(NamedTuple):
    """What a view must not look like."""

    conditions: Float[Tensor, "views others tokens numbers"]
    """The y_i."""
    weights: Float[Tensor, "views others"]
    """The w_i."""


Told = tuple[Float[Tensor, "views tokens numbers"], Float[Tensor, "views tokens numbers"]]
"""y and y', a condition for each view."""


def distill_away(
    prior: Prior,
    images: Float[Tensor, "views 3 height width"],
    told: Told,
    others: OtherSides,
    *,
    share: float = 0.0,
    options: Distillation | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """``distillation.distill`` by Perp-Neg's noise; the options' ``rescale`` is not looked at."""
    options = options or Distillation()
    latents = prior.to_latents(images)
    with torch.no_grad():
        t = options.draw_steps(prior.alphas_cumprod, len(latents), share, generator)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        guided = guide_away(prior, add_noise(prior, latents, noise, t), t, told, others, options.guidance_scale)
        target = latents - options.weight(share_at(prior.alphas_cumprod, t, latents)) * (guided - noise)
    return 0.5 * (latents - target).square().sum() / len(latents)


@torch.no_grad()
def guide_away(
    prior: Prior,
    noisy: Float[Tensor, "views channels rows columns"],
    t: Int64[Tensor, " views"],
    told: Told,
    others: OtherSides,
    guidance_scale: float,
) -> Float[Tensor, "views channels rows columns"]:
    """e_hat; all conditions are asked at once."""
    conditions = [*told, *others.conditions.unbind(1)]
    count = len(conditions)
    answers = prior.predict_noise(noisy.repeat(count, 1, 1, 1), t.repeat(count), torch.cat(conditions))
    wanted, nothing, *rest = answers.split(len(noisy))
    ahead = wanted - nothing
    total = ahead
    for answer, weight in zip(rest, others.weights.unbind(1), strict=True):
        total = total + weight[:, None, None, None].to(ahead) * perpendicular(answer - nothing, ahead)
    return nothing + guidance_scale * total


def perpendicular(
    vectors: Float[Tensor, "views channels rows columns"], along: Float[Tensor, "views channels rows columns"]
) -> Float[Tensor, "views channels rows columns"]:
    """What is left of each view's vector without its part along another."""
    dims = (1, 2, 3)
    length = along.square().sum(dims, keepdim=True).clamp(min=LEAST_NOISE)
    return vectors - (vectors * along).sum(dims, keepdim=True) / length * along
