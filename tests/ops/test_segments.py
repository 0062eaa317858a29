"""Running sums and products of packed segments, against torch's on each segment; gradients, zeros and bad segments."""

import pytest
import torch
from torch import Tensor

from nfldm3d.ops.segments import running_product, running_product_adjoint, running_sum

COUNTS = torch.tensor([0, 3, 1, 0, 0, 17, 4, 5, 8, 0, 64, 2, 0])
STARTS = COUNTS.cumsum(0) - COUNTS


def packed(generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(int(COUNTS.sum()), generator=generator, dtype=torch.float64).to(dtype)


def by_segment(values: Tensor, *, product: bool, exclusive: bool, reverse: bool = False) -> Tensor:
    """The same with torch's cumsum and cumprod, which autograd knows."""
    found = []
    for part in values.split(COUNTS.tolist()):
        part = part.flip(0) if reverse else part
        if exclusive:
            neutral = torch.full_like(part[:1], float(product))
            part = torch.cat((neutral, part[:-1]))
        part = part.cumprod(0) if product else part.cumsum(0)
        found.append(part.flip(0) if reverse else part)
    return torch.cat(found)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("exclusive", [False, True])
def test_sums(generator: torch.Generator, exclusive: bool, reverse: bool, dtype: torch.dtype) -> None:
    values = packed(generator, dtype)
    expected = by_segment(values, product=False, exclusive=exclusive, reverse=reverse)
    found = running_sum(values, STARTS, COUNTS, exclusive=exclusive, reverse=reverse)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("exclusive", [False, True])
def test_reversed_sums_are_the_gradient(generator: torch.Generator, exclusive: bool) -> None:
    values, weights = packed(generator).requires_grad_(), packed(generator)
    (by_segment(values, product=False, exclusive=exclusive) * weights).sum().backward()
    found = running_sum(weights, STARTS, COUNTS, exclusive=exclusive, reverse=True)
    torch.testing.assert_close(found, values.grad)


@pytest.mark.parametrize("exclusive", [False, True])
def test_normalized_sums_end_in_one(generator: torch.Generator, exclusive: bool) -> None:
    values = packed(generator).abs()
    sums = running_sum(values, STARTS, COUNTS, exclusive=exclusive, normalize=True)
    last = (STARTS + COUNTS - 1)[COUNTS > 0]
    ends = sums[last] + (values[last] / by_segment(values, product=False, exclusive=False)[last] if exclusive else 0)
    torch.testing.assert_close(ends, torch.ones_like(ends))
    nothing = running_sum(torch.zeros_like(values), STARTS, COUNTS, exclusive=exclusive, normalize=True)
    assert not nothing.any()


@pytest.mark.parametrize("zeros", [0, 1, 2])
@pytest.mark.parametrize("exclusive", [False, True])
def test_products_and_their_gradient(generator: torch.Generator, exclusive: bool, zeros: int) -> None:
    values, weights = packed(generator), packed(generator)
    for place in range(zeros):
        values[STARTS[COUNTS > 1] + place] = 0.0
    values.requires_grad_()
    expected = by_segment(values, product=True, exclusive=exclusive)
    (expected * weights).sum().backward()
    found = running_product(values, STARTS, COUNTS, exclusive=exclusive)
    torch.testing.assert_close(found, expected.detach())
    gradient = running_product_adjoint(values, STARTS, COUNTS, weights, exclusive=exclusive)
    torch.testing.assert_close(gradient, values.grad)


def test_long_sums_and_products_stay_exact(generator: torch.Generator) -> None:
    values = torch.rand(1_000_003, generator=generator)
    start, count = torch.zeros(1, dtype=torch.int64), torch.tensor([len(values)])
    torch.testing.assert_close(running_sum(values, start, count), values.double().cumsum(0).float(), rtol=1e-7, atol=0)
    near_one = 1 - values / 1e6
    product = near_one.double().cumprod(0).float()
    torch.testing.assert_close(running_product(near_one, start, count), product, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(generator: torch.Generator, dtype: torch.dtype) -> None:
    values = packed(generator, dtype)
    expected = by_segment(values.float(), product=False, exclusive=False).to(dtype)
    assert torch.equal(running_sum(values, STARTS, COUNTS), expected)
    assert running_product(values, STARTS, COUNTS).dtype == dtype
    assert running_product_adjoint(values, STARTS, COUNTS, values).dtype == dtype


def test_gaps_orders_and_layouts(generator: torch.Generator) -> None:
    values = torch.rand(20, 2, generator=generator)[:, 0]  # not contiguous
    places = torch.tensor([[12, 5], [2, 3]])
    sums = running_sum(values, *places.unbind(-1))
    assert torch.equal(sums[12:17], values[12:17].double().cumsum(0).float())
    assert torch.equal(sums[2:5], values[2:5].double().cumsum(0).float())
    assert not sums[:2].any() and not sums[5:12].any() and not sums[17:].any()


def test_results_do_not_depend_on_threads(generator: torch.Generator) -> None:
    counts = torch.randint(0, 40, (3000,), generator=generator)
    starts = counts.cumsum(0) - counts
    values = torch.randn(int(counts.sum()), generator=generator)
    threads = torch.get_num_threads()

    def everything() -> list[Tensor]:
        return [
            running_sum(values, starts, counts),
            running_product(values, starts, counts, exclusive=True),
            running_product_adjoint(values, starts, counts, values),
        ]

    first = everything()
    torch.set_num_threads(1)
    try:
        second = everything()
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_nothing_has_no_sums() -> None:
    nothing, nowhere = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    assert len(running_sum(nothing, nowhere, nowhere)) == 0
    assert len(running_sum(nothing, STARTS * 0, COUNTS * 0)) == 0
    assert torch.equal(running_sum(torch.ones(3), nowhere, nowhere), torch.zeros(3))


@pytest.mark.parametrize(("start", "count"), [(-1, 2), (4, 2), (0, 6), (2, -1), (6, 1)])
def test_segments_beyond_the_vector_are_refused(start: int, count: int) -> None:
    with pytest.raises(ValueError, match="packed_info must describe segments of the 5 inputs"):
        running_sum(torch.ones(5), torch.tensor([0, start]), torch.tensor([1, count]))


def test_misfits_are_named() -> None:
    ones, places = torch.ones(5), torch.tensor([0])
    with pytest.raises(ValueError, match="inputs must be .*, got torch.float8"):
        running_sum(ones.to(torch.float8_e5m2), places, places)
    with pytest.raises(ValueError, match="chunk_starts is on meta"):
        running_sum(ones, places.to("meta"), places)
    with pytest.raises(ValueError, match="grad_outputs must be torch.float32"):
        running_product_adjoint(ones, places, places, ones.double())


@pytest.mark.cuda
def test_cuda_agrees(generator: torch.Generator) -> None:
    values, moved = packed(generator, torch.float32), [STARTS.cuda(), COUNTS.cuda()]
    for exclusive in (False, True):
        for here, there in (
            (
                running_sum(values, STARTS, COUNTS, exclusive=exclusive),
                running_sum(values.cuda(), *moved, exclusive=exclusive),
            ),
            (
                running_product_adjoint(values, STARTS, COUNTS, values, exclusive=exclusive),
                running_product_adjoint(values.cuda(), *moved, values.cuda(), exclusive=exclusive),
            ),
        ):
            torch.testing.assert_close(there.cpu(), here)
