"""What tells data sets apart whose scenes have equal names."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from small_captures import alter, picture, write_instant_ngp
from small_rigs import write_rig
from small_scenes import small_scene

from nfldm3d.data import SceneFolder, read_posed_images
from nfldm3d.data.scene_dataset import SceneDataset
from nfldm3d.data.scene_shards import rebuild_index, write_shard


def write_scenes(folder: Path, *, grey: int = 0, test_grey: int = 0) -> Path:
    for number, (split, value) in enumerate((("train", grey), ("test", test_grey))):
        sample = small_scene(number, views=2, split=split)
        write_shard(folder / f"{split}-000000.tar", [replace(sample, images=sample.images.clone().fill_(value))])
    rebuild_index(folder)
    return folder


def test_shards_are_known_by_what_they_hold(tmp_path: Path):
    a, again, other, other_test = (tmp_path / name for name in ("a", "again", "other", "other_test"))
    for folder, greys in ((a, {}), (again, {}), (other, {"grey": 9}), (other_test, {"test_grey": 9})):
        folder.mkdir()
        write_scenes(folder, **greys)
    known = SceneDataset(a).fingerprint
    assert known == SceneDataset(again).fingerprint == SceneDataset(other_test).fingerprint
    assert known != SceneDataset(other).fingerprint and SceneDataset(a).keys == SceneDataset(other).keys
    assert len({known, *(SceneDataset(a, split=split).fingerprint for split in ("test", "all"))}) == 3


def repaint(room: Path) -> None:
    picture(room / "images" / "0001.png", 200)


def touch(room: Path) -> None:
    os.utime(room / "transforms.json", (1, 1))


def turn(room: Path) -> None:
    alter(room, {"camera_model": "OPENCV"})


@pytest.mark.parametrize("change", [repaint, touch, turn])
def test_captures_are_known_by_their_files(tmp_path: Path, change: Callable[[Path], None]):
    room = write_instant_ngp(tmp_path / "room")
    known = SceneFolder(tmp_path, split="all").fingerprint
    assert SceneFolder(tmp_path, split="all").fingerprint == known
    for result in ("encoded.json", "room.0.safetensors", "scene.nfld", ".nfldm3d.json"):
        (room / result).write_text("{}")
    assert SceneFolder(tmp_path, split="all").fingerprint == known, "results that lie beside it are no part of it"
    change(room)
    assert SceneFolder(tmp_path, split="all").fingerprint != known


def test_captures_are_known_by_how_they_are_read(tmp_path: Path):
    write_instant_ngp(tmp_path / "room")
    (tmp_path / "drive").mkdir()
    write_rig(tmp_path / "drive", frames=5)
    open_folder = partial(SceneFolder, tmp_path, split="all", window=2)
    folders = [
        open_folder(),
        open_folder(views=2),
        open_folder(size=(4, 3)),
        open_folder(window=3),
        open_folder(read=partial(read_posed_images, up="y")),
        open_folder(read=partial(read_posed_images, up="-y")),
    ]
    assert len({folder.fingerprint for folder in folders}) == len(folders)
    assert open_folder(read=partial(read_posed_images, up="y")).fingerprint == folders[-2].fingerprint


def test_one_capture_file_is_known_too(tmp_path: Path):
    room = write_instant_ngp(tmp_path)
    (room / "transforms.json").rename(room / "views.json")
    known = SceneFolder(room / "views.json", split="all").fingerprint
    touch_time = (room / "views.json").stat().st_mtime_ns + 10**9
    os.utime(room / "views.json", ns=(touch_time, touch_time))
    assert SceneFolder(room / "views.json", split="all").fingerprint != known
