"""Search in rows against torch.searchsorted; samples against numpy's interpolation of the inverse distribution."""

import numpy as np
import pytest
import torch

from nfldm3d.ops.resampling import Rows, sample_rows, search_rows

COUNTS = torch.tensor([4, 0, 1, 9, 2, 0])
STARTS = COUNTS.cumsum(0) - COUNTS


def sorted_rows(generator: torch.Generator) -> Rows:
    values = torch.cat([torch.rand(int(n), generator=generator).sort()[0] for n in COUNTS])
    return Rows(values, STARTS, COUNTS)


@pytest.mark.parametrize("relative", [False, True])
def test_neighbours_enclose_the_query(generator: torch.Generator, relative: bool) -> None:
    rows = sorted_rows(generator)
    queries = torch.cat((torch.rand(200, generator=generator) * 1.2 - 0.1, rows.values))
    owners = torch.randint(0, 6, (len(queries),), generator=generator)
    lefts, rights = search_rows(queries, owners, rows, relative=relative)
    for query, row, left, right in zip(queries, owners.tolist(), lefts.tolist(), rights.tolist(), strict=True):
        start, count = int(STARTS[row]), int(COUNTS[row])
        if count == 0:
            assert left == right == 0
            continue
        row_values = rows.values[start : start + count]
        expected = int(torch.searchsorted(row_values, query, right=True))
        base = 0 if relative else start
        assert right - base == min(max(expected, 1), count - 1)
        assert left - base == max(right - base - 1, 0)


def test_queries_of_no_row_get_zeros(generator: torch.Generator) -> None:
    rows = sorted_rows(generator)
    for found in search_rows(torch.ones(3), torch.tensor([-1, 6, 10**12]), rows, relative=False):
        assert not found.any()


def test_samples_invert_the_distribution(generator: torch.Generator) -> None:
    positions, distribution = sorted_rows(generator), sorted_rows(generator).values
    wanted, shifts = torch.tensor([5, 0, 3, 20, 1, 0]), torch.rand(6, generator=generator)
    samples, edges = sample_rows(positions, distribution, wanted, shifts)
    assert samples.counts.tolist() == [5, 0, 3, 20, 1, 0] and edges.counts.tolist() == [6, 0, 4, 21, 2, 0]
    for row in (0, 2, 3, 4):
        own = slice(int(STARTS[row]), int(STARTS[row] + COUNTS[row]))
        t, cdf = positions.values[own].double().numpy(), distribution[own].double().numpy()
        count = int(wanted[row])
        levels = cdf[0] + (np.arange(count) + float(shifts[row])) / count * (cdf[-1] - cdf[0])
        expected = np.interp(levels, cdf, t)
        first = int(samples.starts[row])
        np.testing.assert_allclose(samples.values[first : first + count], expected, atol=1e-5)
        edge = edges.values[int(edges.starts[row]) :][: count + 1].numpy()
        if count == 1:
            np.testing.assert_allclose(edge, t[[0, -1]])
            continue
        np.testing.assert_allclose(edge[1:-1], (expected[1:] + expected[:-1]) / 2, atol=1e-5)
        assert edge[0] == pytest.approx(max(1.5 * expected[0] - 0.5 * expected[1], t[0]), abs=1e-5)
        assert edge[-1] == pytest.approx(min(1.5 * expected[-1] - 0.5 * expected[-2], t[-1]), abs=1e-5)


def test_a_flat_distribution_and_rows_without_positions() -> None:
    rows = Rows(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 3]), torch.tensor([3, 0]))
    samples, edges = sample_rows(rows, torch.full((3,), 0.5), torch.tensor([2, 2]), torch.full((2,), 0.5))
    assert bool((samples.values[:2] >= 1).all() and (samples.values[:2] <= 4).all())
    assert not samples.values[2:].any() and not edges.values[3:].any()


def test_broken_numbers_are_survived(generator: torch.Generator) -> None:
    rows = sorted_rows(generator)
    broken = torch.full_like(rows.values, torch.nan)
    wanted = torch.full((6,), 4)
    sample_rows(rows, broken, wanted, torch.full((6,), torch.nan))
    outside = Rows(rows.values, STARTS + 100, COUNTS)
    assert not sample_rows(outside, rows.values, wanted, torch.zeros(6))[0].values.any()
    assert not search_rows(torch.ones(3), torch.tensor([0, 2, 3]), outside, relative=False)[0].any()


def test_misfits_are_named(generator: torch.Generator) -> None:
    rows = sorted_rows(generator)
    with pytest.raises(ValueError, match="vals must be torch.float32"):
        search_rows(torch.ones(1), torch.tensor([0]), Rows(rows.values.double(), STARTS, COUNTS), relative=False)
    with pytest.raises(ValueError, match="ray_indices is on meta"):
        search_rows(torch.ones(1), torch.zeros(1, dtype=torch.int64, device="meta"), rows, relative=False)
    with pytest.raises(ValueError, match="cdfs must be torch.float32"):
        sample_rows(rows, rows.values.double(), COUNTS, torch.zeros(6))


@pytest.mark.cuda
def test_cuda_agrees(generator: torch.Generator) -> None:
    rows, distribution = sorted_rows(generator), sorted_rows(generator).values
    wanted, shifts = torch.tensor([5, 0, 3, 20, 1, 0]), torch.rand(6, generator=generator)
    moved = Rows(*(t.cuda() for t in vars(rows).values()))
    here = sample_rows(rows, distribution, wanted, shifts)
    there = sample_rows(moved, distribution.cuda(), wanted.cuda(), shifts.cuda())
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(b.values.cpu(), a.values)
