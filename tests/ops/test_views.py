"""The choice of views against its torch twin, for many views, few, and none."""

import pytest
import torch
from ops_cases import DEVICES
from torch import Tensor

from nfldm3d import Camera
from nfldm3d.geometry import invert_pose
from nfldm3d.ops import reference
from nfldm3d.ops.records import PinholeViews
from nfldm3d.ops.views import rank_views


def make_views(count: int, device: str) -> PinholeViews:
    cameras = Camera.orbit((0.3, 0.1, 0.2), 3.0, views=max(count, 1), width=40, height=30).to(device)[:count]
    poses = invert_pose(cameras.world_from_camera)
    return PinholeViews(poses, cameras.centers, cameras.focal, cameras.principal, 40, 30)


def make_points(generator: torch.Generator, device: str) -> tuple[Tensor, Tensor]:
    """Some of them behind cameras or out of all pictures, some without a normal."""
    points = torch.randn(300, 3, generator=generator) * 1.2
    normals = torch.nn.functional.normalize(torch.randn(300, 3, generator=generator), dim=-1)
    normals[::7] = 0
    return points.to(device), normals.to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("count", [0, 1, 4, 5, 23])
def test_agrees_with_the_twin(count: int, device: str, generator: torch.Generator) -> None:
    views, (points, normals) = make_views(count, device), make_points(generator, device)
    seen = (torch.rand(count, 300, generator=generator) < 0.7).to(device)
    for pictured in (None, seen):
        ours, theirs = (rank(points, normals, views, pictured=pictured) for rank in (rank_views, reference.rank_views))
        torch.testing.assert_close(ours[1], theirs[1], rtol=1e-3, atol=1e-4)
        matters = theirs[1] > 1e-3
        assert ours[0].shape == theirs[0].shape and torch.equal(ours[0][matters], theirs[0][matters])
        assert count == 0 or 0 < float(matters.float().mean()) < 1


def test_no_points_have_no_views() -> None:
    order, weights = rank_views(torch.zeros(0, 3), torch.zeros(0, 3), make_views(5, "cpu"))
    assert order.shape == weights.shape == (0, 3)
