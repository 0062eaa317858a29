"""Every dialect of transforms.json."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from small_captures import HEIGHT, NGP, POSES, WIDTH, alter, frames, numbers, picture, write, write_instant_ngp

from nfldm3d.data import read_posed_images, read_transforms_json
from nfldm3d.files import DataFormatError


@pytest.fixture
def capture(tmp_path) -> Path:
    return write_instant_ngp(tmp_path)


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
    torch.testing.assert_close(posed.load_depth(keep_masked=True)[:, 2, 3], torch.tensor([0.001, 1.001, 2.001]))
    torch.testing.assert_close(posed.load_depth()[:, 2, 3], torch.tensor([0.001, 0.0, 2.001]))
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
    kept, undone = (read_transforms_json(tmp_path, undo_applied_transform=undo, up="z") for undo in (False, True))
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


@pytest.mark.parametrize(("alpha", "background"), [(255, None), (254, (1, 1, 1))])
def test_alpha_counts_where_some_pixel_lets_through(capture, alpha, background):
    pixels = np.full((HEIGHT, WIDTH, 4), 255, dtype=np.uint8)
    numbers(capture / "images/0000.png", pixels)
    pixels[-1, -1, 3] = alpha
    numbers(capture / "images/0002.png", pixels)
    assert read_transforms_json(capture).background == background


def test_lists_of_a_split_name_files_however_they_are_written(capture):
    files = {"train_filenames": ["images/0000.png", "./images//0002.png"], "val_filenames": ["images\\0001.png"]}
    alter(capture, files)
    assert read_transforms_json(capture, split="train").names == ("images/0000.png", "images/0002.png")
    assert read_transforms_json(capture, split="val").names == ("images/0001.png",)
    with pytest.raises(DataFormatError, match="each once; 1 match"):
        read_transforms_json(alter(capture, {"val_filenames": ["images/0001.png", "./images/0001.png"]}), split="val")


def test_absolute_names_and_other_spellings(capture):
    (capture / "images/0001.png").rename(capture / "images/A\u0308.PNG")
    alter(capture, {}, {"file_path": str(capture.resolve() / "images" / "\u00e4.png")})
    assert len(read_transforms_json(capture)) == 3
