"""Packed samples composite to what the march's twin sums ray by ray, with its gradients."""

import math

import pytest
import torch

from nfldm3d.ops import March, reference
from nfldm3d.ops.compositing import composite_samples, find_visible
from nfldm3d.ops.records import RayIntegral

COUNTS = torch.tensor([0, 3, 1, 0, 12, 5, 0])
STEP = 0.25


def make_samples(generator, dtype=torch.float64):
    count = int(COUNTS.sum())
    density = torch.rand(count, generator=generator, dtype=torch.float64) * 4 - 1
    features = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    distances = torch.cat([7.0 + STEP * torch.arange(int(number)) for number in COUNTS])
    return [values.to(dtype) for values in (density, features, distances)]


def composite_one_by_one(density, features, distances):
    """Each ray in a loop of its own, as the definition of ``RayIntegral`` says."""
    rows = []
    for d, f, t in zip(*(values.split(COUNTS.tolist()) for values in (density, features, distances)), strict=True):
        alpha = 1 - torch.exp(-d.relu() * STEP)
        weight = torch.cat((torch.ones_like(alpha[:1]), (1 - alpha).cumprod(0)[:-1])) * alpha
        spread = (weight[:, None] * weight * (t[:, None] - t).abs()).sum() + weight.square().sum() * STEP / 3
        rows.append(((weight[:, None] * f).sum(0), weight.sum(), (weight * t).sum(), spread))
    return RayIntegral(*(torch.stack(column) for column in zip(*rows, strict=True)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_rays_see_what_a_loop_over_their_samples_finds(generator, dtype):
    samples = make_samples(generator, dtype)
    found = composite_samples(*samples, COUNTS, STEP)
    assert found.opacity.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    again = composite_one_by_one(*(values.double() for values in samples))
    for name in ("features", "opacity", "distance", "distortion"):
        torch.testing.assert_close(getattr(found, name).double(), getattr(again, name), atol=1e-5, rtol=1e-5)
    assert found.opacity[0] == 0 and found.opacity.max() > 0.5


def test_gradients_are_those_of_the_loop(generator):
    gradients = []
    for composite in (lambda *samples: composite_samples(*samples, COUNTS, STEP), composite_one_by_one):
        density, features, distances = make_samples(torch.Generator().manual_seed(3))
        density.requires_grad_(), features.requires_grad_()
        sums = composite(density, features, distances)
        loss = sums.features.square().sum() + sums.opacity.sin().sum() + sums.distance.sum() + sums.distortion.sum()
        gradients.append(torch.autograd.grad(loss, (density, features)))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_slab_follows_beer_lambert():
    sums = composite_samples(
        torch.full((64,), 0.7), torch.ones(64, 1), torch.arange(64) / 32, torch.tensor([64]), 1 / 32
    )
    assert sums.opacity.item() == pytest.approx(1 - math.exp(-1.4), abs=1e-6)
    assert sums.features.item() == pytest.approx(sums.opacity.item(), abs=1e-6)


def test_what_is_invisible_is_left_out():
    density = torch.tensor([4.0, 0.0, -1.0, 4.0, 4.0, 4.0, 1.0])  # two rays of 5 and 2 samples
    seen = find_visible(density, torch.tensor([5, 2]), 0.5, early_stop=math.exp(-3.9))
    assert seen.tolist() == [True, False, False, True, False, True, True]
    assert find_visible(density, torch.tensor([5, 2]), 0.5, early_stop=0.0).sum() == 5


def test_no_samples_and_no_rays():
    nothing = composite_samples(torch.zeros(0), torch.zeros(0, 3), torch.zeros(0), torch.tensor([0, 0]), 0.1)
    assert nothing.features.shape == (2, 3) and nothing.opacity.abs().max() == 0
    none = composite_samples(torch.zeros(0), torch.zeros(0, 3), torch.zeros(0), torch.zeros(0, dtype=torch.long), 0.1)
    assert none.features.shape == (0, 3)


def test_samples_of_a_grid_give_its_march(generator):
    """Density and features read at the march's own samples composite to the march's own sums."""
    density, features = torch.rand(5, 4, 3, generator=generator), torch.rand(5, 4, 3, 2, generator=generator)
    march = March(((0.0, 0.0, 0.0), (5.0, 4.0, 3.0)), 0.1, early_stop=0.0)
    origins = torch.tensor([[-1.0, 1.2, 1.1], [-2.0, 3.0, 2.0]])
    directions = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1, 0.05], [1.0, -0.2, -0.1]]), dim=-1)
    near_far = torch.tensor([[1.5, 4.0], [3.0, 5.5]])
    whole = reference.integrate_rays(density, features, origins, directions, near_far, march)
    distances = near_far[:, :1] + (torch.arange(25) + 0.5) * 0.1
    points = (origins[:, None] + distances[..., None] * directions[:, None]).reshape(-1, 3)
    values = reference.interpolate(torch.cat((density[..., None], features), dim=-1), points, march.box)
    sums = composite_samples(values[:, 0], values[:, 1:], distances.reshape(-1), torch.tensor([25, 25]), 0.1)
    for name in ("features", "opacity", "distance", "distortion"):
        torch.testing.assert_close(getattr(sums, name), getattr(whole, name), atol=1e-5, rtol=1e-4)
