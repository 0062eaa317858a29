"""Score distillation (Poole et al. 2022): the gradient by which a diffusion model pulls pictures towards its own.

With latents z of a picture that is drawn from parameters, noise e, and noisy latents z_t of step t,

    gradient by z = w(t) (e_hat(z_t, t) - e),      e_hat = e_hat(y') + s (e_hat(y) - e_hat(y')).

-e_hat / sigma is the score of noisy pictures, and the gradient that of the Kullback-Leibler divergence between them and
the model's, weighted over t (the paper's appendix A.4). The network's own derivative is left out. y says what pictures
should be like; y' is nothing, for guidance without a classifier (Ho & Salimans 2022), or an embedding of what they must
not be like: negative guidance (NF-LDM, section 7). At s = 1 y' does not count; DreamFusion's w is s - 1.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nfldm3d.guidance.prior import LEAST_NOISE, Prior, add_noise, remove_noise, share_at

Conditions: TypeAlias = tuple[Float[Tensor, "views _ numbers"], Float[Tensor, "views _ numbers"] | None]
"""y and y', a condition for each view."""


@dataclass(frozen=True)
class Distillation:
    """How a prior pulls."""

    guidance_scale: float = 7.5
    """s above: how far away from y'."""
    rescale: float = 0.0
    """0 to 1: how much of the guided picture's contrast is that of the one without y' (Lin et al. 2023)."""
    weighting: Literal["variance", "uniform", "clean"] = "variance"
    """w(t): the variance of the noise as in DreamFusion, 1, or what makes the gradient z minus the denoised latents."""
    first_steps: tuple[float, float] = (0.02, 0.98)
    """Shares of all time steps, least and most, at the beginning."""
    last_steps: tuple[float, float] = (0.02, 0.98)
    """The same at the end: smaller ones leave shapes alone and sharpen."""

    def __post_init__(self):
        for name, (low, high) in (("first_steps", self.first_steps), ("last_steps", self.last_steps)):
            if not 0 <= low <= high <= 1:
                raise ValueError(f"{name} are shares of all time steps, 0 to 1, least first, got {(low, high)}")
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"rescale lies between 0 and 1, got {self.rescale}")

    def draw_steps(
        self, alphas_cumprod: Float[Tensor, " steps"], views: int, share: float, generator: torch.Generator | None
    ) -> Int64[Tensor, " views"]:
        """Time steps for each view when ``share`` (0 to 1) of a run is over."""
        ends = zip(self.first_steps, self.last_steps, strict=True)
        low, high = ((1 - share) * first + share * last for first, last in ends)
        chosen = low + (high - low) * torch.rand(views, generator=generator)
        last = len(alphas_cumprod) - 1
        return (chosen * last).round().long().to(alphas_cumprod.device)

    def weight(self, signal: Float[Tensor, "views 1 1 1"]) -> Float[Tensor, "views 1 1 1"]:
        """w(t) where ``signal`` is the share of signal at t."""
        if self.weighting == "uniform":
            return torch.ones_like(signal)
        return 1 - signal if self.weighting == "variance" else ((1 - signal) / signal.clamp(min=LEAST_NOISE)).sqrt()


def distill(
    prior: Prior,
    images: Float[Tensor, "views 3 height width"],
    condition: Float[Tensor, "views tokens numbers"],
    avoided: Float[Tensor, "views _ numbers"] | None = None,
    *,
    share: float = 0.0,
    options: Distillation | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """A loss whose gradient by the latents of pictures is that of score distillation, over the number of views.

    Its value, half the squared length of the gradient, is summed over latents, not averaged: weights of other losses
    are relative to that. It is NaN if the prior's answer is, which ``fitting.optimise`` stops at.

    Args:
        condition: y, of ``prior.embed``.
        avoided: y'; None says nothing.
        share: how much of the run is over, 0 to 1, by which time steps fall.
    """
    options = options or Distillation()
    latents = prior.to_latents(images)
    with torch.no_grad():
        t = options.draw_steps(prior.alphas_cumprod, len(latents), share, generator)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        gradient = distillation_gradient(prior, latents, noise, t, (condition, avoided), options)
        target = latents - gradient
    return 0.5 * (latents - target).square().sum() / len(latents)


@torch.no_grad()
def distillation_gradient(
    prior: Prior,
    latents: Float[Tensor, "views channels rows columns"],
    noise: Float[Tensor, "views channels rows columns"],
    t: Int64[Tensor, " views"],
    conditions: Conditions,
    options: Distillation | None = None,
) -> Float[Tensor, "views channels rows columns"]:
    """w(t) (e_hat - e) of each view; ``conditions`` are y and y'."""
    options = options or Distillation()
    noisy = add_noise(prior, latents, noise, t)
    guided = guide_noise(prior, noisy, t, conditions, options)
    return options.weight(share_at(prior.alphas_cumprod, t, latents)) * (guided - noise)


@torch.no_grad()
def guide_noise(
    prior: Prior,
    noisy: Float[Tensor, "views channels rows columns"],
    t: Int64[Tensor, " views"],
    conditions: Conditions,
    options: Distillation | None = None,
) -> Float[Tensor, "views channels rows columns"]:
    """e_hat: the noise seen with y, moved away from that seen with y'; both are asked at once."""
    options = options or Distillation()
    wanted, avoided = conditions
    if options.guidance_scale == 1:
        return prior.predict_noise(noisy, t, wanted)
    avoided = prior.embed_nothing(len(noisy)).to(wanted) if avoided is None else avoided
    if avoided.shape != wanted.shape:
        raise ValueError(
            f"conditions to follow and to avoid have shapes {tuple(wanted.shape)} and {tuple(avoided.shape)}; embed "
            "one of each for every view"
        )
    both = prior.predict_noise(noisy.repeat(2, 1, 1, 1), t.repeat(2), torch.cat((wanted, avoided)))
    plain, other = both.chunk(2)
    guided = other + options.guidance_scale * (plain - other)
    if not options.rescale:
        return guided
    clean, bright = (remove_noise(prior, noisy, each, t) for each in (plain, guided))
    ratio = _contrast(clean) / _contrast(bright).clamp(min=LEAST_NOISE)
    calm = bright * (options.rescale * ratio + 1 - options.rescale)
    signal = share_at(prior.alphas_cumprod, t, noisy)
    return (noisy - signal.sqrt() * calm) / (1 - signal).clamp(min=LEAST_NOISE).sqrt()


def _contrast(latents: Float[Tensor, "views channels rows columns"]) -> Float[Tensor, "views 1 1 1"]:
    return latents.flatten(1).std(1)[:, None, None, None]
