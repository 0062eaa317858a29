"""The schedule has the published values, and its steps are diffusers' and the closed form of Gaussian data."""

import itertools

import pytest
import torch
from diffusers import DDPMScheduler

from nfldm3d.models.views.log_snr import (
    add_noise,
    draw_times,
    log_snr,
    split_variance,
    step_back,
    target_of,
    to_clean,
    weigh,
)


def test_the_schedule_falls_from_20_to_minus_20() -> None:
    found = log_snr(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    assert torch.allclose(found, torch.tensor([20.0, 1.7625, 0.0, -1.7625, -20.0]), atol=1e-3)


@pytest.mark.parametrize("prediction", ["epsilon", "v", "picture"])
def test_pictures_follow_from_what_is_said(prediction, generator: torch.Generator) -> None:
    clean = torch.rand(4, 3, 5, 6, generator=generator) * 2 - 1
    noise, level = torch.randn(clean.shape, generator=generator), torch.tensor([9.0, 1.0, -2.0, -6.0])
    noisy = add_noise(clean, noise, level)
    alpha, sigma = split_variance(level, clean)
    assert torch.allclose(alpha**2 + sigma**2, torch.ones_like(alpha))
    said = target_of(clean, noise, level, prediction)
    assert torch.allclose(to_clean(said, noisy, level, prediction), clean, atol=1e-3)
    assert float(to_clean(50 * said, 50 * noisy, level, prediction).abs().max()) == 1


def test_errors_of_v_count_less_where_there_is_little_noise() -> None:
    level = torch.tensor([-20.0, -1.0, 3.0, 20.0])
    assert torch.equal(weigh(level, "epsilon"), torch.ones(4))
    found = weigh(level, "v")
    assert found[0] == 1 and found[1] == 1 and 0 < found[3] < found[2] < 1
    assert torch.equal(weigh(level, "picture"), torch.ones(4))


def test_times_are_spread_evenly_or_late() -> None:
    draws = torch.Generator().manual_seed(0)
    even, late = draw_times(1000, "epsilon", draws), draw_times(1000, "picture", draws)
    assert abs(even.mean() - 1 / 2) < 1e-3 and abs(late.mean() - 2 / 3) < 1e-3
    assert float(late.min()) >= 0 and float(late.max()) <= 1


def test_a_step_is_that_of_diffusers(generator: torch.Generator) -> None:
    """The mean and the smaller variance of its ancestral steps."""
    steps = 12
    levels = log_snr(torch.linspace(0, 1, steps + 1, dtype=torch.float64))[1:]
    shares = torch.sigmoid(levels)
    betas = 1 - shares / torch.cat((torch.ones(1), shares[:-1]))
    scheduler = DDPMScheduler(
        steps, trained_betas=betas.numpy(), prediction_type="sample", clip_sample=False, variance_type="fixed_small"
    )
    scheduler.set_timesteps(steps)
    noisy, clean = (torch.randn(2, 3, 4, 5, generator=generator) for _ in range(2))
    for place in (11, 6, 1):
        expected = scheduler.step(clean, place, noisy, generator=torch.Generator().manual_seed(3)).prev_sample
        noise = torch.randn(noisy.shape, generator=torch.Generator().manual_seed(3))
        before, after = (levels[number].float().expand(2) for number in (place, place - 1))
        assert torch.allclose(step_back(noisy, clean, noise, before=before, after=after), expected, atol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_gaussian_data_are_drawn_with_their_spread(eta: float, generator: torch.Generator) -> None:
    spread, steps = 0.3, 200
    levels = log_snr(torch.linspace(1, 0, steps + 1, dtype=torch.float64)).float()
    noisy = torch.randn(4000, 1, generator=generator)
    for before, after in itertools.pairwise(levels):
        before, after = before.expand(4000), after.expand(4000)
        alpha, sigma = split_variance(before, noisy)
        clean = alpha * noisy * spread**2 / (alpha**2 * spread**2 + sigma**2)
        noise = torch.randn(noisy.shape, generator=generator)
        noisy = step_back(noisy, clean, noise, before=before, after=after, eta=eta)
    assert float(noisy.std()) == pytest.approx(spread, rel=0.05)
