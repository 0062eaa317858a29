"""The contract of a 2-D diffusion model: what distillation, refinement, stylisation and dreaming ask of a prior.

Symbols, as in diffusers: alphas_cumprod[t] is the share of signal, so that noisy = sqrt(alphas_cumprod[t]) * latents +
sqrt(1 - alphas_cumprod[t]) * noise, from nearly clean at t = 0 to nearly noise at the last step.
"""

from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Described: TypeAlias = Tensor | Sequence[str]
"""What a condition is made from: sRGB pictures (views 3 height width) in [0, 1], or texts."""
LEAST_NOISE = 1e-8
"""Share below which what a picture lacks cannot be told from its noise."""


@runtime_checkable
class Prior(Protocol):
    """A 2-D diffusion model, whatever it predicts, in whatever space, on whatever condition."""

    @property
    def image_size(self) -> int:
        """Pixels along each side of the pictures that it was trained on."""
        ...

    @property
    def alphas_cumprod(self) -> Float[Tensor, " steps"]:
        """Share of signal at each time step, falling, on the device of the networks."""
        ...

    def to_latents(self, images: Float[Tensor, "views 3 height width"]) -> Float[Tensor, "views channels rows columns"]:
        """Where the model works, with gradients: sRGB pictures in [0, 1] of any size are resized, scaled, encoded."""
        ...

    def to_images(self, latents: Float[Tensor, "views channels rows columns"]) -> Float[Tensor, "views 3 height width"]:
        """The sRGB pictures of latents, not clamped."""
        ...

    def predict_noise(
        self,
        latents: Float[Tensor, "views channels rows columns"],
        t: Int64[Tensor, " views"],
        condition: Float[Tensor, "views tokens numbers"],
    ) -> Float[Tensor, "views channels rows columns"]:
        """The noise in noisy latents, with gradients unless the caller turns them off."""
        ...

    def embed(self, described: Described) -> Float[Tensor, "views tokens numbers"]:
        """Conditions from texts or from pictures; a ValueError if the model was trained on the other kind."""
        ...

    def embed_nothing(self, views: int) -> Float[Tensor, "views tokens numbers"]:
        """The condition that says nothing, of guidance without a classifier."""
        ...


@runtime_checkable
class CameraPrior(Prior, Protocol):
    """A prior that is told in numbers from where a thing is seen, which words like "side view" leave open."""

    def place(
        self,
        condition: Float[Tensor, "views tokens numbers"],
        azimuth: Float[Tensor, " views"],
        elevation: Float[Tensor, " views"],
    ) -> Float[Tensor, "views tokens numbers"]:
        """Conditions of texts, with angles in degrees: from the front (+x) to the left (+y), and above the horizon."""
        ...


def add_noise(
    prior: Prior,
    latents: Float[Tensor, "views channels rows columns"],
    noise: Float[Tensor, "views channels rows columns"],
    t: Int64[Tensor, " views"],
) -> Float[Tensor, "views channels rows columns"]:
    """What a prior sees at steps ``t``."""
    signal = share_at(prior.alphas_cumprod, t, latents)
    return signal.sqrt() * latents + (1 - signal).sqrt() * noise


def remove_noise(
    prior: Prior,
    noisy: Float[Tensor, "views channels rows columns"],
    noise: Float[Tensor, "views channels rows columns"],
    t: Int64[Tensor, " views"],
) -> Float[Tensor, "views channels rows columns"]:
    """The latents of which, with this noise, ``noisy`` was made."""
    signal = share_at(prior.alphas_cumprod, t, noisy)
    return (noisy - (1 - signal).sqrt() * noise) / signal.clamp(min=LEAST_NOISE).sqrt()


def share_at(
    alphas_cumprod: Float[Tensor, " steps"], t: Int64[Tensor, " views"], like: Float[Tensor, "views ..."]
) -> Float[Tensor, "views 1 1 1"]:
    """The share of signal at steps ``t``, shaped to be multiplied with pictures."""
    return alphas_cumprod.to(like.device)[t.to(like.device)].to(torch.promote_types(like.dtype, torch.float32))[
        :, None, None, None
    ]
