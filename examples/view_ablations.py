"""Ablations of novel views by diffusion, each one command: what it trains is small and trained alike.

    nfldm3d capture objects --from sweethome3d-furniture --out objects --layout shards
    python examples/view_ablations.py objects --which conditioning --weights runs/views
    python examples/view_ablations.py objects --which networks --steps 4000
    python examples/view_ablations.py objects --which multiview --prior MODEL --steps 2000

``conditioning``: which view each denoising step goes by, with trained weights: any (stochastic), the first (naive), one
of the last one or two (Markov). ``networks``: the X-UNet against the Concat-UNet and the regression. ``multiview``:
ViewDiff with all it has, without projection layers, without attention across views, drawing all views from the caption
alone; of its figures consistency and distances of sets count. Each row is a line of JSON.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nfldm3d.data.view_sets import SIDES, Side, ViewSets, open_view_sets
from nfldm3d.evaluation.drawn_objects import DrawViews, one_by_one, together
from nfldm3d.evaluation.features import EfficientNetFeatures
from nfldm3d.evaluation.metrics import Lpips
from nfldm3d.evaluation.picture_scores import embedding_by
from nfldm3d.evaluation.view_scores import ViewBudget, measure_views
from nfldm3d.models.views.multiview.view_layers import ViewLayers
from nfldm3d.models.views.sampling import ViewSampling
from nfldm3d.models.views.xunet import XUNet
from nfldm3d.pipelines.views.multiview import MultiViewGenerator, MultiViewSampling, open_text_model
from nfldm3d.pipelines.views.synthesis import ViewSynthesizer
from nfldm3d.training import TrainingOptions, train
from nfldm3d.training.multiview_stage import MultiViewSource, MultiViewStage
from nfldm3d.training.stage import Stage
from nfldm3d.training.view_stage import ViewDiffusionStage, ViewPairSource

CONDITIONING: dict[str, dict[str, Any]] = {
    "stochastic": {"conditioning": "stochastic"},
    "naive": {"conditioning": "first"},
    "markov, 1 view": {"conditioning": "markov", "memory": 1},
    "markov, 2 views": {"conditioning": "markov", "memory": 2},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "X-UNet": {},
    "Concat-UNet": {"kind": "concat"},
    "regression": {"objective": "regression"},
}
MULTIVIEW: dict[str, dict[str, Any]] = {
    "all": {},
    "without projection layers": {"levels": None},
    "without attention across views": {"shared": False},
}
SIZE = 64


def learn(stage: Stage, steps: int, batch: int, rate: float) -> None:
    """The same schedule for all of one table."""
    options = TrainingOptions(steps=steps, batch_size=batch, learning_rate=rate, evaluate_every=0, weight_decay=0.0)
    with tempfile.TemporaryDirectory() as folder:
        train(stage, folder, options=options)
    stage.model.eval()


def judge(draw: DrawViews, sets: ViewSets, budget: ViewBudget) -> dict[str, float]:
    features = EfficientNetFeatures.find()
    embed = None if features is None else embedding_by(features, torch.device("cpu"))
    return measure_views(draw, sets, budget, lpips=Lpips.find_like(), embed=embed).figures


def compare_conditioning(
    weights: str, test: ViewSets, budget: ViewBudget, sampling: ViewSampling
) -> Iterator[Mapping[str, object]]:
    network = ViewSynthesizer.from_pretrained(weights).network
    for name, options in CONDITIONING.items():
        yield {"row": name} | judge(one_by_one(network, replace(sampling, **options)), test, budget)


def compare_networks(
    sets: dict[Side, ViewSets], budget: ViewBudget, sampling: ViewSampling, steps: int, options: dict[str, Any]
) -> Iterator[Mapping[str, object]]:
    source, held_out = (ViewPairSource(sets[side]) for side in ("train", "val"))
    for name, changed in NETWORKS.items():
        torch.manual_seed(0)
        network = XUNet(**(options | changed))
        learn(ViewDiffusionStage(network, source, held_out), steps, 4, 3e-4)
        yield {"row": name} | judge(one_by_one(network, sampling), sets["test"], budget)


def read_options(text: str) -> dict[str, Any]:
    """Options of a network, written as JSON, which knows lists only."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(text).items()}


def compare_multiview(
    prior: str, sets: dict[Side, ViewSets], budget: ViewBudget, steps: int, options: dict[str, Any]
) -> Iterator[Mapping[str, object]]:
    source, held_out = (MultiViewSource(sets[side]) for side in ("train", "val"))
    for name, changed in MULTIVIEW.items():
        torch.manual_seed(0)
        model = open_text_model(prior)
        generator = MultiViewGenerator.join(model, ViewLayers.of(model.unet, **(options | changed)))  # type: ignore[arg-type]
        learn(MultiViewStage(generator.network, model, source, held_out), steps, 1, 5e-5)
        drawn = together(generator, MultiViewSampling(window=budget.views + 1), given=False)  # all from the caption
        yield {"row": name} | judge(drawn, sets["test"], budget)


def main(options: argparse.Namespace) -> None:
    sampling = ViewSampling(steps=options.sampler_steps, eta=0.0 if options.sampler_steps < 100 else 1.0)
    budget = ViewBudget(options.objects, options.views, options.consistency, options.fit_steps, progress=False)
    size = open_text_model(options.prior).image_size if options.which == "multiview" else SIZE
    size = options.size or size
    sets: dict[Side, ViewSets] = {side: open_view_sets(options.objects_folder, side, size=size) for side in SIDES}
    if options.which == "conditioning":
        rows = compare_conditioning(options.weights, sets["test"], budget, sampling)
    elif options.which == "networks":
        network = {"size": size} | read_options(options.network)
        rows = compare_networks(sets, budget, sampling, options.steps, network)
    else:
        rows = compare_multiview(options.prior, sets, budget, options.steps, read_options(options.network))
    for row in rows:
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objects_folder", type=Path)
    parser.add_argument("--which", choices=("conditioning", "networks", "multiview"), required=True)
    parser.add_argument("--weights", help="a run of nfldm3d train view-diffusion, for conditioning")
    parser.add_argument("--prior", help="folder of a text-to-image model, for multiview")
    parser.add_argument("--steps", type=int, default=4000, help="of training, for each row")
    parser.add_argument("--network", default="{}", help="JSON of other options of the network or the view layers")
    parser.add_argument("--size", type=int, default=0, help="pixels along each side")
    parser.add_argument("--sampler-steps", type=int, default=64)
    parser.add_argument("--objects", type=int, default=32)
    parser.add_argument("--views", type=int, default=15)
    parser.add_argument("--consistency", type=int, default=8, help="objects to whose views a field is fitted")
    parser.add_argument("--fit-steps", type=int, default=1500)
    main(parser.parse_args())
