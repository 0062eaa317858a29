"""Which of diffusers' schedulers sample what they should: each is tried on data whose distribution is known.

For data of standard deviation s and x_t = a x_0 + b noise with a^2 + b^2 = 1, the best answer of a network is

    v = E[a noise - b x_0 | x_t] = a b (1 - s^2) / (a^2 s^2 + b^2) x_t,

so a scheduler that fits gives samples of standard deviation s, the more exactly the more steps it takes.
"""

import inspect
import json
from functools import lru_cache
from typing import Any

import diffusers
import torch
from diffusers import DDPMScheduler
from jaxtyping import Float
from torch import Tensor

SPREADS = (0.3, 0.7, 1.4)
"""Standard deviations of the data; latents are normalised to 1."""
MANY_STEPS, TOLERANCE = 50, 0.25
"""With so many steps or more, samples are as wide as the data, but for this share."""
LARGEST = 1.75
"""With fewer steps, samples may be narrower: they are blurred. Wider by this factor, they are noise."""
FITTING = ("DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler")
"""What messages recommend."""
BY_NAME = dict(zip(("ddim", "ddpm", "dpm++", "unipc"), FITTING, strict=True))
"""What users call them."""
FAULTS = (
    ValueError,
    TypeError,
    RuntimeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    ImportError,
    AssertionError,
)
"""What schedulers raise that are made for other data, other networks or other numbers of steps."""


def make_scheduler(trained: Any, name: str) -> Any | None:
    """One of ``BY_NAME`` with the noise of the scheduler ``trained``; None for ``default``."""
    if name == "default":
        return None
    if name not in BY_NAME:
        raise ValueError(f"there is no scheduler {name!r}; choose default, {', '.join(BY_NAME)}")
    return getattr(diffusers, BY_NAME[name]).from_config(trained.config)


def require_fit(scheduler: Any, steps: int, trained: Any) -> None:
    """Lets a scheduler pass that works with networks that were trained for v with the noise of ``trained``.

    Raises:
        ValueError: it is made for another target or other networks, or gives noise in so many steps.
    """
    name, advice = type(scheduler).__name__, f"use {', '.join(FITTING[:-1])} or {FITTING[-1]}"
    kind = scheduler.config.get("prediction_type")
    if kind != "v_prediction":
        raise ValueError(
            f"the denoisers predict v, but {name} is made for {kind or 'another target'}; "
            f"make it with from_config(pipeline.scheduler.config, prediction_type='v_prediction'), or {advice}"
        )
    for count, largest, smallest in ((max(steps, MANY_STEPS), 1 + TOLERANCE, 1 - TOLERANCE), (steps, LARGEST, 0.0)):
        widths = _try_out(type(scheduler), _as_json(scheduler), _as_json(trained), count)
        if isinstance(widths, str):
            raise ValueError(f"{name} does not work here with {count} steps: {widths}; {advice}")
        for spread, width in zip(SPREADS, widths, strict=True):
            if not smallest <= width / spread <= largest:
                raise ValueError(
                    f"{name} would give noise: in {count} steps it makes samples of standard deviation {width:.2g} "
                    f"where {spread} is right; {advice}"
                )


def _as_json(scheduler: Any) -> str:
    return json.dumps(dict(scheduler.config), sort_keys=True, default=lambda array: array.tolist())


@lru_cache(maxsize=256)
def _try_out(scheduler: Any, config: str, trained: str, steps: int) -> str | list[float]:
    """Standard deviations of samples of data with those of ``SPREADS``; or why there are none."""
    schedule: Any = DDPMScheduler.from_config(json.loads(trained))
    try:
        samples = _sample(scheduler.from_config(json.loads(config)), steps, schedule.alphas_cumprod)
    except FAULTS as error:
        return " ".join(f"{type(error).__name__}: {error}".split())[:120]
    return samples.flatten(1).std(dim=1).tolist()


def _sample(scheduler: Any, steps: int, shares: Float[Tensor, " times"]) -> Float[Tensor, "*samples"]:
    spreads = torch.tensor(SPREADS).view(-1, 1, 1, 1)
    scheduler.set_timesteps(steps)
    draws = torch.Generator().manual_seed(0)
    options = {"generator": draws} if "generator" in inspect.signature(scheduler.step).parameters else {}
    latents = torch.randn(len(SPREADS), 4, 32, 32, generator=draws) * scheduler.init_noise_sigma
    for time in scheduler.timesteps:
        noisy, share = scheduler.scale_model_input(latents, time), _interpolate(shares, float(time))
        scale = (share * (1 - share)).sqrt() * (1 - spreads**2) / (share * spreads**2 + 1 - share)
        latents = scheduler.step(scale * noisy, time, latents, **options).prev_sample
    return latents


def _interpolate(shares: Float[Tensor, " times"], time: float) -> Float[Tensor, ""]:
    """Some schedulers take steps to times between those of the training."""
    time = min(max(time, 0.0), len(shares) - 1.0)
    lower = min(int(time), len(shares) - 2)
    return torch.lerp(shares[lower], shares[lower + 1], time - lower)
