"""What refining a scene is worth: nothing, distillation with plain and with negative guidance, and a restorer.

    python examples/refinement_ablation.py roads --weights runs/latent --restorer runs/restorer --prior runs/prior

Scenes of the test split are encoded from half of their views, compressed if the weights hold stage 2, refined in each
way from the same cameras, and compared with photographs from the other half (the paper's Figure 27, with the truth
known). OUT gets a table, a page of pictures, and a folder of pairs to look at without knowing which is which.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from nfldm3d import Scene, render
from nfldm3d.data.scene_dataset import SceneDataset
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.data.scenes import spread
from nfldm3d.evaluation.metrics import Lpips, psnr, sharpness, ssim
from nfldm3d.guidance import load_prior
from nfldm3d.models.priors.restorer import Restorer
from nfldm3d.pictures import save_contact_sheet, save_image
from nfldm3d.pipelines import Autoencoders
from nfldm3d.pipelines.pairs import encode_as_generated
from nfldm3d.pipelines.refining import RefineOptions, refine
from nfldm3d.pipelines.refining.guides import coarse

SHOWN = 6
"""Views of a scene on the page."""
LIKE = 64
"""Photographs of training scenes that distillation is told of."""

Way = Callable[[Scene], Scene]


def make_ways(arguments: argparse.Namespace, options: RefineOptions) -> dict[str, Way]:
    """How scenes are refined, by name."""
    ways: dict[str, Way] = {"none": lambda scene: scene}
    if arguments.prior:
        prior, like = load_prior(arguments.prior), read_photographs(arguments.scenes)
        plain = replace(options, plain_guidance=True)
        ways["plain guidance"] = lambda scene: refine(scene, prior, options=plain, like=like, progress=False)
        ways["negative guidance"] = lambda scene: refine(scene, prior, options=options, like=like, progress=False)
    if arguments.restorer:
        restorer = Restorer.from_pretrained(arguments.restorer)
        ways["restore"] = lambda scene: refine(scene, restorer, options=options, progress=False)
    return ways


def read_photographs(folder: Path) -> Tensor:
    """Photographs of training scenes, one of each."""
    chosen = spread(SceneDataset(folder, split="train"), LIKE)
    return torch.stack([sample.images[0].float() / 255 for sample in chosen])


def split(sample: SceneSample) -> tuple[list[int], list[int]]:
    """Views to encode, and views to compare with."""
    order = torch.randperm(len(sample.images), generator=torch.Generator().manual_seed(0)).tolist()
    return sorted(order[: len(order) // 2]), sorted(order[len(order) // 2 :])


def judge(image: Tensor, raw: Tensor, truth: Tensor, lpips: Lpips | None) -> dict[str, float]:
    """Figures of pictures against photographs, and against what the scene showed before."""
    figures = {
        "psnr": float(psnr(image, truth)),
        "ssim": float(ssim(image, truth)),
        "sharpness": float(sharpness(image, truth)),
        "coarse_psnr": min(99.0, float(psnr(coarse(image), coarse(raw)))),
    }
    return figures | ({} if lpips is None else {"lpips_like": float(lpips(image, truth).mean())})


@torch.no_grad()
def look(scene: Scene, sample: SceneSample, views: list[int]) -> Tensor:
    """What the scene shows where photographs were taken."""
    return render(scene, sample.camera[views]).image


def main() -> None:
    """Prints a table and writes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--restorer")
    parser.add_argument("--prior")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--steps", type=int, default=RefineOptions().steps)
    parser.add_argument("--lpips", action="store_true", help="a perceptual distance, too, if its weights are here")
    parser.add_argument("--out", type=Path, default=Path("out/refinement"))
    arguments = parser.parse_args()
    networks, lpips = Autoencoders.from_pretrained(arguments.weights), Lpips.find_like() if arguments.lpips else None
    ways = make_ways(arguments, RefineOptions(steps=arguments.steps))
    blind, key, shuffled = arguments.out / "blind", {}, random.Random(0)
    blind.mkdir(parents=True, exist_ok=True)
    table: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for number, sample in enumerate(spread(SceneDataset(arguments.scenes, split="test"), arguments.count)):
        inputs, views = split(sample)
        scene, truth = encode_as_generated(networks, sample, inputs), sample.images[views].float() / 255
        rows = {}
        for name, way in ways.items():
            start = time.monotonic()
            refined = way(scene)
            seconds = time.monotonic() - start
            rows[name] = look(refined, sample, views)
            table[name].append(judge(rows[name], rows["none"], truth, lpips) | {"seconds": seconds})
        page = {name: pictures[:SHOWN] for name, pictures in rows.items()} | {"photographs": truth[:SHOWN]}
        save_contact_sheet(page, arguments.out / f"scene_{number:02d}.png")
        last = list(rows)[-1]
        for view in range(min(3, len(views))):
            sides = [("none", rows["none"][view]), (last, rows[last][view])]
            shuffled.shuffle(sides)
            name = f"{number:02d}_{view}"
            key[name] = [side for side, _ in sides]
            save_image(torch.cat([picture for _, picture in sides], dim=-1), blind / f"{name}.png")
    (arguments.out / "key.json").write_text(json.dumps(key, indent=1), encoding="utf-8")
    means = {
        name: {part: round(sum(row[part] for row in rows) / len(rows), 3) for part in rows[0]}
        for name, rows in table.items()
    }
    (arguments.out / "table.json").write_text(json.dumps(means, indent=1), encoding="utf-8")
    print(json.dumps(means, indent=1))


if __name__ == "__main__":
    main()
