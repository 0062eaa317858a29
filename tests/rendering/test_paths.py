"""Camera paths see what they are for."""

import itertools
import json
from pathlib import Path

import pytest
import torch

from nfldm3d import Camera, Rgb, Scene, VoxelField, make_path
from nfldm3d.files import DataFormatError
from nfldm3d.geometry import Box
from nfldm3d.rendering.paths import read_camera_path


def empty_scene(size: tuple[float, float, float], cameras: Camera | None = None) -> Scene:
    field = VoxelField(torch.zeros(4, 4, 4), torch.zeros(4, 4, 4, 3), Box.from_center((3.0, -2.0, 1.0), size))
    return Scene(field, Rgb(), cameras=cameras)


@pytest.mark.parametrize("size", [(8.0, 8.0, 2.0), (1.0, 9.0, 1.0), (2.0, 2.0, 12.0)])
@pytest.mark.parametrize(("width", "height"), [(96, 64), (64, 64), (40, 90)])
def test_an_orbit_from_outside_just_sees_the_whole_box(
    size: tuple[float, float, float], width: int, height: int
) -> None:
    scene = empty_scene(size)
    cameras = make_path(scene, "orbit", views=24, width=width, height=height)
    corners = torch.tensor(list(itertools.product(*zip(scene.box.lower, scene.box.upper, strict=True))))
    pixels, depth = cameras.project(corners.expand(24, -1, -1))
    share = pixels / torch.tensor((width, height))
    assert bool((depth > 0).all()) and float(share.min()) > 0 and float(share.max()) < 1
    assert float((share - 0.5).abs().max()) > 0.42


def test_an_orbit_is_that_of_cameras_that_look_inwards() -> None:
    own = Camera.orbit((3.0, -2.0, 1.0), 5.0, views=8, elevation_degrees=10.0)
    path = make_path(empty_scene((2.0, 2.0, 2.0), own), "orbit", views=6)
    offset = path.centers - torch.tensor((3.0, -2.0, 1.0))
    assert torch.allclose(offset.norm(dim=-1), torch.tensor(5.0))
    assert torch.allclose(offset[:, 2], own.centers[0, 2] - 1.0)


def test_a_panorama_stands_at_the_most_central_camera() -> None:
    own = Camera.panorama((3.5, -2.0, 1.0), views=3)
    path = make_path(empty_scene((4.0, 4.0, 4.0), own), "panorama", views=5)
    assert torch.allclose(path.centers, torch.tensor((3.5, -2.0, 1.0)))


def test_unknown_paths_are_refused() -> None:
    scene = empty_scene((2.0, 2.0, 2.0))
    with pytest.raises(ValueError, match="unknown path 'spiral'; choose orbit, panorama, fly"):
        make_path(scene, "spiral")
    with pytest.raises(ValueError, match="knows no cameras to fly past"):
        make_path(scene, "fly")
    with pytest.raises(ValueError, match="at least one view"):
        make_path(scene, "orbit", views=0)


def write_path(folder: Path, *frames: dict, **top: object) -> Path:
    poses = Camera.orbit((0.0, 0.0, 0.0), 2.0, views=max(1, len(frames))).world_from_camera.tolist()
    written = [{"transform_matrix": pose, **frame} for pose, frame in zip(poses, frames or ({},), strict=True)]
    path = folder / "path.json"
    path.write_text(json.dumps({"frames": written, **top}))
    return path


@pytest.mark.parametrize(
    ("top", "frame", "share"),
    [
        ({"fl_x": 30.0, "w": 40}, {}, 0.75),
        ({"fl_x": 30.0, "w": 40, "camera_angle_x": 0.3}, {}, 0.75),
        ({}, {"fl_x": 30.0, "w": 40}, 0.75),
        ({"w": 40}, {"fl_x": 30.0}, 0.75),
        ({"camera_angle_x": 1.5707963}, {}, 0.5),
        ({}, {"camera_angle_x": 1.5707963}, 0.5),
        ({"camera_angle_x": 0.3}, {"camera_angle_x": 1.5707963}, 0.5),
        ({"fl_x": 30.0, "camera_angle_x": 1.5707963}, {}, 0.5),  # of a width that is not told
        ({}, {"fov": 90.0}, 1 / 3),
        ({}, {}, 0.75**0.5),
    ],
)
def test_lenses_are_those_of_the_file(tmp_path: Path, top: dict, frame: dict, share: float) -> None:
    cameras = read_camera_path(write_path(tmp_path, frame, **top), width=24, height=16)
    torch.testing.assert_close(cameras.focal, torch.full((1, 2), 24 * share))


@pytest.mark.parametrize(
    ("top", "frame", "problem"),
    [
        ({}, {"fov": 180.0}, r"frame 0\.fov is 180.0; write the vertical field of view in degrees, between 0 and 180"),
        ({}, {"fov": -30}, "fov is -30; "),
        ({}, {"fov": True}, "fov is True; write a number"),
        ({"camera_angle_x": 3.2}, {}, "camera_angle_x is 3.2; write the field of view in radians"),
        ({}, {"camera_angle_x": 0}, "camera_angle_x is 0; "),
        ({"fl_x": 0, "w": 40}, {}, "fl_x is 0; write a positive number of pixels"),
        ({"fl_x": -30, "w": 40}, {}, "fl_x is -30; "),
        ({"fl_x": 30, "w": 0}, {}, "w is 0; write a whole number of pixels"),
        ({"fl_x": "wide", "w": 40}, {}, "fl_x is 'wide'; write a number"),
    ],
)
def test_lenses_that_would_mirror_pictures_are_refused(tmp_path: Path, top: dict, frame: dict, problem: str) -> None:
    with pytest.raises(DataFormatError, match=problem):
        read_camera_path(write_path(tmp_path, frame, **top), width=24, height=16)
