"""How well a network draws objects that it was not trained on, from one view of each."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.data.view_sets import ViewSets
from nfldm3d.evaluation.distributions import frechet_distance, kernel_distance
from nfldm3d.evaluation.drawn_objects import DrawnObject, DrawViews, draw_objects
from nfldm3d.evaluation.metrics import Lpips, psnr, ssim
from nfldm3d.evaluation.picture_scores import Embed
from nfldm3d.evaluation.view_consistency import Consistency, measure_consistency

LEAST_SIDE = 16
"""Pixels along each side of pictures that LPIPS's network can halve as often as it does; smaller ones do without."""
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
    surroundings: bool = False
    """Whether pictures show what is around objects, and are not before white."""
    seed: int = 0
    progress: bool = True
    """Whether a bar is shown."""


@dataclass(frozen=True)
class ViewReport:
    """What was measured."""

    figures: dict[str, float]
    page: Float[Tensor, "3 height width"]
    """A pair of rows for each of some objects: given and drawn, given and true."""


def measure_views(
    draw: DrawViews,
    sets: ViewSets,
    budget: ViewBudget,
    *,
    lpips: Lpips | None = None,
    embed: Embed | None = None,
) -> ViewReport:
    """Draws and measures.

    Args:
        draw: see ``drawn_objects.one_by_one`` and ``together``.
        embed: features in which drawn and true pictures are compared as sets; the Fréchet distance needs more pictures
            than features, and is left out where there are fewer.
    """
    from tqdm.auto import tqdm

    total = min(budget.objects, len(sets))
    drawing = draw_objects(draw, sets, objects=budget.objects, views=budget.views, seed=budget.seed)
    bar = tqdm(drawing, total=total, desc="draw", unit="object", disable=not budget.progress)
    objects = list(bar)
    drawn, true = torch.cat([one.drawn[1:] for one in objects]), torch.cat([one.true.images[1:] for one in objects])
    copied = torch.cat([one.drawn[:1].expand_as(one.drawn[1:]) for one in objects])
    figures = {
        "psnr": float(psnr(drawn, true)),
        "psnr_copied": float(psnr(copied, true)),
        "ssim": float(ssim(drawn, true)),
        "ssim_copied": float(ssim(copied, true)),
    }
    if lpips is not None and drawn.shape[-1] >= LEAST_SIDE:
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
        for name, images in (("", one.drawn), ("_of_truth", one.true.images)):
            found[name].append(
                measure_consistency(
                    images, one.true.camera, steps=budget.fit_steps, seed=budget.seed, surroundings=budget.surroundings
                )
            )
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
        rows += [torch.cat([*views[: SHOWN + 1]], dim=-1) for views in (one.drawn, one.true.images)]
    narrow = min(row.shape[-1] for row in rows)
    return torch.cat([row[..., :narrow] for row in rows], dim=-2).clamp(0, 1)
