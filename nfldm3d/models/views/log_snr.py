"""Noise by its log-SNR, as 3DiM counts it (Watson et al. 2022, after Kingma et al. 2021).

z = alpha x + sigma noise with alpha^2 = sigmoid(lambda), sigma^2 = sigmoid(-lambda), and the cosine schedule
lambda(t) = -2 log tan(a t + b), which falls from 20 at t = 0 (a clean picture) through 0 at t = 1/2 to -20 at t = 1.
"""

import math
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

CLEAN = 20.0
"""Log-SNR of a picture without noise; its negative is that of nothing but noise."""
SHARP = 5.0
"""Of ``weigh``."""
_START = math.atan(math.exp(-CLEAN / 2))
_SPAN = math.atan(math.exp(CLEAN / 2)) - _START

Prediction: TypeAlias = Literal["epsilon", "v", "picture"]
"""What a network says: the noise, v = alpha noise - sigma x (Salimans & Ho 2022), or x itself, which asks least of a
small network: it need not carry the noise through to its end (Li & He 2025)."""


def log_snr(t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """lambda of times from 0 to 1."""
    return (-2 * torch.log(torch.tan(_SPAN * t.double() + _START))).to(t.dtype)


def split_variance(
    log_snr: Float[Tensor, " batch"], like: Float[Tensor, "batch ..."]
) -> tuple[Float[Tensor, "batch ..."], Float[Tensor, "batch ..."]]:
    """alpha and sigma, with as many axes as ``like`` has."""
    shaped = log_snr.reshape(-1, *(1,) * (like.dim() - 1)).to(like)
    return torch.sigmoid(shaped).sqrt(), torch.sigmoid(-shaped).sqrt()


def add_noise(
    clean: Float[Tensor, "batch ..."], noise: Float[Tensor, "batch ..."], log_snr: Float[Tensor, " batch"]
) -> Float[Tensor, "batch ..."]:
    """z."""
    alpha, sigma = split_variance(log_snr, clean)
    return alpha * clean + sigma * noise


def target_of(
    clean: Float[Tensor, "batch ..."],
    noise: Float[Tensor, "batch ..."],
    log_snr: Float[Tensor, " batch"],
    prediction: Prediction,
) -> Float[Tensor, "batch ..."]:
    """What a network should say."""
    if prediction != "v":
        return noise if prediction == "epsilon" else clean
    alpha, sigma = split_variance(log_snr, clean)
    return alpha * noise - sigma * clean


def weigh(log_snr: Float[Tensor, " batch"], prediction: Prediction) -> Float[Tensor, " batch"]:
    """How much errors at a log-SNR count in training.

    All alike where noise is predicted, as published, or the picture. Those of v are the errors of the picture times
    1 / sigma^2; beyond ``SHARP`` times these, nothing but noise is left to learn (truncated as by Hang et al. 2023).
    """
    if prediction != "v":
        return torch.ones_like(log_snr)
    return (SHARP * torch.sigmoid(-log_snr)).clamp(max=1)


def draw_times(count: int, prediction: Prediction, generator: torch.Generator) -> Float[Tensor, " count"]:
    """Times to learn at, spread evenly through a batch, as published; where the picture is predicted, twice as many are
    late: little is left to learn of pictures that show through their noise."""
    t = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    return t.sqrt() if prediction == "picture" else t


def to_clean(
    said: Float[Tensor, "batch ..."],
    noisy: Float[Tensor, "batch ..."],
    log_snr: Float[Tensor, " batch"],
    prediction: Prediction,
) -> Float[Tensor, "batch ..."]:
    """The picture that follows from what a network said of ``noisy``, within [-1, 1]."""
    if prediction == "picture":
        return said.clamp(-1, 1)
    alpha, sigma = split_variance(log_snr, noisy)
    clean = (noisy - sigma * said) / alpha if prediction == "epsilon" else alpha * noisy - sigma * said
    return clean.clamp(-1, 1)


def step_back(
    noisy: Float[Tensor, "batch ..."],
    clean: Float[Tensor, "batch ..."],
    noise: Float[Tensor, "batch ..."],
    *,
    before: Float[Tensor, " batch"],
    after: Float[Tensor, " batch"],
    eta: float = 1.0,
) -> Float[Tensor, "batch ..."]:
    """z at log-SNR ``after``, above ``before``, given what it shows without noise.

    With ``eta`` 1 it is drawn from q(z' | z, x), whose mean is alpha' (z (1 - c) / alpha + c x) and whose variance is
    sigma'^2 c, c = 1 - exp(before - after): 3DiM's ancestral step. With 0 nothing is drawn (DDIM, Song et al. 2021).
    """
    alpha, sigma = split_variance(before, noisy)
    alpha_after, sigma_after = split_variance(after, noisy)
    share = -torch.expm1(before - after).reshape(alpha.shape).to(noisy)
    deviation = eta * sigma_after * share.sqrt()
    direction = (noisy - alpha * clean) / sigma
    kept = (sigma_after.square() - deviation.square()).clamp(min=0).sqrt()
    return alpha_after * clean + kept * direction + deviation * noise
