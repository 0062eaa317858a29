"""Ablations of scene generation.

    python examples/generator_ablations.py out/scenes --which hierarchy --steps 2000
    python examples/generator_ablations.py out/scenes --which sampler

``hierarchy``: c only, c and f, all of g, c and f, each with a latent auto-encoder and denoisers of its own, on small
fields and equal budgets (the paper's Table 4). ``direct``: diffusion straight on the voxels, without latents (its
Figure 14), beside c and f. ``guidance`` and ``sampler``: the given weights with other guidance scales, and with other
schedulers and numbers of steps: quality against seconds.

All are judged by the Fréchet distance, in the feature space of the weights' frame classifier, of generated pictures to
those of test maps, as a multiple of that of training pictures.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import diffusers
import torch
from torch import Tensor

from nfldm3d.data.encoded_scenes import EncodedScenes
from nfldm3d.data.scene_dataset import SceneDataset
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.data.scenes import spread
from nfldm3d.evaluation.distributions import frechet_distance
from nfldm3d.evaluation.generator import SIZE, measure_map_overlap
from nfldm3d.geometry import Box
from nfldm3d.models.nfldm.denoisers import GridDenoiser
from nfldm3d.models.nfldm.latent_autoencoder import LatentAutoencoder
from nfldm3d.models.nfldm.readers import BevReader, FrameClassifier
from nfldm3d.models.nfldm.scene_autoencoder import SceneAutoencoder
from nfldm3d.models.nfldm.scene_voxels import FULL, Voxels
from nfldm3d.models.nfldm.trajectories import path_cameras
from nfldm3d.models.weight_folders import find_weights
from nfldm3d.models.weights import load_network
from nfldm3d.pipelines.autoencoders import Autoencoders
from nfldm3d.pipelines.encoding import encode_scenes
from nfldm3d.pipelines.sampling import Sampler, split_generator
from nfldm3d.pipelines.scene_generator import SceneGenerator
from nfldm3d.rendering import render
from nfldm3d.scene import Scene
from nfldm3d.training import TrainingOptions, train
from nfldm3d.training.denoiser_stage import DenoiserStage, LatentSet, LatentSetSource, make_denoiser, make_schedule
from nfldm3d.training.latent_stage import LatentSource, LatentStage
from nfldm3d.training.scene_source import Drawing, SceneSource
from nfldm3d.training.scene_stage import SceneStage
from nfldm3d.training.stage import Stage

RESOLUTION = (32, 32, 8)
SCALES = (1.0, 2.0, 4.0, 8.0, 14.0)
SCHEDULERS = ("DDIMScheduler", "DPMSolverMultistepScheduler", "DDPMScheduler")


class Judge:
    """Fréchet distances of pictures to those of test maps."""

    def __init__(self, arguments: argparse.Namespace):
        self.classifier = load_network(FrameClassifier, find_weights(arguments.weights) / "frame_classifier")
        self.count = arguments.generated * arguments.views
        self.real = self.embed(self.pictures(SceneDataset(arguments.data, split="test")))
        self.floor = float(frechet_distance(self.embed(self.pictures(SceneDataset(arguments.data))), self.real))

    def pictures(self, scenes: SceneDataset) -> Tensor:
        """Recorded ones of walks, 8 of each scene."""
        chosen = spread(scenes, -(-self.count // 8))
        return torch.cat([sample.images[-8:].float() / 255 for sample in chosen])

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        return torch.cat([self.classifier.embed(part) for part in images.split(256)])

    @torch.no_grad()
    def ratio(self, scenes: Sequence[Scene], views: int) -> float:
        """Of pictures along the scenes' own paths."""
        pictures = []
        for scene in scenes:
            assert scene.cameras is not None
            pictures.append(render(scene, scene.cameras.resized(SIZE, SIZE).interpolated(views)).image)
        return round(float(frechet_distance(self.embed(torch.cat(pictures)), self.real)) / self.floor, 3)


def run(stage: Stage, steps: int, batch: int) -> None:
    options = TrainingOptions(
        steps=steps, batch_size=batch, learning_rate=6e-4, evaluate_every=0, ema_decay=0.99, warmup_steps=50
    )
    with tempfile.TemporaryDirectory() as folder:
        train(stage, folder, options=options)
    stage.model.eval()


def hierarchy(arguments: argparse.Namespace, judge: Judge, direct: bool) -> Iterator[dict]:
    scenes = list(spread(SceneDataset(arguments.data), arguments.scenes))
    held_out = SceneDataset(arguments.data, split="test")
    torch.manual_seed(0)
    coder = SceneAutoencoder(RESOLUTION, image_widths=(48, 64), grid_widths=(48, 64), decoder_widths=(32, 48))
    run(SceneStage(coder, SceneSource(scenes, Drawing()), held_out, judged=1), arguments.steps, 2)
    base = Autoencoders(coder.eval().requires_grad_(False), None)
    with tempfile.TemporaryDirectory() as work:
        fields = Path(work, "fields")
        encode_scenes(base, scenes, fields)
        kinds = {"c": (False, False), "c+f": (True, False), "g+c+f": (True, True)}
        for name, (fine, everything) in ({"c+f": (True, False)} if direct else kinds).items():
            torch.manual_seed(0)
            latent = LatentAutoencoder(RESOLUTION, width=64, fine_width=48, use_fine=fine, use_global=everything)
            source = LatentSource(EncodedScenes(fields), scenes, [scene.key for scene in scenes])
            run(LatentStage(latent, coder, source, held_out, judged=1), arguments.steps, 4)
            networks = Autoencoders(coder, latent.requires_grad_(False))
            folder = Path(work, name)
            encode_scenes(networks, scenes, folder, keep="latents")
            pipeline = train_denoisers(arguments, networks, LatentSetSource(EncodedScenes(folder)), fine, everything)
            made = pipeline.generate(
                arguments.generated,
                num_inference_steps=arguments.sampling_steps,
                generator=torch.Generator().manual_seed(0),
            ).scenes
            yield {"latents": name, "frechet_ratio": judge.ratio(made, arguments.views)}
        if direct:
            made = sample_voxels(arguments, base, EncodedScenes(fields), scenes)
            yield {"latents": "none", "frechet_ratio": judge.ratio(made, arguments.views)}


def train_denoisers(
    arguments: argparse.Namespace, networks: Autoencoders, source: LatentSetSource, fine: bool, everything: bool
) -> SceneGenerator:
    assert networks.latent is not None
    made = {}
    for level in ("g", "c", "f"):
        if level == "f" and not fine:
            continue
        torch.manual_seed(0)
        model = make_denoiser(level, source, use_map=False)  # g still holds the path where there is no global latent
        run(DenoiserStage(level, model, source, source), arguments.denoiser_steps, 16)
        made[f"denoiser_{level}"] = model
    box = source.encoded.header["box_size"]
    pipeline = SceneGenerator(networks.scene, networks.latent, scheduler=make_schedule(), box_size=box, **made)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class VoxelSource(LatentSetSource):
    """Fields as one folded grid each, in place of a coarse latent."""

    def __init__(self, encoded: EncodedScenes):
        self.encoded = encoded

    def read(self, index: int) -> LatentSet:
        tensors = self.encoded[index].tensors
        occupancy = tensors["occupancy"].float().clamp(FULL, 1 - FULL).logit()[..., None]
        grid = torch.cat((occupancy, tensors["features"].float()), dim=-1)
        folded = grid.permute(3, 2, 0, 1).flatten(0, 1)[None]  # x y z channels -> 1 channels*z x y
        return LatentSet(torch.zeros(1, 1), folded, folded[:, :0], None)


@torch.no_grad()
def sample_voxels(
    arguments: argparse.Namespace, base: Autoencoders, encoded: EncodedScenes, scenes: Sequence[SceneSample]
) -> list[Scene]:
    x, _, z = RESOLUTION
    source, channels = VoxelSource(encoded), (1 + int(base.scene.config["channels"])) * z
    torch.manual_seed(0)
    model = GridDenoiser(channels, x, widths=(96, 144, 192), attention=(False, True, True), layers=1, dimensions=0)
    with torch.enable_grad():
        run(DenoiserStage("c", model, source, source), 3 * arguments.denoiser_steps, 16)
    skies = torch.stack([encoded[n].tensors["sky"].float() for n in range(len(encoded))])
    sampler = Sampler(make_schedule(), arguments.sampling_steps, progress=False)
    made = []
    for draws in split_generator(torch.Generator().manual_seed(0), arguments.generated):
        grid = sampler.sample("voxels", model, (channels, x, x), [draws], torch.device("cpu"))
        values = model.scaling.denormalize(grid).unflatten(1, (-1, z)).permute(0, 3, 4, 2, 1)
        number = int(torch.randint(len(encoded), (), generator=draws))
        voxels = Voxels(values[..., 0].sigmoid(), values[..., 1:], skies[number : number + 1])
        x_size, y_size, z_size = scenes[0].box.size
        box = Box.from_center((0.0, 0.0, 0.0), (x_size, y_size, z_size))
        path = scenes[number % len(scenes)].trajectory
        assert path is not None
        lifted = centred_path(path, scenes[number % len(scenes)].box)
        made.append(base.assemble_voxels(voxels[0], box, path_cameras(lifted, SIZE, SIZE)))
    return made


def centred_path(path: Tensor, box: Box) -> Tensor:
    """A path as if its box lay around the origin."""
    return torch.cat((path[:, :3] - torch.tensor(box.center), path[:, 3:]), dim=-1)


def guidance(arguments: argparse.Namespace, judge: Judge) -> Iterator[dict]:
    pipeline, held_out = SceneGenerator.from_pretrained(arguments.weights), SceneDataset(arguments.data, split="test")
    reader = load_network(BevReader, find_weights(arguments.weights) / "bev_reader")
    samples = [sample for sample in spread(held_out, arguments.generated) if sample.bev is not None]
    maps = torch.stack([sample.bev.classes for sample in samples if sample.bev is not None])
    seen = torch.stack([known for sample in samples if (known := sample.seen_map()) is not None])
    for scale in SCALES:
        made = pipeline.generate(
            len(maps),
            maps,
            guidance_scale=scale,
            num_inference_steps=arguments.sampling_steps,
            generator=torch.Generator().manual_seed(0),
        ).scenes
        overlap, ratio = measure_map_overlap(reader, made, seen), judge.ratio(made, arguments.views)
        yield {"guidance_scale": scale, "bev_miou": round(overlap, 3), "frechet_ratio": ratio}


def sampler(arguments: argparse.Namespace, judge: Judge) -> Iterator[dict]:
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
            ratio = judge.ratio(made.scenes, arguments.views)
            yield {"scheduler": name, "steps": steps, "frechet_ratio": ratio, "seconds_per_scene": round(seconds, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="shards of nfldm3d capture vizdoom --scenes")
    parser.add_argument("--which", choices=("hierarchy", "direct", "guidance", "sampler"), required=True)
    parser.add_argument("--weights", default="vizdoom", help="of a scene generator: shipped, or a folder")
    parser.add_argument("--steps", type=int, default=2000, help="optimiser steps of each auto-encoder")
    parser.add_argument("--denoiser-steps", type=int, default=4000, help="optimiser steps of each denoiser")
    parser.add_argument(
        "--tried-steps", type=int, nargs="+", default=[10, 20, 40, 80], help="tried with each scheduler"
    )
    parser.add_argument("--sampling-steps", type=int, default=25, help="steps of a sampler where that is not the point")
    parser.add_argument("--scenes", type=int, default=600, help="scenes to train on")
    parser.add_argument("--generated", type=int, default=64, help="scenes that each row is measured on")
    parser.add_argument("--views", type=int, default=32, help="pictures of each of them")
    arguments = parser.parse_args()
    judge = Judge(arguments)
    rows = {
        "hierarchy": lambda: hierarchy(arguments, judge, direct=False),
        "direct": lambda: hierarchy(arguments, judge, direct=True),
        "guidance": lambda: guidance(arguments, judge),
        "sampler": lambda: sampler(arguments, judge),
    }
    for figures in rows[arguments.which]():
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
