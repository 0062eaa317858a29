"""Undistorted points, distorted again, are where they were: against the models as ``nfldm3d.lens`` computes them."""

import pytest
import torch

from nfldm3d import lens
from nfldm3d.ops.undistortion import undistort_points


def test_perspective_lenses_are_undone(generator: torch.Generator) -> None:
    points = torch.rand(500, 2, generator=generator) * 1.6 - 0.8
    coefficients = (torch.rand(500, 8, generator=generator) - 0.5) * 0.04
    lenses = torch.cat((coefficients, torch.zeros(500, 4)), dim=-1)
    found = undistort_points(points, lenses)
    k1, k2, k3, k4, k5, k6, p1, p2 = coefficients.unbind(-1)
    again = lens.distort(found[:, None], torch.stack((k1, k2, p1, p2, k3, k4, k5, k6), dim=-1))[:, 0]
    torch.testing.assert_close(again, points, atol=2e-6, rtol=0)
    assert float((found - points).abs().max()) > 1e-3


def test_thin_prisms_are_undone(generator: torch.Generator) -> None:
    points = torch.rand(100, 2, generator=generator) - 0.5
    lenses = torch.zeros(100, 12)
    lenses[:, 8:] = (torch.rand(100, 4, generator=generator) - 0.5) * 0.1
    x, y = undistort_points(points, lenses).unbind(-1)
    r2, (s1, s2, s3, s4) = x * x + y * y, lenses[:, 8:].unbind(-1)
    again = torch.stack((x + s1 * r2 + s2 * r2 * r2, y + s3 * r2 + s4 * r2 * r2), dim=-1)
    torch.testing.assert_close(again, points, atol=2e-6, rtol=0)


def test_fisheye_lenses_are_undone(generator: torch.Generator) -> None:
    points = torch.rand(500, 2, generator=generator) * 1.6 - 0.8
    lenses = (torch.rand(500, 4, generator=generator) - 0.3) * 0.02
    found = undistort_points(points, lenses, fisheye=True)
    k1, k2, k3, k4 = lenses.unbind(-1)
    none = torch.zeros_like(k1)
    local = torch.stack((found[:, 0], -found[:, 1], -torch.ones(500)), dim=-1)
    distortion = torch.stack((k1, k2, none, none, k3, k4, none, none), dim=-1)
    again = lens.project(local[:, None], distortion, fisheye=True)[:, 0]
    torch.testing.assert_close(again, points, atol=5e-6, rtol=0)


def test_hopeless_points_stay_finite() -> None:
    points = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.5, 0.5]])
    fisheye = undistort_points(points, torch.tensor([[0.0, 0, 0, 0], [0, 0, 0, 0], [-50, 0, 0, 0]]), fisheye=True)
    assert fisheye[0].tolist() == [0.0, 0.0] and bool(torch.isfinite(fisheye).all())
    assert bool(torch.isfinite(undistort_points(points, torch.full((3, 12), 0.3))).all())
    assert len(undistort_points(points[:0], torch.zeros(0, 12))) == 0


def test_misfits_are_named() -> None:
    with pytest.raises(ValueError, match="uv must be torch.float32"):
        undistort_points(torch.zeros(2, 2).double(), torch.zeros(2, 12))
    with pytest.raises(ValueError, match=r"params must have the shape \(2, 12\)"):
        undistort_points(torch.zeros(2, 2), torch.zeros(2, 4))


@pytest.mark.cuda
@pytest.mark.parametrize("fisheye", [False, True])
def test_cuda_agrees(generator: torch.Generator, fisheye: bool) -> None:
    points = torch.rand(500, 2, generator=generator) - 0.5
    lenses = (torch.rand(500, 4 if fisheye else 12, generator=generator) - 0.5) * 0.04
    here = undistort_points(points, lenses, fisheye=fisheye)
    there = undistort_points(points.cuda(), lenses.cuda(), fisheye=fisheye)
    torch.testing.assert_close(there.cpu(), here)
