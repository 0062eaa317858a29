"""The paper's ablations of both auto-encoders, each row trained from scratch with the same small budget.

    nfldm3d capture vizdoom --scenes 400 --out out/scenes
    python examples/ablations.py out/scenes --which voxel-size --steps 400

``voxel-size``: finer voxels show more (Table 12). ``density``: densities predicted for each view against densities
inferred from pooled features (Figure 15). ``pooling``: mean against attention. ``recipe``: the paper's plain one
against ours, both from colour alone. ``surfaces``: densities that are not negative against signed ones, whose surfaces
lie between voxels. ``downsampling``: of the coarse latent (Table 13), on the fields of the given stage 1.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from nfldm3d.data.encoded_scenes import EncodedScenes
from nfldm3d.data.scene_dataset import SceneDataset
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.data.scenes import spread
from nfldm3d.evaluation.autoencoder_report import judge_autoencoders
from nfldm3d.models.nfldm.latent_autoencoder import LatentAutoencoder
from nfldm3d.models.nfldm.scene_autoencoder import PAPER, SceneAutoencoder
from nfldm3d.pipelines.autoencoders import Autoencoders
from nfldm3d.pipelines.encoding import encode_scenes
from nfldm3d.training import TrainingOptions, train
from nfldm3d.training.latent_stage import LatentSource, LatentStage
from nfldm3d.training.scene_source import Drawing, SceneSource
from nfldm3d.training.scene_stage import PAPER_WEIGHTS, SceneStage, SceneWeights

SMALL = {"image_widths": (48, 64), "grid_widths": (48, 64), "decoder_widths": (32, 48)}
VOXEL_SIZES = {(32, 32, 8): 2, (64, 64, 16): 2, (128, 128, 32): 1}
"""The stride of the frustums' grid for each resolution: finer voxels need finer frustums, or they stay empty."""


def options(arguments: argparse.Namespace) -> TrainingOptions:
    return TrainingOptions(
        steps=arguments.steps, batch_size=2, learning_rate=8e-4, evaluate_every=0, ema_decay=0.99, warmup_steps=50
    )


def train_scene(
    arguments: argparse.Namespace, scenes: list[SceneSample], held_out: SceneDataset, *, plain: bool = False, **changes
) -> Autoencoders:
    torch.manual_seed(0)
    model = SceneAutoencoder(**(SMALL | (PAPER if plain else {}) | changes))
    source = SceneSource(scenes, Drawing(without_depth=1.0) if plain else Drawing())
    stage = SceneStage(model, source, held_out, weights=PAPER_WEIGHTS if plain else SceneWeights(), judged=1)
    with tempfile.TemporaryDirectory() as folder:
        train(stage, folder, options=options(arguments))
    return Autoencoders(model.eval(), None)


def train_latent(arguments: argparse.Namespace, scenes: list[SceneSample], held_out: SceneDataset) -> Iterator[dict]:
    base = Autoencoders(Autoencoders.from_pretrained(arguments.weights).scene, None)
    with tempfile.TemporaryDirectory() as fields:
        encode_scenes(base, scenes, fields)
        for downsampling in (16, 8, 4):
            torch.manual_seed(0)
            model = LatentAutoencoder(downsampling=downsampling, width=64, fine_width=48)
            source = LatentSource(EncodedScenes(fields), scenes, [scene.key for scene in scenes])
            stage = LatentStage(model, base.scene, source, held_out, judged=1)
            with tempfile.TemporaryDirectory() as folder:
                train(stage, folder, options=options(arguments))
            networks = Autoencoders(base.scene, model.eval())
            yield {"downsampling": downsampling} | row(arguments, networks, held_out, "latent_autoencoder")


def row(arguments: argparse.Namespace, networks: Autoencoders, held_out: SceneDataset, part: str) -> dict:
    return dict(judge_autoencoders(networks, spread(held_out, arguments.judged)).summary()[part])  # type: ignore[call-overload]


def rows(arguments: argparse.Namespace, scenes: list[SceneSample], held_out: SceneDataset) -> Iterator[dict]:
    if arguments.which == "downsampling":
        yield from train_latent(arguments, scenes, held_out)
        return
    part = "scene_autoencoder_from_colour" if arguments.which == "recipe" else "scene_autoencoder"
    changes: list[dict] = {
        "voxel-size": [{"resolution": size, "stride": stride} for size, stride in VOXEL_SIZES.items()],
        "density": [{"density": "inferred"}, {"density": "explicit"}],
        "pooling": [{"pooling": "mean"}, {"pooling": "attention"}],
        "surfaces": [{"signed": False}, {"signed": True}],
        "recipe": [{"plain": True}, {"plain": False}],
    }[arguments.which]
    for change in changes:
        yield change | row(arguments, train_scene(arguments, scenes, held_out, **change), held_out, part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="shards of nfldm3d capture vizdoom --scenes")
    kinds = ("voxel-size", "density", "pooling", "recipe", "surfaces", "downsampling")
    parser.add_argument("--which", choices=kinds, required=True)
    parser.add_argument("--weights", default="vizdoom", help="a trained stage 1")
    parser.add_argument("--steps", type=int, default=400, help="optimiser steps of each network")
    parser.add_argument("--scenes", type=int, default=300, help="scenes to train on")
    parser.add_argument("--judged", type=int, default=24, help="held-out scenes that each row is measured on")
    arguments = parser.parse_args()
    scenes = list(spread(SceneDataset(arguments.data, split="train"), arguments.scenes))
    held_out = SceneDataset(arguments.data, split="test")
    for figures in rows(arguments, scenes, held_out):
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
