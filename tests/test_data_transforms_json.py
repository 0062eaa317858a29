"""Every dialect of transforms.json, and every way one can be wrong."""

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image

from nfldm3d import Camera
from nfldm3d.data import read_posed_images, read_transforms_json
from nfldm3d.files import DataFormatError
from nfldm3d.geometry import transform_points

WIDTH, HEIGHT = 8, 6
POSES = Camera.orbit((1.0, -2.0, 0.5), 3.0, views=12).world_from_camera.double()
NGP = {"fl_x": 9.5, "fl_y": 9.25, "cx": 4.25, "cy": 2.75, "w": 8.0, "h": 6.0}


def picture(path: Path, value: int = 0, channels: int = 3, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], channels), value, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def numbers(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values) if path.suffix == ".npy" else Image.fromarray(values).save(path)
    return path


def frames(count: int = 3, name: str = "images/{:04d}.png", **extra: str) -> list[dict[str, Any]]:
    return [
        {
            "file_path": name.format(number),
            "transform_matrix": POSES[number].tolist(),
            **{key: value.format(number) for key, value in extra.items()},
        }
        for number in range(count)
    ]


def write(folder: Path, content: dict[str, Any], name: str = "transforms.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return folder


@pytest.fixture
def capture(tmp_path) -> Path:
    """instant-ngp's dialect: three opaque frames whose grey is 10 times their number."""
    for number in range(3):
        picture(tmp_path / f"images/{number:04d}.png", 10 * number)
    return write(tmp_path, {**NGP, "aabb_scale": 4, "frames": frames()})


def alter(folder: Path, change: dict[str, Any], frame: dict[str, Any] | None = None) -> Path:
    """Sets fields at top level, and in frame 1; None removes."""
    content = json.loads((folder / "transforms.json").read_text())
    for target, fields in ((content, change), (content["frames"][1], frame or {})):
        for key, value in fields.items():
            target.pop(key, None) if value is None else target.update({key: value})
    return write(folder, content)


# dialects


def test_instant_ngp(capture):
    alter(capture, {"k1": 0.05, "k2": -0.08, "p1": -0.001, "p2": 0.0002, "camera_angle_x": 0.75})
    posed = read_transforms_json(capture / "transforms.json")
    camera = posed.camera
    torch.testing.assert_close(camera.world_from_camera, POSES[:3].float())
    assert camera.focal[1].tolist() == [9.5, 9.25] and camera.principal[2].tolist() == [4.25, 2.75]
    torch.testing.assert_close(camera.distortion[0, :6], torch.tensor([0.05, -0.08, -0.001, 0.0002, 0, 0]))
    assert (camera.width, camera.height, camera.lens) == (8, 6, "perspective")
    assert (posed.metric, posed.background, posed.metadata) == (False, None, {"aabb_scale": 4})
    torch.testing.assert_close(posed.load_images()[:, 0, 0, 0] * 255, torch.tensor([0.0, 10.0, 20.0]))


def test_nerf_synthetic(tmp_path):
    for split, count in (("train", 3), ("test", 2), ("val", 1)):
        for number in range(count):
            picture(tmp_path / split / f"r_{number}.png", 64, channels=4)
        content = {"camera_angle_x": 0.7, "frames": frames(count, f"./{split}/r_{{}}")}
        write(tmp_path, content, f"transforms_{split}.json")
    posed = read_transforms_json(tmp_path)
    assert posed.names == ("./train/r_0", "./train/r_1", "./train/r_2")
    torch.testing.assert_close(posed.camera.focal, torch.full((3, 2), 0.5 * WIDTH / math.tan(0.35)))
    assert posed.camera.principal[0].tolist() == [4, 3]
    alpha, color = 64 / 255, 64 / 255
    torch.testing.assert_close(posed.load_images(), torch.full((3, 3, 6, 8), color * alpha + 1 - alpha))
    assert posed.background == (1, 1, 1)
    dark = read_transforms_json(tmp_path, split="test", background=(0, 0, 0))
    assert len(dark) == 2 and dark.background == (0, 0, 0)
    torch.testing.assert_close(dark.load_images(), torch.full((2, 3, 6, 8), color * alpha))
    assert len(read_posed_images(tmp_path, split="val")) == 1


def test_nerfstudio_with_an_intrinsic_per_frame(capture):
    content = json.loads((capture / "transforms.json").read_text())
    for number, frame in enumerate(content["frames"]):
        frame.update({**NGP, "fl_x": 9.0 + number, "k1": 0.01 * number, "w": 8, "h": 6})
    write(capture, {"camera_model": "OPENCV", "frames": content["frames"][::-1]})
    camera = read_transforms_json(capture).camera
    assert camera.focal[:, 0].tolist() == [9, 10, 11]
    torch.testing.assert_close(camera.distortion[:, 0], torch.tensor([0, 0.01, 0.02]))
    torch.testing.assert_close(camera.world_from_camera, POSES[:3].float())


def test_nerfstudio_depth_and_masks(capture):
    for number in range(3):
        depth = np.full((HEIGHT, WIDTH), 1000 * number + 1, dtype=np.uint16)
        numbers(capture / f"depth/{number}.png", depth)
        picture(capture / f"masks/{number}.png", 255 * (number != 1), channels=3)
    content = {**NGP, "frames": frames(depth_file_path="depth/{}.png", mask_path="masks/{}.png")}
    posed = read_transforms_json(write(capture, content))
    torch.testing.assert_close(posed.load_depth()[:, 2, 3], torch.tensor([0.001, 1.001, 2.001]))
    assert posed.load_masks()[:, 2, 3].tolist() == [True, False, True]
    assert read_transforms_json(alter(capture, {"depth_unit_scale_factor": 1.0})).load_depth().max() == 2001


def test_instant_ngp_depth_is_along_the_optical_axis_too(capture):
    for number in range(3):
        numbers(capture / f"depth/{number}.png", np.full((HEIGHT, WIDTH), 100, dtype=np.uint16))
    content = {**NGP, "integer_depth_scale": 0.02, "frames": frames(depth_path="depth/{}.png")}
    depth = read_transforms_json(write(capture, content)).load_depth()
    torch.testing.assert_close(depth, torch.full((3, 6, 8), 2.0))
    assert read_transforms_json(alter(capture, {"enable_depth_loading": False})).load_depth() is None
    with pytest.raises(DataFormatError, match=r"integer_depth_scale is missing; write a number"):
        read_transforms_json(alter(capture, {"enable_depth_loading": None, "integer_depth_scale": None}))


def test_split_lists_choose_frames(capture):
    lists = {"train_filenames": ["images/0002.png", "images/0000.png"], "test_filenames": ["images/0001.png"]}
    alter(capture, lists)
    assert read_transforms_json(capture, split="train").names == ("images/0000.png", "images/0002.png")
    assert read_transforms_json(capture, split="test").names == ("images/0001.png",)
    assert len(read_transforms_json(capture)) == 3
    with pytest.raises(DataFormatError, match=r"val_filenames is missing; list the files of this split"):
        read_transforms_json(capture, split="val")
    for wrong in (["images/0009.png"], ["images/0001.png", 3], [[]], []):
        with pytest.raises(DataFormatError, match=r"test_filenames is .*; name frames by their file_path"):
            read_transforms_json(alter(capture, {"test_filenames": wrong}), split="test")


@pytest.mark.parametrize("fields", [{"camera_model": "OPENCV_FISHEYE"}, {"is_fisheye": True}])
def test_fisheye(capture, fields):
    camera = read_transforms_json(alter(capture, {**fields, "k1": 0.1, "k2": 0.2, "k3": 0.3, "k4": 0.4})).camera
    assert camera.lens == "fisheye"
    torch.testing.assert_close(camera.distortion[0], torch.tensor([0.1, 0.2, 0, 0, 0.3, 0.4, 0, 0]))


def test_distortion_params_are_in_nerfstudios_order(capture):
    camera = read_transforms_json(alter(capture, {"distortion_params": [0.1, 0.2, 0.3, 0, 0.01, 0.02]})).camera
    torch.testing.assert_close(camera.distortion[0], torch.tensor([0.1, 0.2, 0.01, 0.02, 0.3, 0, 0, 0]))


def test_full_opencv(capture):
    terms = {f"k{n}": n / 100 for n in range(1, 7)}
    camera = read_transforms_json(alter(capture, {"camera_model": "FULL_OPENCV", **terms})).camera
    torch.testing.assert_close(camera.distortion[0], torch.tensor([0.01, 0.02, 0, 0, 0.03, 0.04, 0.05, 0.06]))


def test_one_focal_length_means_square_pixels(capture):
    assert read_transforms_json(alter(capture, {"fl_y": None})).camera.focal[0].tolist() == [9.5, 9.5]
    angle = {"fl_x": None, "camera_angle_y": 2 * math.atan(3 / 7)}
    torch.testing.assert_close(read_transforms_json(alter(capture, angle)).camera.focal[0], torch.tensor([7.0, 7.0]))


def test_a_pose_may_lack_its_last_row(capture):
    alter(capture, {}, {"transform_matrix": POSES[1, :3].tolist()})
    torch.testing.assert_close(read_transforms_json(capture).camera.world_from_camera, POSES[:3].float())


def test_frames_are_sorted_as_people_count(tmp_path):
    for number in range(12):
        picture(tmp_path / f"images/r_{number}.png")
    listed = frames(12, "images/r_{}.png")
    posed = read_transforms_json(write(tmp_path, {**NGP, "frames": listed[5:] + listed[:5]}))
    assert posed.names == tuple(f"images/r_{number}.png" for number in range(12))
    torch.testing.assert_close(posed.camera.world_from_camera, POSES.float())


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp"])
def test_names_without_suffix_are_completed(tmp_path, suffix):
    picture(tmp_path / f"images/0.5.{suffix}")
    content = {**NGP, "frames": frames(1, "images/0.5")}
    assert read_transforms_json(write(tmp_path, content)).load_images().shape == (1, 3, 6, 8)


def test_missing_pictures_are_left_out_with_one_warning(capture):
    (capture / "images/0001.png").unlink()
    with pytest.warns(
        UserWarning, match=r"1 of 3 pictures are missing, the first is .*0001\.png; .* left out"
    ) as found:
        posed = read_transforms_json(capture)
    assert len(found) == 1
    assert posed.names == ("images/0000.png", "images/0002.png")
    assert torch.equal(posed.camera.world_from_camera, POSES[[0, 2]].float())
    (capture / "images/0002.png").unlink()
    with pytest.raises(DataFormatError, match=r"2 of 3 pictures are missing, .*; restore the pictures or remove"):
        read_transforms_json(capture)


def applied_capture(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """A capture whose world nerfstudio turned and scaled; returns its poses before and after."""
    turn = torch.tensor([[1.0, 0, 0, 0.5], [0, 0, 1, -1], [0, -1, 0, 2]], dtype=torch.float64)
    matrix = torch.cat((turn, torch.tensor([[0, 0, 0, 1.0]], dtype=torch.float64)))
    written = matrix @ POSES
    written[:, :3, 3] *= 0.25
    listed = frames(depth_file_path="depth/{}.npy")
    for number, frame in enumerate(listed):
        picture(folder / f"images/{number:04d}.png")
        numbers(folder / f"depth/{number}.npy", np.full((HEIGHT, WIDTH), 4000, dtype=np.float32))
        frame["transform_matrix"] = written[number].tolist()
    properties = "".join(f"property {kind}\n" for kind in ("double x", "double y", "double z", "uchar red"))
    ply = f"ply\nformat ascii 1.0\ncomment by hand\nelement vertex 1\n{properties}end_header\n1 2 3 255\n"
    (folder / "points.ply").write_text(ply)
    content = {**NGP, "applied_transform": turn.tolist(), "applied_scale": 0.25, "ply_file_path": "points.ply"}
    write(folder, {**content, "frames": listed})
    return POSES[:3].float(), written[:3].float()


def test_applied_transform_is_kept_or_undone(tmp_path):
    first, written = applied_capture(tmp_path)
    kept, undone = read_transforms_json(tmp_path), read_transforms_json(tmp_path, undo_applied_transform=True)
    torch.testing.assert_close(kept.camera.world_from_camera, written)
    torch.testing.assert_close(undone.camera.world_from_camera, first)
    torch.testing.assert_close(undone.points, torch.tensor([[1.0, 2.0, 3.0]]))
    # points are where they were before the cameras: so they stay on the same pixels, a quarter as deep
    pixels, depth = kept.camera.project(kept.points.expand(3, 1, 3))
    pixels_before, depth_before = undone.camera.project(undone.points.expand(3, 1, 3))
    torch.testing.assert_close(pixels, pixels_before, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(depth, depth_before * 0.25)
    assert float(kept.load_depth()[0, 0, 0]) == 1 and float(undone.load_depth()[0, 0, 0]) == 4
    assert set(kept.metadata) == {"applied_transform", "applied_scale"} and undone.metadata == {}


def test_applied_transform_survives_a_round_trip(tmp_path):
    first, _ = applied_capture(tmp_path / "a")
    read_transforms_json(tmp_path / "a").save(tmp_path / "b")
    again = read_transforms_json(tmp_path / "b", undo_applied_transform=True)
    torch.testing.assert_close(again.camera.world_from_camera, first, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(again.points, torch.tensor([[1.0, 2.0, 3.0]]))
    torch.testing.assert_close(again.load_depth(), torch.full((3, 6, 8), 4.0))


def test_undone_scale_divides_instant_ngps_depth(capture):
    for number in range(3):
        numbers(capture / f"depth/{number}.png", np.full((HEIGHT, WIDTH), 100, dtype=np.uint16))
    content = {**NGP, "applied_scale": 0.5, "integer_depth_scale": 0.02, "frames": frames(depth_path="depth/{}.png")}
    write(capture, content)
    assert float(read_transforms_json(capture).load_depth().max()) == 2
    assert float(read_transforms_json(capture, undo_applied_transform=True).load_depth().max()) == 4


def test_binary_points_of_either_byte_order(capture):
    table = np.array([(7, 1.5, -2, 3), (8, 4, 5, 6)], dtype=[("id", "<i4"), ("x", "<f4"), ("y", "<f4"), ("z", "<f4")])
    properties = "".join(f"property {kind}\n" for kind in ("int id", "float x", "float y", "float z"))
    faces = "element face 0\nproperty list uchar int vertex_indices\n"
    for order, name in (("<", "little"), (">", "big")):
        header = f"ply\nformat binary_{name}_endian 1.0\nelement vertex 2\n{properties}{faces}end_header\n"
        body = table.astype(table.dtype.newbyteorder(order)).tobytes()
        (capture / "p.ply").write_bytes(header.encode() + body)
        posed = read_transforms_json(alter(capture, {"ply_file_path": "p.ply"}))
        assert posed.points.tolist() == [[1.5, -2, 3], [4, 5, 6]]
        (capture / "p.ply").write_bytes(header.encode() + body[:-1])
        with pytest.raises(DataFormatError, match=r"p\.ply: is truncated or damaged"):
            read_transforms_json(capture)
    (capture / "p.ply").write_bytes(b"ply\nformat ascii 1.0\nelement face 1\nend_header\n")
    with pytest.raises(DataFormatError, match=r"p\.ply: is no PLY file that begins with vertices"):
        read_transforms_json(capture)


# bad input: each message names the file, the field or frame, the value, and a remedy

TURNED = POSES[1].clone()
TURNED[:3, 0] *= -1
STRETCHED = POSES[1].clone()
STRETCHED[:3, :3] *= 1.01

BAD_TOP = {
    "no frames": ({"frames": []}, r"frames is \[\]; a capture needs at least one frame"),
    "frames absent": ({"frames": None}, r"frames is missing; write a list"),
    "frames of another kind": ({"frames": [3]}, r"frames\[0\] is 3; write a JSON object"),
    "zero focal length": ({"fl_x": 0}, r"images/0000\.png has focal length 0 along x for 8 pixels; give it in pixels"),
    "negative focal length": ({"fl_y": -9}, r"focal length -9 along y for 6 pixels"),
    "focal length in metres": ({"fl_x": 0.004}, r"focal length 0\.004 along x"),
    "word for a number": ({"fl_x": "wide"}, r"fl_x is 'wide'; write a number"),
    "truth for a number": ({"cx": True}, r"cx is True; write a number"),
    "huge number": ({"cx": 10**40}, r"cx is 1000+.*; write a number"),
    "principal point": ({"cx": 1e6}, r"principal point at \(1000000\.0, 2\.75\)"),
    "broken width": ({"w": 8.5}, r"w is 8\.5; write a whole number of pixels"),
    "no focal length": (
        {"fl_x": None, "fl_y": None},
        r"fl_x is missing; give the focal length in pixels, or camera_angle",
    ),
    "angle in degrees": ({"fl_x": None, "fl_y": None, "camera_angle_x": 60}, r"camera_angle_x is 60; .*radians"),
    "wild distortion": ({"k1": 1e9}, r"distortion \(1000000000\.0, .*OpenCV"),
    "lens unknown": ({"camera_model": "EQUIRECTANGULAR"}, r"camera_model is 'EQUIRECTANGULAR'; known are .*OPENCV"),
    "fourth radial term": ({"k4": 0.1}, r"k4 is 0\.1; a perspective lens has no such term"),
    "tangential fisheye": ({"is_fisheye": True, "p1": 0.1}, r"p1 is 0\.1; a fisheye lens has no such term"),
    "foreign axes": ({"from_na": True}, r"from_na is True; these cameras are not pinholes"),
    "metric": ({"metric": "yes"}, r"metric is 'yes'; write true or false"),
    "applied_transform": ({"applied_transform": [[1, 0, 0, 0]] * 3}, r"applied_transform is .*; it is not rigid"),
    "applied_scale": ({"applied_scale": -1}, r"applied_scale is -1; write a positive number"),
    "background": ({"background": [1, 2, 3]}, r"background is \[1, 2, 3\]; write three numbers between 0 and 1"),
    "size of the pictures": ({"w": 16, "h": 12}, r"0000\.png: is 8x6 pixels but the intrinsics are for 16x12; scale"),
    "pictures on their side": ({"w": 6, "h": 8}, r"0000\.png: is 8x6 pixels .* for 6x8; it lies on its side: .*EXIF"),
    "ground map": ({"bev": 3}, r"bev is 3; write a JSON object"),
    "ground map without picture": ({"bev": {}}, r"bev\.classes_path is missing; write a file name"),
}


@pytest.mark.parametrize("name", BAD_TOP)
def test_bad_fields_are_named(capture, name):
    change, message = BAD_TOP[name]
    with pytest.raises(DataFormatError, match=rf"(transforms\.json|images/).*{message}"):
        read_transforms_json(alter(capture, change))


BAD_FRAME = {
    "outside by dots": (
        {"file_path": "../secret.png"},
        r"path '\.\./secret\.png' leads outside .*; use a path relative",
    ),
    "outside by root": ({"file_path": "/etc/passwd"}, r"path '/etc/passwd' leads outside"),
    "outside by drive": ({"file_path": "C:\\secret.png"}, r"leads outside"),
    "outside for depth": ({"depth_file_path": "../d.png"}, r"depth_file_path"),
    "no name": ({"file_path": ""}, r"frames\[1\]\.file_path is ''; write a file name"),
    "name absent": ({"file_path": None}, r"frames\[1\]\.file_path is missing; write a file name"),
    "pose absent": ({"transform_matrix": None}, r"frames\[1\]\.transform_matrix is missing; write a list"),
    "pose of another shape": (
        {"transform_matrix": [[1, 0], [0, 1]]},
        r"frames\[1\]\.transform_matrix is .*; write four rows",
    ),
    "pose of words": (
        {"transform_matrix": [["a"] * 4] * 4},
        r"frames\[1\]\.transform_matrix\[0\]\.0 is 'a'; write a number",
    ),
    "mirrored pose": (
        {"transform_matrix": TURNED.tolist()},
        r"pose of images/0001\.png is mirrored: .*; write a rotation",
    ),
    "stretched pose": ({"transform_matrix": STRETCHED.tolist()}, r"pose of images/0001\.png is not rigid: .* by 0\.02"),
    "last row": ({"transform_matrix": [*POSES[1, :3].tolist(), [0, 0, 1, 1]]}, r"0001\.png has the last row"),
    "mixed intrinsics": (
        {"k3": 0.1},
        r"frames\[0\]\.k3 is missing; other frames have it; give k3 at top level or in every",
    ),
    "twofold intrinsics": ({"fl_x": 9.75}, r"frames\[1\]\.fl_x is 9\.75; the top level says 9\.5; give fl_x once"),
    "masks for some": (
        {"mask_path": "images/0001.png"},
        r"frames\[0\]\.mask_path is missing; .*for all frames or for none",
    ),
}


@pytest.mark.parametrize("name", BAD_FRAME)
def test_bad_frames_are_named(capture, name):
    change, message = BAD_FRAME[name]
    with pytest.raises(DataFormatError, match=rf"transforms\.json: .*{message}"):
        read_transforms_json(alter(capture, {}, change))


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-1e999"])
def test_numbers_that_are_none_are_refused(capture, literal):
    text = (capture / "transforms.json").read_text()
    (capture / "transforms.json").write_text(text.replace("9.5", literal, 1))
    with pytest.raises(DataFormatError, match=rf"transforms\.json: fl_x is {literal}; write a finite number"):
        read_transforms_json(capture)
    alter_text = text.replace(str(POSES[1, 0, 3].item()), literal, 1)
    (capture / "transforms.json").write_text(alter_text)
    with pytest.raises(DataFormatError, match=rf"frames\[1\]\.transform_matrix\[0\]\[3\] is {literal}; write a finite"):
        read_transforms_json(capture)


def test_a_truncated_file_is_refused(capture):
    text = (capture / "transforms.json").read_text()
    (capture / "transforms.json").write_text(text[: len(text) // 2])
    with pytest.raises(DataFormatError, match=r"transforms\.json: is not valid JSON"):
        read_transforms_json(capture)


def test_a_link_that_leads_outside_is_refused(capture, tmp_path_factory):
    elsewhere = picture(tmp_path_factory.mktemp("elsewhere") / "secret.png")
    (capture / "images/0001.png").unlink()
    (capture / "images/0001.png").symlink_to(elsewhere)
    with pytest.raises(DataFormatError, match=r"'images/0001\.png' is a link that leads outside"):
        read_transforms_json(capture)


def test_unreadable_pictures_are_refused_before_anything_is_fitted(capture):
    (capture / "images/0001.png").write_bytes(b"")
    with pytest.raises(DataFormatError, match=r"0001\.png: is not a PNG, JPEG or WebP picture; convert it"):
        read_transforms_json(capture)


def test_pictures_of_several_sizes_are_refused(capture):
    picture(capture / "images/0001.png", size=(7, 6))
    with pytest.raises(DataFormatError, match=r"0001\.png: is 7x6 pixels but the intrinsics are for 8x6"):
        read_transforms_json(capture)
    with pytest.raises(DataFormatError, match=r"0001\.png: is 7x6 pixels but 0000\.png is 8x6; scale .* to one size"):
        read_transforms_json(alter(capture, {"w": None, "h": None}))
    content = json.loads((capture / "transforms.json").read_text())
    for frame, width in zip(content["frames"], (8, 7, 8), strict=True):
        frame.update(w=width, h=6)
    with pytest.raises(DataFormatError, match=r"images/0001\.png is 7x6 pixels .* but images/0000\.png is 8x6"):
        read_transforms_json(write(capture, content))


def test_depth_and_masks_of_another_size_are_refused(capture):
    for number in range(3):
        numbers(capture / f"depth/{number}.png", np.ones((HEIGHT, WIDTH - (number == 2)), dtype=np.uint16))
        picture(capture / f"masks/{number}.png", size=(8, 6 + (number == 1)))
    write(capture, {**NGP, "frames": frames(depth_file_path="depth/{}.png")})
    with pytest.raises(DataFormatError, match=r"depth/2\.png: is 7x6 pixels but the intrinsics are for 8x6"):
        read_transforms_json(capture)
    write(capture, {**NGP, "frames": frames(mask_path="masks/{}.png")})
    with pytest.raises(DataFormatError, match=r"masks/1\.png: is 8x7 pixels but the intrinsics are for 8x6"):
        read_transforms_json(capture)
    write(capture, {**NGP, "frames": frames(mask_path="nowhere/{}.png")})
    with pytest.raises(DataFormatError, match=r"nowhere/0\.png: is missing; restore the file"):
        read_transforms_json(capture)


def test_bad_ground_maps_are_named(capture):
    numbers(capture / "bev.png", np.array([[0, 1], [1, 2], [0, 0]], dtype=np.uint8))
    np.save(capture / "height.npy", np.zeros((2, 3), dtype=np.float32))
    good = {
        "classes_path": "bev.png",
        "height_path": "height.npy",
        "lower": [-1, 2],
        "cell_size": 0.5,
        "class_names": ["a", "b", "c"],
        "palette": [[0, 0, 0], [9, 9, 9], [255, 0, 0]],
    }
    bev = read_transforms_json(alter(capture, {"bev": good})).bev
    assert bev.classes.tolist() == [[0, 1, 0], [0, 2, 1]]  # bev[x, y], from a picture with north up
    for change, message in (
        ({"classes_path": "../bev.png"}, "leads outside"),
        ({"classes_path": "images/0000.png"}, r"0000\.png: has pixel mode RGB; labels need"),
        ({"class_names": ["a", "b"]}, r"bev: a BEV map needs one colour per class, got 3 for 2"),
        ({"class_names": ["a", "b"], "palette": good["palette"][:2]}, r"must hold classes below 2"),
        ({"palette": [[0, 0, 300]] * 3}, r"bev\.palette is .* from 0 to 255"),
        ({"lower": [0]}, r"write lower as \[x, y\]"),
        ({"cell_size": 0}, r"positive cell_size"),
    ):
        with pytest.raises(DataFormatError, match=message):
            read_transforms_json(alter(capture, {"bev": {**good, **change}}))
    np.save(capture / "height.npy", np.full((2, 3), np.nan))
    with pytest.raises(DataFormatError, match=r"height\.npy: holds NaN or infinity"):
        read_transforms_json(alter(capture, {"bev": good}))
    np.save(capture / "height.npy", np.zeros((3, 2)))
    with pytest.raises(DataFormatError, match=r"height\.npy: has shape \(3, 2\) but the classes have \(2, 3\)"):
        read_transforms_json(capture)
    with pytest.raises(DataFormatError, match=r"does not follow undo_applied_transform"):
        read_transforms_json(alter(capture, {"applied_scale": 2}), undo_applied_transform=True)


def test_folders_without_a_capture_say_what_was_looked_for(tmp_path):
    with pytest.raises(DataFormatError, match=r"holds no transforms_train\.json or transforms\.json; give the folder"):
        read_transforms_json(tmp_path)
    with pytest.raises(DataFormatError, match=r"holds no capture; looked for transforms\.json, .*COLMAP.*sparse/0"):
        read_posed_images(tmp_path)
    with pytest.raises(DataFormatError, match=r"does not exist or holds no capture"):
        read_posed_images(tmp_path / "absent")
    with pytest.raises(DataFormatError, match=r"absent\.json: cannot be read .*check the name"):
        read_transforms_json(tmp_path / "absent.json")


def test_damaged_files_fail_in_one_way_only(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    for number in range(3):
        picture(folder / f"images/{number:04d}.png")
        numbers(folder / f"depth/{number}.png", np.ones((HEIGHT, WIDTH), dtype=np.uint16))
    whole = {**NGP, "k1": 0.1, "applied_scale": 2.0, "camera_model": "OPENCV", "metric": True}
    whole["frames"] = frames(depth_file_path="depth/{}.png")
    text = json.dumps(whole)
    junk = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(max_size=12),
        st.sampled_from(["images", "images/0001.png", "a" * 300, "\ud800", "\0", ".", "../x"]),
        st.lists(st.integers(0, 1), max_size=4),
        st.just([[1, 0, 0, 0]] * 4),
        st.just({"a": 1}),
    )
    places = [(key,) for key in whole] + [("frames", 1, key) for key in whole["frames"][1]] + [("frames", 0)]

    def read() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            try:
                posed = read_transforms_json(folder)
            except ValueError as error:
                assert str(folder) in str(error)
                return
        assert bool(torch.isfinite(posed.camera.rays().directions).all())
        points = transform_points(posed.camera.world_from_camera, torch.zeros(len(posed), 1, 3))
        assert bool(torch.isfinite(points).all())
        posed.load_depth()

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from(places), junk, st.booleans())
    def replace_a_value(place: tuple, value: object, remove: bool) -> None:
        content = json.loads(text)
        target = content
        for step in place[:-1]:
            target = target[step]
        if remove:
            del target[place[-1]]
        else:
            target[place[-1]] = value
        write(folder, content)
        read()

    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(st.integers(0, len(text) - 1), st.characters(codec="latin-1"))
    def replace_a_character(position: int, character: str) -> None:
        content = text[:position] + character + text[position + 1 :]
        (folder / "transforms.json").write_bytes(content.encode("latin-1"))
        read()

    replace_a_value()
    replace_a_character()
