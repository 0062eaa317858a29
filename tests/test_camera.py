"""Cameras: pixels to rays and back, and the paths they take."""

import math
from dataclasses import replace

import pytest
import torch
from jaxtyping import TypeCheckError

from nfldm3d.camera import Camera
from nfldm3d.geometry import find_pose_problem, invert_pose, look_at, transform_points

DISTORTION = (0.1, -0.05, 0.001, -0.002, 0.01, 0.02, 0.0, 0.0)
FISHEYE = (-0.02, 0.006, 0.0, 0.0, -0.003, 0.0004, 0.0, 0.0)


def make_camera(generator: torch.Generator, *shape: int, kind: str = "pinhole") -> Camera:
    """Cameras with everything uneven: poses, focal lengths, principal points, image sides."""
    eye = torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    target = torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    uneven = torch.rand(*shape, 2, generator=generator, dtype=torch.float64)
    coefficients = {"pinhole": None, "distorted": DISTORTION, "fisheye": FISHEYE}[kind]
    return Camera(
        look_at(eye, target),
        focal=torch.tensor([18.0, 25.0]) + 5 * uneven,
        principal=torch.tensor([9.0, 11.0]) + 4 * uneven.flip(-1),
        width=24,
        height=17,
        distortion=None if coefficients is None else uneven.new_tensor(coefficients).expand(*shape, 8),
        lens="fisheye" if kind == "fisheye" else "perspective",
    )


kinds = pytest.mark.parametrize("kind", ["pinhole", "distorted", "fisheye"])
shapes = pytest.mark.parametrize("shape", [(), (3,), (2, 2)])


@kinds
@shapes
def test_projection_undoes_rays(generator: torch.Generator, shape: tuple[int, ...], kind: str) -> None:
    camera = make_camera(generator, *shape, kind=kind)
    rays = camera.rays()
    assert rays.shape == (*shape, 17, 24)
    assert torch.allclose(rays.directions.norm(dim=-1), torch.ones(rays.shape, dtype=torch.float64))
    distance = 0.5 + 3 * torch.rand(rays.shape, generator=generator, dtype=torch.float64)
    pixels, depth = camera.project(rays.at(distance).flatten(-3, -2))
    expected = camera.pixel_centers().reshape(-1, 2).expand(*shape, -1, 2)
    assert torch.allclose(pixels, expected, atol=1e-8)
    along = (rays.directions * camera.forward[..., None, None, :]).sum(-1)
    assert torch.allclose(depth, (distance * along).flatten(-2), atol=1e-9)
    depth = depth.unflatten(-1, rays.shape[-2:])
    assert torch.allclose(camera.depth_per_distance(rays) * distance, depth, atol=1e-8)
    assert torch.allclose(camera.unproject(depth), rays.at(distance), atol=1e-8)


@kinds
def test_rays_through_any_pixel(generator: torch.Generator, kind: str) -> None:
    camera = make_camera(generator, 2, kind=kind)
    pixels = torch.rand(2, 9, 2, generator=generator, dtype=torch.float64) * torch.tensor([24.0, 17.0])
    rays = camera.rays(pixels)
    assert rays.shape == (2, 9)
    assert torch.allclose(rays.origins, camera.centers[:, None].expand(2, 9, 3))
    assert torch.allclose(camera.project(rays.at(torch.full((2, 9), 2.0).double()))[0], pixels, atol=1e-8)


def test_pixel_conventions_by_hand() -> None:
    """At the origin, looking along +x: the left of the picture is +y and its top is +z."""
    camera = Camera.look_at((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), width=4, height=2, horizontal_fov_degrees=90.0)
    assert camera.focal.tolist() == pytest.approx([2.0, 2.0])
    assert camera.pixel_centers()[0, 0].tolist() == [0.5, 0.5] and camera.pixel_centers()[1, 3].tolist() == [3.5, 1.5]
    expected = torch.nn.functional.normalize(torch.tensor([1.0, 0.75, 0.25]), dim=-1)
    assert torch.allclose(camera.rays().directions[0, 0], expected, atol=1e-6)
    pixels, depth = camera.project(torch.tensor([[2.0, 1.0, 0.5], [-3.0, 0.0, 0.0]]))
    assert torch.allclose(pixels[0], torch.tensor([1.0, 0.5]), atol=1e-6)
    assert depth.tolist() == pytest.approx([2.0, -3.0])
    assert torch.allclose(camera.forward, torch.tensor([1.0, 0.0, 0.0]), atol=1e-6)


def test_the_target_is_seen_in_the_middle(generator: torch.Generator) -> None:
    eyes, targets = torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator)
    camera = Camera.look_at(eyes, targets, width=31, height=20)
    pixels, depth = camera.project(targets[:, None])
    assert torch.allclose(pixels[:, 0], torch.tensor([15.5, 10.0]).expand(5, 2), atol=1e-3)
    assert torch.allclose(depth[:, 0], (targets - eyes).norm(dim=-1), rtol=1e-5)


def test_field_of_view_reaches_from_edge_to_edge() -> None:
    camera = Camera.from_fov(torch.eye(4), width=40, height=10, horizontal_fov_degrees=70.0)
    left, right = camera.rays(torch.tensor([[0.0, 5.0], [40.0, 5.0]])).directions
    assert math.degrees(math.acos(float(left @ right))) == pytest.approx(70, abs=1e-3)


def test_look_at_keeps_dtype_and_mixes_points_with_tensors() -> None:
    eyes = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]], dtype=torch.float64)
    for camera in (Camera.look_at(eyes, (0.0, 0.0, 0.0)), Camera.look_at((9.0, 0.0, 0.0), eyes)):
        assert camera.shape == (2,) and camera.world_from_camera.dtype == camera.focal.dtype == torch.float64
    assert Camera.look_at((1, 2, 3), (0, 0, 0)).focal.dtype == torch.float32


@kinds
@pytest.mark.parametrize(("width", "height"), [(12, 17), (48, 34), (30, 5)])
def test_resized_pictures_see_the_same(generator: torch.Generator, kind: str, width: int, height: int) -> None:
    camera = make_camera(generator, 3, kind=kind)
    small = camera.resized(width, height)
    assert (small.width, small.height) == (width, height)
    points = camera.rays().at(torch.full((3, 17, 24), 2.0).double()).flatten(1, 2)
    scale = torch.tensor([width / 24, height / 17], dtype=torch.float64)
    assert torch.allclose(small.project(points)[0], camera.project(points)[0] * scale, atol=1e-8)


@kinds
def test_cropped_pictures_are_windows(generator: torch.Generator, kind: str) -> None:
    camera = make_camera(generator, 2, kind=kind)
    window = camera.cropped(5, 3, 10, 8)
    assert torch.allclose(window.rays().directions, camera.rays().directions[:, 3:11, 5:15], atol=1e-12)
    assert (window.width, window.height) == (10, 8)
    assert torch.allclose(window.cropped(2, 1, 4, 4).principal, camera.cropped(7, 4, 4, 4).principal)


def test_a_moved_camera_sees_moved_points_alike(generator: torch.Generator) -> None:
    camera = make_camera(generator, 2, 3, kind="distorted")
    motion = look_at(torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([0.0, 1.0, -4.0]).double())
    points = camera.rays().at(torch.full((2, 3, 17, 24), 2.0).double()).flatten(2, 3)
    moved = camera.transformed(motion).project(transform_points(motion.expand(2, 3, 4, 4), points))
    for value, expected in zip(moved, camera.project(points), strict=True):
        assert torch.allclose(value, expected, atol=1e-8)
    back = camera.transformed(motion).transformed(invert_pose(motion))
    assert torch.allclose(back.world_from_camera, camera.world_from_camera)


@kinds
def test_cameras_behave_like_a_tensor(generator: torch.Generator, kind: str) -> None:
    camera = make_camera(generator, 4, 3, kind=kind)
    assert len(camera) == 4 and camera.shape == (4, 3)
    for index in (2, slice(1, 3), torch.tensor([3, 0]), (1, 2), [0, 2], (slice(None), 1)):
        part = camera[index]
        assert torch.equal(part.world_from_camera, camera.world_from_camera[index])
        assert torch.equal(part.rays().directions, camera.rays().directions[index])
    assert torch.equal(camera.reshape(2, 6).rays().directions, camera.rays().directions.reshape(2, 6, 17, 24, 3))
    assert camera.reshape(-1)[5].shape == ()
    assert torch.equal(camera.reshape(-1)[5].focal, camera[1, 2].focal)
    single = camera.to(torch.float32)
    assert single.focal.dtype == single.rays().directions.dtype == torch.float32
    assert single.device.type == "cpu"
    assert "(4, 3)" in str(camera) and "24x17" in str(camera) and ("fisheye" in str(camera)) == (kind == "fisheye")


def test_joining_keeps_order_and_lenses(generator: torch.Generator) -> None:
    plain, distorted = make_camera(generator, 2), make_camera(generator, 3, kind="distorted")
    joined = Camera.cat([plain, distorted])
    assert joined.shape == (5,)
    for part, whole in ((plain, joined[:2]), (distorted, joined[2:])):
        assert torch.allclose(part.rays().directions, whole.rays().directions, atol=1e-9)
    scenes = make_camera(generator, 2, 3)
    assert Camera.cat([scenes, scenes]).shape == (2, 6)
    assert Camera.cat([plain, plain]).distortion is None


def test_joining_refuses_what_does_not_fit(generator: torch.Generator) -> None:
    camera = make_camera(generator, 2)
    with pytest.raises(ValueError, match="must share width, height and lens"):
        Camera.cat([camera, camera.resized(12, 8)])
    with pytest.raises(ValueError, match="must share width, height and lens"):
        Camera.cat([camera, make_camera(generator, 2, kind="fisheye")])
    with pytest.raises(ValueError, match="at least one"):
        Camera.cat([])


def test_an_orbit_circles_its_target() -> None:
    target = (1.0, -2.0, 0.5)
    camera = Camera.orbit((1, -2, 0.5), 3.0, views=8, elevation_degrees=30.0, width=20, height=10)
    offsets = camera.centers - torch.tensor(target)
    assert torch.allclose(offsets.norm(dim=-1), torch.full((8,), 3.0))
    assert torch.allclose(offsets[:, 2], torch.full((8,), 1.5), atol=1e-6), "the elevation"
    assert torch.allclose(offsets[0, :2], torch.tensor([3 * math.cos(math.pi / 6), 0.0]), atol=1e-6)
    assert offsets[2, 1] > 2.5, "counter-clockwise seen from above"
    assert torch.allclose(camera.forward, -offsets / 3, atol=1e-6)
    assert (camera.width, camera.height) == (20, 10)
    assert all(find_pose_problem(pose, 1e-5) is None for pose in camera.world_from_camera)


def test_an_orbit_may_stand_right_above() -> None:
    camera = Camera.orbit((0.0, 0.0, 0.0), 2.0, views=4, elevation_degrees=90.0)
    assert all(find_pose_problem(pose, 1e-5) is None for pose in camera.world_from_camera)
    assert torch.allclose(camera.forward, torch.tensor([0.0, 0.0, -1.0]).expand(4, 3), atol=1e-6)


def test_a_panorama_turns_once_where_it_stands() -> None:
    camera = Camera.panorama((1, 2, 3), views=4, horizontal_fov_degrees=90.0)
    assert torch.equal(camera.centers, torch.tensor([1.0, 2.0, 3.0]).expand(4, 3))
    ahead = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    assert torch.allclose(camera.forward, ahead, atol=1e-6)
    assert torch.allclose(camera.world_from_camera[:, :3, 1], torch.tensor([0.0, 0.0, 1.0]).expand(4, 3), atol=1e-6)


def test_a_path_passes_all_its_views(generator: torch.Generator) -> None:
    camera = make_camera(generator, 4, kind="distorted")
    path = camera.interpolated(7)
    assert path.shape == (7,)
    for name in ("world_from_camera", "focal", "principal", "distortion"):
        assert torch.allclose(getattr(path, name)[::2], getattr(camera, name), atol=1e-6), name
    middle = (camera.focal[0] + camera.focal[1]) / 2
    assert torch.allclose(path.focal[1], middle)
    assert camera.interpolated(1).shape == (1,)


def test_a_closed_path_has_no_seam(generator: torch.Generator) -> None:
    camera = make_camera(generator, 5)
    path = camera.interpolated(5000, closed=True)
    assert torch.allclose(path.world_from_camera[::1000], camera.world_from_camera, atol=1e-6)
    steps = (path.centers - path.centers.roll(1, 0)) * 1000
    jumps = (steps - steps.roll(1, 0)).norm(dim=-1)
    assert jumps.max() < 0.05, "position or velocity jump somewhere, perhaps from the last view to the first"
    around = camera[torch.arange(2, 7) % 5].interpolated(5000, closed=True)
    assert torch.allclose(around.world_from_camera, path.world_from_camera.roll(-2000, 0), atol=1e-5)


def test_an_orbit_interpolated_stays_an_orbit() -> None:
    keys = Camera.orbit((0.0, 0.0, 0.0), 2.0, views=24, elevation_degrees=0.0)
    path = keys.interpolated(96, closed=True)
    truth = Camera.orbit((0.0, 0.0, 0.0), 2.0, views=96, elevation_degrees=0.0)
    assert torch.allclose(path.world_from_camera, truth.world_from_camera, atol=2e-3)


def test_paths_need_two_views(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="two cameras and one frame, got 1 cameras, 5 frames"):
        make_camera(generator, 1).interpolated(5)
    with pytest.raises(ValueError, match="got 2 cameras, 0 frames"):
        make_camera(generator, 2).interpolated(0)


def test_bad_cameras_are_refused(generator: torch.Generator) -> None:
    camera = make_camera(generator, 2)
    with pytest.raises(ValueError, match="at least one pixel, got width=0"):
        replace(camera, width=0)
    with pytest.raises((ValueError, TypeCheckError), match="perspective"):  # the type checker may speak first
        replace(camera, lens="wide")
    with pytest.raises((ValueError, TypeCheckError), match="distortion"):
        replace(camera, distortion=torch.zeros(2, 5, dtype=torch.float64))
    with pytest.raises(ValueError, match="between 0 and 180, got 180"):
        Camera.from_fov(torch.eye(4), width=4, height=4, horizontal_fov_degrees=180.0)
    with pytest.raises(ValueError, match="eye and target to differ"):
        Camera.look_at((1.0, 2.0, 3.0), (1.0, 2.0, 3.0))


def test_one_camera_has_no_length() -> None:
    camera = Camera.orbit((0.0, 0.0, 0.0), 1.0, views=3)
    assert len(camera) == 3
    with pytest.raises(TypeError, match="one camera has no length"):
        len(camera[0])


def test_intrinsics_come_back() -> None:
    poses = Camera.orbit((1.0, 0.0, 2.0), 3.0, views=4).world_from_camera
    matrix = torch.tensor([[51.0, 0, 11], [0, 42, 7.5], [0, 0, 1]])
    camera = Camera.from_intrinsics(poses, matrix, width=20, height=16)
    assert camera.shape == (4,) and camera.focal[2].tolist() == [51.0, 42.0]
    torch.testing.assert_close(camera.intrinsics, matrix.expand(4, 3, 3))
    torch.testing.assert_close(camera.view_matrix @ camera.world_from_camera, torch.eye(4).expand(4, 4, 4))
    matrices = camera.intrinsics.view(2, 2, 3, 3)
    grid = Camera.from_intrinsics(
        poses.view(2, 2, 4, 4), matrices, width=20, height=16, distortion=torch.zeros(2, 2, 5)
    )
    assert grid.shape == (2, 2) and grid.distortion is not None and grid.distortion.shape == (2, 2, 8)


def test_opencv_points_fall_where_opencv_says() -> None:
    """u = fx x + cx of distorted x = X / Z in OpenCV's axes, with the first pixel's centre at (0, 0)."""
    extrinsics = torch.eye(4)
    extrinsics[:3, :3] = look_at(torch.tensor([1.0, 2, 3]), torch.zeros(3))[:3, :3]
    extrinsics[:3, 3] = torch.tensor([0.1, -0.2, 4.0])
    matrix = torch.tensor([[30.0, 0, 9.5], [0, 32, 7.5], [0, 0, 1]])
    points = torch.tensor([[0.3, 0.2, 0.1], [-0.4, 0.1, 0.5]])
    local = points @ extrinsics[:3, :3].T + extrinsics[:3, 3]
    k1, k2, p1, p2 = 0.1, -0.05, 0.01, 0.02
    x, y = local[:, 0] / local[:, 2], local[:, 1] / local[:, 2]
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2 * r2
    u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    v = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    expected = torch.stack((30 * u + 9.5, 32 * v + 7.5), dim=-1)
    terms = torch.tensor([k1, k2, p1, p2])
    pixels, depth = Camera.from_opencv(extrinsics, matrix, width=20, height=16, distortion=terms).project(points)
    torch.testing.assert_close(pixels, expected + 0.5, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(depth, local[:, 2])
    half = Camera.from_opencv(extrinsics, matrix, width=20, height=16, distortion=terms, whole_centers=False)
    torch.testing.assert_close(half.project(points)[0], expected, atol=1e-4, rtol=1e-5)


def test_fisheye_coefficients_stand_where_the_lens_reads_them() -> None:
    matrix, terms = torch.tensor([[30.0, 0, 9.5], [0, 32, 7.5], [0, 0, 1]]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    camera = Camera.from_opencv(torch.eye(4), matrix, width=20, height=16, distortion=terms, lens="fisheye")
    assert camera.distortion is not None
    assert camera.distortion.tolist() == pytest.approx([0.1, 0.2, 0, 0, 0.3, 0.4, 0, 0])


@pytest.mark.parametrize(
    ("matrix", "distortion", "problem"),
    [
        ([[30.0, 0.5, 9], [0, 32, 7], [0, 0, 1]], None, "resampled first"),
        ([[30.0, 0, 9], [0, -32, 7], [0, 0, 1]], None, "above 0"),
        ([[30.0, 0, 9], [0, 32, 7], [0, 0, 1]], [0.1] * 3, "got 3 coefficients"),
    ],
)
def test_intrinsics_that_cannot_be_kept_are_refused(matrix: list, distortion: list | None, problem: str) -> None:
    terms = None if distortion is None else torch.tensor(distortion)
    with pytest.raises(ValueError, match=problem):
        Camera.from_intrinsics(torch.eye(4), torch.tensor(matrix), width=20, height=16, distortion=terms)


def test_what_is_printed_says_what_it_is_and_no_numbers() -> None:
    camera = Camera.orbit((0.0, 0.0, 0.0), 3.0, views=4, width=20, height=16)
    assert repr(camera) == str(camera) == "Camera (4,): perspective, 20x16 pixels, on cpu"
    assert repr(camera.rays()) == "Rays (4, 16, 20) on cpu"
