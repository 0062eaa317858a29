# pyright: basic, reportInvalidTypeForm=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
# ruff: noqa: RUF046, UP018 -- int(0) tells Warp that a variable changes in a loop
"""Warp functions for walking rays cell by cell through nested grids, and for writing down the samples found.

A ray meets plane n of an axis at first + n * spacing: each such distance is computed on its own, so that a walk that
resumes somewhere finds the same cells as one that came from the beginning. What changes from cell to cell are plain
numbers: Warp copies structs and vectors around, which made the walk 8 times slower.
"""

import typing

import warp as wp

PARALLEL = wp.constant(1.0e30)  # where a ray meets the planes that it is parallel to
TINY = wp.constant(1.0e-30)  # components of a direction below it are zero: their inverse would overflow
FINEST = wp.constant(2.0**-22)  # of a distance: shorter steps are lost in its rounding
LONGEST = wp.constant(1.0e10)


@wp.struct
@typing.no_type_check
class Output:
    """Where the samples of one ray and the edges of their intervals go, if they are to be written at all."""

    fill: bool
    ray: wp.int64
    room: int
    edge_start: wp.int64
    sample_start: wp.int64
    edges: wp.array(dtype=float)
    edge_rays: wp.array(dtype=wp.int64)
    is_left: wp.array(dtype=wp.bool)
    is_right: wp.array(dtype=wp.bool)
    middles: wp.array(dtype=float)
    sample_rays: wp.array(dtype=wp.int64)
    is_valid: wp.array(dtype=wp.bool)


_WRITE_RUN = """
    float* __restrict edge = out.edges.data + out.edge_start + edges;
    int64_t* __restrict edge_ray = out.edge_rays.data + out.edge_start + edges;
    bool* __restrict left = out.is_left.data + out.edge_start + edges;
    bool* __restrict right = out.is_right.data + out.edge_start + edges;
    float* __restrict middle = out.middles.data + out.sample_start + samples;
    int64_t* __restrict sample_ray = out.sample_rays.data + out.sample_start + samples;
    bool* __restrict valid = out.is_valid.data + out.sample_start + samples;
    #if !defined(__CUDA_ARCH__)
    for (int i = 0; i < count; i += 8) {
        __builtin_prefetch(edge_ray + i, 1);
        __builtin_prefetch(sample_ray + i, 1);
        __builtin_prefetch(edge + i, 1);
        __builtin_prefetch(middle + i, 1);
    }
    #endif
    #pragma clang loop vectorize(enable)
    for (int i = 0; i <= count; ++i) {
        const float way = (float)(k + i) * step;
        edge[i] = anchor + way;
        edge_ray[i] = out.ray;
    }
    #pragma clang loop vectorize(enable)
    for (int i = 0; i < count; ++i) {
        const float a = (float)(k + i) * step, b = (float)(k + i + 1) * step;
        middle[i] = 0.5f * ((anchor + a) + (anchor + b));
        sample_ray[i] = out.ray;
    }
    for (int i = 0; i < count; ++i) left[i] = true;
    for (int i = 1; i <= count; ++i) right[i] = true;
    for (int i = 0; i < count; ++i) valid[i] = true;
"""


@wp.func_native(_WRITE_RUN)
@typing.no_type_check
def write_run(out: Output, edges: int, samples: int, anchor: float, step: float, k: int, count: int):
    """Writes ``count`` evenly spaced samples from the k-th on, behind so many edges and samples of the ray."""
    ...


@wp.func
@typing.no_type_check
def write_sample(out: Output, right: int, sample: int, start: float, end: float):
    """Writes one sample and its two edges, the second of which is the ray's edge ``right``."""
    edge = out.edge_start + wp.int64(right)
    out.edges[edge - wp.int64(1)] = start
    out.edge_rays[edge - wp.int64(1)] = out.ray
    out.is_left[edge - wp.int64(1)] = True
    out.edges[edge] = end
    out.edge_rays[edge] = out.ray
    out.is_right[edge] = True
    place = out.sample_start + wp.int64(sample)
    out.middles[place] = 0.5 * (start + end)
    out.sample_rays[place] = out.ray
    out.is_valid[place] = True


@wp.func
@typing.no_type_check
def edge_at(anchor: float, step: float, k: int) -> float:
    """Where sample k of evenly spaced ones begins."""
    return anchor + float(k) * step


@wp.func
@typing.no_type_check
def middle_at(anchor: float, step: float, k: int) -> float:
    """The middle of sample k of evenly spaced ones."""
    return 0.5 * (edge_at(anchor, step, k) + edge_at(anchor, step, k + 1))


@wp.func
@typing.no_type_check
def first_behind(t: float, anchor: float, step: float) -> int:
    """The first of evenly spaced samples whose middle does not lie before t."""
    k = int(wp.clamp((t - anchor) / step, 0.0, 16777216.0) + 0.5)
    while k > 0 and middle_at(anchor, step, k - 1) >= t:
        k -= 1
    while k < 1 << 24 and middle_at(anchor, step, k) < t:
        k += 1
    return k


@wp.func
@typing.no_type_check
def add_run(out: Output, edges: int, samples: int, anchor: float, step: float, k: int, end: int):
    """Adds evenly spaced samples from k to ``end`` - 1, as many as there is room for; returns the counts and k then."""
    count = wp.min(end - k, out.room - samples)
    if count <= 0:
        return edges, samples, k
    if out.fill:
        write_run(out, edges, samples, anchor, step, k, count)
    return edges + count + 1, samples + count, k + count


@wp.func
@typing.no_type_check
def step_at(t: float, step: float, cone: float) -> float:
    """How long the sample is that begins at t: it grows with t, and is never lost in its rounding."""
    return wp.max(wp.clamp(t * cone, step, LONGEST), FINEST * wp.abs(t))


@wp.func
@typing.no_type_check
def skip_to(start: float, t: float, step: float, cone: float) -> float:
    """Where samples go on if those from ``start`` whose middles lie before t are left out; the gap has equal steps."""
    if step <= 0.0:
        return wp.max(start, t)
    stride = step_at(start, step, cone)
    return start + wp.max(wp.ceil((t - start) / stride - 0.5), 0.0) * stride


@wp.func
@typing.no_type_check
def add_steps(out: Output, edges: int, samples: int, step: float, cone: float, start: float, end: float, joined: bool):
    """Adds the samples from ``start`` on whose middles lie before ``end``; without a step, the one that ends there.

    Returns the counts, the end of the last sample, and whether the next one adjoins it.
    """
    going = samples < out.room and start < end
    while going:
        stop = float(end)
        if step > 0.0:
            stride = step_at(start, step, cone)
            stop = start + stride
            going = start + 0.5 * stride < end
        if going:
            right = edges + wp.where(joined, 0, 1)
            if out.fill:
                write_sample(out, right, samples, start, stop)
            edges = right + 1
            samples += 1
            joined = True
            start = stop
            going = samples < out.room and start < end
    return edges, samples, start, joined


@wp.func
@typing.no_type_check
def is_ray(origin: wp.vec3, direction: wp.vec3) -> bool:
    """Whether all is finite and the direction is one."""
    size = wp.max(wp.abs(direction))
    return wp.isfinite(origin) and wp.isfinite(direction) and size > TINY


@wp.func
@typing.no_type_check
def enter_axis(origin: float, direction: float, lower: float, upper: float, size: int, t: float):
    """Where a ray is along an axis of a grid just behind t; outside, next to it.

    Returns the cell, the step to the next one (0 if the ray is parallel), the number of the plane in between, the
    distance to it, and ``first`` and ``spacing``, which give the distances to all planes.
    """
    width = (upper - lower) / float(size)
    place = (origin + t * direction - lower) / width
    cell = int(0)
    if place > 0.0:
        cell = int(wp.min(place, float(size - 1)))
    if wp.abs(direction) <= TINY:
        return cell, 0, 0, PARALLEL, PARALLEL, 0.0
    first = (lower - origin) / direction
    spacing = width / direction
    ahead = wp.where(direction > 0.0, 1, 0)
    step = 2 * ahead - 1
    # Rounding may have put the place on the wrong side of a plane.
    while cell + step >= 0 and cell + step < size and first + float(cell + ahead) * spacing <= t:
        cell += step
    while cell - step >= 0 and cell - step < size and first + float(cell + 1 - ahead) * spacing > t:
        cell -= step
    return cell, step, cell + ahead, first + float(cell + ahead) * spacing, first, spacing


@wp.func
@typing.no_type_check
def enclosing(inside: wp.uint64, event: wp.int64, grids: int) -> wp.uint64:
    """The set of grids that a ray is in, as bits, after it has entered (event < grids) or left one."""
    if event < wp.int64(0) or event >= wp.int64(2 * grids):
        return inside
    if event < wp.int64(grids):
        return inside | (wp.uint64(1) << wp.uint64(event))
    return inside & ~(wp.uint64(1) << wp.uint64(event - wp.int64(grids)))


@wp.func
@typing.no_type_check
def foremost(inside: wp.uint64, grids: int) -> int:
    """The first grid of a set, which hides the others; -1 if the set is empty."""
    for level in range(grids):
        if ((inside >> wp.uint64(level)) & wp.uint64(1)) != wp.uint64(0):
            return level
    return -1
