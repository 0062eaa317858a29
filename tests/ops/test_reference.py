"""The torch twin itself: its gradients against finite differences, its sums against closed forms."""

import math

import pytest
import torch
from ops_cases import BOX, random_field, random_rays
from torch import Tensor

from nfldm3d.ops import FieldGradient, March, reference


def doubles(*tensors: Tensor) -> list[Tensor]:
    return [tensor.double() for tensor in tensors]


def test_gradients_of_integrate_rays_are_those_of_finite_differences(generator: torch.Generator) -> None:
    density, features = random_field((3, 4, 2), 2, generator, share=1.0)
    origins, directions = doubles(*random_rays(5, generator))
    march = March(BOX, step=0.21, early_stop=0.0)

    def integrate(density: Tensor, features: Tensor) -> tuple[Tensor, ...]:
        result = reference.integrate_rays(density, features, origins, directions, None, march)
        return result.features, result.opacity, result.distance, result.distortion

    inputs = [tensor.requires_grad_() for tensor in doubles(density + 0.5, features)]
    assert torch.autograd.gradcheck(integrate, inputs)


def test_gradients_of_interpolate_are_those_of_finite_differences(generator: torch.Generator) -> None:
    values = torch.randn(3, 4, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    points = torch.rand(9, 3, generator=generator, dtype=torch.float64) * 3 + torch.tensor([-1.2, 0.4, 1.0])
    assert torch.autograd.gradcheck(
        lambda values, points: reference.interpolate(values, points, BOX), [values, points.requires_grad_()]
    )


def test_gradients_of_splat_frustums_are_those_of_finite_differences(generator: torch.Generator) -> None:
    origins, directions = doubles(*random_rays(4, generator))
    shapes = ((4, 2), (4, 3), (4, 3, 1))
    inputs = [torch.rand(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]
    distances = 4 * torch.rand(4, 3, generator=generator, dtype=torch.float64)

    def splat(features: Tensor, weights: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        result = reference.splat_frustums(
            features, weights, distances, origins, directions, BOX, (3, 2, 4), values=values
        )
        assert result.values is not None
        return result.features, result.weights, result.values

    assert torch.autograd.gradcheck(splat, inputs)


def test_distortion_is_the_double_sum_of_the_paper(generator: torch.Generator) -> None:
    density, features = (t.double() for t in random_field((6, 5, 4), 1, generator))
    origins, directions = doubles(*random_rays(1, generator))
    step, near, far = 0.13, 0.1, 4.5
    march = March(BOX, step, early_stop=0.0)
    result = reference.integrate_rays(
        density, features, origins, directions, torch.tensor([[near, far]]).double(), march
    )
    distances = near + (torch.arange(round((far - near) / step)).double() + 0.5) * step
    points = origins + distances[:, None] * directions
    optical = reference.interpolate(density[..., None], points, BOX)[:, 0] * step
    weights = torch.exp(-(optical.cumsum(0) - optical)) * (1 - torch.exp(-optical))
    apart = (distances[:, None] - distances).abs()
    expected = weights @ apart @ weights + (weights**2).sum() * step / 3
    torch.testing.assert_close(result.distortion[0], expected)


@pytest.mark.parametrize("density", [0.01, 0.7, 30.0])
def test_a_homogeneous_slab_obeys_beer_and_lambert(density: float) -> None:
    grid, features = torch.full((3, 2, 5), density).double(), torch.ones(3, 2, 5, 1).double()
    origins, directions = torch.tensor([[0.2, 1.0, 0.0]]).double(), torch.tensor([[0.0, 0.0, 1.0]]).double()
    march = March(BOX, step=1.1 / 8, early_stop=0.0)
    result = reference.integrate_rays(grid, features, origins, directions, None, march)
    absorbed = 1 - math.exp(-density * 1.1)
    assert float(result.opacity) == pytest.approx(absorbed)
    assert float(result.features) == pytest.approx(absorbed)


def test_diverted_gradients_are_added_to_the_buffers(generator: torch.Generator) -> None:
    density, features = random_field((3, 4, 5), 2, generator)
    origins, directions = random_rays(6, generator)
    march = March(BOX, step=0.2)
    leaves = [density.clone().requires_grad_(), features.clone().requires_grad_()]
    reference.integrate_rays(*leaves, origins, directions, None, march).features.square().sum().backward()
    buffers = FieldGradient(torch.ones_like(density), torch.ones_like(features))
    result = reference.integrate_rays(density, features, origins, directions, None, march, gradient=buffers)
    result.features.square().sum().backward()
    assert leaves[0].grad is not None and leaves[1].grad is not None
    torch.testing.assert_close(buffers.density, leaves[0].grad + 1)
    torch.testing.assert_close(buffers.features, leaves[1].grad + 1)
