"""From noise to latents: the loop over time steps that all levels of the hierarchy share, and what it can keep."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from diffusers import DDIMScheduler, DDPMScheduler
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

Predict: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""v of noisy, normalised latents at a time step."""
Generators: TypeAlias = torch.Generator | Sequence[torch.Generator] | None
"""One for all scenes, or one for each."""
StepCallback: TypeAlias = Callable[[str, int, Tensor], Tensor | None]
"""Is told the level, the step and the latents after it; may return others to go on with. With a map it sees level g
several times, with candidates of which one is taken."""


def step_callback(pipeline: Any, callback: Callable[..., dict[str, Any]]) -> StepCallback:
    """What diffusers calls ``callback_on_step_end``, as the loop here calls it."""

    def on_step(level: str, step: int, latents: Tensor) -> Tensor | None:
        return callback(pipeline, step, None, {"level": level, "latents": latents}).get("latents")

    return on_step


class SamplingError(ValueError):
    """Sampling gave numbers that are not finite."""


@dataclass(frozen=True)
class Kept:
    """What of a latent stays as it is while the rest is sampled (RePaint, Lugmayr et al. 2022)."""

    values: Float[Tensor, "scenes channels *grid"]
    """Normalised, without noise."""
    share: Float[Tensor, "scenes channels *grid"]
    """1 where a value stays, 0 where it is sampled."""


@dataclass(frozen=True)
class Sampler:
    """How latents are sampled."""

    scheduler: Any
    """One of diffusers' schedulers that ``require_fit`` lets pass; it is not changed."""
    steps: int = 40
    rounds: int = 1
    """How often each step is taken where something is kept; more than one harmonises what is new with what stays."""
    progress: bool = True
    on_step: StepCallback | None = None

    def __post_init__(self):
        if self.steps < 1 or self.rounds < 1:
            raise ValueError(f"steps and rounds must be at least 1, got {self.steps} and {self.rounds}")
        if self.rounds > 1 and not isinstance(self.scheduler, DDIMScheduler | DDPMScheduler):
            raise ValueError(
                f"{type(self.scheduler).__name__} may remember earlier steps, so none can be taken twice; "
                "use DDIMScheduler or DDPMScheduler, or rounds=1"
            )

    @torch.no_grad()
    def sample(
        self,
        level: str,
        predict: Predict,
        shape: Sequence[int],
        generators: Sequence[torch.Generator],
        device: torch.device,
        kept: Kept | None = None,
    ) -> Float[Tensor, "scenes channels *grid"]:
        """Normalised latents of one level; each scene draws from a generator of its own.

        Args:
            level: its name, for messages.
            shape: of the latents of one scene.

        Raises:
            SamplingError: numbers are not finite; it names the level and the step.
        """
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        scheduler.set_timesteps(self.steps, device=device)
        draw = _Draws(generators, tuple(shape), device)
        latents = draw() * scheduler.init_noise_sigma
        options = {}
        if "generator" in inspect.signature(scheduler.step).parameters:
            options["generator"] = list(generators)
        steps = list(scheduler.timesteps)
        rounds = self.rounds if kept is not None else 1
        for number, step in enumerate(tqdm(steps, desc=f"sample {level}", leave=False, disable=not self.progress)):
            for again in range(rounds):
                if kept is not None:
                    latents = _merge(kept, scheduler.add_noise(kept.values, draw(), step.expand(len(latents))), latents)
                velocity = predict(scheduler.scale_model_input(latents, step), step.expand(len(latents)))
                latents = scheduler.step(velocity, step, latents, **options).prev_sample
                if again + 1 < rounds and number + 1 < len(steps):
                    latents = _renoise(scheduler, latents, steps[number + 1], step, draw())
            if not bool(torch.isfinite(latents).all()):
                raise SamplingError(
                    f"level {level}: step {number + 1} of {len(steps)} gave NaN or infinity; take full precision "
                    "(torch.float32), a smaller guidance_scale or whole weights"
                )
            if self.on_step is not None:
                changed = self.on_step(level, number, latents)
                latents = latents if changed is None else changed
        return latents if kept is None else _merge(kept, kept.values, latents)


class _Draws:
    """Noise for each scene from its own generator, the same on every device."""

    def __init__(self, generators: Sequence[torch.Generator], shape: tuple[int, ...], device: torch.device):
        self.generators, self.shape, self.device = generators, shape, device

    def __call__(self) -> Float[Tensor, "scenes channels *grid"]:
        parts = [torch.randn(self.shape, generator=g, device=g.device).to(self.device) for g in self.generators]
        return torch.stack(parts)


def _merge(kept: Kept, values: Tensor, latents: Tensor) -> Tensor:
    return kept.share * values + (1 - kept.share) * latents


def _renoise(scheduler: Any, latents: Tensor, step: Tensor, back_to: Tensor, noise: Tensor) -> Tensor:
    """From one time step back to a noisier one."""
    ratio = (scheduler.alphas_cumprod[int(back_to)] / scheduler.alphas_cumprod[int(step)]).to(latents)
    return ratio.sqrt() * latents + (1 - ratio).sqrt() * noise


def split_generator(generator: Generators, count: int) -> list[torch.Generator]:
    """A generator for each scene, so that scene k of a seed is the same however many are made at once.

    Of a list, each draws the scene that it would draw alone.
    """
    if isinstance(generator, Sequence):
        if len(generator) != count:
            raise ValueError(f"got {len(generator)} generators for {count} scenes; give one for each, or one for all")
        return [split_generator(one, 1)[0] for one in generator]
    where = None if generator is None else generator.device
    seeds = torch.randint(2**62, (count,), generator=generator, device=where)
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds.tolist()]
