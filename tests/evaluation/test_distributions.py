"""Distances of sets in closed form, and overlaps counted by hand."""

import math

import pytest
import torch

from nfldm3d.evaluation.distributions import (
    frechet_distance,
    intersection_over_union,
    kernel_distance,
    measure_coverage,
)


def cloud(count: int, shift: float, spread: float, generator: torch.Generator, dimensions: int = 4) -> torch.Tensor:
    return shift + spread * torch.randn(count, dimensions, generator=generator)


def test_frechet_distance_of_gaussians(generator: torch.Generator) -> None:
    """Of isotropic ones: the squared shift plus the squared difference of deviations, per dimension."""
    a, b = cloud(50_000, 0.0, 1.0, generator), cloud(50_000, 0.5, 3.0, generator)
    assert float(frechet_distance(a, b)) == pytest.approx(4 * (0.25 + 4.0), rel=0.03)
    assert float(frechet_distance(a, a)) == pytest.approx(0, abs=1e-6)
    assert float(frechet_distance(a, b)) == pytest.approx(float(frechet_distance(b, a)), rel=1e-6)


def test_frechet_distance_sees_correlations(generator: torch.Generator) -> None:
    a = cloud(20_000, 0.0, 1.0, generator, 2)
    turned = a @ torch.tensor([[math.cos(0.7), -math.sin(0.7)], [math.sin(0.7), math.cos(0.7)]])
    stretched = a * torch.tensor([3.0, 1.0])
    assert float(frechet_distance(a, turned)) < 0.01
    assert float(frechet_distance(stretched, stretched.flip(-1))) == pytest.approx(8.0, rel=0.05)  # (3 - 1)^2 twice


def test_frechet_distance_needs_pictures(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="of 4 features needs more than as many pictures, got 4; render more"):
        frechet_distance(cloud(4, 0.0, 1.0, generator), cloud(40, 0.0, 1.0, generator))


def test_kernel_distance_is_unbiased(generator: torch.Generator) -> None:
    a, b = cloud(2000, 0.0, 1.0, generator), cloud(2000, 0.0, 1.0, generator)
    same = float(kernel_distance(a, b, generator=generator))
    other = float(kernel_distance(a, b + 0.5, generator=generator))
    assert abs(same) < 0.01 < 0.1 < other
    with pytest.raises(ValueError, match="at least two pictures"):
        kernel_distance(a[:1], b)


def test_coverage_of_halves(generator: torch.Generator) -> None:
    """Real pictures in two far clusters, made ones in the first and in a third that is not real."""
    left, right, elsewhere = (cloud(200, shift, 0.1, generator) for shift in (0.0, 10.0, -10.0))
    real = torch.cat((left, right))
    again = cloud(200, 0.0, 0.1, generator)
    found = measure_coverage(torch.cat((again, elsewhere)), real)
    assert found.precision == pytest.approx(0.5, abs=0.03) and found.recall == pytest.approx(0.5, abs=0.06)
    assert found.coverage == pytest.approx(0.5, abs=0.05) and found.density == pytest.approx(0.5, abs=0.1)
    whole = measure_coverage(real, real)
    assert whole.precision == whole.recall == whole.coverage == 1
    with pytest.raises(ValueError, match="5 neighbours need as many pictures of other scenes, got 5 pictures"):
        measure_coverage(left[:5], real)


def test_views_of_the_same_scene_are_no_neighbours(generator: torch.Generator) -> None:
    real, places = cloud(100, 0.0, 1.0, generator), cloud(100, 0.0, 1.0, generator)
    views, scenes = places.repeat_interleave(8, 0), torch.arange(100).repeat_interleave(8)
    views = views + cloud(800, 0.0, 1e-3, generator)  # all but the same picture eight times
    once = measure_coverage(places, real).recall
    assert measure_coverage(views, real).recall < 0.1 < once
    assert measure_coverage(views, real, 5 * 8, made_scenes=scenes).recall == pytest.approx(once, abs=0.02)
    with pytest.raises(ValueError, match="of which 8 are of one"):
        measure_coverage(views[:8], real, made_scenes=scenes[:8])


def test_overlap_of_classes() -> None:
    true = torch.tensor([[[0, 0, 1], [1, 2, 9]]])
    found = torch.tensor([[[0, 1, 1], [1, 0, 0]]])
    overlap = intersection_over_union(found, true, 4)
    assert overlap[:3].tolist() == pytest.approx([1 / 3, 2 / 3, 0.0]) and math.isnan(float(overlap[3]))
