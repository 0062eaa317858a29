"""``nfldm3d evaluate views``: how well objects are drawn from one view of each."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from nfldm3d.cli.devices import open_device

if TYPE_CHECKING:
    from nfldm3d.cli.evaluate import Evaluate
    from nfldm3d.evaluation.view_scores import ViewBudget


def judge_views(command: "Evaluate", data: Path, budget: "ViewBudget") -> dict[str, object]:
    """Measures what ``command`` asks for on objects in ``data``; the page shows objects given, drawn and true."""
    from nfldm3d.data.view_sets import open_view_sets
    from nfldm3d.evaluation.features import EfficientNetFeatures
    from nfldm3d.evaluation.metrics import Lpips
    from nfldm3d.evaluation.picture_scores import embedding_by
    from nfldm3d.evaluation.published_views import published_views
    from nfldm3d.evaluation.view_scores import measure_views
    from nfldm3d.pictures import save_image
    from nfldm3d.pipelines.views import ViewSynthesizer

    if command.out is not None:
        raise ValueError("views are judged by one process and at once; leave --out out")
    if command.split == "all":
        raise ValueError("views are judged on one side of a data set; give --split test, or train")
    device, given = open_device(command.device), command.efficientnet
    model = ViewSynthesizer.from_pretrained(command.weights, device, hub=command.hub)
    sets = open_view_sets(data, command.split, size=model.image_size)
    features = EfficientNetFeatures.find() if given is None else EfficientNetFeatures.load(given)
    embed = None if features is None else embedding_by(features.to(device), device)
    report = measure_views(model.network, sets, budget, lpips=Lpips.find_like(), embed=embed)
    if command.page is not None:
        save_image(report.page, command.page)
    rounded = {name: round(value, 4) if math.isfinite(value) else None for name, value in report.figures.items()}
    return {**rounded, "objects": min(budget.objects, len(sets)), "published": published_views()}
