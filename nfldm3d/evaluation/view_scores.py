"""How well a network draws objects that it was not trained on, from one view of each."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.data.view_sets import ViewSet, ViewSets, find_given
from nfldm3d.evaluation.distributions import frechet_distance, kernel_distance
from nfldm3d.evaluation.metrics import Lpips, psnr, ssim
from nfldm3d.evaluation.picture_scores import Embed
from nfldm3d.evaluation.view_consistency import Consistency, measure_consistency
from nfldm3d.models.views.sampling import ViewSampling, draw_views
from nfldm3d.models.views.xunet import XUNet

SPIRAL, SPIRAL_VIEW = 251, 64
"""Test objects of SRN have so many views along a spiral; that of this number is the one that is given."""
TOGETHER = 8
"""Objects drawn side by side."""
SHOWN = 6
"""Objects on the page, and views of each."""


@dataclass(frozen=True)
class ViewBudget:
    """How much is drawn and looked at."""

    objects: int = 64
    """Of those held out, evenly spread."""
    views: int = 16
    """Drawn of each, evenly spread over those that there are."""
    consistency: int = 8
    """Objects whose views a field is fitted to, evenly spread; 0 leaves that out."""
    fit_steps: int = 1500
    sampling: ViewSampling = field(default_factory=ViewSampling)
    seed: int = 0
    progress: bool = True
    """Whether a bar is shown."""


@dataclass(frozen=True)
class ViewReport:
    """What was measured."""

    figures: dict[str, float]
    page: Float[Tensor, "3 height width"]
    """A pair of rows for each of some objects: given and drawn, given and true."""


@dataclass(frozen=True)
class DrawnObject:
    """The views of one object."""

    given: ViewSet
    """One view."""
    true: ViewSet
    drawn: Float[Tensor, "views 3 height width"]


def choose_views(camera: Camera, views: int) -> Int64[Tensor, " numbers"]:
    """The number of the view that is given, SRN's or ``find_given``'s, and those of the views that are drawn."""
    count = len(camera)
    given = SPIRAL_VIEW if count >= SPIRAL else find_given(camera)
    others = torch.tensor([number for number in range(count) if number != given], dtype=torch.int64)
    places = torch.linspace(0, len(others) - 1, min(views, len(others))).round().long()
    return torch.cat((torch.tensor([given]), others[places]))


def draw_objects(network: XUNet, sets: ViewSets, budget: ViewBudget) -> Iterator[DrawnObject]:
    """Draws views of held-out objects, several objects at a time.

    Raises:
        ValueError: there are no objects, or one of two views or fewer.
    """
    count = min(budget.objects, len(sets))
    if count < 1:
        raise ValueError("there are no objects to judge by; record some, or give another split")
    draws = torch.Generator().manual_seed(budget.seed)
    for first in range(0, count, TOGETHER):
        numbers = [number * len(sets) // count for number in range(first, min(first + TOGETHER, count))]
        read = [sets.read(number, lambda camera: choose_views(camera, budget.views)) for number in numbers]
        fewest = min(len(views.images) for views in read)
        if fewest < 2:
            raise ValueError("an object has a single view, so that there is nothing to compare with; record more")
        read = [views[:fewest] for views in read]
        images = torch.stack([views.images for views in read])
        cameras = Camera.cat([views.camera for views in read]).reshape(len(read), fewest)
        drawn = draw_views(
            network, images[:, :1], cameras[:, :1], cameras[:, 1:], budget.sampling, generator=draws
        ).cpu()
        for views, made in zip(read, drawn, strict=True):
            yield DrawnObject(views[:1], views[1:], made)


def measure_views(
    network: XUNet,
    sets: ViewSets,
    budget: ViewBudget,
    *,
    lpips: Lpips | None = None,
    embed: Embed | None = None,
) -> ViewReport:
    """Draws and measures.

    Args:
        embed: features in which drawn and true pictures are compared as sets; the Fréchet distance needs more pictures
            than features, and is left out where there are fewer.
    """
    from tqdm.auto import tqdm

    total = min(budget.objects, len(sets))
    bar = tqdm(
        draw_objects(network, sets, budget), total=total, desc="draw", unit="object", disable=not budget.progress
    )
    objects = list(bar)
    drawn, true = torch.cat([one.drawn for one in objects]), torch.cat([one.true.images for one in objects])
    copied = torch.cat([one.given.images.expand_as(one.drawn) for one in objects])
    figures = {
        "psnr": float(psnr(drawn, true)),
        "psnr_copied": float(psnr(copied, true)),
        "ssim": float(ssim(drawn, true)),
        "ssim_copied": float(ssim(copied, true)),
    }
    if lpips is not None:
        figures |= {"lpips_like": float(lpips(drawn, true)), "lpips_like_copied": float(lpips(copied, true))}
    if embed is not None:
        figures |= _compare_sets(embed(drawn), embed(true), budget.seed)
    return ViewReport(figures | _measure_consistency(objects, budget), _page(objects))


def _compare_sets(
    drawn: Float[Tensor, "views features"], true: Float[Tensor, "views features"], seed: int
) -> dict[str, float]:
    draws = torch.Generator().manual_seed(seed)
    figures = {"kernel_distance_efficientnet": float(kernel_distance(drawn, true, generator=draws))}
    if len(drawn) > drawn.shape[1]:
        figures["frechet_efficientnet"] = float(frechet_distance(drawn, true))
    return figures


def _measure_consistency(objects: list[DrawnObject], budget: ViewBudget) -> dict[str, float]:
    """Means over objects, of their drawn views and of the true ones, which no model can be expected to pass."""
    found: dict[str, list[Consistency]] = {"": [], "_of_truth": []}
    for one in _spread(objects, budget.consistency):
        camera = Camera.cat([one.given.camera, one.true.camera])
        for name, views in (("", one.drawn), ("_of_truth", one.true.images)):
            images = torch.cat((one.given.images, views))
            found[name].append(measure_consistency(images, camera, steps=budget.fit_steps, seed=budget.seed))
    return {
        f"consistency_{kind}{name}": math.fsum(getattr(each, kind) for each in scores) / len(scores)
        for name, scores in found.items()
        if scores
        for kind in ("psnr", "ssim")
    }


def _spread(objects: list[DrawnObject], count: int) -> list[DrawnObject]:
    """At most so many, evenly spread: data sets are in the order of what things are called."""
    count = min(count, len(objects))
    return [objects[number * len(objects) // count] for number in range(count)]


def _page(objects: list[DrawnObject]) -> Float[Tensor, "3 height width"]:
    rows = []
    for one in _spread(objects, SHOWN):
        for views in (one.drawn, one.true.images):
            rows.append(torch.cat([*one.given.images, *views[:SHOWN]], dim=-1))
    narrow = min(row.shape[-1] for row in rows)
    return torch.cat([row[..., :narrow] for row in rows], dim=-2).clamp(0, 1)
