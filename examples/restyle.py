"""Another time of day: scenes of roads are refined towards photographs of a look, and judged by it.

    python examples/restyle.py roads --weights driving --prior runs/prior --looks night dusk

ROADS are shards of nfldm3d capture driving. Scenes of the test split are encoded as generated ones are, and refined by
score distillation towards photographs of each look from training scenes. A judge that saw none of this, a linear one
of the colours in 4 x 4 parts of a picture, names the look of what they show then; what the scene holds is read as a
bird's-eye map from a scene that is encoded from pictures of it, before and after. OUT gets a table and pages.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from nfldm3d import Scene, render
from nfldm3d.data.scene_dataset import SceneDataset
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.data.scenes import spread
from nfldm3d.evaluation.distributions import intersection_over_union
from nfldm3d.evaluation.map_scores import read_map, seen_maps
from nfldm3d.guidance import load_prior
from nfldm3d.models.nfldm.readers import BevReader
from nfldm3d.models.nfldm.views import Views
from nfldm3d.models.weight_folders import find_weights
from nfldm3d.models.weights import load_network
from nfldm3d.pictures import save_contact_sheet
from nfldm3d.pipelines import Autoencoders
from nfldm3d.pipelines.pairs import INPUTS, encode_as_generated
from nfldm3d.pipelines.refining import RefineOptions, refine

LIKE = 64
"""Photographs of a look that distillation is told of."""
SHOWN = 6
"""Views of a scene on the page."""
RESTYLING = RefineOptions(match_colors=1.0, most_noise=0.6, guidance_scale=3.0)
"""Colours change as a whole first, then the prior changes what has others."""


def name_look(sample: SceneSample) -> str:
    """The time of day of a recorded scene; nothing if it was not told."""
    weather = sample.metadata.get("weather")
    return str(weather["time_of_day"]) if isinstance(weather, Mapping) else ""


class LookJudge:
    """Logistic regression from colours in parts of pictures to looks."""

    def __init__(self, looks: list[str]):
        self.looks, self.layer = looks, nn.Linear(48, len(looks))

    def fit(self, images: Tensor, looks: list[str]) -> None:
        """Learns from photographs (views 3 height width) with their looks."""
        answers = torch.tensor([self.looks.index(look) for look in looks])
        optimizer = torch.optim.Adam(self.layer.parameters(), 0.05, weight_decay=1e-4)
        for _ in range(400):
            optimizer.zero_grad()
            functional.cross_entropy(self.layer(self._see(images)), answers).backward()
            optimizer.step()

    @torch.no_grad()
    def share(self, images: Tensor, look: str) -> float:
        """The share of pictures that have a look."""
        said = self.layer(self._see(images)).argmax(1)
        return float((said == self.looks.index(look)).float().mean())

    def _see(self, images: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(images, 4).flatten(1) * 4 - 2


def photographs(samples: list[SceneSample], each: int) -> tuple[Tensor, list[str]]:
    """Some photographs of each scene, and their looks."""
    images = torch.cat([sample.images[:each].float() / 255 for sample in samples])
    return images, [name_look(sample) for sample in samples for _ in sample.images[:each]]


def read_again(networks: Autoencoders, reader: BevReader, scene: Scene, sample: SceneSample) -> Tensor:
    """The map of a scene that is encoded from pictures of this one."""
    shown = render(scene, sample.camera)
    views = Views(shown.image, sample.camera, shown.depth)
    assert scene.field.box is not None
    return read_map(reader, networks.encode(views, scene.field.box)).cpu()


def compare_maps(found: list[Tensor], samples: list[SceneSample], classes: int) -> float:
    """Mean IoU of maps with the recorded ones."""
    return float(intersection_over_union(torch.cat(found), seen_maps(samples), classes).nanmean())


def main() -> None:
    """Prints a table and writes the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--prior", required=True)
    parser.add_argument("--weights", default="driving")
    parser.add_argument("--looks", nargs="+", default=["night", "dusk"])
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--steps", type=int, default=RefineOptions().steps)
    parser.add_argument("--out", type=Path, default=Path("out/restyle"))
    arguments = parser.parse_args()
    networks, prior = Autoencoders.from_pretrained(arguments.weights), load_prior(arguments.prior)
    reader = load_network(BevReader, find_weights(arguments.weights) / "bev_reader")
    known = [sample for sample in SceneDataset(arguments.scenes, split="train") if name_look(sample)]
    judge = LookJudge(sorted({name_look(sample) for sample in known}))
    judge.fit(*photographs(known, 4))
    unseen = list(spread(SceneDataset(arguments.scenes, split="test"), arguments.count))
    images, looks = photographs(unseen, 8)
    rights = [judge.share(image[None], look) for image, look in zip(images, looks, strict=True)]
    table: dict[str, dict[str, float]] = {"photographs": {"named": sum(rights) / len(rights)}}
    options = replace(RESTYLING, steps=arguments.steps)
    scenes = [encode_as_generated(networks, sample, list(range(min(INPUTS, len(sample.images))))) for sample in unseen]
    before = [read_again(networks, reader, scene, sample) for scene, sample in zip(scenes, unseen, strict=True)]
    classes = int(reader.config["classes"])
    table["before"] = {"map_iou": compare_maps(before, unseen, classes)}
    pages = [{"before": render(scene, scene.cameras[:SHOWN]).image} for scene in scenes if scene.cameras is not None]
    for look in arguments.looks:
        some = [sample for sample in known if name_look(sample) == look]
        like = torch.cat([sample.images[:1].float() / 255 for sample in some])[:LIKE]
        named, maps = [], []
        for number, (scene, sample) in enumerate(zip(scenes, unseen, strict=True)):
            restyled = refine(scene, prior, options=replace(options, seed=number), like=like)
            shown = render(restyled, sample.camera).image
            named.append(judge.share(shown, look))
            maps.append(read_again(networks, reader, restyled, sample))
            pages[number][look] = shown[:SHOWN]
        table[look] = {"named": sum(named) / len(named), "map_iou": compare_maps(maps, unseen, classes)}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number, page in enumerate(pages):
        save_contact_sheet(page, arguments.out / f"scene_{number:02d}.png")
    (arguments.out / "table.json").write_text(json.dumps(table, indent=1), encoding="utf-8")
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
