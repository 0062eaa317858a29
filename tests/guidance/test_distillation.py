"""Score distillation on a prior whose score is known: Gaussian pictures, whose mean a condition moves."""

from dataclasses import dataclass, replace

import pytest
import torch
from small_priors import GaussianPrior
from torch import Tensor

from nfldm3d.guidance.distillation import Distillation, distill, distillation_gradient, guide_noise
from nfldm3d.guidance.prior import Prior, add_noise, remove_noise

PLAIN = Distillation(guidance_scale=1.0)


PRIOR = GaussianPrior()


def says(value: float, views: int = 2) -> Tensor:
    return torch.full((views, 1, 1), value)


def draw(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    latents, noise = (torch.randn(2, 3, 4, 6, generator=generator) for _ in range(2))
    return latents, noise, torch.tensor([150, 700])


def test_it_is_a_prior() -> None:
    assert isinstance(PRIOR, Prior)


@pytest.mark.parametrize("weighting", ["variance", "uniform", "clean"])
def test_the_mean_gradient_points_away_from_the_mean_with_the_right_length(
    weighting: str, generator: torch.Generator
) -> None:
    latents, noise, t = draw(generator)
    options = replace(PLAIN, weighting=weighting)
    pair = [distillation_gradient(PRIOR, latents, sign * noise, t, (says(0.4), None), options) for sign in (1, -1)]
    signal = PRIOR.alphas_cumprod[t][:, None, None, None]
    weight = {"variance": 1 - signal, "uniform": 1.0, "clean": ((1 - signal) / signal).sqrt()}[weighting]
    pull = weight * (signal * (1 - signal)).sqrt() / (signal * PRIOR.spread**2 + 1 - signal)
    assert torch.allclose((pair[0] + pair[1]) / 2, pull * (latents - 0.4), atol=1e-5)


def test_the_clean_weight_gives_the_way_to_the_denoised_latents(generator: torch.Generator) -> None:
    latents, noise, t = draw(generator)
    options = replace(PLAIN, weighting="clean")
    gradient = distillation_gradient(PRIOR, latents, noise, t, (says(0.4), None), options)
    noisy = add_noise(PRIOR, latents, noise, t)
    clean = remove_noise(PRIOR, noisy, PRIOR.predict_noise(noisy, t, says(0.4)), t)
    assert torch.allclose(gradient, latents - clean, atol=1e-4)


def test_the_loss_has_the_gradient_of_each_view_over_their_number(generator: torch.Generator) -> None:
    images = torch.rand(2, 3, 4, 6, generator=generator, requires_grad=True)
    seed = torch.Generator().manual_seed(3)
    loss = distill(PRIOR, images, says(0.4), share=0.5, options=PLAIN, generator=seed)
    (gradient,) = torch.autograd.grad(loss, images)
    seed = torch.Generator().manual_seed(3)
    t = PLAIN.draw_steps(PRIOR.alphas_cumprod, 2, 0.5, seed)
    noise = torch.randn(2, 3, 4, 6, generator=seed)
    expected = distillation_gradient(PRIOR, 2 * images - 1, noise, t, (says(0.4), None), PLAIN)
    assert torch.allclose(gradient, 2 * expected / 2, atol=1e-5)  # latents are twice as wide as pictures
    assert float(loss.detach()) == pytest.approx(float(expected.square().sum() / 4), rel=1e-4)


def test_descent_ends_at_the_mean(generator: torch.Generator) -> None:
    images = torch.zeros(2, 3, 4, 6, requires_grad=True)
    descent = torch.optim.Adam([images], lr=0.05)
    for step in range(150):
        descent.param_groups[0]["lr"] = 0.05 * 0.01 ** (step / 150)
        descent.zero_grad()
        distill(PRIOR, images, says(0.4), share=step / 150, options=PLAIN, generator=generator).backward()
        descent.step()
    assert float(images.detach().mean()) == pytest.approx(0.7, abs=0.01)
    assert float((images.detach() - 0.7).abs().max()) < 0.1


def test_negative_guidance_moves_away_from_what_is_avoided(generator: torch.Generator) -> None:
    latents, noise, t = draw(generator)
    noisy = add_noise(PRIOR, latents, noise, t)
    options = Distillation(guidance_scale=3.0)
    for avoided, mean in ((says(0.1), 0.1 + 3 * (0.4 - 0.1)), (None, 3 * 0.4)):
        guided = guide_noise(PRIOR, noisy, t, (says(0.4), avoided), options)
        assert torch.allclose(guided, PRIOR.predict_noise(noisy, t, says(mean)), atol=1e-5)
    same = guide_noise(PRIOR, noisy, t, (says(0.4), says(0.1)), PLAIN)
    assert torch.equal(same, PRIOR.predict_noise(noisy, t, says(0.4)))


def test_conditions_of_different_shapes_are_refused(generator: torch.Generator) -> None:
    latents, _, t = draw(generator)
    with pytest.raises(ValueError, match="to follow and to avoid have shapes"):
        guide_noise(PRIOR, latents, t, (says(0.4), says(0.1).expand(-1, 2, -1)))


def test_rescaling_keeps_the_contrast_of_the_picture_without_guidance(generator: torch.Generator) -> None:
    latents, noise, t = draw(generator)
    noisy = add_noise(PRIOR, latents, noise, t)
    conditions = (torch.tensor([0.4, -0.3])[:, None, None], says(0.1))
    # a prior whose guided pictures are too strong: what it sees with y' is no noise at all

    @dataclass(frozen=True)
    class Loud(GaussianPrior):
        def predict_noise(self, latents: Tensor, t: Tensor, condition: Tensor) -> Tensor:
            return (1 + condition[:, 0, 0, None, None, None]) * super().predict_noise(latents, t, condition)

    prior = Loud()
    plain = remove_noise(prior, noisy, prior.predict_noise(noisy, t, conditions[0]), t)
    guided, calm, half = (
        remove_noise(prior, noisy, guide_noise(prior, noisy, t, conditions, Distillation(4.0, rescale=part)), t)
        for part in (0.0, 1.0, 0.5)
    )
    assert torch.allclose(calm.flatten(1).std(1), plain.flatten(1).std(1), rtol=1e-3)
    assert not torch.allclose(guided.flatten(1).std(1), plain.flatten(1).std(1), rtol=1e-2)
    assert torch.allclose(half, (guided + calm) / 2, atol=1e-4)


def test_steps_fall_as_a_run_goes_on(generator: torch.Generator) -> None:
    options = Distillation(first_steps=(0.2, 0.8), last_steps=(0.0, 0.1))
    shares = PRIOR.alphas_cumprod
    for share, low, high in ((0.0, 200, 800), (0.5, 100, 450), (1.0, 0, 100)):
        t = options.draw_steps(shares, 2000, share, generator)
        assert low - 1 <= int(t.min()) <= low + 5 and high - 5 <= int(t.max()) <= high + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first_steps": (0.5, 0.2)}, "first_steps are shares"),
        ({"last_steps": (0.5, 1.2)}, "last_steps are shares"),
        ({"rescale": 1.5}, "rescale lies between 0 and 1"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Distillation(**options)


def test_an_answer_that_is_no_number_shows_in_the_loss(generator: torch.Generator) -> None:
    images = torch.rand(2, 3, 4, 6, generator=generator, requires_grad=True)
    assert distill(PRIOR, images, says(float("nan")), options=PLAIN, generator=generator).isnan()
