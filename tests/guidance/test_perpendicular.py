"""Perp-Neg: what other texts add is taken away, but never along the wanted direction."""

import pytest
import torch
from torch import Tensor

from nfldm3d.guidance.distillation import Distillation, distill
from nfldm3d.guidance.perpendicular import OtherSides, distill_away, guide_away, perpendicular


class Fixed:
    """A prior whose noise is its condition, whatever it sees."""

    image_size = 4
    alphas_cumprod = torch.linspace(0.99, 0.01, 50)

    def to_latents(self, images: Tensor) -> Tensor:
        return 2 * images - 1

    def to_images(self, latents: Tensor) -> Tensor:
        return latents / 2 + 0.5

    def predict_noise(self, latents: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return condition.reshape(len(latents), 3, 4, 4)

    def embed(self, described: object) -> Tensor:
        raise NotImplementedError

    def embed_nothing(self, views: int) -> Tensor:
        return torch.zeros(views, 3, 16)


def draw(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator)


def test_what_is_left_is_perpendicular(generator: torch.Generator) -> None:
    a, b = draw(generator, 2, 3, 4, 4), draw(generator, 2, 3, 4, 4)
    left = perpendicular(a, b)
    torch.testing.assert_close((left * b).sum((1, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    along = a - left
    torch.testing.assert_close(along / b, (along / b)[:, :1, :1, :1].expand_as(b), atol=1e-4, rtol=1e-3)


def test_the_noise_is_that_of_the_formula(generator: torch.Generator) -> None:
    wanted, nothing, first, second = draw(generator, 4, 2, 3, 16)
    told, weights = (wanted, nothing), torch.tensor(((-1.5, -0.2), (0.0, -2.0)))
    others = OtherSides(torch.stack((first, second), dim=1), weights)
    t = torch.tensor((3, 30))
    found = guide_away(Fixed(), draw(generator, 2, 3, 4, 4), t, told, others, 7.0).view(2, 48)
    for view in range(2):
        d = (wanted - nothing)[view].flatten()
        total = d.clone()
        for other, weight in zip((first, second), weights[view], strict=True):
            e = (other - nothing)[view].flatten()
            total += weight * (e - (e @ d) / (d @ d) * d)
        torch.testing.assert_close(found[view], nothing[view].flatten() + 7 * total)


def test_without_weights_it_is_plain_distillation(generator: torch.Generator) -> None:
    wanted, nothing, other = draw(generator, 3, 2, 3, 16)
    images = torch.rand(2, 3, 4, 4, generator=generator).requires_grad_()
    options, slopes = Distillation(guidance_scale=5.0), []
    for loss in (
        distill(Fixed(), images, wanted, nothing, options=options, generator=torch.Generator().manual_seed(3)),
        distill_away(
            Fixed(),
            images,
            (wanted, nothing),
            OtherSides(other[:, None], torch.zeros(2, 1)),
            options=options,
            generator=torch.Generator().manual_seed(3),
        ),
    ):
        slopes.append(torch.autograd.grad(loss, images)[0])
    torch.testing.assert_close(*slopes)
    assert float(slopes[0].abs().max()) == pytest.approx(float(slopes[1].abs().max()))
