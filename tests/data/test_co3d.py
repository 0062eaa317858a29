"""CO3Dv2 is read by the rules of PyTorch3D's cameras and its own depth files; every damage is one clear error."""

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from small_co3d import CAMERAS, HEIGHT, WIDTH, frames, viewpoint, write_category, write_rows

from nfldm3d.data.co3d import Co3dCategory, read_jgz
from nfldm3d.files import DataFormatError


@pytest.mark.parametrize("kind", [None, "ndc_norm_image_bounds", "ndc_isotropic"])
def test_cameras_are_those_of_pytorch3d(tmp_path: Path, kind: str | None) -> None:
    views = Co3dCategory(write_category(tmp_path, kind=kind)).read("1_2_3", up="z")
    assert torch.allclose(views.camera.world_from_camera, CAMERAS.world_from_camera, atol=1e-5)
    units = torch.tensor((4.0, 4.0) if kind == "ndc_isotropic" else (6.0, 4.0))
    assert torch.allclose(views.camera.focal, torch.tensor((2.0, 2.5)) * units)
    assert torch.allclose(views.camera.principal, torch.tensor((6.0, 4.0)) - torch.tensor((0.25, -0.5)) * units)
    assert views.names[1] == "bear/1_2_3/images/frame000001.jpg" and not views.metric


def test_a_point_projects_as_pytorch3d_says(tmp_path: Path) -> None:
    """x_ndc = f x / z + p with x to the left; pixels from the right edge."""
    view = frames("a", "ndc_isotropic")[2]["viewpoint"]
    point = torch.tensor((0.3, -0.2, 0.4)).double()
    x, y, z = (point @ torch.tensor(view["R"]).double() + torch.tensor(view["T"]).double()).tolist()
    expected = (WIDTH / 2 - 4 * (2.0 * x / z + 0.25), HEIGHT / 2 - 4 * (2.5 * y / z - 0.5))
    camera = Co3dCategory(write_category(tmp_path, kind="ndc_isotropic")).read("1_2_3", up="z").camera
    found, depth = camera[2].project(point.float()[None])
    assert found[0].tolist() == pytest.approx(expected, abs=1e-4) and float(depth) == pytest.approx(z, abs=1e-5)


def test_depth_is_half_precision_in_a_picture(tmp_path: Path) -> None:
    views = Co3dCategory(write_category(tmp_path)).read("1_2_3")
    depth = views.load_depth(keep_masked=True)
    assert depth is not None and float(depth[0, 5, 5]) == 3.0 and float(depth[0, 0, 0]) == 0
    assert float(depth[0, 0, 1]) == 2 * float(np.float16(0.333))
    masks = views.load_masks()
    assert masks is not None and int(masks[0].sum()) == 24


def test_sequences_stand_upright_and_have_sides(tmp_path: Path) -> None:
    folder = write_category(tmp_path, names=("1_2_3", "10_2_3", "9_2_3"))
    (folder / "set_lists").mkdir()
    lists = {"train": [["9_2_3", 10, "x"], ["9_2_3", 11, "x"]], "val": [], "test": [["1_2_3", 10, "x"]]}
    (folder / "set_lists/set_lists_fewview_dev.json").write_text(json.dumps(lists))
    category = Co3dCategory(folder)
    assert category.sequences == ("1_2_3", "9_2_3", "10_2_3")
    assert category.side("fewview_dev", "train") == ("9_2_3",) and category.side("fewview_dev", "val") == ()
    lying = torch.eye(4)
    lying[1:3, 1:3] = torch.tensor(((0.0, 1.0), (-1.0, 0.0)))
    rows = frames("1_2_3")
    for row, pose in zip(rows, CAMERAS.transformed(lying).world_from_camera, strict=True):
        row["viewpoint"] = viewpoint(pose)
    write_rows(folder, rows)
    views = Co3dCategory(folder).read("1_2_3")
    assert torch.allclose(views.camera.world_from_camera[:, 2, 1], CAMERAS.world_from_camera[:, 2, 1], atol=1e-4)


def change(key: str, value: object):
    """Sets a field of the second frame; dots lead inwards."""

    def damage(folder: Path) -> None:
        rows = frames("1_2_3")
        *way, last = key.split(".")
        target = rows[1]
        for part in way:
            target = target[part]
        target[last] = value
        write_rows(folder, rows)

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change("image.size", [0, 4]), "[1].image.size is [0, 4]; write [height, width]"),
        (change("image.path", "../../etc/passwd"), "leads outside"),
        (change("viewpoint.R", [[1, 0], [0, 1]]), "R is [[1, 0], [0, 1]]; write three rows of three numbers"),
        (change("viewpoint.R", [[1, 0, 0], [0, 1, 0], [0, 0, 2]]), "is not rigid"),
        (change("viewpoint.T", [1, 2]), "T is [1, 2]; write three numbers"),
        (change("viewpoint.focal_length", [2.0]), "write two numbers"),
        (change("viewpoint.intrinsics_format", "pixels"), "only ndc_norm_image_bounds and ndc_isotropic are known"),
        (change("viewpoint", None), "viewpoint is None; write a JSON object"),
        (change("depth.scale_adjustment", "x"), "scale_adjustment is 'x'; write a number"),
        (lambda folder: write_rows(folder, []), "holds no frames"),
        (lambda folder: write_rows(folder, [3]), "[0] is 3; write a JSON object"),
        (lambda folder: (folder / "frame_annotations.jgz").write_bytes(b"no gzip"), "cannot be unpacked"),
        (lambda folder: (folder / "frame_annotations.jgz").unlink(), "cannot be unpacked"),
    ],
)
def test_what_cannot_be_used_is_one_clear_error(tmp_path: Path, damage, message: str) -> None:
    folder = write_category(tmp_path)
    damage(folder)
    with pytest.raises(DataFormatError, match=re.escape(message)):
        Co3dCategory(folder).read("1_2_3")


def test_other_sequences_and_bombs_are_refused(tmp_path: Path) -> None:
    folder = write_category(tmp_path)
    with pytest.raises(DataFormatError, match="has no sequence 'x', but 1_2_3"):
        Co3dCategory(folder).read("x")
    with gzip.open(tmp_path / "bomb.jgz", "wb") as file:
        file.write(np.random.default_rng(0).bytes(3 * 2**19).hex().encode())
    with pytest.raises(DataFormatError, match="unpacks to more than 2 MiB"):
        read_jgz(tmp_path / "bomb.jgz", 2 * 2**20)


def test_small_files_do_not_unpack_to_large_ones(tmp_path: Path) -> None:
    (tmp_path / "many.jgz").write_bytes(gzip.compress(b"[" + b"[]," * 10**6 + b"[]]"))
    with pytest.raises(DataFormatError, match="unpacks to more than"):
        read_jgz(tmp_path / "many.jgz")


def test_pictures_are_those_of_the_category(tmp_path: Path) -> None:
    """Whatever it is called by now; what lies beside it is not its own."""
    folder = write_category(tmp_path)
    renamed = folder.rename(tmp_path / "downloaded")
    assert Co3dCategory(renamed).read("1_2_3").load_images().shape[1] == 3
    rows = frames("1_2_3")
    for row in rows:
        row["image"]["path"] = f"other/../../{row['image']['path']}"
    write_rows(renamed, rows)
    with pytest.raises(DataFormatError, match="frame_annotations.jgz"):
        Co3dCategory(renamed).read("1_2_3")
