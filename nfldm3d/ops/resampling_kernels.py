# pyright: basic, reportInvalidTypeForm=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
"""Warp kernels that search sorted rows and draw samples from piecewise linear distributions along rays."""

import typing

import warp as wp

wp.set_module_options({"enable_backward": False})

FLAT = wp.constant(1.0e-10)  # a rise of the distribution below it is none


@wp.func
@typing.no_type_check
def is_row(start: wp.int64, count: wp.int64, size: int) -> bool:
    """Whether a row lies within a vector of this size, and is not empty."""
    return start >= wp.int64(0) and count > wp.int64(0) and count <= wp.int64(size) - start


@wp.kernel(grid_stride=False)
@typing.no_type_check
def search_rows(
    offset: int,
    queries: wp.array(dtype=float),
    rows: wp.array(dtype=wp.int64),
    values: wp.array(dtype=float),
    starts: wp.array(dtype=wp.int64),
    counts: wp.array(dtype=wp.int64),
    relative: bool,
    lefts: wp.array(dtype=wp.int64),
    rights: wp.array(dtype=wp.int64),
):
    """The neighbours of query ``offset`` + tid in its row, or its outer two; ``relative`` to the row's start."""
    index = offset + wp.tid()
    row = int(rows[index])
    if row < 0 or row >= starts.shape[0]:
        return
    start = starts[row]
    if not is_row(start, counts[row], values.shape[0]):
        return
    query = queries[index]
    low = start
    high = start + counts[row] - wp.int64(1)
    last = high
    while low < high:
        middle = low + ((high - low) >> wp.int64(1))
        if values[middle] > query:
            high = middle
        else:
            low = middle + wp.int64(1)
    base = wp.where(relative, start, wp.int64(0))
    right = wp.min(wp.max(low, start + wp.int64(1)), last)
    lefts[index] = wp.max(right - wp.int64(1), start) - base
    rights[index] = right - base


@wp.kernel(grid_stride=False)
@typing.no_type_check
def sample_rows(
    offset: int,
    positions: wp.array(dtype=float),
    distribution: wp.array(dtype=float),
    starts: wp.array(dtype=wp.int64),
    counts: wp.array(dtype=wp.int64),
    shifts: wp.array(dtype=float),
    sample_starts: wp.array(dtype=wp.int64),
    sample_counts: wp.array(dtype=wp.int64),
    edge_starts: wp.array(dtype=wp.int64),
    samples: wp.array(dtype=float),
    edges: wp.array(dtype=float),
):
    """Inverts the distribution of ray ``offset`` + tid at evenly spaced values; edges lie halfway between samples.

    The outer edges are as far from their sample as the inner ones, but not beyond the ray's first and last position. A
    single sample stands for the whole ray. Rays without positions get zeros.
    """
    ray = offset + wp.tid()
    start = starts[ray]
    count = sample_counts[ray]
    if count <= wp.int64(0) or not is_row(start, counts[ray], positions.shape[0]):
        return
    last = start + counts[ray] - wp.int64(1)
    floor = distribution[start]
    rise = (distribution[last] - floor) / float(count)
    shift = shifts[ray]
    here = start  # the first place whose value is larger
    before = float(0.0)
    first = sample_starts[ray]
    edge = edge_starts[ray]
    for i in range(int(count)):
        value = floor + (float(i) + shift) * rise
        while here < last and not (distribution[here] > value):
            here += wp.int64(1)
        lower = wp.max(here - wp.int64(1), start)
        begin, end = positions[lower], positions[here]
        slope = distribution[here] - distribution[lower]
        t = 0.5 * (begin + end)
        if slope >= FLAT:
            t = begin + (value - distribution[lower]) * ((end - begin) / slope)
        samples[first + wp.int64(i)] = t
        if i == 1:
            edges[edge] = wp.max(before - 0.5 * (t - before), positions[start])
        if i > 0:
            edges[edge + wp.int64(i)] = 0.5 * (before + t)
        if i == int(count) - 1:
            edges[edge + count] = wp.min(t + 0.5 * (t - before), positions[last])
        before = t
    if count == wp.int64(1):
        edges[edge] = positions[start]
        edges[edge + wp.int64(1)] = positions[last]
