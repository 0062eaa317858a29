# pyright: basic, reportInvalidTypeForm=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
# ruff: noqa: RUF046 -- int(0) tells Warp that a variable changes in a loop
"""Warp kernels that find the samples of rays in the occupied cells of nested grids: they count them, or write them.

Evenly spaced samples are found a stretch of cells at a time: sample k exists if its middle lies in an occupied cell,
so its number is all there is to know. Steps that grow with distance, and intervals cut at the cells' walls, are taken
one by one.
"""

import typing

import warp as wp

from nfldm3d.ops.march_kernels import clip
from nfldm3d.ops.point_kernels import point_at
from nfldm3d.ops.traversal_functions import (
    FINEST,
    Samples,
    Walk,
    add_sample,
    edge_at,
    end_run,
    enclosing,
    enter_grid,
    first_behind,
    foremost,
    is_ray,
    next_cell,
    skip_to,
    step_at,
    way_out,
)

wp.set_module_options({"enable_backward": False})

FARTHEST = wp.constant(1.0e29)
MOST = wp.constant(1 << 23)  # samples of a ray


@wp.kernel(grid_stride=False)
@typing.no_type_check
def intersect_boxes(
    offset: int,
    origins: wp.array2d(dtype=float),
    directions: wp.array2d(dtype=float),
    boxes: wp.array2d(dtype=float),
    near: float,
    far: float,
    miss: float,
    entries: wp.array2d(dtype=float),
    exits: wp.array2d(dtype=float),
    hits: wp.array2d(dtype=wp.bool),
):
    """Where ray ``offset`` + tid enters and leaves each box, clamped to near and far; ``miss`` where it does not."""
    ray = offset + wp.tid()
    origin = point_at(origins, ray)
    direction = point_at(directions, ray)
    for i in range(boxes.shape[0]):
        lower = wp.vec3(boxes[i, 0], boxes[i, 1], boxes[i, 2])
        upper = wp.vec3(boxes[i, 3], boxes[i, 4], boxes[i, 5])
        entries[ray, i] = miss
        exits[ray, i] = miss
        hits[ray, i] = False
        if is_ray(origin, direction) and wp.isfinite(lower) and wp.isfinite(upper):
            inside = clip(origin, direction, lower, upper)
            if inside[0] <= inside[1] and inside[1] > 0.0:
                entries[ray, i] = wp.min(wp.max(inside[0], near), far)
                exits[ray, i] = wp.min(wp.max(inside[1], near), far)
                hits[ray, i] = True


@wp.func
@typing.no_type_check
def span_of(ray: int, t_sorted: wp.array2d(dtype=float), near: float, far: float) -> wp.vec2:
    """The distances between which a ray may be in a grid; first > second if never."""
    enter = float(FARTHEST)
    leave = float(-FARTHEST)
    for i in range(t_sorted.shape[1]):
        t = t_sorted[ray, i]
        if wp.abs(t) < FARTHEST:  # grids that are missed lie at infinity
            enter = wp.min(enter, t)
            leave = wp.max(leave, t)
    return wp.vec2(wp.max(enter, near), wp.min(leave, far))


@wp.func
@typing.no_type_check
def walk_cell_evenly(walk: Walk, out: Samples, occupied: bool, ahead: float, limited: bool) -> Walk:
    """Begins, continues or ends a run of evenly spaced samples in a cell that reaches from walk.t to ``ahead``."""
    if occupied:
        if not walk.joined:
            walk.k = first_behind(walk.t, walk.anchor, walk.step)
            walk.joined = True
        if limited:
            end = first_behind(ahead, walk.anchor, walk.step)
            if walk.samples + end - walk.k >= walk.room:
                walk = end_run(walk, out, end)
    elif walk.joined:
        walk = end_run(walk, out, first_behind(walk.t, walk.anchor, walk.step))
    walk.t = ahead
    return walk


@wp.func
@typing.no_type_check
def walk_cell(walk: Walk, out: Samples, occupied: bool, ahead: float) -> Walk:
    """Takes the steps whose middles lie before ``ahead``, or leaves them out."""
    if not occupied:
        walk = skip_to(walk, ahead)
        walk.joined = False
    elif walk.step <= 0.0:
        if ahead > walk.t:
            walk = add_sample(walk, out, ahead)
    else:
        step = step_at(walk, walk.t)
        while walk.samples < walk.room and walk.t + 0.5 * step < ahead:
            walk = add_sample(walk, out, walk.t + step)
            step = step_at(walk, walk.t)
    return walk


@wp.kernel(grid_stride=False)
@typing.no_type_check
def walk_rays(
    offset: int,
    task: int,
    origins: wp.array2d(dtype=float),
    directions: wp.array2d(dtype=float),
    mask: wp.array(dtype=wp.bool),
    cells: wp.array4d(dtype=wp.bool),
    boxes: wp.array2d(dtype=float),
    t_sorted: wp.array2d(dtype=float),
    t_indices: wp.array2d(dtype=wp.int64),
    hits: wp.array2d(dtype=wp.bool),
    nears: wp.array(dtype=float),
    fars: wp.array(dtype=float),
    step: float,
    cone: float,
    limit: int,
    edge_starts: wp.array(dtype=wp.int64),
    sample_starts: wp.array(dtype=wp.int64),
    edges: wp.array(dtype=float),
    edge_rays: wp.array(dtype=wp.int64),
    is_left: wp.array(dtype=wp.bool),
    is_right: wp.array(dtype=wp.bool),
    middles: wp.array(dtype=float),
    rays: wp.array(dtype=wp.int64),
    is_valid: wp.array(dtype=wp.bool),
    edge_counts: wp.array(dtype=wp.int64),
    sample_counts: wp.array(dtype=wp.int64),
    ends: wp.array(dtype=float),
):
    """Samples ray ``offset`` + tid: counts its samples if ``task`` has bit 1, writes them if it has bit 2.

    Room for samples and edges of ray n reaches from starts[n] to starts[n + 1]. Cells decide for grids in front of
    others; a step of zero or less makes intervals of whole cells.
    """
    ray = offset + wp.tid()
    origin = point_at(origins, ray)
    direction = point_at(directions, ray)
    shape = wp.vec3i(cells.shape[1], cells.shape[2], cells.shape[3])
    grids = cells.shape[0]
    near = nears[ray]
    far = wp.min(fars[ray], FARTHEST)
    even = step > 0.0 and cone <= 0.0
    out = Samples()
    out.edges = edges
    out.edge_rays = edge_rays
    out.is_left = is_left
    out.is_right = is_right
    out.middles = middles
    out.rays = rays
    out.is_valid = is_valid
    walk = Walk()
    walk.step = step
    walk.cone = cone
    walk.ray = wp.int64(ray)
    walk.t = near
    walk.room = wp.where(limit > 0, wp.min(limit, MOST), MOST)
    if task & 2:
        walk.fill = True
        walk.first_edge = edge_starts[ray]
        walk.first_sample = sample_starts[ray]
        walk.edge_room = int(edge_starts[ray + 1] - walk.first_edge)
        walk.room = wp.min(walk.room, int(sample_starts[ray + 1] - walk.first_sample))
    span = span_of(ray, t_sorted, near, far)
    is_walked = mask[ray] and is_ray(origin, direction) and not wp.isnan(near) and not wp.isnan(fars[ray])
    if is_walked and span[0] < span[1]:
        if even:
            walk.step = wp.max(step, FINEST * wp.max(wp.abs(span[0]), wp.abs(span[1])))
        if step > 0.0 and not (span[0] - near < walk.step * float(MOST)):
            walk.t = span[0]
        walk.anchor = walk.t
        inside = wp.uint64(0)
        for i in range(2 * grids - 1):
            event = t_indices[ray, i]
            if event >= wp.int64(0) and hits[ray, int(event % wp.int64(grids))]:
                inside = enclosing(inside, event, grids)
            level = foremost(inside, grids)
            enter = wp.max(t_sorted[ray, i], near)
            leave = wp.min(t_sorted[ray, i + 1], far)
            if level >= 0 and enter < leave and walk.samples < walk.room:
                if not even:
                    walk = skip_to(walk, enter)
                elif enter > walk.t:
                    if walk.joined:
                        walk = end_run(walk, out, first_behind(walk.t, walk.anchor, walk.step))
                    walk.t = enter
                t = float(enter)
                cell = enter_grid(origin, direction, boxes, level, shape, enter)
                left = int(shape[0] + shape[1] + shape[2])
                while left > 0 and cell.inside and t < leave and walk.samples < walk.room:
                    t = wp.min(way_out(cell), leave)
                    occupied = cells[level, cell.index[0], cell.index[1], cell.index[2]]
                    if even:
                        walk = walk_cell_evenly(walk, out, occupied, t, limit > 0)
                    else:
                        walk = walk_cell(walk, out, occupied, t)
                    cell = next_cell(cell, shape)
                    left -= 1
        if even:
            end = first_behind(walk.t, walk.anchor, walk.step)
            if walk.joined:
                walk = end_run(walk, out, end)
            if limit > 0 and walk.samples == walk.room:
                end = walk.k
            walk.t = edge_at(walk.anchor, walk.step, end)
    if task & 1:
        edge_counts[ray] = wp.int64(walk.edges)
        sample_counts[ray] = wp.int64(walk.samples)
        ends[ray] = walk.t
