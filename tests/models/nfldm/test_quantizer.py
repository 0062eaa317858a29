"""Codes: the nearest, transparent to gradients, following the data, none idle, always the same."""

import math

import pytest
import torch
from torch import Tensor

from nfldm3d.models.nfldm.quantizer import ResidualQuantizer, VectorQuantizer, perplexity

CENTERS = torch.tensor([[4.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, -3.0], [-4.0, -4.0, 2.0]])


def filled(codes: int, dimensions: int, generator: torch.Generator) -> VectorQuantizer:
    quantizer = VectorQuantizer(codes, dimensions).eval()
    quantizer.codebook.copy_(torch.randn(codes, dimensions, generator=generator))
    return quantizer


def clusters(count: int, generator: torch.Generator, spread: float = 0.1) -> Tensor:
    """Points around the centers, as many around each."""
    return CENTERS[torch.arange(count) % 4] + spread * torch.randn(count, 3, generator=generator)


def test_the_nearest_code_is_taken(generator: torch.Generator) -> None:
    quantizer, vectors = filled(17, 3, generator), torch.randn(2, 5, 7, 3, generator=generator)
    result = quantizer(vectors)
    assert result.values.shape == vectors.shape and result.indices.shape == (2, 5, 7)
    assert torch.equal(result.indices, torch.cdist(vectors, quantizer.codebook[None]).argmin(-1))
    assert torch.allclose(result.values, quantizer.codebook[result.indices], atol=1e-6)
    assert float(result.commitment) == pytest.approx(float((vectors - result.values).square().mean()), rel=1e-5)


def test_half_precision_does_not_change_the_choice(generator: torch.Generator) -> None:
    quantizer, vectors = filled(500, 4, generator), torch.randn(300, 4, generator=generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(quantizer(vectors).indices, quantizer(vectors.clone()).indices)
        chosen = quantizer(vectors).indices
    assert torch.equal(chosen, quantizer(vectors).indices)


def test_gradients_pass_straight_through(generator: torch.Generator) -> None:
    quantizer = filled(6, 3, generator)
    vectors = torch.randn(8, 3, generator=generator, requires_grad=True)
    weight = torch.randn(8, 3, generator=generator)
    (through,) = torch.autograd.grad((quantizer(vectors).values * weight).sum(), vectors)
    assert torch.equal(through, weight)
    (pull,) = torch.autograd.grad(quantizer(vectors).commitment, vectors)
    codes = quantizer.codebook[quantizer(vectors).indices]
    assert torch.allclose(pull, 2 * (vectors.detach() - codes) / vectors.numel(), atol=1e-6)


def test_codes_find_the_middles_of_clusters(generator: torch.Generator) -> None:
    quantizer = VectorQuantizer(8, 3, decay=0.9).train()
    for _ in range(120):
        quantizer(clusters(200, generator))
    nearest = torch.cdist(CENTERS, quantizer.codebook).amin(1)
    assert float(nearest.max()) < 0.15
    result = quantizer.eval()(clusters(2000, generator))
    assert float(result.commitment) < 0.1**2 * 1.1  # no worse than one code for each cluster
    assert len(result.indices.unique()) == 8


def test_codes_are_means_of_their_vectors_in_the_end(generator: torch.Generator) -> None:
    vectors, quantizer = clusters(64, generator), VectorQuantizer(4, 3, decay=0.5).train()
    for _ in range(60):
        quantizer(vectors)
    indices = quantizer.eval()(vectors).indices
    for code in indices.unique():
        assert torch.allclose(quantizer.codebook[code], vectors[indices == code].mean(0), atol=1e-3)


def test_values_are_the_codes_that_were_nearest(generator: torch.Generator) -> None:
    """Even where a code that is used moves away in the same step because it is used too seldom."""
    quantizer = VectorQuantizer(3, 1, decay=0.5).train()
    quantizer.steps += 1
    quantizer.codebook.copy_(torch.tensor([[0.0], [10.0], [1000.0]]))
    quantizer.usage.copy_(torch.tensor([100.0, 100.0, 0.01]))
    quantizer.sums.copy_(quantizer.codebook * quantizer.usage[:, None])
    vectors = torch.cat((torch.zeros(500, 1), torch.full((500, 1), 10.0), torch.full((1, 1), 990.0)))
    result = quantizer(vectors)
    assert float(quantizer.codebook[2]) in (0.0, 10.0)  # it has moved
    assert float(result.values[-1]) == 1000.0 and int(result.indices[-1]) == 2


def test_idle_codes_come_to_the_data(generator: torch.Generator) -> None:
    quantizer = VectorQuantizer(16, 3, decay=0.9).train()
    quantizer(clusters(200, generator))
    quantizer.codebook[5:] = 1e3
    quantizer.sums[5:] = 1e3 * quantizer.usage[5:, None]
    for _ in range(80):
        quantizer(clusters(200, generator))
    assert float(quantizer.codebook.abs().max()) < 6
    assert len(quantizer.eval()(clusters(2000, generator)).indices.unique()) >= 15


def test_fewer_vectors_than_codes(generator: torch.Generator) -> None:
    quantizer, vectors = VectorQuantizer(10, 3).train(), torch.randn(4, 3, generator=generator)
    result = quantizer(vectors)
    assert torch.allclose(result.values, vectors, atol=1e-5) and bool(torch.isfinite(quantizer.codebook).all())


def test_training_is_repeatable_and_goes_on_from_its_state() -> None:
    def run(quantizer: VectorQuantizer, batches: range) -> VectorQuantizer:
        for number in batches:
            quantizer.train()(clusters(50, torch.Generator().manual_seed(number)))
        return quantizer

    straight, half = run(VectorQuantizer(12, 3), range(10)), run(VectorQuantizer(12, 3), range(5))
    resumed = VectorQuantizer(12, 3)
    resumed.load_state_dict(half.state_dict())
    torch.rand(3)  # the global generator has no say
    run(resumed, range(5, 10))
    for name, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert int(resumed.steps) == 10


def test_judging_changes_nothing(generator: torch.Generator) -> None:
    quantizer = filled(6, 3, generator)
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer(torch.randn(9, 3, generator=generator))
    assert all(torch.equal(before[name], value) for name, value in quantizer.state_dict().items())


def test_perplexity_is_the_number_of_equally_likely_codes() -> None:
    assert perplexity(torch.arange(12).repeat(3).view(4, 9), 20) == pytest.approx(12, rel=1e-5)
    assert perplexity(torch.full((7,), 3), 20) == pytest.approx(1)
    skewed = perplexity(torch.tensor([0, 0, 0, 1]), 2)
    assert skewed == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)), rel=1e-5)


def test_each_list_of_codes_stands_for_what_the_ones_before_leave(generator: torch.Generator) -> None:
    quantizer = ResidualQuantizer(5, 3, 2).eval()
    first, second = quantizer.stages
    for stage, size in ((first, 1.0), (second, 0.2)):
        stage.codebook.copy_(size * torch.randn(5, 3, generator=generator))
    vectors = torch.randn(4, 7, 3, generator=generator)
    result = quantizer(vectors)
    rough = first(vectors).values
    assert torch.allclose(result.values, rough + second(vectors - rough).values, atol=1e-6)
    assert result.indices.shape == (4, 7, 2) and bool((result.indices[..., 1] >= 5).all())
    assert len(quantizer.usage) == 10 and int(result.indices.max()) < 10
    with pytest.raises(ValueError, match="at least 1 stage, got 0"):
        ResidualQuantizer(5, 3, 0)


def test_two_lists_of_codes_lose_less_than_one(generator: torch.Generator) -> None:
    one, two = VectorQuantizer(16, 3, decay=0.9).train(), ResidualQuantizer(8, 3, 2).train()
    for stage in two.stages:
        stage.decay = 0.9
    for _ in range(60):
        vectors = torch.randn(300, 3, generator=generator)
        one(vectors), two(vectors)
    vectors = torch.randn(2000, 3, generator=generator)
    lost = [float((quantizer.eval()(vectors).values - vectors).square().mean()) for quantizer in (one, two)]
    assert lost[1] < 0.8 * lost[0]


def test_gradients_pass_straight_through_all_lists(generator: torch.Generator) -> None:
    quantizer = ResidualQuantizer(6, 3, 3)
    vectors = torch.randn(8, 3, generator=generator, requires_grad=True)
    (through,) = torch.autograd.grad(quantizer(vectors).values.sum(), vectors)
    assert torch.equal(through, torch.ones_like(vectors))
    (pull,) = torch.autograd.grad(quantizer.eval()(vectors).commitment, vectors)
    assert bool(pull.any()) and pull.grad_fn is None
