"""What the stages that train image priors share: errors of v, their weights, and pictures drawn to be looked at."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nfldm3d.models.priors.image_denoiser import SCHEDULE, ImageDenoiser, Sketch, make_image_schedule

LEVELS_OF_NOISE = 8
"""Time steps at which held-out pictures are denoised to judge."""
DRAWING_STEPS = 20
BUSY = 5.0
"""Bound of the weight of errors of the picture, 1 + signal / noise for those of v (compare Hang et al. 2023)."""


def draw_steps(views: int, generator: torch.Generator, *, busy: bool = False) -> Int64[Tensor, " views"]:
    """Time steps to learn from: all alike, or in proportion to themselves: busy ones, where what is told decides."""
    steps = len(SCHEDULE.alphas_cumprod)
    if not busy:
        return torch.randint(steps, (views,), generator=generator)
    return (torch.rand(views, generator=generator).sqrt() * steps).long().clamp(max=steps - 1)


def velocity_errors(
    model: ImageDenoiser,
    images: Float[Tensor, "views 3 height width"],
    told: Float[Tensor, "views *tokens numbers"],
    t: Int64[Tensor, " views"],
    generator: torch.Generator,
    sketch: Sketch | None = None,
) -> Float[Tensor, " views"]:
    """Mean squared errors of v of sRGB pictures in [0, 1]; ``sketch`` of what is told, where there is one already."""
    clean = 2 * images - 1
    noise, t = torch.randn(clean.shape, generator=generator).to(clean), t.to(clean.device)
    noisy = SCHEDULE.add_noise(clean, noise, t)  # type: ignore[arg-type]
    target = SCHEDULE.get_velocity(clean, noise, t)  # type: ignore[arg-type]
    return (model(noisy, t, told, sketch=sketch).float() - target).square().flatten(1).mean(1)


def weighted_mean(errors: Float[Tensor, " views"], t: Int64[Tensor, " views"]) -> Float[Tensor, ""]:
    """The mean of errors of v, where those at little noise, which are of fine texture alone, count less."""
    weight = (BUSY * (1 - SCHEDULE.alphas_cumprod.to(errors)[t])).clamp(max=1)  # of the picture: min(1 + ratio, BUSY)
    return (weight * errors).mean()


def mean_error(
    model: ImageDenoiser,
    images: Float[Tensor, "views 3 height width"],
    told: Float[Tensor, "views *tokens numbers"],
    seed: int,
) -> float:
    """The error over all levels of noise, weighed as in training; the same seed gives the same noise."""
    draws, errors = torch.Generator().manual_seed(seed), []
    for level in range(LEVELS_OF_NOISE):
        step = int((level + 0.5) * len(SCHEDULE.alphas_cumprod) / LEVELS_OF_NOISE)
        t = torch.full((len(images),), step)
        errors.append(float(weighted_mean(velocity_errors(model, images, told, t, draws), t)))
    return sum(errors) / len(errors)


@torch.no_grad()
def draw_pictures(
    model: ImageDenoiser, told: Float[Tensor, "views *tokens numbers"], seed: int, *, guidance_scale: float = 1.0
) -> Float[Tensor, "views 3 size size"]:
    """sRGB pictures of what the network is told, in few steps; a scale above 1 leads away from being told nothing."""
    schedule, generator = make_image_schedule(), torch.Generator().manual_seed(seed)
    size = int(model.config["size"])
    noisy = torch.randn(len(told), 3, size, size, generator=generator).to(told)
    schedule.set_timesteps(DRAWING_STEPS)
    for t in schedule.timesteps:
        steps = t.expand(len(noisy)).to(noisy.device)
        velocity = model(noisy, steps, told)
        if guidance_scale != 1:
            untold = model(noisy, steps, torch.zeros_like(told))
            velocity = untold + guidance_scale * (velocity - untold)
        noisy = schedule.step(velocity, int(t), noisy, generator=generator, return_dict=False)[0]
    return (noisy / 2 + 0.5).clamp(0, 1)
