"""Trains 3DiM's network, or one of its baselines, on pairs of views of objects (Watson et al. 2023, section 2)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from nfldm3d.camera import Camera
from nfldm3d.data.view_sets import ViewSet, ViewSets, find_given
from nfldm3d.evaluation.metrics import psnr
from nfldm3d.models.views.log_snr import CLEAN, add_noise, draw_times, log_snr, target_of, weigh
from nfldm3d.models.views.sampling import ViewSampling, draw_views
from nfldm3d.models.views.xunet import XUNet
from nfldm3d.training.stage import Evaluation

LEVELS_OF_NOISE = 8
"""At which held-out pairs are denoised to judge."""
DRAWING = ViewSampling(steps=24, guidance=1.0, eta=0.0)
"""Of the pictures that are drawn to judge."""
SHOWN = 8


@dataclass(frozen=True)
class ViewPairs:
    """Views to go by, and views of the same objects to draw."""

    given: Float[Tensor, "pairs 3 height width"]
    """sRGB in [0, 1]."""
    wanted: Float[Tensor, "pairs 3 height width"]
    camera: Camera
    """(pairs 2), of both."""

    def to(self, device: torch.device) -> "ViewPairs":
        """The same on another device."""
        return ViewPairs(self.given.to(device), self.wanted.to(device), self.camera.to(device))


class ViewPairSource:
    """Draws pairs of different views of an object; see ``SampleSource``."""

    def __init__(self, sets: ViewSets, pairs: int = 4, nearby: float = 0.0):
        """``pairs`` of an object at a time: much of the time goes into reading it; ``nearby`` as ``draw_pairs``'s."""
        if pairs < 1:
            raise ValueError(f"pairs must be at least 1, got {pairs}")
        if not 0 <= nearby < math.inf:
            raise ValueError(f"nearby is an angle in degrees, 0 or more, got {nearby}")
        self.sets, self.pairs, self.nearby = sets, pairs, nearby

    def __len__(self) -> int:
        return len(self.sets)

    def sample(self, index: int, generator: torch.Generator) -> ViewPairs:
        """Some pairs of an object."""
        return _as_pairs(self.sets.read(index, lambda camera: draw_pairs(camera, self.pairs, generator, self.nearby)))

    def spread(self, objects: int) -> ViewPairs:
        """One pair of each of at most so many objects, evenly spread: ``find_given``'s view, and one a third of the way
        on."""
        objects = min(objects, len(self))
        numbers = [number * len(self) // objects for number in range(objects)]
        pairs = [self.sets.read(number, _given_and_other) for number in numbers]
        return self.collate([_as_pairs(pair) for pair in pairs])

    def collate(self, samples: Sequence[ViewPairs]) -> ViewPairs:
        """All pairs one after the other."""
        camera = Camera.cat([sample.camera.reshape(-1) for sample in samples]).reshape(-1, 2)
        given, wanted = (torch.cat([getattr(sample, name) for sample in samples]) for name in ("given", "wanted"))
        return ViewPairs(given, wanted, camera)


class ViewDiffusionStage:
    """See ``Stage``."""

    name = "view-diffusion"
    optional_parameters = True

    def __init__(
        self,
        model: XUNet,
        source: ViewPairSource,
        held_out: ViewPairSource,
        *,
        untold: float = 0.1,
        judged: int = 24,
    ):
        """Judges by a pair of each of ``judged`` held-out objects; ``untold`` is the share of pairs of which the given
        view is left out, for guidance without a classifier. The regression is always told it: nothing guides it."""
        if not 0 <= untold < 1:
            raise ValueError(f"untold must be at least 0 and below 1, got {untold}")
        self.model, self.source, self.held_out = model, source, held_out
        self.untold, self.judged = untold, judged

    def config(self) -> dict[str, Any]:
        """The network's constructor arguments."""
        return {name: value for name, value in self.model.config.items() if not name.startswith("_")}

    @property
    def is_regression(self) -> bool:
        """Whether the network is the baseline that is shown no noise."""
        return self.model.config["objective"] == "regression"

    def to(self, device: torch.device) -> None:
        """Moves the network."""
        torch.nn.Module.to(self.model, device)

    def loss(self, batch: ViewPairs, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The error of what the network says, over times spread through the batch."""
        pairs = len(batch.given)
        t = draw_times(pairs, self.model.config["prediction"], generator)
        known = torch.rand(pairs, generator=generator) >= (0 if self.is_regression else self.untold)
        error = self._error(batch, t, known, generator)
        return error, {"error": error.detach()}

    def evaluate(self, generator: torch.Generator) -> Evaluation:
        """Errors on held-out pairs, for the diffusion also without the given view, and how near drawn pictures come."""
        batch, seed = self.held_out.spread(self.judged).to(self.model.device), generator.initial_seed()
        pairs = len(batch.given)
        drawn = draw_views(
            self.model,
            batch.given[:, None],
            batch.camera[:, :1],
            batch.camera[:, 1:],
            DRAWING,
            generator=torch.Generator().manual_seed(seed),
        )[:, 0]
        scalars = {"psnr": float(psnr(drawn, batch.wanted)), "psnr_copied": float(psnr(batch.given, batch.wanted))}
        for name, told in (("error", True), *(() if self.is_regression else (("error_untold", False),))):
            draws = torch.Generator().manual_seed(seed)  # the same noise each time
            levels = [torch.full((pairs,), (level + 0.5) / LEVELS_OF_NOISE) for level in range(LEVELS_OF_NOISE)]
            errors = [self._error(batch, t, torch.full((pairs,), told), draws).item() for t in levels]
            scalars[name] = sum(errors) / len(errors)
        rows = (batch.given[:SHOWN], drawn[:SHOWN], batch.wanted[:SHOWN])
        page = torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2)
        return Evaluation(-scalars["error"], scalars, {"given_drawn_true": page})

    def _error(
        self,
        batch: ViewPairs,
        t: Float[Tensor, " pairs"],
        known: Bool[Tensor, " pairs"],
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """The mean squared error of what is said, over pairs as their noise levels count."""
        given, wanted = 2 * batch.given - 1, 2 * batch.wanted - 1
        noise, instead = (torch.randn(wanted.shape, generator=generator).to(wanted) for _ in range(2))
        level, known = log_snr(t).to(wanted), known.to(wanted.device)
        noisy, target = (
            add_noise(wanted, noise, level),
            target_of(wanted, noise, level, self.model.config["prediction"]),
        )
        if self.is_regression:
            noisy, level, target = torch.zeros_like(wanted), torch.full_like(level, -CLEAN), wanted
        told = torch.where(known[:, None, None, None], given, instead)  # what is not known is a frame of noise alone
        levels = torch.stack((torch.where(known, CLEAN, -CLEAN), level), dim=-1)
        said = self.model(told, noisy, levels, batch.camera, known).float()
        weights = weigh(level, self.model.config["prediction"])
        return (weights * (said - target).square().flatten(1).mean(1)).sum() / len(weights)


def draw_pairs(
    camera: Camera, pairs: int, generator: torch.Generator, nearby: float = 0.0
) -> Int64[Tensor, " numbers"]:
    """Numbers of two different views for each pair, one pair after the other.

    With ``nearby`` degrees the second is drawn by exp(-angle / nearby), the angle between both as seen from the origin:
    whoever walks around an object asks for views near those that are there. With 0 all are alike, as published.

    Raises:
        ValueError: there is but one view.
    """
    views = len(camera)
    if views < 2:
        raise ValueError(f"a pair needs two views of an object, got {views}")
    if not nearby:
        return torch.cat([torch.randperm(views, generator=generator)[:2] for _ in range(pairs)])
    first = torch.randint(views, (pairs,), generator=generator)
    towards = functional.normalize(camera.centers.float(), dim=-1)
    angles = torch.rad2deg((towards[first] @ towards.T).clamp(-1, 1).acos())
    likely = torch.softmax(-angles / nearby, dim=1).clamp(min=1e-9).scatter(1, first[:, None], 0.0)
    return torch.stack((first, torch.multinomial(likely, 1, generator=generator)[:, 0]), dim=1).flatten()


def _given_and_other(camera: Camera) -> Int64[Tensor, " numbers"]:
    given = find_given(camera)
    return torch.tensor([given, (given + max(1, len(camera) // 3)) % len(camera)])


def _as_pairs(views: ViewSet) -> ViewPairs:
    images = views.images.unflatten(0, (-1, 2))
    return ViewPairs(images[:, 0].contiguous(), images[:, 1].contiguous(), views.camera.reshape(-1, 2))
