"""Worlds as they are shown from outside."""

from dataclasses import replace

import torch

from nfldm3d import Camera, EnvironmentMap, Rgb, Scene, VoxelField, render
from nfldm3d.geometry import Box
from nfldm3d.pipelines.showing import GREY, HEAD_ROOM, open_top

BOX = Box.from_center((0.0, 0.0, 2.0), (8.0, 8.0, 4.0))


def covered_room() -> Scene:
    """A red floor below a solid ceiling, and a sky of another colour."""
    density, features = torch.zeros(16, 16, 8), torch.zeros(16, 16, 8, 3)
    density[:, :, 0] = density[:, :, 6:] = 40.0
    features[:, :, :4, 0] = 1.0
    cameras = Camera.panorama((0.0, 0.0, 1.5), views=4)
    return Scene(VoxelField(density, features, BOX), Rgb(), EnvironmentMap(torch.ones(2, 4, 3)), cameras=cameras)


def test_open_worlds_have_no_ceiling_and_no_sky() -> None:
    scene = covered_room()
    above = Camera.look_at((0.0, -0.01, 20.0), (0.0, 0.0, 0.0), width=9, height=9, horizontal_fov_degrees=60.0)
    closed, opened = render(scene, above).image, render(open_top(scene), above).image
    assert float(closed[0, 4, 4]) < 0.1 and float(opened[0, 4, 4]) > 0.9
    assert torch.allclose(opened[:, 0, 0], torch.tensor(GREY), atol=1e-4)
    assert open_top(scene).box.upper[2] <= 1.5 + HEAD_ROOM + scene.field.voxel_size[2]


def test_worlds_without_cameras_stay_whole() -> None:
    scene = replace(covered_room(), cameras=None)
    assert open_top(scene).box == scene.box
