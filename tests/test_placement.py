"""Where scenes lie: what is up is found from cameras, far worlds come near, and nothing of it is lost."""

import math

import pytest
import torch

from nfldm3d import Box, Camera, placement
from nfldm3d.geometry import invert_pose, look_at, transform_points

ORBIT = Camera.orbit((1.0, -2.0, 0.5), 3.0, views=12).world_from_camera.double()
ARC = ORBIT[:4]
"""All look down by 25 degrees, and all into one half of the world."""


def turned(axis: str) -> torch.Tensor:
    """What takes z to the given axis of another world."""
    return invert_pose(placement.find_motion(ORBIT, up=axis))


@pytest.mark.parametrize("axis", placement.AXES)
def test_every_axis_becomes_z(axis: str) -> None:
    motion = placement.find_motion(ORBIT, up=axis)
    assert torch.equal(
        motion[:3, :3] @ torch.tensor(placement.AXES[axis], dtype=torch.float64), motion.new_tensor((0, 0, 1))
    )
    assert float(torch.linalg.det(motion)) == 1 and placement.is_identity(motion) == (axis == "z")


@pytest.mark.parametrize("poses", [ORBIT, ARC], ids=["orbit", "arc"])
@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("axis", placement.AXES)
def test_cameras_tell_what_is_up(axis: str, free: bool, poses: torch.Tensor) -> None:
    """To the last digit, so that boxes stay along the axes."""
    torch.testing.assert_close(placement.find_motion(turned(axis) @ poses, free=free) @ turned(axis) @ poses, poses)
    assert torch.equal(placement.find_motion(turned(axis) @ poses, free=free), invert_pose(turned(axis)))


def test_a_world_that_is_free_is_turned_all_the_way(generator: torch.Generator) -> None:
    world = look_at(torch.randn(3, generator=generator), torch.zeros(3)).double()
    motion = placement.find_motion(world @ ARC, free=True)
    torch.testing.assert_close((motion @ world)[:3, 2], motion.new_tensor((0, 0, 1)), atol=0.01, rtol=0)
    tilted = torch.eye(4, dtype=torch.float64)
    tilted[:3, :3] = torch.linalg.matrix_exp(0.5 * torch.tensor(((0, 0, 1.0), (0, 0, 0), (-1.0, 0, 0)))).double()
    assert placement.is_identity(placement.find_motion(tilted @ ARC)), "a format with z up is trusted"


@pytest.mark.parametrize("pitch", [-80, -57, -30, 0, 40])
def test_one_view_turns_no_world_with_z_up(pitch: float) -> None:
    ahead = torch.tensor((math.cos(math.radians(pitch)), 0.0, math.sin(math.radians(pitch))))
    pose = look_at(torch.zeros(3), ahead).double()[None]
    assert placement.is_identity(placement.find_motion(pose))


def test_drones_that_look_straight_down_turn_nothing() -> None:
    eyes = torch.tensor([[float(x), float(y), 50.0] for y in range(3) for x in range(4)])
    poses = look_at(eyes, eyes - torch.tensor((0.0, 0.0, 1.0)), (0.0, 1.0, 0.0)).double()
    for free in (False, True):
        assert placement.is_identity(placement.find_motion(poses, free=free))
    assert placement.is_identity(placement.find_motion(turned("y") @ ORBIT, settled=True))


def test_far_worlds_come_near_and_near_ones_stay() -> None:
    far = ORBIT.clone()
    far[:, :3, 3] += torch.tensor((431001.2, 5411998.7, 250.1), dtype=torch.float64)
    motion = placement.find_motion(far)
    assert placement.is_shift(motion) and float((motion @ far)[:, :3, 3].abs().max()) < 100
    assert motion[:3, 3].tolist() == [-431000, -5412000, -300], "round numbers"
    torch.testing.assert_close(
        (invert_pose(motion) @ (motion @ far).float().double())[:, :3, 3], far[:, :3, 3], atol=1e-5, rtol=0
    )
    assert torch.equal(placement.find_motion(far[:6]), motion), "half of the views agree with all"
    near = ORBIT.clone()
    near[:, :3, 3] += torch.tensor((300.0, -200.0, 0.0))
    assert placement.is_identity(placement.find_motion(near))
    wide = ORBIT.clone()
    wide[:, :3, 3] = 3e5 * ORBIT[:, :3, 3]
    assert placement.is_identity(placement.find_motion(wide)), "single precision is enough for a world so large"


def test_a_moved_box_holds_what_it_held() -> None:
    box, motion = Box((1, -2, 3), (2, 0, 7)), turned("-y")
    there = placement.move_box(box, motion)
    assert sorted(there.size) == sorted(box.size) and there == placement.move_box(there, torch.eye(4).double())
    points = torch.rand(50, 3, dtype=torch.float64) * torch.tensor(box.size) + torch.tensor(box.lower)
    assert bool(there.contains(transform_points(motion, points)).all())


def test_metadata_keep_the_motion() -> None:
    motion = placement.find_motion(turned("y") @ ORBIT)
    kept = {placement.KEY: motion.tolist()}
    assert torch.equal(placement.scene_from_world(kept), motion)
    assert torch.equal(placement.world_from_scene(kept), invert_pose(motion))
    assert placement.describe(kept) == "origin at (0, 0, 0), z along (0, 1, 0) of the capture's world"
    assert placement.describe({}) is None and placement.is_identity(placement.scene_from_world({}))
    for bad, message in (([[1, 2]], "is not 4x4"), ("x", "is no matrix"), ((2 * motion).tolist(), "last row")):
        with pytest.raises(ValueError, match=message):
            placement.scene_from_world({placement.KEY: bad})
