"""Boxes against closed forms, poses against the laws of rotations."""

import math

import pytest
import torch
from hypothesis import example, given, settings, strategies as st

from nfldm3d.geometry import (
    Box,
    Rays,
    find_pose_problem,
    flip_opencv,
    interpolate_poses,
    invert_pose,
    look_at,
    pose_from_axes,
    transform_points,
)

BOX = Box((-1.0, 2.0, 0.5), (3.0, 2.5, 4.5))
IDENTITY = torch.eye(4)


def random_poses(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Rigid poses with uniformly distributed rotations."""
    rotation, upper = torch.linalg.qr(torch.randn(*shape, 3, 3, generator=generator, dtype=torch.float64))
    rotation = rotation * upper.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]
    rotation = rotation * torch.linalg.det(rotation)[..., None, None].sign()
    center = torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    return pose_from_axes(rotation[..., 0], rotation[..., 1], rotation[..., 2], center).to(dtype)


def turn(degrees: float, axis: int = 2) -> torch.Tensor:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    a, b = [index for index in range(3) if index != axis]
    pose = torch.eye(4, dtype=torch.float64)
    pose[a, a], pose[a, b], pose[b, a], pose[b, b] = c, -s, s, c
    return pose


def angle_between(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Angles between rotations, from the chord, which is exact for small ones."""
    chord = (a[..., :3, :3].double() - b[..., :3, :3].double()).flatten(-2).norm(dim=-1)
    return 2 * torch.asin((chord / math.sqrt(8)).clamp(max=1))


def test_one_ray_has_no_length():
    rays = Rays(torch.zeros(2, 5, 3), torch.ones(2, 5, 3))
    assert len(rays) == 2 and len(rays[0]) == 5 and len(rays[0, 0].reshape(1)) == 1
    with pytest.raises(TypeError, match="one ray has no length"):
        len(rays[0, 0])


def test_box_properties() -> None:
    assert BOX.size == (4.0, 0.5, 4.0)
    assert BOX.center == (1.0, 2.25, 2.5)
    assert BOX.voxel_size((8, 5, 2)) == (0.5, 0.1, 2.0)
    assert BOX.resolution(0.3) == (13, 2, 13)
    assert BOX.resolution(100.0) == (1, 1, 1)
    assert Box.from_center(BOX.center, BOX.size) == BOX
    assert BOX.scaled(2.0) == Box((-3.0, 1.75, -1.5), (5.0, 2.75, 6.5))
    assert BOX.intersection(Box((0, 0, 0), (9, 9, 1))) == Box((0.0, 2.0, 0.5), (3.0, 2.5, 1.0))
    assert Box.around(torch.tensor([[0.0, 1.0, 2.0], [3.0, -1.0, 5.0]])) == Box((0.0, -1.0, 2.0), (3.0, 1.0, 5.0))


def test_box_contains_its_surface() -> None:
    points = torch.tensor([[-1.0, 2.0, 0.5], [3.0, 2.5, 4.5], [1.0, 2.2, 1.0], [1.0, 2.6, 1.0], [math.nan, 2.2, 1.0]])
    assert BOX.contains(points).tolist() == [True, True, True, False, False]
    assert BOX.contains(points.reshape(5, 1, 3)).shape == (5, 1)


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        ((0.0, 0.0, 0.0), (1.0, 0.0, 1.0), "no volume"),
        ((0.0, 0.0, 2.0), (1.0, 1.0, 1.0), "no volume"),
        ((0.0, 0.0, math.nan), (1.0, 1.0, 1.0), "three finite numbers"),
        ((0.0, 0.0, 0.0), (1.0, math.inf, 1.0), "three finite numbers"),
    ],
)
def test_a_box_without_volume_is_refused(lower, upper, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Box(lower, upper)


def test_boxes_apart_have_no_intersection() -> None:
    with pytest.raises(ValueError, match="no volume"):
        BOX.intersection(Box((10, 10, 10), (11, 11, 11)))


def clip_one(box: Box, origin: list[float], direction: list[float]) -> tuple[float, float]:
    """The slab method in exact case distinctions; for rays that run in a face, boxes are half open."""
    near, far = 0.0, math.inf
    for o, d, low, high in zip(origin, direction, box.lower, box.upper, strict=True):
        if d == 0:
            if not low <= o < high:
                return 0.0, 0.0
        else:
            first, second = sorted(((low - o) / d, (high - o) / d))
            near, far = max(near, first), min(far, second)
    return (near, far) if near < far else (0.0, 0.0)


component = st.sampled_from([0.0, -0.0, 1.0, -1.0]) | st.floats(-1, 1, width=32).filter(
    lambda v: v == 0 or abs(v) > 1e-3
)
coordinate = st.floats(-8, 8, width=32) | st.sampled_from([-1.0, 2.0, 0.5])


@settings(max_examples=300, deadline=None)
@given(st.tuples(coordinate, coordinate, coordinate), st.tuples(component, component, component))
@example((0.0, 2.5, 0.0), (0.0, 0.0, 1.0))
@example((-1.0, 1.0, 1.0), (0.0, -0.0, 1.0))
def test_clip_is_the_slab_method(origin: tuple[float, ...], direction: tuple[float, ...]) -> None:
    if not any(direction):
        return
    rays = Rays(torch.tensor(origin).double()[None], torch.tensor(direction).double()[None])
    near, far = BOX.clip(rays)
    expected = clip_one(BOX, rays.origins[0].tolist(), rays.directions[0].tolist())
    assert (float(near), float(far)) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_clip_by_hand(dtype: torch.dtype) -> None:
    origins = torch.tensor([[-3.0, 2.2, 1.0], [0.0, 2.2, 1.0], [0.0, 2.2, 9.0], [0.0, 9.0, 1.0], [9.0, 2.2, 1.0]])
    directions = torch.tensor(
        [[1.0, 0.0, -0.0], [-1.0, 0.0, 0.0], [0.0, -0.0, -1.0], [1.0, -0.0, 0.0], [1.0, 0.0, 0.0]]
    )
    near, far = BOX.clip(Rays(origins.to(dtype), directions.to(dtype)))
    assert near.tolist() == [2.0, 0.0, 4.5, 0.0, 0.0]
    assert far.tolist() == [6.0, 1.0, 8.5, 0.0, 0.0]


def test_clip_over_batch_shapes(generator: torch.Generator) -> None:
    rays = Rays(torch.randn(4, 3, 3, generator=generator), torch.randn(4, 3, 3, generator=generator))
    near, far = BOX.clip(rays)
    flat_near, flat_far = BOX.clip(rays.reshape(-1))
    assert near.shape == (4, 3) and torch.equal(near.flatten(), flat_near) and torch.equal(far.flatten(), flat_far)


def test_points_at_the_ends_lie_on_the_surface(generator: torch.Generator) -> None:
    origins = torch.tensor(BOX.center) + 5 * torch.randn(500, 3, generator=generator)
    aims = torch.tensor(BOX.lower) + torch.rand(500, 3, generator=generator) * torch.tensor(BOX.size)
    rays = Rays(origins, torch.nn.functional.normalize(aims - origins, dim=-1))
    near, far = BOX.clip(rays)
    assert (far > near).all()
    slim = Box.from_center(BOX.center, (3.998, 0.498, 3.998))
    assert not slim.contains(rays.at(far)).any()
    assert (
        BOX.scaled(1.001).contains(rays.at(far)).all() and BOX.scaled(1.001).contains(rays.at((near + far) / 2)).all()
    )
    assert (slim.contains(rays.at(near)) <= BOX.contains(origins)).all()


def test_rays_behave_like_a_tensor(generator: torch.Generator) -> None:
    rays = Rays(torch.randn(4, 5, 3, generator=generator), torch.randn(4, 5, 3, generator=generator))
    assert len(rays) == 4 and rays.shape == (4, 5)
    assert rays[1:3].shape == (2, 5) and rays[0, 2].shape == ()
    assert torch.equal(rays.reshape(2, 10).directions, rays.directions.reshape(2, 10, 3))
    assert rays.to(torch.float64).origins.dtype == torch.float64
    distance = torch.rand(4, 5, generator=generator)
    assert torch.allclose(rays.at(distance)[2, 3], rays.origins[2, 3] + distance[2, 3] * rays.directions[2, 3])


@pytest.mark.parametrize("up", [(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, -2.0, 3.0), (0.0, 5.0, 0.0)])
@pytest.mark.parametrize("shape", [(), (7,), (2, 3)])
def test_look_at_is_rigid_and_looks(generator: torch.Generator, up, shape: tuple[int, ...]) -> None:
    eye, target = (3 * torch.randn(*shape, 3, generator=generator) for _ in range(2))
    pose = look_at(eye, target, up)
    assert all(find_pose_problem(single, 1e-6) is None for single in pose.reshape(-1, 4, 4))
    local = transform_points(invert_pose(pose), target[..., None, :])[..., 0, :]
    assert torch.allclose(local[..., :2], torch.zeros_like(local[..., :2]), atol=1e-5)
    assert torch.allclose(local[..., 2], -(target - eye).norm(dim=-1), rtol=1e-5)
    assert (pose[..., :3, 1] @ torch.tensor(up) > 0).all(), "up points upwards in the picture"
    assert (pose[..., :3, 0] @ torch.tensor(up)).abs().max() < 1e-5, "the horizon is level"


@pytest.mark.parametrize("up", [(0.0, 0.0, 1.0), (0.0, 2.0, 0.0), (0.3, -1.0, 0.2)])
def test_look_at_along_up_and_nearly_so(up) -> None:
    axis = torch.nn.functional.normalize(torch.tensor(up), dim=-1)
    for sideways in (0.0, 1e-7, 1e-4, 1e-3, 2e-3, 1e-2):
        for sign in (-1, 1):
            eye = torch.tensor([1.0, 2.0, 3.0])
            target = eye + sign * axis + sideways * torch.tensor([0.6, 0.0, 0.8])
            assert find_pose_problem(look_at(eye, target, up), 1e-6) is None


def test_looking_straight_down_keeps_north_up() -> None:
    pose = look_at(torch.tensor([2.0, 3.0, 9.0]), torch.tensor([2.0, 3.0, 0.0]))
    assert torch.allclose(pose[:3, :3], torch.eye(3))  # right is +x, up is +y, back is +z


def test_look_at_refuses_what_has_no_direction() -> None:
    point = torch.tensor([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="eye and target to differ"):
        look_at(torch.stack([point, point + 1]), torch.stack([point, point]))
    with pytest.raises(ValueError, match="direction for up"):
        look_at(point, point + 1, (0.0, 0.0, 0.0))


def test_inverse_and_transform(generator: torch.Generator) -> None:
    poses = random_poses(generator, 2, 5)
    assert torch.allclose(invert_pose(poses) @ poses, IDENTITY.expand(2, 5, 4, 4), atol=1e-6)
    assert torch.allclose(invert_pose(invert_pose(poses)), poses, atol=1e-6)
    points = torch.randn(2, 5, 11, 3, generator=generator)
    homogeneous = torch.cat([points, torch.ones(2, 5, 11, 1)], dim=-1)
    assert torch.allclose(transform_points(poses, points), (homogeneous @ poses.mT)[..., :3], atol=1e-5)


def test_opencv_axes(generator: torch.Generator) -> None:
    poses = random_poses(generator, 3)
    assert torch.equal(flip_opencv(flip_opencv(poses)), poses)
    flipped = flip_opencv(poses)
    for column, sign in enumerate((1, -1, -1, 1)):
        assert torch.equal(flipped[:, :, column], sign * poses[:, :, column])
    assert all(find_pose_problem(pose, 1e-5) is None for pose in flipped)
    with torch.autocast("cpu", torch.bfloat16):  # as around networks: it must not reach geometry
        assert all(find_pose_problem(pose, 1e-5) is None for pose in flipped)


@pytest.mark.parametrize(
    ("pose", "problem"),
    [
        (IDENTITY * math.nan, "NaN or infinity"),
        (torch.cat([IDENTITY[:3], torch.ones(1, 4)]), "last row"),
        (IDENTITY * torch.tensor([2.0, 2.0, 2.0, 1.0]), "not rigid.* by 3"),
        (IDENTITY * torch.tensor([-1.0, 1.0, 1.0, 1.0]), "mirrored"),
    ],
)
def test_pose_problems_are_put_in_words(pose: torch.Tensor, problem: str) -> None:
    found = find_pose_problem(pose)
    assert found is not None
    with pytest.raises(ValueError, match=problem):
        raise ValueError(found)


def test_interpolation_hits_its_keys(generator: torch.Generator) -> None:
    keys = random_poses(generator, 6)
    assert torch.allclose(interpolate_poses(keys, torch.arange(6.0)), keys, atol=1e-5)
    assert torch.allclose(interpolate_poses(keys, torch.tensor([2.0, 3.0, 5.0]).double()), keys[[2, 3, 5]], atol=1e-5)


@pytest.mark.parametrize("degrees", [0.0, 1e-4, 0.01, 0.5, 90.0, 179.0, 179.999, 180.0])
def test_interpolation_turns_evenly(generator: torch.Generator, degrees: float) -> None:
    """From trembling hands to half turns, the angle grows in proportion to time."""
    for axis in range(3):
        first = random_poses(generator, dtype=torch.float64)
        keys = torch.stack([first, first @ turn(degrees, axis)])
        for dtype, noise in ((torch.float64, 1e-11), (torch.float32, 3e-7)):
            frames = interpolate_poses(keys.to(dtype), torch.linspace(0, 1, 9).double())
            assert all(find_pose_problem(pose, 1e-5) is None for pose in frames)
            steps = angle_between(frames[1:], frames[:-1])
            expected = torch.full_like(steps, math.radians(degrees) / 8)
            assert torch.allclose(steps, expected, rtol=1e-5, atol=noise)


def test_straight_motion_stays_straight() -> None:
    keys = torch.eye(4).repeat(5, 1, 1)
    keys[:, 0, 3] = torch.arange(5.0)
    frames = interpolate_poses(keys, torch.linspace(1, 3, 21))
    assert torch.allclose(frames[:, 0, 3], torch.linspace(1, 3, 21), atol=1e-6)
    assert torch.allclose(frames[:, :3, :3], torch.eye(3).expand(21, 3, 3))


def test_positions_are_smooth_across_keys(generator: torch.Generator) -> None:
    keys = random_poses(generator, 5).double()
    before, at, after = interpolate_poses(keys, torch.tensor([2 - 1e-5, 2.0, 2 + 1e-5]).double())[:, :3, 3]
    assert torch.allclose(at - before, after - at, atol=1e-9), "the velocity jumps"


def test_a_single_key_stays_put(generator: torch.Generator) -> None:
    key = random_poses(generator, 1)
    assert torch.allclose(interpolate_poses(key, torch.zeros(3)), key.expand(3, 4, 4), atol=1e-6)
