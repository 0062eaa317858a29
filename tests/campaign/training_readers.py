"""What trainings read and write: data sets, weights, checkpoints, runs."""

import json
from dataclasses import replace
from pathlib import Path

import torch

from campaign import prior_readers
from campaign.formats import Format
from campaign.scene_readers import make_capture


def _make_shards(folder: Path) -> None:
    from small_scenes import small_scene

    from nfldm3d.data.scene_shards import ShardIndex, write_index, write_shard

    shard, scenes = write_shard(folder / "train-000000.tar", [small_scene(number) for number in range(2)])
    write_index(folder, ShardIndex((shard,), scenes))


def _read_shards(folder: Path) -> None:
    from nfldm3d.data.scene_dataset import SceneDataset
    from nfldm3d.data.scene_shards import rebuild_index

    if not (folder / "index.json").exists():
        rebuild_index(folder)
    scenes = SceneDataset(folder, split="train")
    for number in range(len(scenes)):
        sample = scenes[number]
        assert bool(torch.isfinite(sample.camera.rays().directions).all())


def _drop_index(folder: Path) -> None:
    """Indices hold sums of the shards: half of the readers find none, and make it."""
    (folder / "index.json").unlink(missing_ok=True)


def _make_encodings(folder: Path) -> None:
    from nfldm3d.data.encoded_scenes import EncodedScene, start_folder, write_encoding

    generator = torch.Generator().manual_seed(0)
    header = {"keep": "latents", "weights": [], "box_size": [4.0, 4.0, 2.0], "map_classes": ["a", "b"], "map_size": 8}
    start_folder(folder, header)
    tensors = {
        "g": torch.randn(8, generator=generator),
        "path": torch.randn(80, generator=generator),
        "c": torch.randn(4, 2, 4, 4, generator=generator),
        "f": torch.randn(4, 8, 8, generator=generator),
        "bev": torch.randint(3, (8, 8), generator=generator, dtype=torch.uint8),
    }
    for key in ("one", "two"):
        write_encoding(folder, EncodedScene(key, 0, tensors))


def _read_encodings(folder: Path) -> None:
    from nfldm3d.data.encoded_scenes import EncodedScenes, read_header
    from nfldm3d.training.denoiser_stage import LatentSetSource

    read_header(folder)
    LatentSetSource(EncodedScenes(folder)).spread(4)


def _make_weights(folder: Path) -> None:
    from small_rooms import scene_generator

    scene_generator().save_pretrained(folder / "weights")


def _read_weights(folder: Path) -> None:
    from nfldm3d.pipelines import Autoencoders, SceneGenerator

    SceneGenerator.from_pretrained(folder / "weights")
    Autoencoders.from_pretrained(folder / "weights")


def _make_fit(folder: Path) -> None:
    from nfldm3d.fitting import photographs

    views, options = _fit_inputs()
    before, photographs.CHECKPOINT_SECONDS = photographs.CHECKPOINT_SECONDS, 0.0
    try:
        photographs.fit(views, options=options, checkpoint=folder / "fit.safetensors", progress=False)
    finally:
        photographs.CHECKPOINT_SECONDS = before
    (folder / "fit.before.safetensors").unlink()


def _fit_inputs():
    from small_fits import QUICK, ball_scene, views_of

    views = views_of(ball_scene(), count=2, size=(8, 6))
    return views, replace(QUICK, steps=3, voxels=10**3, rays_per_step=16, background="environment")


def _read_fit(folder: Path) -> None:
    from nfldm3d.fitting import fit

    views, options = _fit_inputs()
    fit(views, options=options, checkpoint=folder / "fit.safetensors", progress=False)


def _make_run(folder: Path) -> None:
    import logging

    from toy_stage import ToyStage

    from nfldm3d.training import TrainingOptions, train

    options = TrainingOptions(steps=4, batch_size=2, save_every=2, evaluate_every=0, ema_decay=0.9, precision="fp32")
    log = logging.getLogger("nfldm3d")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        train(ToyStage(), folder / "run", options=options)
    finally:
        log.setLevel(level)


def _read_run(folder: Path) -> None:
    """What ``train --resume`` reads, without the training."""
    from toy_stage import ToyStage

    from nfldm3d.files import DataFormatError
    from nfldm3d.training import TrainingOptions, read_weights
    from nfldm3d.training.averaging import AveragedWeights
    from nfldm3d.training.processes import make_optimizer
    from nfldm3d.training.reports import _forget_after
    from nfldm3d.training.run_folder import RunFolder
    from nfldm3d.training.saved_state import Progress, TrainingState, load_checkpoint

    stage, options, run = (
        ToyStage(),
        TrainingOptions(batch_size=2, ema_decay=0.9, precision="fp32"),
        RunFolder(folder / "run"),
    )
    try:
        run.require_own()
    except DataFormatError:
        raise
    except ValueError as error:  # nobody's config.json, so nobody's run
        assert "but no training run" in str(error)
        return
    run.require_same_run(stage.name, stage.config(), options)
    _forget_after(run.path / "log.jsonl", 4)
    newest = run.newest()
    if newest is not None:
        optimizer = make_optimizer(stage.model, options)
        state = TrainingState(stage.model, optimizer, AveragedWeights(stage.model, 0.9), None, Progress())
        load_checkpoint(run.checkpoint(newest), state)
        stage.model(torch.zeros(2, 3)).sum().backward()
        optimizer.step()
        read_weights(run.path)


def _sign_run(folder: Path) -> None:
    from nfldm3d.files import measure_file

    for manifest in folder.glob("run/checkpoints/*/manifest.json"):
        files = sorted(path for path in manifest.parent.iterdir() if path != manifest)
        manifest.write_text(json.dumps({path.name: measure_file(path) for path in files}))


def _make_job(folder: Path) -> None:
    from nfldm3d.jobs import claim_folder

    claim_folder(folder, "recording.json", {"seed": 1, "maps": ["a"]}, what="a recording", pieces="*.tar")
    (folder / "splits.json").write_text(json.dumps({"train": ["one"], "test": ["two"]}))
    for name in ("one", "two"):
        make_capture(folder / name)
        (folder / name / "capture").rename(folder / f"{name}_")
        (folder / name).rmdir()
        (folder / f"{name}_").rename(folder / name)


def _read_job(folder: Path) -> None:
    from nfldm3d.data import SceneFolder
    from nfldm3d.files import DataFormatError
    from nfldm3d.jobs import claim_folder

    try:
        claim_folder(folder, "recording.json", {"seed": 1, "maps": ["a"]}, what="a recording", pieces="*.tar")
    except DataFormatError:
        raise
    except ValueError as error:
        assert "repeat its options" in str(error)
    scenes = SceneFolder(folder, split="train")
    str(scenes.fingerprint)
    for number in range(len(scenes)):
        scenes.read_views(number)


FORMATS = {
    "shards": Format(_make_shards, _read_shards, sign=_drop_index),
    "encodings": Format(_make_encodings, _read_encodings, linked=True),
    "weights": Format(_make_weights, _read_weights, ("**/*",), linked=True, slow=True),
    "fit checkpoint": Format(_make_fit, _read_fit, sign=prior_readers.sign_checkpoint, slow=True, linked=True),
    "training run": Format(_make_run, _read_run, ("run/*.json*", "run/checkpoints/**/*"), sign=_sign_run),
    "data set": Format(_make_job, _read_job, ("**/*.json",), linked=True),
}
