"""Splatting against its torch twin, its own adjoint, and the voxel of a single entry."""

from collections.abc import Callable

import pytest
import torch
from ops_cases import BOX, DEVICES, random_rays
from torch import Tensor

from nfldm3d.ops import Splat, reference, splat_frustums

RESOLUTION = (6, 9, 4)


def random_entries(rays: int, depths: int, channels: int, generator: torch.Generator) -> list[Tensor]:
    """Features, weights, distances, origins and directions."""
    features, weights = torch.randn(rays, channels, generator=generator), torch.rand(rays, depths, generator=generator)
    return [features, weights, 5 * torch.rand(rays, depths, generator=generator), *random_rays(rays, generator)]


def sums_and_gradients(splat: Callable[..., Splat], entries: list[Tensor], values: Tensor | None) -> list[Tensor]:
    leaves = [tensor.detach().clone().requires_grad_() for tensor in entries[:2]]
    leaves += [] if values is None else [values.detach().clone().requires_grad_()]
    listed = leaves[2] if values is not None else None
    result = splat(*leaves[:2], *entries[2:], BOX, RESOLUTION, values=listed)
    sums = [tensor for tensor in (result.features, result.weights, result.values) if tensor is not None]
    generator = torch.Generator().manual_seed(7)
    torch.autograd.backward(sums, [torch.randn(t.shape, generator=generator).to(t.device) for t in sums])
    return [*sums, result.counts, *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [1, 3, 12, 28, 32, 128])
@pytest.mark.parametrize("with_values", [False, True])
def test_agrees_with_the_twin(channels: int, with_values: bool, device: str, generator: torch.Generator) -> None:
    entries = [tensor.to(device) for tensor in random_entries(120, 9, channels, generator)]
    values = torch.rand(120, 9, 2, generator=generator).to(device) if with_values else None
    ours, twin = (sums_and_gradients(splat, entries, values) for splat in (splat_frustums, reference.splat_frustums))
    assert len(ours) == len(twin) == (7 if with_values else 5)
    for a, b in zip(ours, twin, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_the_backward_pass_is_the_adjoint(generator: torch.Generator) -> None:
    features, weights, *rest = random_entries(80, 7, 5, generator)
    features.requires_grad_()
    sums = splat_frustums(features, weights, *rest, BOX, RESOLUTION).features
    other = torch.randn(sums.shape, generator=generator)
    (adjoint,) = torch.autograd.grad(sums, features, other)
    torch.testing.assert_close((sums * other).sum(), (features * adjoint).sum(), rtol=1e-5, atol=1e-5)


def test_one_entry_falls_into_the_voxel_around_it() -> None:
    lower, upper = torch.tensor(BOX[0]), torch.tensor(BOX[1])
    centre = lower + (torch.tensor([4, 1, 3]) + 0.5) * (upper - lower) / torch.tensor(RESOLUTION)
    directions = torch.nn.functional.normalize(torch.tensor([[1.0, 2.0, -0.5]]), dim=-1)
    result = splat_frustums(
        torch.tensor([[2.0, 3.0]]),
        torch.tensor([[0.5, 9.0]]),
        torch.tensor([[1.7, 99.0]]),  # the second entry is outside
        centre - 1.7 * directions,
        directions,
        BOX,
        RESOLUTION,
    )
    assert result.counts.nonzero().tolist() == [[4, 1, 3]]
    assert result.features[4, 1, 3].tolist() == [1.0, 1.5]
    assert float(result.weights.sum()) == 0.5 and result.values is None


@pytest.mark.parametrize(("rays", "depths"), [(0, 4), (3, 0)])
def test_nothing_to_splat(rays: int, depths: int, generator: torch.Generator) -> None:
    sums = sums_and_gradients(splat_frustums, random_entries(rays, depths, 2, generator), None)
    assert not any(bool(tensor.any()) for tensor in sums)


def test_sums_do_not_depend_on_the_number_of_threads(generator: torch.Generator) -> None:
    entries, before = random_entries(400, 8, 3, generator), torch.get_num_threads()
    try:
        runs = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            runs.append(sums_and_gradients(splat_frustums, entries, None))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


def test_wrong_input_is_refused(generator: torch.Generator) -> None:
    entries = random_entries(3, 2, 4, generator)
    with pytest.raises(ValueError, match="distances requires a gradient"):
        splat_frustums(*entries[:2], entries[2].requires_grad_(), *entries[3:], BOX, RESOLUTION)
    entries[2].requires_grad_(False)
    with pytest.raises(ValueError, match="a resolution of 1 to"):
        splat_frustums(*entries, BOX, (4, 0, 4))
    with pytest.raises(ValueError, match=r"features must be torch.float32 on cpu"):
        splat_frustums(entries[0].double(), *entries[1:], BOX, RESOLUTION)
