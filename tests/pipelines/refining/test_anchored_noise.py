"""Noise that sticks to places is white in each picture and the same in all pictures of a place."""

import torch

from nfldm3d.camera import Camera
from nfldm3d.models.priors.image_denoiser import far_from, nearness
from nfldm3d.pipelines.refining.anchored_noise import anchor_noise

SIZE = 48


def ground_views() -> tuple[Camera, torch.Tensor]:
    """Two cameras two metres above the ground, one a metre behind the other, and how far the ground is."""
    eyes = torch.tensor([[0.0, 0.0, 2.0], [1.0, 0.0, 2.0]])
    camera = Camera.look_at(eyes, eyes + torch.tensor([3.0, 0.0, -2.0]), width=SIZE, height=SIZE)
    directions = camera.rays().directions
    down = -directions[..., 2]
    return camera, torch.where(down > 0.05, 2 / down.clamp(min=0.05), 0.0)


def draw(seed: int, cell: float = 0.3) -> torch.Tensor:
    camera, distance = ground_views()
    return anchor_noise(camera, distance, cell, torch.Generator().manual_seed(seed))


def test_every_picture_alone_is_white() -> None:
    draws = torch.stack([draw(seed) for seed in range(60)])
    torch.testing.assert_close(draws.mean(0).square().mean(), torch.tensor(1 / 60), atol=3e-3, rtol=0)
    torch.testing.assert_close(draws.square().mean((0, 1, 2)), torch.ones(SIZE, SIZE), atol=0.45, rtol=0)
    for axis in (-1, -2):  # pixels of one place, and of neighbours
        beside = (draws * draws.roll(1, axis)).mean()
        assert abs(float(beside)) < 0.01
    assert torch.equal(draw(3), draw(3)) and not torch.equal(draw(3), draw(4))


def test_what_two_cameras_see_has_the_same_noise() -> None:
    camera, distance = ground_views()
    rays = camera.rays()
    places = ((rays.origins + distance[..., None] * rays.directions) / 0.3).floor()[..., :2]
    noise = draw(0)
    shared = []
    for place in places[distance > 0].reshape(-1, 2).unique(dim=0):
        here = (places == place).all(-1) & (distance > 0)
        if here[0].any() and here[1].any():
            sums = [noise[view, :, here[view]].sum(-1) / here[view].sum() ** 0.5 for view in range(2)]
            torch.testing.assert_close(sums[0], sums[1], atol=1e-4, rtol=0)
            shared.append(sums[0])
    assert len(shared) > 50 and 0.7 < float(torch.stack(shared).std()) < 1.3


def test_nearness_is_undone() -> None:
    distance = torch.tensor([[0.0, 0.5, 4.0, 60.0]])
    torch.testing.assert_close(far_from(nearness(distance)), distance)
