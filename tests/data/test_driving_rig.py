"""Recordings of a vehicle with six cameras, written by the test in each of the axes: 8x6 pixels a view."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_captures import numbers, picture
from small_rigs import LANDMARK, LENS, MOUNT, alter, turn_z, write_rig

from nfldm3d.data import read_driving_rig, read_posed_images, rig_scenes
from nfldm3d.data.rig_file import read_carla_depth
from nfldm3d.files import DataFormatError


@pytest.mark.parametrize("axes", ["opencv", "opengl", "carla"])
def test_a_landmark_lands_where_the_vehicle_sees_it(tmp_path: Path, axes: str):
    """By hand: LANDMARK from the vehicle's place and heading, then from the front camera, which looks along x."""
    views = read_driving_rig(write_rig(tmp_path, axes), cameras=["front"])
    pixels, depths = views.camera.project(torch.from_numpy(LANDMARK).float().expand(5, 1, 3))
    for number in range(5):
        yaw = math.radians(30 + 5 * number)
        east, north = LANDMARK[0] - (20 + number), LANDMARK[1] - (10 + number / 2)
        ahead = east * math.cos(yaw) + north * math.sin(yaw) - MOUNT[0]
        left = -east * math.sin(yaw) + north * math.cos(yaw) - MOUNT[1]
        up = LANDMARK[2] - 0.5 - MOUNT[2]
        assert float(depths[number, 0]) == pytest.approx(ahead, rel=1e-4)
        expected = LENS["cx"] - LENS["fx"] * left / ahead, LENS["cy"] - LENS["fy"] * up / ahead
        assert pixels[number, 0].tolist() == pytest.approx(expected, abs=1e-3)


def test_a_point_of_carla_on_the_right_is_seen_on_the_right(tmp_path: Path):
    """CARLA's vehicle at (100, 50), yaw 90 degrees, drives along +y; its right is -x. The camera is 2 m above it."""
    rig = write_rig(tmp_path, "carla", frames=1)

    def place(content: dict[str, Any]) -> None:
        content["frames"][0]["world_from_vehicle"] = turn_z(90, (100, 50, 0)).tolist()
        content["cameras"] = [{"name": "front", **LENS, "vehicle_from_camera": turn_z(0, (0, 0, 2)).tolist()}]

    camera = read_driving_rig(alter(rig, place)).camera
    carla_point = (97.0, 60.0, 3.0)  # 10 ahead, 3 to the right, 1 above the camera
    x, y, z = carla_point
    pixels, depths = camera.project(torch.tensor([[[x, -y, z]]]))
    assert float(depths) == pytest.approx(10, rel=1e-5)
    assert pixels[0, 0].tolist() == pytest.approx((4.25 + 4.0 * 0.3, 2.75 - 4.5 * 0.1), abs=1e-4)


def test_all_axes_tell_the_same_cameras(tmp_path: Path):
    opencv, opengl, carla = (
        read_driving_rig(write_rig(tmp_path / axes, axes)).camera for axes in ("opencv", "opengl", "carla")
    )
    assert torch.allclose(opencv.world_from_camera, opengl.world_from_camera, atol=1e-5)
    assert torch.allclose(opencv.world_from_camera, carla.world_from_camera, atol=1e-5)


def test_views_are_moments_by_cameras(tmp_path: Path):
    rig = write_rig(tmp_path)
    everything, some = (
        read_posed_images(rig),
        read_driving_rig(rig, frames=slice(1, None, 2), cameras=["back", "front"]),
    )
    assert len(everything) == 30 and everything.metric
    assert some.names == ("back/0001.png", "front/0001.png", "back/0003.png", "front/0003.png")
    assert some.timestamps is not None and some.timestamps.tolist() == [0.5, 0.5, 1.5, 1.5]
    assert (some.load_images()[:, 0, 0, 0] * 255).round().tolist() == [13, 10, 33, 30]
    depth = some.load_depth()
    assert depth is not None and depth[:, 2, 3].tolist() == pytest.approx([2.001, 2.001, 2.003, 2.003])
    assert torch.equal(read_driving_rig(rig, frames=[-1]).camera.centers, everything.camera.centers[24:])


def test_a_local_scene_is_the_same_place_moved(tmp_path: Path):
    rig = write_rig(tmp_path)
    scenes = list(rig_scenes(rig, window=3, stride=2))
    assert [scene.names[0] for scene in scenes] == ["front/0000.png", "front/0002.png"]
    scene, world = scenes[1], read_driving_rig(rig, frames=range(2, 5))
    move = torch.tensor(scene.metadata["scene_from_world"])
    point = torch.from_numpy(np.append(LANDMARK, 1)).float()
    there, here = (
        views.camera.project(place[None, None, :3].expand(18, 1, 3))
        for views, place in ((world, point), (scene, move @ point))
    )
    assert torch.allclose(there[0], here[0], rtol=1e-3, atol=1e-3) and torch.allclose(there[1], here[1], atol=1e-4)
    assert torch.allclose(move[2], torch.tensor((0.0, 0.0, 1.0, -0.5)))  # up stays up
    path = scene.metadata["trajectory"]
    assert isinstance(path, list) and path[1] == pytest.approx([0, 0, 0, 1, 0])
    assert path[2][0] > 0 and path[2][3:] == pytest.approx([math.cos(math.radians(5)), math.sin(math.radians(5))])
    front = scene.camera[6]  # of the middle moment
    assert front.centers.tolist() == pytest.approx(MOUNT, abs=1e-5)
    assert (-front.world_from_camera[:3, 2]).tolist() == pytest.approx((1, 0, 0), abs=1e-5)


def test_far_from_the_origin_a_local_scene_loses_nothing(tmp_path: Path):
    near, far = write_rig(tmp_path, frames=2), [20_000.0, -7_000.0, 300.0]
    scene = next(rig_scenes(near, window=2))

    def move(content: dict[str, Any]) -> None:
        for frame in content["frames"]:
            for row, shift in zip(frame["world_from_vehicle"], far, strict=False):
                row[3] += shift

    moved = next(rig_scenes(alter(near, move), window=2))
    assert torch.allclose(scene.camera.world_from_camera, moved.camera.world_from_camera, atol=1e-6)


def test_each_local_scene_has_the_map_and_box_of_its_vehicle(tmp_path: Path):
    rig = write_rig(tmp_path)
    Image.fromarray(np.array(((0, 1), (1, 1), (0, 0)), np.uint8)).save(rig / "bev.png")
    bev = {"classes_path": "bev.png", "lower": [-1, -1.5], "cell_size": 1.0}
    bev |= {"class_names": ["road", "grass"], "palette": [[0, 0, 0], [0, 255, 0]]}

    def add(content: dict[str, Any]) -> None:
        content["frames"][1]["bev"] = bev
        content |= {"map": "Town03", "box": {"lower": [-8, -9, -1], "upper": [8, 9, 4]}}

    scene, other = rig_scenes(alter(rig, add), window=2, stride=3)
    assert scene.bev is not None and scene.bev.classes.tolist() == [[0, 1, 0], [0, 1, 1]]
    assert other.bev is None and read_driving_rig(rig).bev is None
    assert scene.metadata["map"] == "Town03" and scene.metadata["box"] == {"lower": [-8, -9, -1], "upper": [8, 9, 4]}


def test_cameras_of_two_sizes_load_in_the_smaller_one(tmp_path: Path):
    rig, at = write_rig(tmp_path, frames=1), torch.from_numpy(LANDMARK).float().expand(2, 1, 3)
    before, depths = read_driving_rig(rig, cameras=["front", "back"]).camera.project(at)
    picture(rig / "front/0000.png", 7, size=(16, 9))
    numbers(rig / "depth/front_0000.png", np.full((9, 16), 1500, np.uint16))
    larger = {"w": 16, "h": 9, "fx": 8.0, "fy": 6.75, "cx": 8.5, "cy": 4.125}
    views = read_driving_rig(alter(rig, lambda c: c["cameras"][0].update(larger)), cameras=["front", "back"])
    assert views.load_images().shape == (2, 3, 6, 8)
    depth = views.load_depth()
    assert depth is not None and float(depth[0].min()) == 1.5
    after, _ = views.camera.project(at)
    assert torch.allclose(before[0], after[0], atol=1e-4) and float(depths[0]) > 0


def test_a_camera_may_fire_at_its_own_time(tmp_path: Path):
    rig = write_rig(tmp_path, frames=1)
    late = {"path": "back/0000.png", "timestamp": 0.1, "world_from_vehicle": turn_z(30, (21, 10, 0.5)).tolist()}
    before = read_driving_rig(rig)
    after = read_driving_rig(alter(rig, lambda content: content["frames"][0]["images"].update(back=late)))
    moved = (after.camera.centers - before.camera.centers)[3]
    assert moved.tolist() == pytest.approx((1, 0, 0), abs=1e-5)
    assert after.timestamps is not None and after.timestamps.tolist() == [0, 0, 0, 0.1, 0, 0]
    assert after.names == before.names


def test_depth_in_carlas_bytes(tmp_path: Path):
    """0.25 km, 1 mm (17 units of 1000 m / (2^24 - 1)), and the far plane, which is sky."""
    codes = np.array(((2**22, 17, 2**24 - 1),))
    pixels = np.stack((codes % 256, codes // 256 % 256, codes // 65536), axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "depth.png")
    assert read_carla_depth(tmp_path / "depth.png")[0].tolist() == pytest.approx((250.0, 0.0010133, 0), rel=1e-4)


def test_carlas_depth_reaches_the_views(tmp_path: Path):
    rig = write_rig(tmp_path, "carla", frames=2)
    for file in rig.glob("depth/*"):
        picture(file, 1)
    views = read_driving_rig(alter(rig, lambda content: content.update(depth_encoding="carla")), frames=[1])
    depth = views.load_depth()
    assert depth is not None and depth.shape == (6, 6, 8)
    assert float(depth.mean()) == pytest.approx(1000 * (1 + 256 + 65536) / (2**24 - 1))


def set_frame(**fields: object):
    return lambda content: content["frames"][1].update(fields)


def set_camera(**fields: object):
    return lambda content: content["cameras"][2].update(fields)


FLAT = np.diag((1.0, 1.0, 0.0, 1.0)).tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("axes"), "axes is missing; write how the matrices are meant: opencv, opengl, carla"),
        (lambda c: c.update(axes="opengl"), "axes is 'opengl'; so all cameras are upside down"),
        (lambda c: c.update(cameras=[]), "cameras is []; write at least one"),
        (lambda c: c.update(frames=None), "frames is None; write a list"),
        (lambda c: c.update(depth_unit=0), "depth_unit is 0; write metres per unit"),
        (lambda c: c.update(depth_encoding="log"), "depth_encoding is 'log'; write metric or carla"),
        (set_camera(name="front"), "give each camera a name of its own"),
        (set_camera(fx="4"), "cameras[2].fx is '4'; write a number"),
        (
            lambda c: [c["cameras"][2].pop(key) for key in ("fx", "cy", "vehicle_from_camera")],
            "cameras[2], camera 'back_left', has no calibration: it lacks fx, cy, vehicle_from_camera; write the size",
        ),
        (set_camera(fx=0), "cameras[2], camera 'back_left', has focal length 0 along x"),
        (set_camera(vehicle_from_camera=FLAT), "cameras[2].vehicle_from_camera is "),
        (set_frame(world_from_vehicle=FLAT), "frames[1].world_from_vehicle is "),
        (set_frame(images={}), "frames[1].images.front is missing"),
        (set_frame(images={"front": "../front.png"}), "leads outside"),
        (set_frame(depth=None), "frames[1].depth is None; other frames have it"),
        (set_frame(timestamp=None), "6 of 12 images have a timestamp"),
        (set_frame(depth={"front": 3}), "frames[1].depth.front is 3; write a file name"),
    ],
)
def test_what_cannot_be_used_is_one_clear_error(tmp_path: Path, change, message: str):
    rig = alter(write_rig(tmp_path, frames=2), change)
    with pytest.raises(DataFormatError, match=re.escape(message)):
        read_driving_rig(rig)


def test_missing_pictures_and_false_choices_are_refused(tmp_path: Path):
    rig = write_rig(tmp_path, frames=2)
    with pytest.raises(ValueError, match="has frames 0 to 1, asked for"):
        read_driving_rig(rig, frames=[2])
    with pytest.raises(ValueError, match="chooses none of 2"):
        read_driving_rig(rig, frames=[])
    with pytest.raises(ValueError, match=r"has cameras front, .*asked for \['roof'\]"):
        read_driving_rig(rig, cameras=["roof"])
    with pytest.raises(ValueError, match="too few for a window of 3"):
        rig_scenes(rig, window=3)
    with pytest.raises(ValueError, match="window and stride must be at least 1"):
        rig_scenes(rig, window=1, stride=0)
    (rig / "back/0001.png").unlink()
    with pytest.raises(DataFormatError, match=r"back/0001\.png: is missing"):
        read_driving_rig(rig)
    assert len(read_driving_rig(rig, cameras=["front"])) == 2
