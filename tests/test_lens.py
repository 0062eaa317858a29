"""OpenCV's lens models against its formulas, by hand and by round trips."""

import math

import pytest
import torch

from nfldm3d import lens

NONE = (0.0,) * 8
MILD = (0.05, -0.02, 0.001, -0.002, 0.003, 0.0, 0.0, 0.0)
RATIONAL = (0.4, 0.1, 0.0005, 0.0008, 0.01, 0.6, 0.15, 0.02)
BARREL = (-0.28, 0.09, 0.0, 0.0, -0.012, 0.0, 0.0, 0.0)  # a wide action camera
PINCUSHION = (0.35, 0.15, 0.002, -0.001, 0.05, 0.0, 0.0, 0.0)
FISHEYE = (-0.02, 0.006, 0.0, 0.0, -0.003, 0.0004, 0.0, 0.0)  # k1 k2 . . k3 k4


def coefficients(values: tuple[float, ...], *shape: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).expand(*shape, 8)


def disc(radius: float, points: int = 400) -> torch.Tensor:
    """Points all over a disc of the ideal plane, the centre included."""
    generator = torch.Generator().manual_seed(1)
    angle = 2 * math.pi * torch.rand(points, generator=generator, dtype=torch.float64)
    distance = radius * torch.linspace(0, 1, points, dtype=torch.float64)
    return torch.stack((distance * angle.cos(), distance * angle.sin()), dim=-1)


def opencv_distort(x: float, y: float, k: tuple[float, ...]) -> tuple[float, float]:
    """The documentation of calib3d, line by line."""
    k1, k2, p1, p2, k3, k4, k5, k6 = k
    r2 = x**2 + y**2
    radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    return (
        x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x**2),
        y * radial + p1 * (r2 + 2 * y**2) + 2 * p2 * x * y,
    )


@pytest.mark.parametrize("k", [NONE, MILD, RATIONAL, BARREL, PINCUSHION])
def test_distort_is_opencvs_formula(k: tuple[float, ...]) -> None:
    plane = disc(1.2, 40)
    expected = torch.tensor([opencv_distort(*point, k) for point in plane.tolist()], dtype=torch.float64)
    assert torch.allclose(lens.distort(plane, coefficients(k)), expected, atol=1e-14)


def test_a_point_worked_out_by_hand() -> None:
    """x = 0.5, y = -0.25: r2 = 0.3125, radial = 1 + 0.1 r2 - 0.05 r2^2 = 1.0263671875."""
    k = coefficients((0.1, -0.05, 0.01, 0.02, 0.0, 0.0, 0.0, 0.0))
    moved = lens.distort(torch.tensor([[0.5, -0.25]], dtype=torch.float64), k)
    x = 0.5 * 1.0263671875 + 2 * 0.01 * 0.5 * -0.25 + 0.02 * (0.3125 + 2 * 0.25)
    y = -0.25 * 1.0263671875 + 0.01 * (0.3125 + 2 * 0.0625) + 2 * 0.02 * 0.5 * -0.25
    assert moved[0].tolist() == pytest.approx([x, y], abs=1e-15)
    assert moved[0].tolist() == pytest.approx([0.52693359375, -0.257216796875], abs=1e-12)


@pytest.mark.parametrize(("k", "radius"), [(NONE, 3.0), (MILD, 1.5), (RATIONAL, 1.5), (BARREL, 1.2), (PINCUSHION, 1.3)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_undistort_inverts_distort(k: tuple[float, ...], radius: float, dtype: torch.dtype, tolerance: float) -> None:
    plane, k_tensor = disc(radius).to(dtype), coefficients(k).to(dtype)
    assert torch.allclose(lens.undistort(lens.distort(plane, k_tensor), k_tensor), plane, atol=tolerance)


def test_undistort_reaches_nearly_to_the_fold() -> None:
    """k1 = -0.3 alone folds at r = sqrt(1 / 0.9) = 1.054; up to 98 % of that every point comes back."""
    k = coefficients((-0.3, *NONE[1:]))
    plane = disc(0.98 * math.sqrt(1 / 0.9))
    assert torch.allclose(lens.undistort(lens.distort(plane, k), k), plane, atol=1e-9)


def test_pixels_beyond_the_fold_stay_finite() -> None:
    """No ray reaches them, so any answer is wrong, but it must not be NaN."""
    for k in ((-0.3, *NONE[1:]), BARREL, (0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0)):
        for dtype in (torch.float32, torch.float64):
            directions = lens.unproject(disc(4.0).to(dtype), coefficients(k).to(dtype))
            assert torch.allclose(directions.norm(dim=-1), torch.ones(400, dtype=dtype), atol=1e-5)


def test_axes_of_the_camera() -> None:
    """Right in the picture is +x, down in the picture is -y, ahead is -z."""
    plane = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    half = math.sqrt(0.5)
    expected = torch.tensor([[0.0, 0.0, -1.0], [half, 0.0, -half], [0.0, -half, -half]])
    assert torch.allclose(lens.unproject(plane, None), expected)
    assert torch.allclose(lens.project(3 * expected, None), plane)
    quarter = plane * math.pi / 4
    assert torch.allclose(lens.unproject(quarter, None, fisheye=True), expected, atol=1e-7)


@pytest.mark.parametrize("shape", [(), (3,), (2, 1)])
@pytest.mark.parametrize(("k", "fisheye", "radius"), [(None, False, 3.0), (RATIONAL, False, 1.5), (FISHEYE, True, 2.0)])
def test_project_inverts_unproject(shape: tuple[int, ...], k, fisheye: bool, radius: float) -> None:
    plane = disc(radius).expand(*shape, 400, 2)
    distortion = None if k is None else coefficients(k, *shape)
    rays = lens.unproject(plane, distortion, fisheye=fisheye)
    assert torch.allclose(rays.norm(dim=-1), torch.ones(*shape, 400, dtype=torch.float64))
    depth = torch.linspace(0.1, 30, 400, dtype=torch.float64)[:, None]
    assert torch.allclose(lens.project(rays * depth, distortion, fisheye=fisheye), plane, atol=1e-10)


def test_fisheye_is_opencvs_formula() -> None:
    """theta_d = theta (1 + k1 theta^2 + k2 theta^4 + k3 theta^6 + k4 theta^8), along the direction of (x, y)."""
    k1, k2, _, _, k3, k4, _, _ = FISHEYE
    for degrees in (0.0, 10.0, 45.0, 89.0, 100.0):
        theta = math.radians(degrees)
        point = torch.tensor([[0.6 * math.sin(theta), -0.8 * math.sin(theta), -math.cos(theta)]], dtype=torch.float64)
        bent = theta * (1 + k1 * theta**2 + k2 * theta**4 + k3 * theta**6 + k4 * theta**8)
        plane = lens.project(5 * point, coefficients(FISHEYE), fisheye=True)
        assert plane[0].tolist() == pytest.approx([0.6 * bent, 0.8 * bent], abs=1e-14)


def test_a_fisheye_sees_behind_itself() -> None:
    plane = torch.tensor([[0.9 * math.pi, 0.0]], dtype=torch.float64)
    assert lens.unproject(plane, None, fisheye=True)[0, 2] > 0.9


def test_fisheye_pixels_out_of_reach_stay_unit_vectors() -> None:
    for k in (None, coefficients(FISHEYE), coefficients((-0.1, *NONE[1:]))):
        rays = lens.unproject(disc(9.0), k, fisheye=True)
        assert torch.allclose(rays.norm(dim=-1), torch.ones(400, dtype=torch.float64))


def test_cameras_keep_their_own_coefficients() -> None:
    plane = disc(1.0).expand(2, 400, 2)
    both = torch.stack([coefficients(MILD), coefficients(RATIONAL)])
    moved = lens.distort(plane, both)
    for number, k in enumerate((MILD, RATIONAL)):
        assert torch.equal(moved[number], lens.distort(plane[number], coefficients(k)))
