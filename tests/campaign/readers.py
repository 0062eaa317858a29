"""Every kind of file that is read: how a whole one is made, which of its files are changed, and who reads them."""

import hashlib
import io
import json
import random
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from campaign import picture_readers, prior_readers, recorder_readers
from campaign.formats import Format


def _save_scene(folder: Path, name: str) -> None:
    from small_fits import ball_scene, views_of

    from nfldm3d import EnvironmentMap, SphericalHarmonics, VoxelField

    scene = ball_scene()
    features = scene.field.features.repeat(1, 1, 1, 4)[:8, :6, :5]
    field = VoxelField(scene.field.density[:8, :6, :5].contiguous(), features.contiguous(), scene.box)
    views = views_of(scene, count=2, size=(6, 4))
    sky = EnvironmentMap(torch.full((4, 8, 3), 0.5))
    replace(
        scene,
        field=field,
        appearance=SphericalHarmonics(1),
        background=sky,
        cameras=views.camera,
        metadata=views.metadata,
    ).save(folder / name)


def _save_neural(folder: Path) -> None:
    from nfldm3d import Rgb, Scene
    from nfldm3d.fields import NeuralField

    encoding = {"levels": 2, "features": 2, "log2_rows": 6, "base_resolution": 4, "growth": 1.5}
    generator = torch.Generator().manual_seed(0)
    field = NeuralField(detail=8, width=8, encoding=encoding, generator=generator).requires_grad_(False)
    Scene(field, Rgb()).save(folder / "scene")


def _read_scene(path: Path) -> None:
    from nfldm3d import Camera, Scene, render

    scene = Scene.load(path)
    camera = Camera.look_at((3.0, 3.0, 4.0), (0.0, 0.0, 0.0), width=4, height=3)
    if scene.cameras is not None and len(scene.cameras.reshape(-1)) and scene.cameras.width * scene.cameras.height < 99:
        camera = scene.cameras.reshape(-1)[0]
    with torch.no_grad():
        render(scene, camera)
    str(scene)


def _sign_scene(folder: Path) -> None:
    config = json.loads((folder / "scene" / "config.json").read_text())
    config["sha256"] = hashlib.sha256((folder / "scene" / "scene.safetensors").read_bytes()).hexdigest()
    (folder / "scene" / "config.json").write_text(json.dumps(config))


def _sign_archive(folder: Path) -> None:
    with zipfile.ZipFile(folder / "scene.nfld") as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    config = json.loads(members["config.json"])
    config["sha256"] = hashlib.sha256(members["scene.safetensors"]).hexdigest()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in (members | {"config.json": json.dumps(config).encode()}).items():
            archive.writestr(name, data)
    (folder / "scene.nfld").write_bytes(file.getvalue())


def _make_capture(folder: Path) -> None:
    from small_fits import ball_scene, views_of

    views_of(ball_scene(), count=2, size=(12, 10)).save(folder / "capture")


def _read_capture(folder: Path) -> None:
    from nfldm3d import read_posed_images

    _use_images(read_posed_images(folder / "capture"))


def _use_images(images: object) -> None:
    """Looks at all that views hold."""
    from nfldm3d import PosedImages

    assert isinstance(images, PosedImages)
    for group in images.groups():
        group.load_images()
        group.load_depth()
        group.load_masks()
        assert bool(torch.isfinite(group.camera.rays().directions).all())


def _make_colmap(folder: Path, text: bool) -> None:
    from small_colmaps import write_binary, write_text

    (write_text if text else write_binary)(folder / "capture")


def _make_replica(folder: Path) -> None:
    from small_replicas import write_room

    write_room(folder / "capture", views=2)


def _make_rig(folder: Path) -> None:
    from small_rigs import write_rig

    write_rig(folder / "rig", frames=2)


def _read_rig(folder: Path) -> None:
    from nfldm3d.data import read_driving_rig

    _use_images(read_driving_rig(folder / "rig"))


def _make_log(folder: Path, kitti: bool) -> None:
    from small_logs import write_kitti360, write_nuscenes

    write_kitti360(folder / "log") if kitti else write_nuscenes(folder / "log", moments=(2,))


def _read_log(folder: Path) -> None:
    from nfldm3d.data import SceneFolder

    scenes = SceneFolder(folder / "log", split="all")
    for number in range(min(2, len(scenes))):
        scenes[number]


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


def _make_note(folder: Path) -> None:
    from nfldm3d.written_files import note_written

    (folder / "a.glb").write_bytes(b"mine")
    note_written(folder / "a.glb")


def _read_note(folder: Path) -> None:
    from nfldm3d.files import DataFormatError
    from nfldm3d.written_files import require_free

    try:
        require_free(folder / "a.glb", overwrite=True)
    except DataFormatError:
        raise
    except ValueError as error:
        assert "was not written by nfldm3d" in str(error)


def _make_path(folder: Path) -> None:
    from small_captures import write_instant_ngp

    write_instant_ngp(folder)
    pose = [float(number == place) for number in range(4) for place in range(4)]
    frames = [{"camera_to_world": pose, "fov": 60.0, "aspect": 1.5}] * 2
    (folder / "flight.json").write_text(json.dumps({"camera_type": "perspective", "camera_path": frames, "fps": 24}))


def _read_path(folder: Path) -> None:
    from nfldm3d.rendering.paths import read_camera_path

    for path in sorted(folder.glob("*.json")):
        camera = read_camera_path(path, width=6, height=4)
        assert bool(torch.isfinite(camera.rays().directions).all())


def _make_points(folder: Path) -> None:
    from nfldm3d.data.point_files import write_points

    write_points(folder / "points.ply", torch.randn(5, 3, dtype=torch.float64))
    text = "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    (folder / "text.ply").write_text(text + "0 1 2\n3 4 5\n")


def _read_points(folder: Path) -> None:
    from nfldm3d.data.point_files import read_points

    for path in sorted(folder.glob("*.ply")):
        read_points(path)


def _make_arrays(folder: Path) -> None:
    np.save(folder / "a.npy", np.arange(12, dtype=np.float32).reshape(3, 4))
    np.save(folder / "b.npy", np.arange(6, dtype=np.uint16).reshape(2, 3))


def _read_arrays(folder: Path) -> None:
    from nfldm3d.data.array_files import map_array, parse_array

    for path in sorted(folder.glob("*.npy")):
        if path.is_file():
            parse_array(path.read_bytes()[:4096], path)
        np.array(map_array(path))


def _make_pictures(folder: Path) -> None:
    from PIL import Image

    from nfldm3d.data import image_files

    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    Image.fromarray(pixels[..., :3]).save(folder / "b.jpg")
    Image.fromarray(pixels[..., :3]).save(folder / "c.webp")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 99).save(folder / "depth.png")
    Image.fromarray(pixels[..., 1] > 99).save(folder / "mask.png")
    image_files.write_labels(
        folder / "labels.png", torch.from_numpy(pixels[..., 2] % 3), ((0, 0, 0), (200, 20, 10), (10, 20, 200))
    )


def _read_pictures(folder: Path) -> None:
    from nfldm3d.data import image_files

    for path in sorted(folder.glob("[abc].*")):
        image_files.probe(path)
        image_files.read_image(path, (1.0, 1.0, 1.0))
    for path in sorted(folder.glob("[dm]*.*")):
        image_files.read_depth(path, 0.001) if path.name[0] == "d" else image_files.read_mask(path)
    image_files.read_labels(folder / "labels.png")


def _make_embeddings(folder: Path) -> None:
    from nfldm3d.tensor_files import write_tensors

    write_tensors(folder / "a.safetensors", {"one": torch.randn(4), "two": torch.randn(4)})
    write_tensors(folder / "b.safetensors", {"one": torch.randn(3, 4)})
    torch.save({"one": torch.randn(2, 3)}, folder / "c.pth")


def _read_embeddings(folder: Path) -> None:
    from nfldm3d.data.encoded_scenes import read_embedding, read_embeddings
    from nfldm3d.tensor_files import read_state

    read_embeddings(folder / "a.safetensors")
    read_embedding(folder / "b.safetensors")
    read_state(folder / "c.pth")


def _make_job(folder: Path) -> None:
    from nfldm3d.jobs import claim_folder

    claim_folder(folder, "recording.json", {"seed": 1, "maps": ["a"]}, what="a recording", pieces="*.tar")
    (folder / "splits.json").write_text(json.dumps({"train": ["one"], "test": ["two"]}))
    for name in ("one", "two"):
        _make_capture(folder / name)
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


def _make_bev(folder: Path) -> None:
    from PIL import Image

    Image.fromarray(np.array([[[0, 0, 0], [200, 20, 10]], [[10, 20, 200], [0, 0, 0]]], np.uint8)).save(
        folder / "map.png"
    )


def _read_bev(folder: Path) -> None:
    from nfldm3d.files import DataFormatError
    from nfldm3d.pipelines.bev_input import read_classes

    path = folder / "map.png"
    try:
        read_classes(path, ("void", "floor", "wall"), ((0, 0, 0), (200, 20, 10), (10, 20, 200)), 2)
    except DataFormatError:
        raise
    except ValueError as error:  # a map, but not of this world
        assert str(error).startswith(str(path))


FORMATS = {
    "scene.nfld": Format(
        lambda folder: _save_scene(folder, "scene.nfld"),
        lambda folder: _read_scene(folder / "scene.nfld"),
        sign=_sign_archive,
        linked=True,
    ),
    "scene folder": Format(
        lambda folder: _save_scene(folder, "scene"),
        lambda folder: _read_scene(folder / "scene"),
        ("scene/*",),
        _sign_scene,
    ),
    "neural scene": Format(_save_neural, lambda folder: _read_scene(folder / "scene"), ("scene/*",), _sign_scene),
    "transforms.json": Format(_make_capture, _read_capture, ("**/*.json",), linked=True),
    "capture": Format(_make_capture, _read_capture, ("**/*",)),
    "colmap text": Format(
        lambda folder: _make_colmap(folder, True), _read_capture, ("capture/sparse/**/*",), linked=True
    ),
    "colmap binary": Format(
        lambda folder: _make_colmap(folder, False), _read_capture, ("capture/sparse/**/*",), linked=True
    ),
    "replica": Format(_make_replica, _read_capture, ("**/*.txt", "**/*.json"), linked=True),
    "rig.json": Format(_make_rig, _read_rig, ("**/*.json",), linked=True),
    "nuscenes": Format(
        lambda folder: _make_log(folder, False), _read_log, ("**/*.json", "**/*.bin"), linked=True, slow=True
    ),
    "kitti360": Format(
        lambda folder: _make_log(folder, True),
        _read_log,
        ("**/*.txt", "**/*.xml", "**/*.yaml", "**/*.bin"),
        linked=True,
        slow=True,
    ),
    "shards": Format(_make_shards, _read_shards, sign=_drop_index),
    "encodings": Format(_make_encodings, _read_encodings, linked=True),
    "weights": Format(_make_weights, _read_weights, ("**/*",), linked=True, slow=True),
    "fit checkpoint": Format(_make_fit, _read_fit, sign=prior_readers.sign_checkpoint, slow=True, linked=True),
    "training run": Format(_make_run, _read_run, ("run/*.json*", "run/checkpoints/**/*"), sign=_sign_run),
    "note": Format(_make_note, _read_note, (".nfldm3d.json",)),
    "camera path": Format(_make_path, _read_path, ("*.json",), linked=True),
    "points.ply": Format(_make_points, _read_points, linked=True),
    "arrays.npy": Format(_make_arrays, _read_arrays, linked=True),
    "pictures": Format(_make_pictures, _read_pictures, linked=True),
    "map picture": Format(_make_bev, _read_bev, linked=True),
    "embeddings": Format(_make_embeddings, _read_embeddings, linked=True),
    "data set": Format(_make_job, _read_job, ("**/*.json",), linked=True),
    **recorder_readers.FORMATS,
    **prior_readers.FORMATS,
    **picture_readers.FORMATS,
}


def files_of(folder: Path, format: Format) -> list[Path]:
    """The files of a whole one that are changed."""
    found = {path for pattern in format.changed for path in folder.glob(pattern) if path.is_file()}
    return sorted(path for path in found if path.name == ".nfldm3d.json" or not path.name.startswith(".nfldm3d"))


def mutate(folder: Path, format: Format, rng: random.Random) -> str:
    """Changes one file of a copy, sometimes what kind of thing it is; returns what was done, in words."""
    from campaign.mutations import mutator_of

    path = rng.choice(files_of(folder, format))
    name = path.relative_to(folder).as_posix()
    if rng.random() < 0.02:
        path.unlink()
        match rng.randrange(4):
            case 0:
                path.symlink_to("/dev/zero")
            case 1 if not format.linked:
                path.symlink_to(folder.parent / "outside" / "secret")
            case 2:
                path.mkdir()
        return f"{name}: gone, a link or a folder"
    path.write_bytes(mutator_of(path.name)(path.read_bytes(), rng))
    if format.sign is not None and rng.random() < 0.8:
        try:
            format.sign(folder)
        except Exception:  # the file is too far gone to be signed
            return f"{name}, unsigned"
    return name
