"""The operations on pools of bricks against their torch twins, the dense kernels, and finite differences."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from jaxtyping import TypeCheckError
from ops_cases import BOX, DEVICES, random_field, random_rays
from torch import Tensor

from nfldm3d import ops
from nfldm3d.ops import FieldGradient, March, PoolMap, pool_reference as twin
from nfldm3d.ops.records import BRICK

MARCH = March(BOX, step=0.05, early_stop=0.0)
SHAPES = [(1, 1, 1), (8, 8, 8), (19, 9, 12), (1, 17, 8), (25, 16, 9)]


def make_map(
    resolution: tuple[int, int, int], generator: torch.Generator, *, share: float = 0.6, device: str = "cpu"
) -> PoolMap:
    """A random share of a grid's bricks, in no order."""
    bricks = [-(-size // BRICK) for size in resolution]
    held = torch.rand(bricks, generator=generator) < share
    order = torch.randperm(int(held.sum()), generator=generator).argsort()
    return PoolMap.of(held.nonzero()[order].to(device), resolution)


def make_pool(places: PoolMap, channels: int, generator: torch.Generator, share: float = 0.4) -> tuple[Tensor, Tensor]:
    grids = random_field(places.resolution, channels, generator, share=share)
    where = replace(places, numbers=places.numbers.cpu())
    density, features = (twin.gather(grid, where).to(places.numbers.device) for grid in grids)
    return density, features


def values_and_gradients(compute: Callable[..., list[Tensor]], inputs: list[Tensor]) -> list[Tensor]:
    """Results, and the gradients of a random linear function of them."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    results = [result for result in compute(*leaves) if result.is_floating_point()]
    draws = torch.Generator().manual_seed(7)
    slopes = [torch.randn(result.shape, generator=draws).to(result.device) for result in results]
    torch.autograd.backward(results, slopes)
    return results + [leaf.grad for leaf in leaves if leaf.grad is not None]


def assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        largest = float(b.detach().abs().amax()) if b.numel() else 0.0
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * max(1.0, largest))


def parts(result: ops.RayIntegral) -> list[Tensor]:
    return [result.features, result.opacity, result.distance, result.distortion]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [1, 28])
@pytest.mark.parametrize("resolution", SHAPES)
def test_the_march_agrees_with_the_twin(
    resolution: tuple[int, int, int], channels: int, device: str, generator: torch.Generator
) -> None:
    places = make_map(resolution, generator, device=device)
    pool, rays = make_pool(places, channels, generator), [ray.to(device) for ray in random_rays(60, generator)]
    near = 3 * torch.rand(60, generator=generator)
    near_far = torch.stack([near, near + 3 * torch.rand(60, generator=generator)], dim=-1).to(device)
    for limits in (None, near_far):
        ours, theirs = (
            values_and_gradients(
                lambda *leaves, integrate=integrate, limits=limits: parts(
                    integrate(*leaves, places, *rays, limits, MARCH)
                ),
                [*pool],
            )
            for integrate in (ops.integrate_rays_in_pool, twin.integrate_rays_in_pool)
        )
        assert_same(ours, theirs)


def test_the_march_gives_the_bits_of_the_dense_one(generator: torch.Generator) -> None:
    places = make_map((25, 16, 17), generator)
    pool, rays = make_pool(places, 5, generator, share=0.05), random_rays(200, generator)
    march = March(BOX, step=0.05, early_stop=1e-3)
    ours = parts(ops.integrate_rays_in_pool(*pool, places, *rays, None, march))
    dense = parts(ops.integrate_rays(*(twin.spread(part, places) for part in pool), *rays, None, march))
    for a, b in zip(ours, dense, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("share", [0.003, 0.4])
@pytest.mark.parametrize("resolution", [*SHAPES, (70, 33, 41)])
def test_the_occupancy_is_that_of_the_twin(
    resolution: tuple[int, int, int], share: float, device: str, generator: torch.Generator
) -> None:
    places = make_map(resolution, generator, device=device)
    density, _ = make_pool(places, 1, generator, share=share)
    ours, theirs = (build(density, places, 1.0) for build in (ops.build_pool_occupancy, twin.build_pool_occupancy))
    for name in ("numbers", "marks", "leaps"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=0, atol=0)


def test_the_gradient_is_that_of_finite_differences(generator: torch.Generator) -> None:
    places = make_map((17, 9, 12), generator)
    density, features = make_pool(places, 2, generator)
    density = torch.where(density > 0, density + 1, 0.0)  # away from the kink at zero
    rays = random_rays(20, generator)
    slopes = [torch.randn(20, 2, generator=generator), *(torch.randn(20, generator=generator) for _ in range(3))]

    def loss(values: Tensor, colors: Tensor) -> Tensor:
        results = parts(ops.integrate_rays_in_pool(values, colors, places, *rays, None, MARCH))
        return sum((result.double() * slope).sum() for result, slope in zip(results, slopes, strict=True))  # type: ignore[return-value]

    leaves = [density.clone().requires_grad_(), features.clone().requires_grad_()]
    loss(*leaves).backward()
    for number, leaf in enumerate(leaves):
        assert leaf.grad is not None
        way = torch.randn(leaf.shape, generator=generator) * (leaf.grad != 0)
        ahead, behind = (
            loss(*(part + sign * 1e-2 * way if n == number else part for n, part in enumerate((density, features))))
            for sign in (1, -1)
        )
        torch.testing.assert_close((ahead - behind) / 2e-2, (leaf.grad.double() * way).sum(), rtol=2e-2, atol=1e-2)


def test_buffers_receive_the_ordinary_gradient(generator: torch.Generator) -> None:
    places = make_map((19, 9, 12), generator)
    pool, rays = make_pool(places, 4, generator), random_rays(50, generator)
    buffers = FieldGradient(torch.zeros_like(pool[0]), torch.zeros_like(pool[1]))
    found = ops.build_pool_occupancy(pool[0], places)

    def integrate(*leaves: Tensor, **options) -> list[Tensor]:
        return parts(ops.integrate_rays_in_pool(*leaves, places, *rays, None, MARCH, occupancy=found, **options))

    *_, density, features = values_and_gradients(integrate, [*pool])
    assert len(values_and_gradients(lambda *leaves: integrate(*leaves, gradient=buffers), [*pool])) == 4
    assert torch.equal(buffers.density, density) and torch.equal(buffers.features, features)


def test_results_do_not_depend_on_the_number_of_threads(generator: torch.Generator) -> None:
    places = make_map((25, 19, 17), generator)
    pool, rays = make_pool(places, 3, generator), random_rays(900, generator)
    before, runs = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            runs.append(
                values_and_gradients(
                    lambda *leaves: parts(ops.integrate_rays_in_pool(*leaves, places, *rays, None, MARCH)), [*pool]
                )
            )
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("resolution", SHAPES)
def test_queries_agree_with_the_twin(resolution: tuple[int, int, int], device: str, generator: torch.Generator) -> None:
    places = make_map(resolution, generator, device=device)
    _, values = make_pool(places, 3, generator)
    lower, upper = torch.tensor(BOX[0]), torch.tensor(BOX[1])
    points = (lower + (torch.rand(200, 3, generator=generator) * 1.3 - 0.15) * (upper - lower)).to(device)
    ours, theirs = (
        values_and_gradients(lambda v, p, query=query: [query(v, places, p, BOX)], [values, points])
        for query in (ops.interpolate_pool, twin.interpolate_pool)
    )
    assert_same(ours, theirs)


@pytest.mark.parametrize("device", DEVICES)
def test_splats_agree_with_the_twin(device: str, generator: torch.Generator) -> None:
    places = make_map((19, 9, 12), generator, device=device)
    origins, directions = (ray.to(device) for ray in random_rays(40, generator))
    distances = 4 * torch.rand(40, 7, generator=generator).to(device)
    features, weights = torch.randn(40, 3, generator=generator), torch.rand(40, 7, generator=generator)
    values = torch.randn(40, 7, 2, generator=generator)

    def run(splat: Callable[..., ops.Splat], with_values: bool) -> list[Tensor]:
        def compute(f: Tensor, w: Tensor, *v: Tensor) -> list[Tensor]:
            made = splat(f, w, distances, origins, directions, BOX, places, values=v[0] if v else None)
            counts.append(made.counts)
            return [made.features, made.weights, *(() if made.values is None else (made.values,))]

        inputs = [features, weights, values] if with_values else [features, weights]
        return values_and_gradients(compute, [tensor.to(device) for tensor in inputs])

    for with_values in (True, False):
        counts: list[Tensor] = []
        assert_same(run(ops.splat_frustums_into_pool, with_values), run(twin.splat_frustums_into_pool, with_values))
        assert torch.equal(counts[0], counts[1]) and int(counts[0].sum()) > 0


def test_an_empty_pool_sees_nothing(generator: torch.Generator) -> None:
    places = make_map((19, 9, 12), generator, share=0.0)
    density, features = torch.zeros(0, 8, 8, 8), torch.zeros(0, 8, 8, 8, 3)
    rays = random_rays(10, generator)
    results = values_and_gradients(
        lambda *leaves: parts(ops.integrate_rays_in_pool(*leaves, places, *rays, None, MARCH)), [density, features]
    )
    assert not any(bool(part.any()) for part in results)
    points = torch.tensor(BOX[0]) + torch.rand(5, 3, generator=generator)
    assert not bool(ops.interpolate_pool(features, places, points, BOX).any())
    made = ops.splat_frustums_into_pool(torch.ones(10, 3), torch.ones(10, 2), torch.ones(10, 2), *rays, BOX, places)
    assert made.features.shape == (0, 8, 8, 8, 3) and made.counts.shape == (0, 8, 8, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"density": torch.zeros(2, 8, 8, 7)}, "density"),
        ({"features": torch.zeros(3, 8, 8, 8, 1)}, "features"),
        ({"places": PoolMap(torch.zeros(2, 2, 2).int(), (16, 8, 8), 2)}, "numbers must have the shape"),
        ({"places": PoolMap(torch.zeros(1, 2, 1).int(), (16, 8, 8), 2)}, "numbers must have"),
        ({"places": PoolMap.of(torch.tensor([[1, 0, 0]]), (16, 8, 8))}, "has 2 bricks, but the map is of a pool of 1"),
        ({"density": torch.zeros(3, 8, 8, 8), "features": torch.zeros(3, 8, 8, 8, 1)}, "has 3 bricks, but"),
    ],
)
def test_what_does_not_fit_together_is_refused(change: dict, message: str, generator: torch.Generator) -> None:
    places = PoolMap.of(torch.tensor([[0, 0, 0], [1, 0, 0]]), (16, 8, 8))
    whole = {"density": torch.zeros(2, 8, 8, 8), "features": torch.zeros(2, 8, 8, 8, 1), "places": places} | change
    with pytest.raises((ValueError, TypeCheckError), match=message):  # the type checker may be first
        ops.integrate_rays_in_pool(*whole.values(), *random_rays(3, generator), None, MARCH)
