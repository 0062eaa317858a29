"""Searching sorted rows, and importance sampling along rays: new samples where a distribution rises most."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nfldm3d.ops.checks import require
from nfldm3d.ops.launch import launch


@dataclass(frozen=True)
class Rows:
    """Numbers in rows of different lengths, one after the other: row n has ``counts[n]`` from ``starts[n]`` on."""

    values: Float[Tensor, " n"]
    starts: Int64[Tensor, " rows"]
    counts: Int64[Tensor, " rows"]


def search_rows(
    queries: Float[Tensor, " queries"], rows_of_queries: Int64[Tensor, " queries"], rows: Rows, *, relative: bool
) -> tuple[Int64[Tensor, " queries"], Int64[Tensor, " queries"]]:
    """Where values[left] <= query < values[right] within the query's row; outside, the row's first or last two.

    ``relative`` counts from the row's start. Queries whose row is empty or does not exist get zeros.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
    """
    from nfldm3d.ops import resampling_kernels as kernels

    device = queries.device
    require("the queries' vals", queries, ("queries",), device, torch.float32)
    require("the queries' ray_indices", rows_of_queries, (len(queries),), device, torch.int64)
    _check_rows(rows, device)
    lefts, rights = torch.zeros_like(rows_of_queries), torch.zeros_like(rows_of_queries)
    inputs = [t.contiguous() for t in (queries, rows_of_queries, rows.values, rows.starts, rows.counts)]
    launch(kernels.search_rows, len(queries), [*inputs, relative, lefts, rights], device)
    return lefts, rights


def sample_rows(
    positions: Rows,
    distribution: Float[Tensor, " n"],
    counts: Int64[Tensor, " rows"],
    shifts: Float[Tensor, " rows"],
) -> tuple[Rows, Rows]:
    """Draws ``counts`` samples of each row, and the edges of their intervals (one more), from its distribution.

    The distribution is given at the positions, ascending and linear in between; sample i lies where it has risen by
    (i + shift) / count of its whole rise. Rows without positions get zeros.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
    """
    from nfldm3d.ops import resampling_kernels as kernels

    device, rows = positions.values.device, len(positions.starts)
    _check_rows(positions, device)
    require("cdfs", distribution, (len(positions.values),), device, torch.float32)
    require("n_intervals_per_ray", counts, (rows,), device, torch.int64)
    require("shifts", shifts, (rows,), device, torch.float32)
    samples, edges = _allocate(counts), _allocate(counts + (counts > 0))
    inputs = [positions.values, distribution, positions.starts, positions.counts, shifts]
    outputs = [samples.starts, samples.counts, edges.starts, samples.values, edges.values]
    launch(kernels.sample_rows, rows, [*(t.contiguous() for t in inputs), *outputs], device, grain=64)
    return samples, edges


def _allocate(counts: Int64[Tensor, " rows"]) -> Rows:
    """Rows of zeros."""
    ends = counts.cumsum(0)
    size = int(ends[-1]) if len(counts) > 0 else 0
    return Rows(torch.zeros(size, device=counts.device), ends - counts, counts.contiguous())


def _check_rows(rows: Rows, device: torch.device) -> None:
    require("vals", rows.values, ("n",), device, torch.float32)
    require("chunk_starts", rows.starts, ("rows",), device, torch.int64)
    require("chunk_cnts", rows.counts, (len(rows.starts),), device, torch.int64)
