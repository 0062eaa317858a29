"""Camera paths as numbers: there and back, turned and mirrored as the voxels are, and seen along."""

from dataclasses import replace

import pytest
import torch
from small_rooms import BOX, room_sample

from nfldm3d.appearance import EnvironmentMap
from nfldm3d.fields import VoxelField
from nfldm3d.geometry import Box, turn_about
from nfldm3d.models.nfldm.denoisers import FAR
from nfldm3d.models.nfldm.scene_voxels import ORIENTATIONS, background_of, field_of, orient_map, voxels_of
from nfldm3d.models.nfldm.trajectories import (
    POSES,
    draw_path,
    orient_path,
    pack_path,
    path_cameras,
    path_of,
    unpack_path,
)


def walk(poses: int = POSES) -> torch.Tensor:
    share = torch.linspace(0, 1, poses)
    heading = 0.5 + 2 * share
    place = torch.stack((1.5 + 3 * share, -1.5 + share, 1.5 + 0 * share), dim=-1)
    return torch.cat((place, heading.cos()[:, None], heading.sin()[:, None]), dim=-1)


def test_paths_return() -> None:
    numbers = pack_path(walk(), BOX)
    assert numbers.shape == (5 * POSES,) and float(numbers.abs().max()) <= 1
    assert torch.allclose(unpack_path(numbers, BOX), walk(), atol=1e-5)
    coarse = unpack_path(pack_path(walk(5), BOX), BOX)
    assert torch.allclose(coarse[:, :3], walk()[:, :3], atol=1e-5) and (coarse[:, 3:] - walk()[:, 3:]).abs().max() < 0.1


def test_wild_numbers_become_poses_in_the_box(generator: torch.Generator) -> None:
    path = unpack_path(3 * torch.randn(5 * POSES, generator=generator), BOX)
    assert bool(BOX.contains(path[:, :3]).all())
    assert torch.allclose(path[:, 3:].norm(dim=-1), torch.ones(POSES), atol=1e-5)


def test_scenes_without_a_walk_give_their_cameras() -> None:
    sample = room_sample(0)
    path = path_of(sample)
    assert torch.allclose(path[:, :3], sample.camera.centers)
    assert path_of(replace(sample, trajectory=walk())) is not None
    assert torch.equal(path_of(replace(sample, trajectory=walk())), walk())


@pytest.mark.parametrize("orientation", range(ORIENTATIONS))
def test_paths_turn_as_voxels_do(orientation: int, generator: torch.Generator) -> None:
    """What a path passes in the field, and what it looks at in the sky, is the same in every orientation."""
    box = Box((1.0, -2.0, 0.5), (5.0, 2.0, 2.5))
    field = VoxelField(torch.rand(8, 8, 4, generator=generator), torch.rand(8, 8, 4, 5, generator=generator), box)
    sky = EnvironmentMap(torch.rand(8, 16, 5, generator=generator))
    voxels = voxels_of(field, sky)
    turned, path = voxels.oriented(orientation), pack_path(walk(), box)
    moved = unpack_path(orient_path(path, orientation), box)
    code = torch.zeros(2)
    for before, after in (
        (field_of(voxels[0], box).query(walk()[:, :3])[1], field_of(turned[0], box).query(moved[:, :3])[1]),
        (
            background_of(voxels[0], code).query(torch.nn.functional.pad(walk()[:, 3:], (0, 1))),
            background_of(turned[0], code).query(torch.nn.functional.pad(moved[:, 3:], (0, 1))),
        ),
    ):
        assert torch.allclose(before, after, atol=1e-4)


@pytest.mark.parametrize("turns", range(4))
def test_turns_are_those_of_cameras(turns: int) -> None:
    poses = walk()
    motion = turn_about(BOX, turns)
    moved = unpack_path(orient_path(pack_path(poses, BOX), turns), BOX)
    assert torch.allclose(moved[:, :3], poses[:, :3] @ motion[:3, :3].T + motion[:3, 3], atol=1e-5)
    grid = torch.arange(16).view(4, 4)
    assert torch.equal(orient_map(orient_map(grid, turns), (4 - turns) % 4), grid)


def test_mirrored_twice_is_the_same() -> None:
    grid = torch.arange(16).view(4, 4)
    for turns in range(4):
        assert not torch.equal(orient_map(grid, 4 + turns), orient_map(grid, turns))
    assert torch.equal(orient_map(orient_map(grid, 4), 4), grid)


def test_cameras_look_along_the_path() -> None:
    cameras = path_cameras(walk(), 20, 16)
    assert torch.allclose(cameras.centers, walk()[:, :3])
    assert torch.allclose(cameras.forward[:, :2], walk()[:, 3:], atol=1e-6)
    rays = cameras.rays().directions
    left, right = rays[0, 8, 0], rays[0, 8, -1]
    assert float(left @ right) == pytest.approx(0.05, abs=0.06)  # nearly a right angle between the middles of pixels
    assert bool((rays[:, 0, :, 2] > 0).all() and (rays[:, -1, :, 2] < 0).all())
    assert float(torch.linalg.cross(right, left)[2]) > 0


@pytest.mark.parametrize("orientation", range(8))
def test_drawn_paths_turn_with_the_world(orientation: int) -> None:
    poses = torch.tensor([[3.0, -1.0, 0.5, 1.0, 0.0], [6.0, 2.0, 0.5, 0.0, 1.0]])
    numbers = pack_path(poses, BOX)
    plain, turned = (draw_path(each[None], (16, 16))[0] for each in (numbers, orient_path(numbers, orientation)))
    for channel in (0, 1):  # how near and how high
        assert torch.allclose(turned[channel], orient_map(plain[channel], orientation), atol=1e-5)
    place = (numbers.unflatten(0, (-1, 5))[0, :2] + 1) / 2 * 16
    x, y = place.long()
    assert float(plain[0, x, y]) > 0.8 and float(plain[2, x, y]) > 0.8  # it starts there, eastwards


def test_paths_are_drawn_where_they_are_in_a_larger_world() -> None:
    numbers = pack_path(walk(), BOX)[None]
    here, beside, far = (draw_path(numbers, (8, 8), torch.tensor([[shift, 0.0]])) for shift in (0.0, 1.0, FAR))
    assert torch.equal(here, draw_path(numbers, (8, 8)))
    assert torch.allclose(here[:, :, 4:], beside[:, :, :4])  # half a box further along x
    assert float(far.abs().max()) < 1e-6
