# pyright: basic, reportInvalidTypeForm=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
# ruff: noqa: SIM, UP, RUF046 -- Warp compiles plain loops and branches; int(0) tells it that a variable changes
"""Warp functions for walking rays cell by cell through nested grids, and for writing down the samples found.

A ray meets plane n of an axis at ``first[axis] + n * spacing[axis]``: each such distance is computed on its own, so
that a walk that resumes somewhere finds the same cells as one that came from the beginning.
"""

import typing

import warp as wp

PARALLEL = wp.constant(1.0e30)  # where a ray meets the planes that it is parallel to
TINY = wp.constant(1.0e-30)  # components of a direction below it are zero: their inverse would overflow
FINEST = wp.constant(2.0**-22)  # of a distance: shorter steps are lost in its rounding
LONGEST = wp.constant(1.0e10)


@wp.struct
@typing.no_type_check
class Cell:
    """Where a walk is: a cell of a grid, and where the ray leaves it along each axis."""

    index: wp.vec3i
    step: wp.vec3i
    first: wp.vec3
    spacing: wp.vec3
    ahead: wp.vec3
    inside: bool


@wp.struct
@typing.no_type_check
class Samples:
    """Where a walk's findings go: edges of intervals and the samples between them; ``rays`` say whose they are."""

    edges: wp.array(dtype=float)
    edge_rays: wp.array(dtype=wp.int64)
    is_left: wp.array(dtype=wp.bool)
    is_right: wp.array(dtype=wp.bool)
    middles: wp.array(dtype=float)
    rays: wp.array(dtype=wp.int64)
    is_valid: wp.array(dtype=wp.bool)


@wp.struct
@typing.no_type_check
class Walk:
    """A walk along one ray: how it steps, where its findings go, and how far it has come."""

    anchor: float  # sample k of evenly spaced ones begins at anchor + k * step
    step: float
    cone: float
    fill: bool
    ray: wp.int64
    first_edge: wp.int64
    first_sample: wp.int64
    room: int
    edge_room: int
    samples: int
    edges: int
    t: float  # evenly: the end of the last cell seen; else: of the last sample or gap
    joined: bool  # evenly: samples from k on wait for the end of their run; else: the next sample adjoins the last one
    k: int


# Product and sum are rounded on their own, as in ``edge_at``: the middle that is written decided about the cell.
_WRITE_RUN = """
    #pragma clang fp contract(off)
    float* __restrict edge = out.edges.data + first_edge;
    int64_t* __restrict edge_ray = out.edge_rays.data + first_edge;
    bool* __restrict left = out.is_left.data + first_edge;
    bool* __restrict right = out.is_right.data + first_edge;
    float* __restrict middle = out.middles.data + first_sample;
    int64_t* __restrict sample_ray = out.rays.data + first_sample;
    bool* __restrict valid = out.is_valid.data + first_sample;
    #pragma clang loop vectorize(enable)
    for (int i = 0; i <= count; ++i) {
        const float way = (float)(k + i) * step;
        edge[i] = anchor + way;
        edge_ray[i] = ray;
    }
    #pragma clang loop vectorize(enable)
    for (int i = 0; i < count; ++i) {
        const float a = (float)(k + i) * step, b = (float)(k + i + 1) * step;
        middle[i] = 0.5f * ((anchor + a) + (anchor + b));
        sample_ray[i] = ray;
    }
    for (int i = 0; i < count; ++i) left[i] = right[i + 1] = valid[i] = true;
"""


@wp.func_native(_WRITE_RUN)
@typing.no_type_check
def write_run(
    out: Samples,
    ray: wp.int64,
    first_edge: wp.int64,
    first_sample: wp.int64,
    anchor: float,
    step: float,
    k: int,
    count: int,
):
    """Writes ``count`` evenly spaced samples from the k-th on, and their edges."""
    ...


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
    k = wp.clamp(int(wp.ceil((t - anchor) / step - 0.5)), 0, 1 << 24)
    while k > 0 and middle_at(anchor, step, k - 1) >= t:
        k -= 1
    while k < 1 << 24 and middle_at(anchor, step, k) < t:
        k += 1
    return k


@wp.func
@typing.no_type_check
def end_run(walk: Walk, out: Samples, end: int) -> Walk:
    """Adds the samples walk.k to end - 1, as many as there is room for; walk.k is the next one then."""
    count = wp.min(end - walk.k, walk.room - walk.samples)
    if count > 0:
        if walk.fill and walk.edges + count < walk.edge_room:
            edge = walk.first_edge + wp.int64(walk.edges)
            sample = walk.first_sample + wp.int64(walk.samples)
            write_run(out, walk.ray, edge, sample, walk.anchor, walk.step, walk.k, count)
        walk.samples += count
        walk.edges += count + 1
        walk.k += count
    walk.joined = False
    return walk


@wp.func
@typing.no_type_check
def add_sample(walk: Walk, out: Samples, end: float) -> Walk:
    """Adds a sample from walk.t to its end."""
    edges = wp.where(walk.joined, 1, 2)
    if walk.fill and walk.edges + edges <= walk.edge_room:
        right = walk.first_edge + wp.int64(walk.edges + edges - 1)
        left = right - wp.int64(1)
        out.edges[left] = walk.t
        out.edge_rays[left] = walk.ray
        out.is_left[left] = True
        out.edges[right] = end
        out.edge_rays[right] = walk.ray
        out.is_right[right] = True
        sample = walk.first_sample + wp.int64(walk.samples)
        out.middles[sample] = 0.5 * (walk.t + end)
        out.rays[sample] = walk.ray
        out.is_valid[sample] = True
    walk.samples += 1
    walk.edges += edges
    walk.t = end
    walk.joined = True
    return walk


@wp.func
@typing.no_type_check
def step_at(walk: Walk, t: float) -> float:
    """How long the sample is that begins at t: it grows with t, and is never lost in its rounding."""
    return wp.max(wp.clamp(t * walk.cone, walk.step, LONGEST), FINEST * wp.abs(t))


@wp.func
@typing.no_type_check
def skip_to(walk: Walk, t: float) -> Walk:
    """Leaves out samples whose middles lie before t; the gap is made of equal steps."""
    if walk.step > 0.0:
        step = step_at(walk, walk.t)
        count = wp.ceil((t - walk.t) / step - 0.5)
        if count > 0.0:
            walk.t += count * step
            walk.joined = False
    elif t > walk.t:
        walk.t = t
        walk.joined = False
    return walk


@wp.func
@typing.no_type_check
def is_ray(origin: wp.vec3, direction: wp.vec3) -> bool:
    """Whether all is finite and the direction is one."""
    size = wp.max(wp.abs(direction))
    return wp.isfinite(origin) and wp.isfinite(direction) and size > TINY


@wp.func
@typing.no_type_check
def enter_axis(
    cell: Cell, axis: int, origin: float, direction: float, lower: float, upper: float, size: int, t: float
) -> Cell:
    """Finds where the ray is along an axis: between the planes before and behind t, or else next to t's side."""
    width = (upper - lower) / float(size)
    place = (origin + t * direction - lower) / width
    index = int(0)
    if place > 0.0:
        index = int(wp.min(place, float(size - 1)))
    if wp.abs(direction) > TINY:
        first = (lower - origin) / direction
        spacing = width / direction
        forward = wp.where(direction > 0.0, 1, 0)
        step = 2 * forward - 1
        # Rounding may have put the place on the wrong side of a plane.
        while index + step >= 0 and index + step < size and first + float(index + forward) * spacing <= t:
            index += step
        while index - step >= 0 and index - step < size and first + float(index + 1 - forward) * spacing > t:
            index -= step
        cell.first[axis] = first
        cell.spacing[axis] = spacing
        cell.step[axis] = step
        cell.ahead[axis] = first + float(index + forward) * spacing
    else:
        cell.step[axis] = 0
        cell.ahead[axis] = PARALLEL
    cell.index[axis] = index
    return cell


@wp.func
@typing.no_type_check
def enter_grid(
    origin: wp.vec3, direction: wp.vec3, boxes: wp.array2d(dtype=float), level: int, shape: wp.vec3i, t: float
) -> Cell:
    """The cell of a grid in which a ray is just behind t; outside, the nearest one."""
    cell = Cell()
    cell = enter_axis(cell, 0, origin[0], direction[0], boxes[level, 0], boxes[level, 3], shape[0], t)
    cell = enter_axis(cell, 1, origin[1], direction[1], boxes[level, 1], boxes[level, 4], shape[1], t)
    cell = enter_axis(cell, 2, origin[2], direction[2], boxes[level, 2], boxes[level, 5], shape[2], t)
    cell.inside = True
    return cell


@wp.func
@typing.no_type_check
def way_out(cell: Cell) -> float:
    """Where the ray leaves a cell."""
    return wp.min(wp.min(cell.ahead[0], cell.ahead[1]), cell.ahead[2])


@wp.func
@typing.no_type_check
def next_cell(cell: Cell, shape: wp.vec3i) -> Cell:
    """The cell behind the nearest plane; no longer ``inside`` behind the grid's last one."""
    if cell.ahead[0] <= cell.ahead[1] and cell.ahead[0] <= cell.ahead[2]:
        cell.index[0] = cell.index[0] + cell.step[0]
        cell.ahead[0] = cell.first[0] + float(cell.index[0] + wp.max(cell.step[0], 0)) * cell.spacing[0]
        cell.inside = cell.step[0] != 0 and cell.index[0] >= 0 and cell.index[0] < shape[0]
    elif cell.ahead[1] <= cell.ahead[2]:
        cell.index[1] = cell.index[1] + cell.step[1]
        cell.ahead[1] = cell.first[1] + float(cell.index[1] + wp.max(cell.step[1], 0)) * cell.spacing[1]
        cell.inside = cell.step[1] != 0 and cell.index[1] >= 0 and cell.index[1] < shape[1]
    else:
        cell.index[2] = cell.index[2] + cell.step[2]
        cell.ahead[2] = cell.first[2] + float(cell.index[2] + wp.max(cell.step[2], 0)) * cell.spacing[2]
        cell.inside = cell.step[2] != 0 and cell.index[2] >= 0 and cell.index[2] < shape[2]
    return cell


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
