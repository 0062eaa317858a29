"""Draws views with an X-UNet, one after another (3DiM, section 2): each is then one of those that the next go by."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.models.views.conditions import Places
from nfldm3d.models.views.log_snr import CLEAN, log_snr, step_back, to_clean
from nfldm3d.models.views.xunet import XUNet

Conditioning: TypeAlias = Literal["stochastic", "first", "markov"]
KEPT_BYTES = 2**30
"""What networks are told of pairs of views is kept for all steps while it takes no more; then it is computed anew."""


@dataclass(frozen=True)
class ViewSampling:
    """How views are drawn."""

    steps: int = 256
    """Denoising steps for each view."""
    guidance: float = 2.0
    """w of (1 + w) with - w without the given view; 0 leaves out the second network evaluation."""
    conditioning: Conditioning = "stochastic"
    """Which view each step goes by: any of those given and drawn so far, afresh at every step; always the first, the
    naive way; or any of the last ``memory``."""
    memory: int = 1
    """Of ``markov``: 1 goes by the last view alone."""
    eta: float = 1.0
    """How much noise each step adds: 1 is 3DiM's ancestral sampling, 0 is DDIM, better in few steps."""

    def __post_init__(self):
        if self.steps < 1 or self.memory < 1:
            raise ValueError(f"steps and memory must be at least 1, got {self.steps} and {self.memory}")
        if not 0 <= self.guidance < 100 or not 0 <= self.eta <= 1:
            raise ValueError(
                f"guidance must lie between 0 and 100 and eta between 0 and 1, got {self.guidance} and {self.eta}"
            )


@torch.no_grad()
def draw_views(
    network: XUNet,
    given: Float[Tensor, "objects given 3 height width"],
    seen: Camera,
    wanted: Camera,
    sampling: ViewSampling | None = None,
    *,
    generator: torch.Generator | None = None,
    tell: Callable[[float], None] | None = None,
) -> Float[Tensor, "objects views 3 height width"]:
    """Pictures of objects from cameras, in the order in which they are wanted; several objects side by side.

    Args:
        given: sRGB in [0, 1].
        seen: (objects given), of these.
        wanted: (objects views).
        generator: on the CPU; gives the same draws on every device.
        tell: hears after each step which share is done; if it raises, that is the end.

    Raises:
        ValueError: pictures and cameras do not fit each other or the network.
    """
    sampling = sampling or ViewSampling()
    _require_fitting(network, given, seen, wanted)
    device = network.device
    pool, cameras = [2 * given.to(device) - 1], [seen.to(device)]
    wanted, count = wanted.to(device), wanted.shape[1]
    untold = network.prepare(Camera.cat([cameras[0][:1, :1], wanted[:1, :1]]), torch.zeros(1, device=device).bool())
    for number in range(count):

        def share(done: float, number: int = number) -> None:
            if tell is not None:
                tell((number + done) / count)

        here = wanted[:, number : number + 1]
        drawing = _Drawing(network, torch.cat(pool, dim=1), Camera.cat(cameras), here, sampling, untold)
        made = drawing.regress() if network.config["objective"] == "regression" else drawing.draw(generator, share)
        pool.append(made[:, None])
        cameras.append(here)
    return torch.cat(pool[1:], dim=1) / 2 + 0.5


@dataclass(frozen=True)
class _Drawing:
    """One view of each object."""

    network: XUNet
    pool: Float[Tensor, "objects known 3 height width"]
    """From -1 to 1."""
    cameras: Camera
    """(objects known)."""
    wanted: Camera
    """(objects 1)."""
    sampling: ViewSampling
    untold: Places
    """What the network is told where a view is left out."""
    kept: dict[tuple[int, int], Places] = field(default_factory=dict)
    """What it is told of an object and a view of its pool."""

    def draw(
        self, generator: torch.Generator | None, tell: Callable[[float], None]
    ) -> Float[Tensor, "objects 3 height width"]:
        """From noise to a picture."""
        times = torch.linspace(1, 0, self.sampling.steps + 1, dtype=torch.float64)
        levels, shape = log_snr(times).to(self.pool), self.pool[:, 0].shape
        prediction = self.network.config["prediction"]
        noisy = torch.randn(shape, generator=generator).to(self.pool)
        instead = torch.randn(shape, generator=generator).to(noisy) if self.sampling.guidance else None
        for step in range(self.sampling.steps):
            before, after = (level.expand(len(noisy)) for level in levels[step : step + 2])
            said = self._predict(noisy, before, self._choose(generator), instead)
            clean = to_clean(said, noisy, before, prediction)
            noise = torch.zeros_like(noisy)
            if self.sampling.eta and step < self.sampling.steps - 1:  # the last step gives the mean
                noise = torch.randn(shape, generator=generator).to(noisy)
            noisy = step_back(noisy, clean, noise, before=before, after=after, eta=self.sampling.eta)
            tell((step + 1) / self.sampling.steps)
        return noisy.clamp(-1, 1)

    def regress(self) -> Float[Tensor, "objects 3 height width"]:
        """What a network without noise says of the first view."""
        first = torch.zeros(len(self.pool), dtype=torch.int64)
        silent = torch.full((len(self.pool),), -CLEAN, device=self.pool.device)
        return self._predict(torch.zeros_like(self.pool[:, 0]), silent, first, None).clamp(-1, 1)

    def _choose(self, generator: torch.Generator | None) -> Int64[Tensor, " objects"]:
        """On the CPU."""
        objects, known = self.pool.shape[:2]
        first = {"stochastic": 0, "markov": max(0, known - self.sampling.memory), "first": 0}
        last = 1 if self.sampling.conditioning == "first" else known
        return torch.randint(first[self.sampling.conditioning], last, (objects,), generator=generator)

    def _predict(
        self,
        noisy: Float[Tensor, "objects 3 height width"],
        level: Float[Tensor, " objects"],
        chosen: Int64[Tensor, " objects"],
        instead: Float[Tensor, "objects 3 height width"] | None,
    ) -> Float[Tensor, "objects 3 height width"]:
        """With guidance away from what is said of noise ``instead`` of a view, in one pass, if there is such noise."""
        objects = len(noisy)
        view, places = self.pool[torch.arange(objects), chosen], self._place(chosen)
        levels = torch.stack((torch.full_like(level, CLEAN), level), dim=-1)
        if instead is None:
            return self.network(view, noisy, levels, places=places).float()
        places = tuple(torch.cat((told, left.expand_as(told))) for told, left in zip(places, self.untold, strict=True))
        levels = torch.cat((levels, torch.stack((torch.full_like(level, -CLEAN), level), dim=-1)))
        both = self.network(torch.cat((view, instead)), noisy.repeat(2, 1, 1, 1), levels, places=places).float()
        weight = self.sampling.guidance
        return (1 + weight) * both[:objects] - weight * both[objects:]

    def _place(self, chosen: Int64[Tensor, " objects"]) -> Places:
        """What the network is told of the chosen views and the wanted ones; computed once for each pair."""
        keys = list(enumerate(chosen.tolist()))
        found = {key: self.kept[key] for key in keys if key in self.kept}
        new = [key for key in keys if key not in found]
        if new:
            rows, views = (torch.tensor(part) for part in zip(*new, strict=True))
            camera = Camera.cat([self.cameras[rows, views].reshape(-1, 1), self.wanted[rows]])
            made = self.network.prepare(camera, torch.ones(len(new), dtype=torch.bool, device=self.pool.device))
            found |= {key: tuple(place[[number]] for place in made) for number, key in enumerate(new)}
            size = sum(place[0].nbytes for place in made)
            room = max(0, KEPT_BYTES // size - len(self.kept))
            self.kept.update({key: found[key] for key in new[:room]})
        return tuple(torch.cat(each) for each in zip(*(found[key] for key in keys), strict=True))


def _require_fitting(network: XUNet, given: Tensor, seen: Camera, wanted: Camera) -> None:
    side, objects = int(network.config["size"]), len(given)
    sizes = {tuple(given.shape[-2:]), (seen.height, seen.width), (wanted.height, wanted.width)}
    if sizes != {(side, side)}:
        shown = ", ".join(f"{width}x{height}" for height, width in sorted(sizes))
        raise ValueError(f"this network draws {side}x{side} pixels, got {shown}; resize pictures and cameras")
    if seen.shape != given.shape[:2] or len(wanted.shape) != 2 or wanted.shape[0] != objects or not given.shape[1]:
        raise ValueError(
            f"pictures {tuple(given.shape[:2])} need cameras of that shape and wanted ones (objects, views), got "
            f"{tuple(seen.shape)} and {tuple(wanted.shape)}"
        )
