"""What a trained generator makes with other guidance scales, schedulers and numbers of steps: quality against seconds.

    python examples/generator_ablations.py out/scenes --which sampler
    python examples/generator_ablations.py roads --weights driving --which guidance

Judged by the Fréchet distance of generated pictures to those of test maps, in the features of the weights' frame
classifier, as a multiple of that of training pictures; ``low`` and ``high`` are its bounds, had other scenes been
sampled, nine times of ten. Rows that are trained from scratch are in ``ablations.py``.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import diffusers
import torch

from nfldm3d.data.scene_dataset import SceneDataset
from nfldm3d.data.scenes import spread
from nfldm3d.evaluation.frechet_ratio import FrechetRatio, load_judge
from nfldm3d.evaluation.map_scores import measure_map_overlap, seen_maps
from nfldm3d.models.nfldm.readers import BevReader
from nfldm3d.models.weight_folders import find_weights
from nfldm3d.models.weights import load_network
from nfldm3d.pipelines.scene_generator import SceneGenerator

SCALES = (1.0, 2.0, 4.0, 8.0, 14.0)
SCHEDULERS = ("DDIMScheduler", "DPMSolverMultistepScheduler", "DDPMScheduler")


def guidance(arguments: argparse.Namespace, judge: FrechetRatio) -> Iterator[dict]:
    pipeline, held_out = SceneGenerator.from_pretrained(arguments.weights), SceneDataset(arguments.data, split="test")
    reader = load_network(BevReader, find_weights(arguments.weights) / "bev_reader")
    samples = [sample for sample in spread(held_out, arguments.generated) if sample.bev is not None]
    maps = torch.stack([sample.bev.classes for sample in samples if sample.bev is not None])
    seen = seen_maps(samples)
    for scale in SCALES:
        made = pipeline.generate(
            len(maps),
            maps,
            guidance_scale=scale,
            num_inference_steps=arguments.sampling_steps,
            generator=torch.Generator().manual_seed(0),
        ).scenes
        overlap = measure_map_overlap(reader, made, seen)
        yield {"guidance_scale": scale, "bev_miou": round(overlap, 3), **judge.of(made)}


def sampler(arguments: argparse.Namespace, judge: FrechetRatio) -> Iterator[dict]:
    pipeline = SceneGenerator.from_pretrained(arguments.weights)
    for name in SCHEDULERS:
        scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config)
        for steps in arguments.tried_steps:
            start = time.monotonic()
            made = pipeline.generate(
                arguments.generated,
                num_inference_steps=steps,
                scheduler=scheduler,
                generator=torch.Generator().manual_seed(0),
            )
            seconds = (time.monotonic() - start) / arguments.generated
            figures = judge.of(made.scenes)
            yield {"scheduler": name, "steps": steps, **figures, "seconds_per_scene": round(seconds, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="shards of nfldm3d capture driving or vizdoom --scenes")
    parser.add_argument("--which", choices=("guidance", "sampler"), required=True)
    parser.add_argument("--weights", default="vizdoom", help="of a scene generator: shipped, or a folder")
    parser.add_argument(
        "--tried-steps", type=int, nargs="+", default=[10, 20, 40, 80], help="tried with each scheduler"
    )
    parser.add_argument("--sampling-steps", type=int, default=25, help="steps of a sampler where that is not the point")
    parser.add_argument("--generated", type=int, default=96, help="scenes that each row is measured on")
    parser.add_argument("--views", type=int, default=24, help="pictures of each of them")
    arguments = parser.parse_args()
    training, held_out = (SceneDataset(arguments.data, split=split) for split in ("train", "test"))
    count = arguments.generated * arguments.views
    judge = FrechetRatio.against(load_judge(find_weights(arguments.weights)), training, held_out, pictures=count)
    for figures in {"guidance": guidance, "sampler": sampler}[arguments.which](arguments, judge):
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
