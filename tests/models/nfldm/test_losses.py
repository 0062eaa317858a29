"""Losses against closed forms and scikit-image; what depth says of voxels."""

import pytest
import torch
from small_rooms import BOX, GRID, ROOM, cameras, room_views

from nfldm3d import Box, Camera
from nfldm3d.models.nfldm.losses import (
    cross_entropy,
    observe_voxels,
    relative_depth_error,
    structural_loss,
    texture_loss,
)


def pictures(generator: torch.Generator, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.rand(*shape, generator=generator)
    return (target + 0.3 * torch.rand(*shape, generator=generator)).clamp(0, 1), target


def test_structural_loss_is_that_of_flat_windows(generator: torch.Generator) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    image, target = pictures(generator, 2, 3, 48, 40)
    total = 0.0
    for scale in range(3):
        a, b = (torch.nn.functional.avg_pool2d(value, 2**scale).double() for value in (image, target))
        parts = [
            metrics.structural_similarity(
                x.numpy(), y.numpy(), win_size=7, data_range=1.0, channel_axis=0, use_sample_covariance=False
            )
            for x, y in zip(a, b, strict=True)
        ]
        total += (1 - sum(parts) / len(parts)) / 3
    assert float(structural_loss(image, target)) == pytest.approx(total, abs=2e-5)


def test_structural_loss_of_equal_pictures_is_zero(generator: torch.Generator) -> None:
    image, other = pictures(generator, 1, 3, 16, 20)
    assert float(structural_loss(image, image)) == pytest.approx(0, abs=1e-6)
    assert float(structural_loss(image, other)) == pytest.approx(float(structural_loss(other, image)), rel=1e-5)
    small = torch.rand(1, 3, 5, 4, generator=generator)
    assert float(structural_loss(small, small)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("loss", [structural_loss, texture_loss])
def test_gradients_are_finite_on_flat_pictures(loss) -> None:
    image = torch.full((1, 3, 16, 16), 0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(image, torch.full((1, 3, 16, 16), 0.25)), image)
    assert bool(torch.isfinite(gradient).all())


def test_texture_loss_asks_for_contrast_not_for_phase(generator: torch.Generator) -> None:
    stripes = (torch.arange(40) % 4 < 2).float().expand(1, 3, 32, 40)
    shifted, blurred = stripes.roll(2, -1), torch.full_like(stripes, 0.5)
    assert float(texture_loss(stripes, stripes)) == 0
    assert float(texture_loss(shifted, stripes)) < 0.05 < 0.2 < float(texture_loss(blurred, stripes))
    upright = stripes[..., :32].transpose(-1, -2)
    assert float(texture_loss(upright, stripes[..., :32])) > 0.2  # the direction counts


def test_relative_depth_error_in_closed_form() -> None:
    depth = torch.tensor([[[2.0, 4.0, 5.0]]])
    cosine, opacity = torch.full_like(depth, 0.8), torch.tensor([[[0.5, 1.0, 1.0]]])
    distance = torch.tensor([[[1.5, 5.0, 99.0]]])  # sums: the first ray has met half of its light
    inside = torch.tensor([[[1.0, 1.0, 0.0]]])
    error = relative_depth_error(distance, opacity, depth, cosine, inside)
    assert float(error) == pytest.approx((abs(3.0 * 0.8 - 2) / 2 + abs(5.0 * 0.8 - 4) / 4) / 2)
    assert float(relative_depth_error(distance, opacity, depth, cosine, torch.zeros_like(inside))) == 0


def test_cross_entropy_is_torchs(generator: torch.Generator) -> None:
    share = torch.rand(40, generator=generator).clamp(0.01, 0.99).requires_grad_()
    target = torch.rand(40, generator=generator)
    ours, theirs = cross_entropy(share, target), torch.nn.functional.binary_cross_entropy(share, target)
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-5)
    a, b = (torch.autograd.grad(value, share)[0] for value in (ours, theirs))
    assert torch.allclose(a, b, rtol=1e-4)


def test_a_wall_is_solid_and_the_way_to_it_is_free() -> None:
    """A camera at x = 1.25 looks along x at a wall at x = 4.2, in voxel 6; voxels 0 to 4 are clear of it."""
    camera = Camera.look_at((1.25, 0.25, 1.25), (5.0, 0.25, 1.25), width=9, height=7, horizontal_fov_degrees=20.0)
    hits, free = observe_voxels(torch.full((1, 7, 9), 2.95), camera.reshape(1), BOX, GRID)
    assert float(hits.sum()) == 63 and float(hits[6].sum()) == 63
    assert float(free[5:].sum()) == 0  # what lies within a voxel and a half of a surface is not judged
    assert float(free[1:4].sum(dim=(1, 2)).min()) > 50
    nothing = observe_voxels(torch.zeros(1, 7, 9), camera.reshape(1), BOX, GRID)
    assert float(nothing[0].sum()) == 0 and float(nothing[1].sum()) == 0
    some = observe_voxels(torch.full((1, 7, 9), 2.95), camera.reshape(1), BOX, GRID, 2)
    assert float(some[0].sum()) == 12  # 3 rows of 4


def test_walls_are_solid_where_they_absorb_as_if_they_stood_in_place() -> None:
    """A wall at a voxel's first tenth is sunken, but stays in the voxel; at its last tenth it goes to the next."""
    camera = Camera.look_at((1.25, 0.25, 1.25), (5.0, 0.25, 1.25), width=5, height=5, horizontal_fov_degrees=20.0)
    for wall, voxel in ((4.05, 6), (4.45, 7)):
        hits = observe_voxels(torch.full((1, 5, 5), wall - 1.25), camera.reshape(1), BOX, GRID)[0]
        assert float(hits[voxel].sum()) == 25


def test_solid_voxels_are_those_of_the_room() -> None:
    views = room_views(cameras(8))
    assert views.depth is not None
    hits, free = observe_voxels(views.depth, views.camera, BOX, GRID)
    size, lower = torch.tensor(BOX.voxel_size(GRID)), torch.tensor(BOX.lower)
    corners = torch.stack(torch.meshgrid(*(torch.arange(n) for n in GRID), indexing="ij"), dim=-1) * size + lower
    inner = (corners > torch.tensor(ROOM.lower)).all(-1) & (corners + size < torch.tensor(ROOM.upper)).all(-1)
    assert float(hits[inner].sum()) == 0 and float(hits.sum()) > 0.97 * views.depth.numel()
    assert float(free[~inner].sum()) < 0.02 * float(free.sum())  # what lies before walls that are seen at an angle
    assert float((free[inner] > 0).float().mean()) > 0.5


def test_free_space_is_seen_from_corner_to_corner() -> None:
    cube = Box((0.0, 0.0, 0.0), (8.0, 8.0, 8.0))
    camera = Camera.look_at((0.1, 0.1, 0.1), (8.0, 8.0, 8.0), width=1, height=1, horizontal_fov_degrees=5.0)
    free = observe_voxels(torch.full((1, 1, 1), 30.0), camera.reshape(1), cube, (8, 8, 8))[1]
    assert float(free.diagonal().diagonal().min()) > 0
