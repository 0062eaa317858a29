# pyright: basic, reportInvalidTypeForm=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
# ruff: noqa: RUF046 -- int(0) tells Warp that a variable changes in a loop
"""Warp kernels that find the samples of rays in the occupied cells of nested grids: they count them, or write them.

Evenly spaced samples are found a stretch of cells at a time: sample k exists if its middle lies in an occupied cell,
so its number is all there is to know. Steps that grow with distance, and intervals cut at the cells' walls, are taken
one by one.
"""

import typing

import warp as wp

from nfldm3d.ops.grid_functions import point_at
from nfldm3d.ops.ray_functions import clip
from nfldm3d.ops.traversal_functions import (
    FINEST,
    Output,
    add_run,
    add_steps,
    edge_at,
    enclosing,
    enter_axis,
    first_behind,
    foremost,
    is_ray,
    skip_to,
)
from nfldm3d.ops.traversal_walk import mark_brick, walk_alike

# Products are rounded before they are added: a walk that resumes somewhere must find the same cells.
wp.set_module_options({"enable_backward": False, "fuse_fp": False})

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


@wp.kernel(grid_stride=False)
@typing.no_type_check
def mark_bricks(offset: int, cells: wp.array4d(dtype=wp.bool), bricks: wp.array4d(dtype=wp.bool)):
    """Whether any cell of brick ``offset`` + tid is occupied."""
    mark_brick(cells, bricks, offset + wp.tid())


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


@wp.kernel(grid_stride=False)
@typing.no_type_check
def walk_rays(
    offset: int,
    task: int,
    origins: wp.array2d(dtype=float),
    directions: wp.array2d(dtype=float),
    mask: wp.array(dtype=wp.bool),
    cells: wp.array4d(dtype=wp.bool),
    bricks: wp.array4d(dtype=wp.bool),
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
    sample_rays: wp.array(dtype=wp.int64),
    is_valid: wp.array(dtype=wp.bool),
    edge_counts: wp.array(dtype=wp.int64),
    sample_counts: wp.array(dtype=wp.int64),
    ends: wp.array(dtype=float),
):
    """Samples ray ``offset`` + tid: counts its samples if ``task`` has bit 1, writes them if it has bit 2.

    Room for samples and edges of ray n reaches from starts[n] to starts[n + 1]. A step of zero or less makes one sample
    of each cell; without a cone, sample k lies at near + (k + 1/2) * step and is only looked for where runs of occupied
    cells begin and end.
    """
    ray = offset + wp.tid()
    if (task & 1) == 0 and sample_starts[ray] == sample_starts[ray + 1]:
        return
    origin = point_at(origins, ray)
    direction = point_at(directions, ray)
    nx, ny, nz = cells.shape[1], cells.shape[2], cells.shape[3]
    grids = cells.shape[0]
    near = nears[ray]
    far = wp.min(fars[ray], FARTHEST)
    even = step > 0.0 and cone <= 0.0
    out = Output()
    out.ray = wp.int64(ray)
    out.room = wp.where(limit > 0, wp.min(limit, MOST), MOST)
    if (task & 2) != 0:
        out.fill = True
        out.edges = edges
        out.edge_rays = edge_rays
        out.is_left = is_left
        out.is_right = is_right
        out.middles = middles
        out.sample_rays = sample_rays
        out.is_valid = is_valid
        out.edge_start = edge_starts[ray]
        out.sample_start = sample_starts[ray]
        out.room = wp.min(out.room, int(sample_starts[ray + 1] - out.sample_start))
    room = out.room
    n_edges = int(0)
    n_samples = int(0)
    last = float(near)  # where samples go on: the end of the last one, or gap; evenly: of the last cell
    span = span_of(ray, t_sorted, near, far)
    is_walked = mask[ray] and is_ray(origin, direction) and not wp.isnan(near) and not wp.isnan(fars[ray])
    if is_walked and span[0] < span[1]:
        size = float(step)
        if even:
            size = wp.max(step, FINEST * wp.max(wp.abs(span[0]), wp.abs(span[1])))
        if step > 0.0 and not (span[0] - near < size * float(MOST)):
            last = span[0]
        anchor = float(last)
        k = int(0)
        joined = bool(False)  # the next sample adjoins the last one; evenly: the run from sample k on is still open
        inside = wp.uint64(0)
        for i in range(2 * grids - 1):
            event = t_indices[ray, i]
            if event >= wp.int64(0) and hits[ray, int(event % wp.int64(grids))]:
                inside = enclosing(inside, event, grids)
            level = foremost(inside, grids)
            enter = wp.max(t_sorted[ray, i], near)
            leave = wp.min(t_sorted[ray, i + 1], far)
            if level >= 0 and enter < leave and n_samples < room:
                is_gap = enter - last > FINEST * wp.abs(enter)  # not just what rounding left of the grid before
                if is_gap and not even:
                    start = skip_to(last, enter, step, cone)
                    joined = joined and start <= last
                    last = start
                elif is_gap:
                    if joined:
                        end = first_behind(last, anchor, size)
                        n_edges, n_samples, k = add_run(out, n_edges, n_samples, anchor, size, k, end)
                        joined = False
                    last = enter
                x, sx, px, ax, fx, dx = enter_axis(origin[0], direction[0], boxes[level, 0], boxes[level, 3], nx, enter)
                y, sy, py, ay, fy, dy = enter_axis(origin[1], direction[1], boxes[level, 1], boxes[level, 4], ny, enter)
                z, sz, pz, az, fz, dz = enter_axis(origin[2], direction[2], boxes[level, 2], boxes[level, 5], nz, enter)
                t = float(enter)
                going = bool(even)
                place = wp.vec4(t, float(x), float(y), float(z))
                while going:
                    stop = float(leave)
                    if joined and limit > 0:  # beyond the last sample that there is room for
                        stop = wp.min(leave, edge_at(anchor, size, k + room - n_samples + 1))
                    walk_alike(
                        cells,
                        bricks,
                        level,
                        joined,
                        wp.vec3(fx, fy, fz),
                        wp.vec3(dx, dy, dz),
                        wp.vec3i(sx, sy, sz),
                        place,
                        stop,
                    )
                    t = place[0]
                    going = t < stop
                    if t < leave:
                        end = first_behind(t, anchor, size)
                        if joined:
                            n_edges, n_samples, k = add_run(out, n_edges, n_samples, anchor, size, k, end)
                        else:
                            k = end
                        joined = not joined
                    going = going and n_samples < room
                if even:
                    last = t
                going = not even
                left = int(nx + ny + nz)
                while going and left > 0:
                    left -= 1
                    occupied = cells[level, x, y, z]
                    if ax <= ay and ax <= az:
                        t = ax
                        x += sx
                        px += sx
                        ax = fx + float(px) * dx
                        going = px >= 0 and px <= nx
                    elif ay <= az:
                        t = ay
                        y += sy
                        py += sy
                        ay = fy + float(py) * dy
                        going = py >= 0 and py <= ny
                    else:
                        t = az
                        z += sz
                        pz += sz
                        az = fz + float(pz) * dz
                        going = pz >= 0 and pz <= nz
                    if not (t < leave):
                        t = leave
                        going = False
                    if occupied:
                        n_edges, n_samples, last, joined = add_steps(
                            out, n_edges, n_samples, step, cone, last, t, joined
                        )
                    else:
                        last = skip_to(last, t, step, cone)
                        joined = False
                    going = going and n_samples < room
        if even:
            end = first_behind(last, anchor, size)
            if joined:
                n_edges, n_samples, k = add_run(out, n_edges, n_samples, anchor, size, k, end)
            if limit > 0 and n_samples == room:
                end = k
            last = edge_at(anchor, size, end)
    if (task & 1) != 0:
        edge_counts[ray] = wp.int64(n_edges)
        sample_counts[ray] = wp.int64(n_samples)
        ends[ray] = last
