"""Our reader of nuScenes against the formulas of its documentation, on tables that the test writes."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_logs import (
    CAMERAS,
    LENS,
    START,
    delay,
    landmarks,
    mount,
    vehicle,
    write_nuscenes,
    write_streets,
)

from nfldm3d.data import PosedImages, SceneFolder, read_posed_images
from nfldm3d.data.logs import LogCut, json_rows, open_log, read_place
from nfldm3d.data.logs.cutting import cut_drive
from nfldm3d.data.sample_files import decode_scene, encode_scene
from nfldm3d.files import DataFormatError

CUT = LogCut(box=(26.0, 24.0, 8.0), stops=2, longest=32)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_nuscenes(tmp_path_factory.mktemp("nuscenes"))
    write_streets(root)
    return root


def read_first(log: Path, cut: LogCut = CUT) -> PosedImages:
    drive = open_log(log)[0]
    return read_place(drive, cut_drive(drive.vehicle_poses(), cut)[0], cut)


def to_scene(views: PosedImages, points: np.ndarray) -> torch.Tensor:
    motion = torch.tensor(views.metadata["scene_from_world"], dtype=torch.float64)
    return torch.from_numpy(points) @ motion[:3, :3].T + motion[:3, 3]


def test_landmarks_fall_where_nuscenes_own_formula_puts_them(log: Path):
    """x_camera = calibration^-1 pose^-1 x_world with the picture's own pose, and pixels are counted from (0.5, 0.5)."""
    views, cut = read_first(log), replace(CUT, box=(40.0, 24.0, 8.0))
    moments = views.metadata["moments"]
    assert isinstance(moments, list) and len(views) == 12
    pixels, depths = views.camera.project(to_scene(views, landmarks()).float().expand(12, 5, 3))
    shown = 0
    for number, (moment, channel) in enumerate((moment, channel) for moment in moments for channel in sorted(CAMERAS)):
        local = np.linalg.inv(vehicle(moment + delay(channel)) @ mount(channel))
        for place, point in enumerate(landmarks()):
            x, y, z = (local @ np.append(point, 1))[:3]
            assert float(depths[number, place]) == pytest.approx(z, abs=1e-4)
            if z > 1:
                shown += 1
                wanted = (LENS[0][0] * x / z + LENS[0][2] + 0.5, LENS[1][1] * y / z + LENS[1][2] + 0.5)
                scaled = wanted[0], wanted[1] * 16 / 18  # 18 rows became 16
                assert pixels[number, place].tolist() == pytest.approx(scaled, rel=1e-3, abs=1e-3)
    assert shown > 20 and len(read_first(log, cut)) == 12


def test_lidar_becomes_depth_at_the_pixels_it_falls_on(log: Path):
    views = read_first(log)
    depth, (pixels, depths) = (
        views.load_depth(keep_masked=True),
        views.camera.project(to_scene(views, landmarks()).float().expand(12, 5, 3)),
    )
    assert depth is not None
    for view in range(len(views)):
        wanted = torch.zeros(16, 32)
        for (x, y), z in sorted(zip(pixels[view].tolist(), depths[view].tolist(), strict=True), key=lambda p: -p[1]):
            if z > 0 and 0 <= x < 32 and 0 <= y < 16:
                wanted[int(y), int(x)] = z
        assert torch.allclose(depth[view], wanted, atol=1e-3), "without the vehicle's own roof"
    assert 0 < int((depth > 0).sum()) < 5 * len(views)


def test_pictures_times_and_ways(log: Path):
    views = read_first(log)
    images = views.load_images()
    grey = {name: 20 * number for number, name in enumerate(CAMERAS)}
    moments, cameras = views.metadata["moments"], views.metadata["cameras"]
    assert isinstance(moments, list) and isinstance(cameras, list) and cameras == 2 * sorted(CAMERAS)
    expected = [grey[name] + 5 * moment for moment in moments for name in sorted(CAMERAS)]
    assert (images[:, 0, 8, 16] * 255).tolist() == pytest.approx(expected, abs=2)
    assert views.timestamps is not None
    first = START / 1e6 + 0.5 * (moments[0] + delay("CAM_BACK"))
    assert float(views.timestamps[0]) == pytest.approx(first, abs=2e-6)
    path = views.metadata["trajectory"]
    assert isinstance(path, list) and all(pose[3:] == pytest.approx([1, 0], abs=1e-6) for pose in path)
    assert np.diff([pose[0] for pose in path]) == pytest.approx(3.0, abs=1e-6)
    assert max(abs(pose[1]) for pose in path) < 1e-6 and [0, 0, 0] in [pose[:3] for pose in path]


def test_boxes_and_streets_become_a_map(log: Path):
    drive = open_log(log)[0]
    places = cut_drive(drive.vehicle_poses(), CUT)
    views = read_place(drive, places[0], CUT)
    bev, shift = views.bev, 3.0 * places[0].middle
    assert bev is not None and bev.classes.shape == (52, 48)

    def at(x: float, y: float) -> str:
        """The class at a place in the axes of the vehicle at the first moment."""
        cell = math.floor((x - shift - bev.lower[0]) / 0.5), math.floor((y - bev.lower[1]) / 0.5)
        return bev.class_names[int(bev.classes[cell])]

    assert [at(0.2, 0.2), at(4.2, 1.7), at(3.2, -4.6), at(0.2, 3.4)] == ["road", "void", "sidewalk", "void"]
    assert at(4.2, 4.2) == at(3.6, 6.9) == "vehicle" and at(5.7, 5.2) == "void", "its length lies along y"
    assert at(shift + 7, 0.3) == "vehicle" and at(3.1, -4.1) == "person"
    objects = views.metadata["objects"]
    assert isinstance(objects, list)
    assert {item["name"]: item["moving"] for item in objects} == {
        "i-0-parked": False,
        "i-0-driving": True,
        "i-0-person": False,
    }
    parked = objects[0]
    assert parked["size"] == [4.6, 1.9, 1.6] and parked["heading"] == pytest.approx(math.pi / 2, abs=1e-3)
    assert parked["position"] == pytest.approx([4.0 - shift, 5.0, 0.8], abs=2e-3)


def test_what_moves_is_hidden_where_it_is_seen(log: Path):
    views = read_first(log)
    masks, shown = views.load_masks(), read_first(log, replace(CUT, hide_moving=False)).load_masks()
    assert masks is not None and shown is None
    hidden = ~masks.flatten(1).all(1)
    cameras, moments = views.metadata["cameras"], views.metadata["moments"]
    assert isinstance(cameras, list) and isinstance(moments, list)
    assert [cameras[number] for number in hidden.nonzero()[:, 0].tolist()] == 2 * ["CAM_FRONT"]
    front = cameras.index("CAM_FRONT")
    at = to_scene(views, vehicle(moments[0])[None, :3, 3])
    middle = at.float() + torch.tensor([[7.0, 0.0, 0.9]])
    (x, y), _ = (value[0] for value in views.camera[front].project(middle))
    assert not bool(masks[front, int(y), int(x)]) and bool(masks[front, 1].all())


def test_drives_are_scenes_of_a_folder_and_go_into_shards(log: Path):
    folder = SceneFolder(log, split="all", cut=CUT)
    assert {scene.place for scene in folder.scenes} == {"scene-0061", "scene-0103"}
    sample = folder[0]
    assert sample.key.startswith("scene-0061_000") and sample.map == "n008-2018-08-01" and sample.metric
    assert sample.box.size == (26.0, 24.0, 8.0) and sample.images.shape[1:] == (3, 16, 32)
    again = decode_scene(sample.key, encode_scene(sample), "shard")
    assert torch.allclose(again.known_depth(), sample.known_depth(), atol=6e-4) and again.bev is not None
    assert again.metadata == json.loads(json.dumps(sample.metadata))
    standing = folder[len(folder) - 1]
    assert standing.key == "scene-0103_0000" and len(standing.images) == 6, "one stop"
    (log / "splits.json").write_text(json.dumps({"train": ["scene-0061"], "test": ["scene-0103"]}))
    try:
        assert SceneFolder(log, split="test", cut=CUT).keys == ("scene-0103_0000",)
    finally:
        (log / "splits.json").unlink()


def test_drives_of_one_log_stay_together(tmp_path: Path):
    root = write_nuscenes(tmp_path / "nuscenes", moments=(2, 2, 2, 2))
    table = root / "v1.0-mini" / "log.json"
    rows = [{**row, "logfile": "one"} for row in json.loads(table.read_text())]
    table.write_text(json.dumps(rows))
    folder = SceneFolder(tmp_path, split="all", cut=CUT)
    assert len({scene.split for scene in folder.scenes}) == 1 and folder.keys[0] == "nuscenes_scene-0061_0000"
    assert open_log(root / "v1.0-mini")[0].name == "scene-0061", "the folder of a version will do"


def spoil(log: Path, table: str, change) -> Path:
    path = log / "v1.0-mini" / f"{table}.json"
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))
    return log


def write_table(log: Path, table: str, text: str) -> None:
    (log / "v1.0-mini" / f"{table}.json").write_text(text)


DAMAGES = {
    "lacks the tables ego_pose.json, log.json; unpack nuScenes' metadata again": lambda log: [
        (log / "v1.0-mini" / f"{name}.json").unlink() for name in ("log", "ego_pose")
    ],
    "has no folder of tables such as v1.0-mini": lambda log: (log / "v1.0-mini").rename(log / "tables"),
    "holds the tables v1.0-mini, v1.0-trainval; give the folder of one": lambda log: write_nuscenes(
        log, version="v1.0-trainval"
    ),
    r"\[0\].ego_pose_token is 'd-scene-0061-0-CAM_FRONT'; ego_pose.json has no such token": lambda log: spoil(
        log, "ego_pose", lambda rows: rows.pop(0)
    ),
    r"calibrated_sensor.json: \[0\].camera_intrinsic is \[\]; a camera needs \[\[fx, 0, cx\]": lambda log: spoil(
        log, "calibrated_sensor", lambda rows: rows[0].update(camera_intrinsic=[])
    ),
    r"\[3\].rotation is \[1, 1, 0, 0\]; write a unit quaternion w, x, y, z": lambda log: spoil(
        log, "calibrated_sensor", lambda rows: rows[3].update(rotation=[1, 1, 0, 0])
    ),
    r"ego_pose.json: \[0\].token is \{\}": lambda log: spoil(log, "ego_pose", lambda rows: rows[0].update(token={})),
    r"\[\d+\].ego_pose_token is \[1\]": lambda log: spoil(
        log, "sample_data", lambda rows: [row.update(ego_pose_token=[1]) for row in rows]
    ),
    "run in a circle": lambda log: spoil(log, "sample", lambda rows: rows[1].update(next=rows[0]["token"])),
    "samples/CAM_BACK/.*jpg: is missing; restore": lambda log: next(log.glob("samples/CAM_BACK/*-0-*")).unlink(),
    "pcd.bin: cannot be read .*restore the lidar": lambda log: next(log.glob("samples/LIDAR_TOP/*-0-*")).unlink(),
    "has 36 bytes, no multiple of 20": lambda log: next(log.glob("samples/LIDAR_TOP/*-0-*")).write_bytes(bytes(36)),
    "comma or the end of the list": lambda log: write_table(log, "sample_data", '[{"token": "a"} {}'),
    "scene.json: is no JSON list .*NaN": lambda log: write_table(log, "scene", '[{"token": NaN}]'),
    "a row is 1, not an object": lambda log: write_table(log, "scene", "[1]"),
    "holds no drive of nuScenes": lambda log: write_table(log, "scene", "[]"),
    "seaport.json: lacks polygon, drivable_area": lambda log: [
        (log / "maps/expansion").mkdir(parents=True),
        (log / "maps/expansion/boston-seaport.json").write_text('{"node": []}'),
    ],
}


@pytest.mark.parametrize("message", DAMAGES)
def test_what_is_missing_is_named_in_one_line(tmp_path: Path, message: str):
    write_nuscenes(tmp_path, moments=(2,))
    DAMAGES[message](tmp_path)
    with pytest.raises(DataFormatError) as error:
        read_first(tmp_path)
    assert re.search(message, str(error.value)), str(error.value)


def test_tables_longer_than_what_is_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(json_rows, "CHUNK", 64)
    monkeypatch.setattr(json_rows, "LONGEST_ROW", 60)
    rows = [{"token": str(number), "text": "ä]}," * (number % 3)} for number in range(50)]
    for indent in (None, 0, 1):
        (tmp_path / "table.json").write_text(json.dumps(rows, indent=indent, ensure_ascii=False), encoding="utf-8")
        assert list(json_rows.iterate_rows(tmp_path / "table.json")) == rows


def test_a_log_is_no_single_capture(log: Path):
    with pytest.raises(DataFormatError, match="is a log of many drives, no single capture; nfldm3d encode"):
        read_posed_images(log)


def test_the_vehicle_turns_and_boxes_follow_it():
    """Along a quarter circle each scene's way stays in its box, and every stretch of the way is in some scene."""
    angles = np.linspace(0, math.pi / 2, 120)
    poses = torch.from_numpy(np.stack([vehicle(0, math.degrees(a)) for a in angles]))
    poses[:, :2, 3] = torch.from_numpy(np.stack((60 * np.sin(angles), 60 * (1 - np.cos(angles))), axis=-1))
    cut = LogCut(box=(30.0, 14.0, 8.0), stops=5, spacing=10.0)
    places = cut_drive(poses, cut)
    assert len(places) == int((60 * math.pi / 2 - 25) // 10) + 1
    assert {moment for place in places for moment in place.way} >= set(range(12, 108))
    for place in places:
        local = torch.linalg.inv(poses[place.middle]) @ poses[list(place.way), :, 3:]
        assert float(local[:, 0].abs().max()) <= 12.5 and float(local[:, 1].abs().max()) <= 4.5
        assert len(place.stops) == 5 and set(place.stops) <= set(place.way)
        steps = np.diff(place.stops)
        assert steps.max() - steps.min() <= 1, "evenly spread"
    with pytest.raises(ValueError, match="box needs more than 5.0 m"):
        LogCut(box=(4.0, 30.0, 8.0))
    with pytest.raises(ValueError, match="at least 1 stop"):
        LogCut(stops=0)
