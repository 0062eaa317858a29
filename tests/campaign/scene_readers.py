"""Scenes, captures of every layout, and logs of vehicles."""

import hashlib
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import torch

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


def make_capture(folder: Path) -> None:
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
    "transforms.json": Format(make_capture, _read_capture, ("**/*.json",), linked=True),
    "capture": Format(make_capture, _read_capture, ("**/*",), linked=True),
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
}
