"""Our reader of KITTI-360 against the formulas of its documentation, on files that the test writes."""

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_logs import (
    DRIVE,
    FRAMES,
    FRONT,
    FRONT_LENS,
    LANDMARKS,
    WIDE,
    kitti_beacon,
    kitti_mount,
    kitti_vehicle,
    kitti_world,
    project_wide,
    rectifying,
    write_kitti360,
)

from nfldm3d.data import PosedImages, SceneFolder
from nfldm3d.data.logs import LogCut, open_log, read_place
from nfldm3d.data.logs.cutting import cut_drive
from nfldm3d.data.logs.kitti360 import read_times
from nfldm3d.data.logs.kitti360_calibration import read_wide_lens
from nfldm3d.files import DataFormatError

CUT = LogCut(box=(40.0, 30.0, 10.0), stops=3, longest=400)
CAMERAS = ["image_00", "image_01", "image_02_left", "image_02_right", "image_03_left", "image_03_right"]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kitti360(tmp_path_factory.mktemp("kitti360"))


@pytest.fixture(scope="module")
def views(log: Path) -> PosedImages:
    return read_first(log)


def read_first(log: Path, cut: LogCut = CUT) -> PosedImages:
    drive = open_log(log)[0]
    return read_place(drive, cut_drive(drive.vehicle_poses(), cut)[0], cut)


def to_scene(views: PosedImages, points: np.ndarray) -> torch.Tensor:
    motion = torch.tensor(views.metadata["scene_from_world"], dtype=torch.float64)
    return (torch.from_numpy(points) @ motion[:3, :3].T + motion[:3, 3]).float()


def moments(views: PosedImages) -> list[int]:
    """The frame of each view."""
    stops = views.metadata["moments"]
    assert isinstance(stops, list) and len(views) == len(stops) * len(CAMERAS)
    return [FRAMES[stop] for stop in stops for _ in CAMERAS]


def test_landmarks_fall_where_kittis_own_formula_puts_them(views: PosedImages):
    """camera_to_world = pose camera_to_pose R_rect^-1, P_rect's own shift left out: it is in the camera's place."""
    assert views.metadata["cameras"] == 3 * CAMERAS and (views.camera.width, views.camera.height) == (40, 16)
    points = kitti_world(LANDMARKS)
    pixels, depths = views.camera.project(to_scene(views, points).expand(len(views), 5, 3))
    focal, u, v = FRONT_LENS
    for number, frame in enumerate(moments(views)):
        name = CAMERAS[number % 6]
        if name not in ("image_00", "image_01"):
            continue
        turn = np.eye(4)
        turn[:3, :3] = rectifying(name)
        world_from_camera = kitti_vehicle(frame) @ kitti_mount(name) @ np.linalg.inv(turn)
        for place, point in enumerate(points):
            x, y, z = (np.linalg.inv(world_from_camera) @ np.append(point, 1))[:3]
            assert float(depths[number, place]) == pytest.approx(z, abs=1e-3)
            if z > 1:
                wanted = (focal * x / z + u + 0.5) * 40 / FRONT[0], (focal * y / z + v + 0.5) * 16 / FRONT[1]
                assert pixels[number, place].tolist() == pytest.approx(wanted, abs=5e-3)


def test_the_world_is_level_and_the_vehicle_looks_along_x(views: PosedImages):
    front = [number for number in range(len(views)) if number % 6 == 0]
    forward = views.camera.forward[front]
    assert forward[:, 0].min() > 0.99 and torch.allclose(forward[:, 2], torch.full((3,), math.sin(0.05)), atol=1e-4)
    left, right = views.camera.forward[2:4].mean(0), views.camera.forward[4:6].mean(0)
    assert left[1] > 0.5 and right[1] < -0.5 and float(views.camera.centers[:, 2].abs().max()) < 2.5


def test_a_light_seen_by_a_fisheye_is_where_the_cut_view_sees_it(views: PosedImages):
    images, masks = views.load_images(), views.load_masks()
    assert masks is not None and bool(masks[0].float().mean() > 0.8), "some of it is the car that drives"
    found = 0
    for number, name in enumerate(3 * CAMERAS):
        if name in ("image_00", "image_01"):
            continue
        place = to_scene(views, kitti_beacon(name[:8])[None])
        (x, y), depth = (value[0] for value in views.camera[number].project(place))
        if depth < 0.5 or not (1 < x < 39 and 1 < y < 15):
            continue
        bright = images[number].sum(0).flatten()
        row, column = divmod(int(bright.argmax()), 40)
        assert bright.max() > 0.3 and abs(column + 0.5 - float(x)) < 1.2 and abs(row + 0.5 - float(y)) < 1.2, name
        found += 1
    assert found >= 5


def test_the_wide_lens_is_that_of_the_documentation(log: Path, generator: torch.Generator):
    lens = read_wide_lens(log / "calibration" / "image_02.yaml")
    assert (lens.width, lens.height) == (WIDE, WIDE)
    points = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    pixels, visible = lens.project(points)
    behind = points[:, 2] / points.norm(dim=-1) < -1 / lens.xi
    assert torch.equal(visible, ~behind) and bool(visible.any()) and not bool(visible.all())
    for point, pixel in zip(points[visible].numpy(), pixels[visible], strict=True):
        assert pixel.tolist() == pytest.approx(project_wide(point), abs=1e-6)


def test_lidar_becomes_depth(views: PosedImages):
    depth = views.load_depth(keep_masked=True)
    pixels, depths = views.camera.project(to_scene(views, kitti_world(LANDMARKS)).expand(len(views), 5, 3))
    assert depth is not None
    for view in range(len(views)):
        wanted = torch.zeros(16, 40)
        for (x, y), z in sorted(zip(pixels[view].tolist(), depths[view].tolist(), strict=True), key=lambda p: -p[1]):
            if z > 0 and 0 <= x < 40 and 0 <= y < 16:
                wanted[int(y), int(x)] = z
        assert torch.allclose(depth[view], wanted, atol=2e-3)
    assert int((depth > 0).sum()) > 5


def test_boxes_become_a_map_and_a_list(views: PosedImages):
    bev = views.bev
    assert bev is not None
    shift = to_scene(views, kitti_world(np.zeros((1, 3))))[0]

    def at(x: float, y: float) -> str:
        cell = [math.floor((v + float(s) - low) / 0.5) for v, s, low in zip((x, y), shift[:2], bev.lower, strict=True)]
        return bev.class_names[int(bev.classes[tuple(cell)])]

    assert [at(0.0, 1.0), at(-5.0, -2.0), at(0.0, 3.8), at(1.0, -9.0)] == ["road", "road", "void", "building"]
    assert at(4.0, 6.3) == "vehicle" and at(5.5, 4.5) == "void"
    objects = views.metadata["objects"]
    assert isinstance(objects, list) and [item["kind"] for item in objects] == ["car", "car"], "houses are no objects"
    parked, driving = objects
    assert parked["size"] == pytest.approx([4.4, 1.8, 1.5], abs=2e-3) and not parked["moving"] and driving["moving"]
    assert parked["heading"] == pytest.approx(math.pi / 2, abs=1e-3)
    assert driving["heading"] == pytest.approx(math.radians(10), abs=1e-3)


def test_times_keep_nanoseconds_as_far_as_a_double_can(views: PosedImages, log: Path):
    times = read_times(log / "data_2d_raw" / DRIVE / "image_00" / "timestamps.txt")
    assert times[12] - times[3] == pytest.approx(0.9, abs=1e-6) and times[0] == pytest.approx(1369730762.004520704)
    assert views.timestamps is not None and views.timestamps[0] == times[moments(views)[0]]


def test_what_was_not_downloaded_is_left_out(tmp_path: Path):
    root = write_kitti360(tmp_path / "log", boxes=False)
    (root / "data_2d_raw" / DRIVE / "image_02").rename(tmp_path / "image_02")
    (root / "data_3d_raw").rename(tmp_path / "data_3d_raw")
    views = read_first(root)
    assert views.metadata["cameras"] == 3 * [name for name in CAMERAS if "02" not in name]
    assert views.load_depth() is None and views.bev is None and views.metadata["objects"] == []
    for name in ("image_02.yaml", "image_03.yaml", "calib_cam_to_velo.txt"):
        (root / "calibration" / name).unlink()
    (sample,) = SceneFolder(root, split="all", cut=CUT)
    assert len(sample.images) == 6 and sample.depth is None and sample.key == f"{DRIVE}_000{sample.key[-1]}"


def test_a_view_outside_the_box_is_left_out(log: Path):
    flat = read_first(log, LogCut(box=(40.0, 30.0, 2.0), stops=3, longest=32))
    assert float(flat.camera.centers[:, 2].max()) <= 1.5 and len(flat) < 18


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert re.search(old, text, re.DOTALL)
    path.write_text(re.sub(old, new, text, count=1, flags=re.DOTALL))


DAMAGES = {
    "lacks calibration; unpack these parts of KITTI-360": lambda log: (log / "calibration").rename(log / "other"),
    "lacks perspective.txt; unpack": lambda log: (log / "calibration/perspective.txt").unlink(),
    "P_rect_00 needs 12 numbers, got 11": lambda log: edit(
        log / "calibration/perspective.txt", r"(P_rect_00:.*?) \S+\n", r"\1\n"
    ),
    "R_rect_01 is not rigid": lambda log: edit(log / "calibration/perspective.txt", r"R_rect_01: \S+", "R_rect_01: 3"),
    "calib_cam_to_pose.txt: image_02 needs 12 numbers, got 1;": lambda log: edit(
        log / "calibration/calib_cam_to_pose.txt", r"image_02: [^\n]*", "image_02: 1"
    ),
    "cam_to_pose.txt: lacks image_01": lambda log: edit(log / "calibration/calib_cam_to_pose.txt", "image_01:", "cam:"),
    "image_03.yaml: xi is missing": lambda log: edit(log / "calibration/image_03.yaml", "xi:", "eta:"),
    "model_type is PINHOLE; only MEI": lambda log: edit(log / "calibration/image_02.yaml", "MEI", "PINHOLE"),
    "calib_cam_to_velo.txt: could not convert string to float: 'nothing'": lambda log: edit(
        log / "calibration/calib_cam_to_velo.txt", r"\S+", "nothing"
    ),
    "has poses of nothing and pictures of 2013_05_28_drive_0003_sync; unpack both": lambda log: (
        log / "data_poses" / DRIVE
    ).rename(log / "poses"),
    "poses.txt: cannot be read": lambda log: (log / "data_poses" / DRIVE / "poses.txt").unlink(),
    "line 2 is '4': write a frame number|line 2 is '4 .*write a frame number": lambda log: edit(
        log / "data_poses" / DRIVE / "poses.txt", r"\n4 \S+", "\n4"
    ),
    "line 2 is 'inf .*write a frame number": lambda log: edit(
        log / "data_poses" / DRIVE / "poses.txt", r"\n4 ", "\ninf "
    ),
    "its frame numbers do not rise": lambda log: edit(log / "data_poses" / DRIVE / "poses.txt", r"\n5 ", "\n2 "),
    "the pose of frame 3 is not rigid": lambda log: edit(log / "data_poses" / DRIVE / "poses.txt", r"3 \S+", "3 2"),
    "image_00/data_rect: holds no pictures of": lambda log: (log / "data_2d_raw" / DRIVE / "image_00").rename(
        log / "i"
    ),
    "image_01/data_rect/.*png: is missing; restore": lambda log: [
        file.unlink() for file in log.glob("data_2d_raw/*/image_01/data_rect/*")
    ],
    ".bin: cannot be read .*restore the lidar": lambda log: [
        file.unlink() for file in log.glob("data_3d_raw/*/*/data/*")
    ],
    "is no XML": lambda log: edit(next(log.glob("data_3d_bboxes/*/*.xml")), "</opencv_storage>", ""),
    "declares entities": lambda log: edit(
        next(log.glob("data_3d_bboxes/*/*.xml")), r"\?>", '?><!DOCTYPE x [<!ENTITY a "b">]>'
    ),
    "object1: semanticId 99 is none of KITTI-360's": lambda log: edit(
        next(log.glob("data_3d_bboxes/*/*.xml")), "<semanticId>13", "<semanticId>99"
    ),
    "object1: transform is no opencv-matrix": lambda log: edit(
        next(log.glob("data_3d_bboxes/*/*.xml")), "<rows>4", "<rows>5"
    ),
    "line 1 is '2013-02-31 .*no date and time": lambda log: edit(
        log / "data_2d_raw" / DRIVE / "image_00/timestamps.txt", r"^\S+", "2013-02-31"
    ),
    "line 1 is 'yesterday', no date and time": lambda log: edit(
        log / "data_2d_raw" / DRIVE / "image_00/timestamps.txt", r"^[^\n]*", "yesterday"
    ),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_what_is_missing_is_named_in_one_line(log: Path, tmp_path: Path, message: str):
    shutil.copytree(log, tmp_path, dirs_exist_ok=True)
    DAMAGES[message](tmp_path)
    with pytest.raises(DataFormatError) as error:
        read_first(tmp_path, replace(CUT, stops=1))
    assert re.search(message, str(error.value)), str(error.value)


def test_blank_lines_take_no_time(tmp_path: Path) -> None:
    (tmp_path / "image_02.yaml").write_bytes(b"\n" * 1_000_000)
    with pytest.raises(DataFormatError, match="model_type is missing"):
        read_wide_lens(tmp_path / "image_02.yaml")
