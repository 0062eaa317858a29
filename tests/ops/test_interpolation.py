"""Trilinear queries against their torch twin, and on functions that they must reproduce exactly."""

from collections.abc import Callable

import pytest
import torch
from ops_cases import BOX, DEVICES
from torch import Tensor

from nfldm3d.ops import interpolate, reference

LOWER, UPPER = torch.tensor(BOX[0]), torch.tensor(BOX[1])


def value_and_gradients(query: Callable, values: Tensor, points: Tensor) -> list[Tensor]:
    values, points = (tensor.detach().clone().requires_grad_() for tensor in (values, points))
    result = query(values, points, BOX)
    slopes = torch.randn(result.shape, generator=torch.Generator().manual_seed(7)).to(result.device)
    result.backward(slopes)
    assert values.grad is not None and points.grad is not None
    return [result, values.grad, points.grad]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [1, 3, 12, 28, 32, 128])
@pytest.mark.parametrize("resolution", [(1, 1, 1), (5, 1, 7), (6, 9, 4)])
def test_agrees_with_the_twin(
    resolution: tuple[int, int, int], channels: int, device: str, generator: torch.Generator
) -> None:
    values = torch.randn(*resolution, channels, generator=generator).to(device)
    spread = torch.rand(200, 3, generator=generator) * 1.3 - 0.15  # a part lies outside
    points = (LOWER + spread * (UPPER - LOWER)).to(device)
    ours, twin = (value_and_gradients(query, values, points) for query in (interpolate, reference.interpolate))
    for a, b in zip(ours, twin, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_linear_functions_are_reproduced_between_the_centres(generator: torch.Generator) -> None:
    resolution = torch.tensor([6, 9, 4])
    size = (UPPER - LOWER) / resolution
    index = torch.cartesian_prod(*(torch.arange(int(count)) for count in resolution)).reshape(6, 9, 4, 3)
    slope = torch.randn(3, 2, generator=generator)
    values = (LOWER + (index + 0.5) * size) @ slope
    inner = torch.rand(100, 3, generator=generator) * (UPPER - LOWER - size) + LOWER + size / 2
    inner.requires_grad_()
    result = interpolate(values, inner, BOX)
    torch.testing.assert_close(result, inner @ slope, rtol=1e-5, atol=1e-5)
    result[:, 0].sum().backward()
    torch.testing.assert_close(inner.grad, slope[:, 0].expand(100, 3), rtol=1e-4, atol=1e-4)


def test_the_outer_half_voxel_is_constant_and_the_outside_is_zero() -> None:
    values = torch.arange(24.0).reshape(2, 3, 4, 1)
    corner = interpolate(values, LOWER[None], BOX)
    assert float(corner) == 0 and float(interpolate(values, UPPER[None], BOX)) == 23
    assert float(interpolate(values + 1, LOWER[None] - 1e-3, BOX)) == 0


def test_no_points_have_no_values_and_a_zero_gradient(generator: torch.Generator) -> None:
    values = torch.randn(2, 3, 4, 5, generator=generator)
    result, grad_values, grad_points = value_and_gradients(interpolate, values, torch.zeros(0, 3))
    assert result.shape == (0, 5) and grad_points.shape == (0, 3)
    assert not bool(grad_values.any())


def test_the_gradient_by_the_values_does_not_depend_on_the_threads(generator: torch.Generator) -> None:
    values, points = torch.randn(12, 9, 4, 3, generator=generator), LOWER + torch.rand(500, 3, generator=generator)
    before = torch.get_num_threads()
    try:
        runs = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            runs.append(value_and_gradients(interpolate, values, points)[1])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(runs[0], runs[1]) and torch.equal(runs[0], runs[2])


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="points must be torch.float32"):
        interpolate(torch.zeros(2, 2, 2, 1), torch.zeros(3, 3, dtype=torch.float64), BOX)
    with pytest.raises(ValueError, match="a box needs finite corners"):
        interpolate(torch.zeros(2, 2, 2, 1), torch.zeros(3, 3), (BOX[1], BOX[0]))
