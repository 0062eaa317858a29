"""SRN's cars and chairs are read as their own readers read them; every damage is one clear error."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_captures import picture
from small_srn import CAMERAS, SIZE, write_object

from nfldm3d.data import read_posed_images
from nfldm3d.data.srn import list_srn, read_srn
from nfldm3d.files import DataFormatError


@pytest.mark.parametrize("stated", [SIZE, 2 * SIZE])
def test_views_have_our_poses_and_pixels(tmp_path: Path, stated: int) -> None:
    views = read_srn(write_object(tmp_path / "a1", stated=stated))
    assert torch.allclose(views.camera.world_from_camera.double(), CAMERAS, atol=1e-6) and len(views) == 3
    assert torch.allclose(views.camera.focal, torch.tensor(131.25 / 128 * SIZE))
    assert torch.allclose(views.camera.principal, torch.tensor(SIZE / 2))
    assert views.load_images()[2].unique().tolist() == [pytest.approx(20 / 255)] and not views.metric
    assert views.background == (1.0, 1.0, 1.0) and views.load_depth() is None
    same = read_posed_images(tmp_path / "a1")
    assert torch.equal(same.camera.focal, views.camera.focal) and same.metadata["place"] == "a1"


def test_transparent_pictures_are_laid_over_white(tmp_path: Path) -> None:
    views = read_srn(write_object(tmp_path / "a1", channels=4))
    assert float(views.load_images()[0].amin()) == 1.0  # all are 0, 0, 0, 0


def test_a_matrix_stands_in_for_the_lens(tmp_path: Path) -> None:
    folder = write_object(tmp_path / "a1")
    (folder / "intrinsics.txt").unlink()
    (folder / "intrinsics").mkdir()
    (folder / "intrinsics/000000.txt").write_text("9 0 4.5 0 8 4.25 0 0 1")
    camera = read_srn(folder).camera
    assert camera.focal[0].tolist() == [9, 8] and camera.principal[0].tolist() == [4.5, 4.25]


def test_what_our_recorder_adds_is_read(tmp_path: Path) -> None:
    folder = write_object(tmp_path / "a1")
    (folder / "object.json").write_text(json.dumps({"depth_unit": 1e-4, "caption": "a car", "split": "train"}))
    (folder / "depth").mkdir()
    for number in range(3):
        Image.fromarray(np.full((SIZE, SIZE), 9000, np.uint16)).save(folder / f"depth/{number:06d}.png")
    views = read_srn(folder)
    depth = views.load_depth()
    assert depth is not None and torch.allclose(depth, torch.tensor(0.9)) and views.metadata["caption"] == "a car"


def test_objects_are_listed_by_side_nested_ones_too(tmp_path: Path) -> None:
    write_object(tmp_path / "cars_train/c1")
    write_object(tmp_path / "cars_test/c9")
    write_object(tmp_path / "chairs_train/chairs_2.0_train/s1")
    names = [path.name for path in list_srn(tmp_path, "train")]
    assert names == ["c1", "s1"] and [path.name for path in list_srn(tmp_path / "cars_test", "test")] == ["c9"]
    with pytest.raises(DataFormatError, match="holds no objects in a folder such as cars_val"):
        list_srn(tmp_path, "val")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "rgb/000001.png").unlink(), "view 000001 has no picture in rgb"),
        (lambda f: (f / "pose/000001.txt").unlink(), "view 000001 has no pose"),
        (lambda f: (f / "pose/000001.txt").write_text("1 2 3"), "000001.txt: has 3 numbers"),
        (lambda f: (f / "pose/000001.txt").write_text("one"), "line 1: could not convert"),
        (lambda f: (f / "pose/000001.txt").write_text("2 " * 16), "the pose of view 000001"),
        (lambda f: (f / "pose/000001.txt").write_text("nan " * 16), "view 000001 holds NaN or infinity"),
        (lambda f: (f / "intrinsics.txt").write_text("1 2 3 0"), "intrinsics.txt: is no lens"),
        (lambda f: (f / "intrinsics.txt").write_text("1 2 3 0\n0 0 0\n1\nnan 8"), "is for 8xnan pixels"),
        (lambda f: (f / "intrinsics.txt").write_text("-9 4 4 0\n0 0 0\n1\n8 8"), "has focal length -9"),
        (lambda f: (f / "intrinsics.txt").unlink(), "cannot be read"),
        (lambda f: (f / "object.json").write_text('{"depth_unit": "x"}'), "depth_unit is 'x'; write a number"),
        (lambda f: picture(f / "rgb/000001.png", size=(6, 6)), "is 6x6 pixels but the intrinsics are for 8x8"),
    ],
)
def test_what_cannot_be_used_is_one_clear_error(tmp_path: Path, damage, message: str) -> None:
    folder = write_object(tmp_path / "a1")
    damage(folder)
    with pytest.raises(DataFormatError, match=re.escape(message)):
        read_srn(folder)


def test_depth_of_some_views_alone_is_refused(tmp_path: Path) -> None:
    folder = write_object(tmp_path / "a1")
    (folder / "object.json").write_text(json.dumps({"depth_unit": 1e-4}))
    (folder / "depth").mkdir()
    Image.fromarray(np.full((SIZE, SIZE), 9000, np.uint16)).save(folder / "depth/000000.png")
    with pytest.raises(DataFormatError, match="depth: lacks the depth of rgb/000001.png"):
        read_srn(folder)
