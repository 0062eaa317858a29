"""``nfldm3d evaluate views``: how well objects are drawn from one view of each."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nfldm3d.cli.devices import open_device
from nfldm3d.models.weight_folders import find_weights

if TYPE_CHECKING:
    from nfldm3d.cli.evaluate import Evaluate
    from nfldm3d.evaluation.drawn_objects import DrawViews


def judge_views(command: "Evaluate", data: Path) -> dict[str, object]:
    """Measures what ``command`` asks for on objects in ``data``; the page shows objects given, drawn and true."""
    from nfldm3d.data.view_sets import open_view_sets
    from nfldm3d.evaluation.features import EfficientNetFeatures
    from nfldm3d.evaluation.metrics import Lpips
    from nfldm3d.evaluation.picture_scores import embedding_by
    from nfldm3d.evaluation.published_views import published_views
    from nfldm3d.evaluation.view_scores import ViewBudget, measure_views
    from nfldm3d.pictures import save_image

    if command.out is not None:
        raise ValueError("views are judged by one process and at once; leave --out out")
    if command.split == "all":
        raise ValueError("views are judged on one side of a data set; give --split test, or train")
    device, given = open_device(command.device), command.efficientnet
    draw, size, surroundings = _open_drawer(command, device)
    sets = open_view_sets(data, command.split, size=size, surroundings=surroundings)
    features = EfficientNetFeatures.find() if given is None else EfficientNetFeatures.load(given)
    embed = None if features is None else embedding_by(features.to(device), device)
    budget = ViewBudget(
        command.scenes,
        command.views,
        command.consistency,
        surroundings=surroundings,
        seed=command.seed,
        progress=not command.json,
    )
    report = measure_views(draw, sets, budget, lpips=Lpips.find_like(), embed=embed)
    if command.page is not None:
        save_image(report.page, command.page)
    rounded = {name: round(value, 4) if math.isfinite(value) else None for name, value in report.figures.items()}
    return {**rounded, "objects": min(budget.objects, len(sets)), "published": published_views()}


def _open_drawer(command: "Evaluate", device: torch.device) -> "tuple[DrawViews, int, bool]":
    """What draws, by the kind of the weights, the size of its pictures, and whether they show surroundings."""
    from nfldm3d.evaluation.drawn_objects import one_by_one, together
    from nfldm3d.pipelines.views import ViewSynthesizer
    from nfldm3d.pipelines.views.multiview import LAYERS, MultiViewGenerator, MultiViewSampling

    scale = command.guidance_scale
    if (weights := command.weights) is None:
        raise ValueError(
            "give --weights, a run of nfldm3d train view-diffusion or multiview: none come with nfldm3d yet"
        )
    if (find_weights(weights, hub=command.hub) / LAYERS).is_dir():
        sampling = MultiViewSampling(command.steps or 10, guidance_given=1.0 if scale is None else scale)
        model = MultiViewGenerator.from_pretrained(weights, device, hub=command.hub)
        return together(model, sampling), model.image_size, model.surroundings
    drawer = ViewSynthesizer.from_pretrained(weights, device, hub=command.hub)
    how = {"conditioning": command.conditioning, "memory": command.memory, "eta": command.eta}
    sampling = drawer.sampling_with(steps=command.steps, guidance=scale, **how)
    return one_by_one(drawer.network, sampling), drawer.image_size, False
