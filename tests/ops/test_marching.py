"""The march kernels against their torch twin, closed forms, and the promises about skipping, threads and memory."""

import math
from collections.abc import Iterator

import pytest
import torch
from ops_cases import BOX, DEVICES, random_field, random_rays
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nfldm3d.ops import (
    FieldGradient,
    March,
    Occupancy,
    RayIntegral,
    build_occupancy,
    integrate_rays,
    marching,
    reference,
)
from nfldm3d.ops.launch import launch

MARCH = March(BOX, step=0.07, early_stop=0.0)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def parts(result: RayIntegral) -> list[Tensor]:
    return [result.features, result.opacity, result.distance, result.distortion]


def outputs_and_gradients(integrate, field, rays, near_far, march: March, seed: int = 7) -> list[Tensor]:
    """The four results, and the gradients of a random linear function of them."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in field]
    results = parts(integrate(*leaves, *rays, near_far, march))
    generator = torch.Generator().manual_seed(seed)
    slopes = [torch.randn(result.shape, generator=generator).to(result.device) for result in results]
    torch.autograd.backward(results, slopes)
    gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
    return results + gradients


def assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(
            a, b, rtol=1e-4, atol=2e-5 * max(1.0, float(b.detach().abs().amax()) if b.numel() else 0)
        )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [1, 3, 12, 28, 32, 128])
def test_agrees_with_the_twin_for_every_channel_count(channels: int, device: str, generator: torch.Generator) -> None:
    field = [tensor.to(device) for tensor in random_field((9, 7, 5), channels, generator)]
    rays = [tensor.to(device) for tensor in random_rays(40, generator)]
    ours = outputs_and_gradients(integrate_rays, field, rays, None, MARCH)
    assert_same(ours, outputs_and_gradients(reference.integrate_rays, field, rays, None, MARCH))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("resolution", [(1, 1, 1), (1, 6, 4), (2, 9, 1), (17, 3, 8), (16, 16, 16)])
@pytest.mark.parametrize("share", [0.02, 1.0])
def test_agrees_with_the_twin_for_every_shape(
    resolution: tuple[int, int, int], share: float, device: str, generator: torch.Generator
) -> None:
    field = [tensor.to(device) for tensor in random_field(resolution, 3, generator, share=share)]
    rays = [tensor.to(device) for tensor in random_rays(60, generator)]
    near = 3 * torch.rand(60, generator=generator)
    near_far = torch.stack([near, near + 3 * torch.rand(60, generator=generator)], dim=-1).to(device)
    ours = outputs_and_gradients(integrate_rays, field, rays, near_far, MARCH)
    assert_same(ours, outputs_and_gradients(reference.integrate_rays, field, rays, near_far, MARCH))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_agrees_with_the_twin_for_rays_along_the_axes(axis: int, sign: float, generator: torch.Generator) -> None:
    field = random_field((13, 11, 9), 2, generator, share=0.05)
    origins = torch.tensor(BOX[0]) + torch.rand(30, 3, generator=generator) * 1.3 - 0.2
    directions = torch.zeros(30, 3)
    directions[:, axis] = sign
    origins[:, axis] = -4 * sign
    rays = (origins, directions)
    ours = outputs_and_gradients(integrate_rays, field, rays, None, MARCH)
    assert_same(ours, outputs_and_gradients(reference.integrate_rays, field, rays, None, MARCH))


def test_agrees_with_the_twin_when_stopped_early(generator: torch.Generator) -> None:
    density, features = random_field((9, 7, 5), 4, generator)
    rays, march = random_rays(50, generator), March(BOX, step=0.07, early_stop=0.3)
    ours = outputs_and_gradients(integrate_rays, (5 * density, features), rays, None, march)
    assert_same(ours, outputs_and_gradients(reference.integrate_rays, (5 * density, features), rays, None, march))


@pytest.mark.cuda
def test_half_precision_fields_are_summed_in_single_precision(generator: torch.Generator) -> None:
    field = [tensor.cuda().half() for tensor in random_field((9, 7, 5), 12, generator)]
    rays = [tensor.cuda() for tensor in random_rays(40, generator)]
    ours = parts(integrate_rays(*field, *rays, None, MARCH))
    assert_same(ours, parts(reference.integrate_rays(*(tensor.float() for tensor in field), *rays, None, MARCH)))


@pytest.mark.parametrize("count", [0, 1])
def test_no_ray_and_one_ray(count: int, generator: torch.Generator) -> None:
    field, rays = random_field((4, 5, 6), 3, generator), random_rays(count, generator)
    ours = outputs_and_gradients(integrate_rays, field, rays, None, MARCH)
    assert [tuple(tensor.shape) for tensor in ours[:4]] == [(count, 3), (count,), (count,), (count,)]
    assert_same(ours, outputs_and_gradients(reference.integrate_rays, field, rays, None, MARCH))


def test_empty_fields_and_missing_rays_give_zeros(generator: torch.Generator) -> None:
    density, features = random_field((4, 5, 6), 3, generator)
    origins, directions = random_rays(20, generator)
    for density_, origins_ in ((torch.zeros_like(density), origins), (density, origins + 90)):
        results = outputs_and_gradients(integrate_rays, (density_, features), (origins_, directions), None, MARCH)
        assert not any(bool(tensor.any()) for tensor in results)


def test_a_ray_without_a_direction_sees_nothing(generator: torch.Generator) -> None:
    density, features = random_field((4, 5, 6), 3, generator, share=1.0)
    result = integrate_rays(density, features, torch.tensor([[0.0, 1.0, 2.5]]), torch.zeros(1, 3), None, MARCH)
    assert float(result.opacity) == 0


def test_a_homogeneous_slab_obeys_beer_and_lambert() -> None:
    density, features = torch.full((3, 2, 5), 0.7), torch.ones(3, 2, 5, 1)
    origins, directions = torch.tensor([[0.2, 1.0, 0.0]]), torch.tensor([[0.0, 0.0, 1.0]])
    result = integrate_rays(density, features, origins, directions, None, March(BOX, 1.1 / 64, early_stop=0.0))
    absorbed = 1 - math.exp(-0.7 * 1.1)
    mean = 2 + 1 / 0.7 - 1.1 * (1 - absorbed) / absorbed  # of a truncated exponential distribution
    assert float(result.opacity) == pytest.approx(absorbed, abs=1e-6)
    assert float(result.features) == pytest.approx(absorbed, abs=1e-6)
    assert float(result.distance) == pytest.approx(mean * absorbed, abs=1e-4)


@pytest.mark.parametrize("optical_depth", [1e-7, 1e-4, 0.0299, 0.0301, 5.0])
def test_opacity_is_accurate_from_haze_to_walls(optical_depth: float) -> None:
    density, features = torch.full((2, 2, 2), optical_depth / 1.1), torch.ones(2, 2, 2, 1)
    origins, directions = torch.tensor([[0.2, 1.0, 0.0]]), torch.tensor([[0.0, 0.0, 1.0]])
    result = integrate_rays(density, features, origins, directions, None, March(BOX, 1.1, early_stop=0.0))
    assert float(result.opacity) == pytest.approx(-math.expm1(-optical_depth), rel=1e-6)


def test_occupancy_changes_nothing(generator: torch.Generator) -> None:
    density, features = random_field((33, 21, 18), 5, generator, share=0.003)
    rays, found = random_rays(300, generator), build_occupancy(density)
    everything = Occupancy(torch.ones_like(found.cells), torch.zeros_like(found.leaps))
    assert float((found.leaps > 0).float().mean()) > 0.3
    fast, slow = (
        parts(integrate_rays(density, features, *rays, None, MARCH, occupancy=occupancy))
        for occupancy in (found, everything)
    )
    assert all(torch.equal(a, b) for a, b in zip(fast, slow, strict=True))


def test_results_do_not_depend_on_the_number_of_threads(
    generator: torch.Generator, threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(marching.SCRATCH_BYTES, "cpu", 1 << 14)
    field, rays = random_field((20, 18, 9), 7, generator), random_rays(900, generator)
    runs = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        runs.append(outputs_and_gradients(integrate_rays, field, rays, None, MARCH))
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


def test_scattering_record_by_record_as_on_cuda_gives_the_same_gradient(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch, threads: None
) -> None:
    field, rays = random_field((6, 5, 9), 4, generator), random_rays(40, generator)
    expected = outputs_and_gradients(integrate_rays, field, rays, None, MARCH)
    torch.set_num_threads(1)  # additions are atomic on CUDA alone

    def without_owners(kernel, count, inputs, device) -> None:
        launch(kernel, count, [0, count, *inputs], device)

    monkeypatch.setattr(marching, "launch_scatter", without_owners)
    ours = outputs_and_gradients(integrate_rays, field, rays, None, MARCH)
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


def test_buffers_receive_the_ordinary_gradient(generator: torch.Generator) -> None:
    field, rays = random_field((9, 7, 5), 4, generator), random_rays(50, generator)
    *_, density, features = outputs_and_gradients(integrate_rays, field, rays, None, MARCH)
    buffers = FieldGradient(torch.zeros_like(density), torch.zeros_like(features))

    def integrate(*inputs) -> RayIntegral:
        return integrate_rays(*inputs, gradient=buffers)

    assert len(outputs_and_gradients(integrate, field, rays, None, MARCH)) == 4  # the leaves got no gradient
    assert torch.equal(buffers.density, density)
    assert torch.equal(buffers.features, features)
    outputs_and_gradients(integrate, field, rays, None, MARCH)
    torch.testing.assert_close(buffers.features, 2 * features)


def test_tensors_need_not_be_contiguous(generator: torch.Generator) -> None:
    density, features = random_field((9, 7, 5), 4, generator)
    origins, directions = random_rays(20, generator)
    straight = parts(integrate_rays(density, features, origins, directions, None, MARCH))
    turned = features.permute(3, 2, 0, 1).contiguous().permute(2, 3, 1, 0)
    assert not turned.is_contiguous()
    rays = (origins.T.contiguous().T, directions.T.contiguous().T)
    again = parts(integrate_rays(density.mT.contiguous().mT, turned, *rays, None, MARCH))
    assert all(torch.equal(a, b) for a, b in zip(straight, again, strict=True))


class LargestTensor(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation returned, in elements."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_no_temporary_grows_with_rays_times_samples(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(marching.SCRATCH_BYTES, "cpu", 1 << 15)
    field, rays = random_field((6, 5, 4), 4, generator, share=1.0), random_rays(500, generator)
    with LargestTensor() as largest:
        outputs_and_gradients(integrate_rays, field, rays, None, March(BOX, step=0.002, early_stop=0.0))
    assert largest.elements <= (1 << 15) / 4  # there are some 500 * 400 samples


def test_wrong_input_is_refused(generator: torch.Generator) -> None:
    density, features = random_field((4, 5, 6), 3, generator)
    origins, directions = random_rays(3, generator)
    with pytest.raises(ValueError, match=r"density must be torch.float32 on cpu, got torch.float64"):
        integrate_rays(density.double(), features, origins, directions, None, MARCH)
    with pytest.raises(ValueError, match=r"origins requires a gradient.*detach"):
        integrate_rays(density, features, origins.clone().requires_grad_(), directions, None, MARCH)
    other = build_occupancy(torch.zeros(9, 9, 9))
    with pytest.raises(ValueError, match=r"occupancy.cells must have the shape \(4, 5, 6\), got \(9, 9, 9\)"):
        integrate_rays(density, features, origins, directions, None, MARCH, occupancy=other)
    strided = FieldGradient(torch.zeros(6, 5, 4).permute(2, 1, 0), torch.zeros_like(features))
    with pytest.raises(ValueError, match=r"gradient.density must be contiguous"):
        integrate_rays(density, features, origins, directions, None, MARCH, gradient=strided)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 0.0}, "positive step"),
        ({"step": math.inf}, "positive step"),
        ({"early_stop": 1.0}, "early_stop"),
        ({"box": ((0.0, 0.0, 0.0), (1.0, 0.0, 1.0))}, "finite corners"),
    ],
)
def test_impossible_marches_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        March(**({"box": BOX, "step": 0.1, "early_stop": 0.0} | change))
