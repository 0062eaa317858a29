# pyright: basic, reportInvalidTypeForm=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
# ruff: noqa: RUF046 -- int(0) tells Warp that a variable changes in a loop
"""Warp kernels that march rays through occupied cells, forward and backward.

Both directions handle all samples of a ray within one cell together: the eight densities are read once, and the rows
of features are read (or written) once, with the samples' weights already summed per corner.

Gradients, with w_i = T_i alpha_i and v_i = dL/dw_i:
    dL/d density_i = step * (T_(i+1) v_i - sum over j > i of w_j v_j)
    v_i = <dL/d features, feature_i> + dL/d opacity + t_i dL/d distance + dL/d distortion * d_i
    d_i = 2 (t_i (A_<i - A_>i) - (B_<i - B_>i)) + 2/3 step w_i     with A = sum of w, B = sum of w t before and behind i
The sum behind i is the total less the sum up to i, and the total follows from the forward pass's results, since
sum w_j d_j is twice the distortion.
"""

import typing
from typing import Any

import warp as wp

from nfldm3d.ops.grid_functions import (
    add_rows,
    cell_of,
    corner_shares,
    corner_values,
    dot_rows,
    fetch_rows,
    fetch_voxels,
    owned_voxel,
    scatter_range,
    scatter_rows,
    shape_of,
    vec8,
    voxel_position,
)
from nfldm3d.ops.records import TILE

wp.set_module_options({"enable_backward": False})

TILE_BITS = wp.constant(TILE.bit_length() - 1)
AHEAD = wp.constant(2)  # visits between asking for rows and using them
INFINITE = wp.constant(1.0e30)


@wp.struct
@typing.no_type_check
class Ray:
    """A ray in voxel coordinates: sample k is at start + (k + 1/2) * slope, for first <= k < end."""

    start: wp.vec3
    slope: wp.vec3
    inverse: wp.vec3  # of the slope
    near: float
    first: int
    end: int


@wp.func
@typing.no_type_check
def clip(origin: wp.vec3, direction: wp.vec3, lower: wp.vec3, upper: wp.vec3) -> wp.vec2:
    """Distances at which a ray enters and leaves a box; entry > exit if it misses."""
    entry = -INFINITE
    leave = INFINITE
    for axis in range(3):
        if direction[axis] != 0.0:
            a = (lower[axis] - origin[axis]) / direction[axis]
            b = (upper[axis] - origin[axis]) / direction[axis]
            entry = wp.max(entry, wp.min(a, b))
            leave = wp.min(leave, wp.max(a, b))
        elif origin[axis] < lower[axis] or origin[axis] > upper[axis]:
            entry = INFINITE
    return wp.vec2(entry, leave)


@wp.func
@typing.no_type_check
def ray_at(
    index: int,
    origins: wp.array2d(dtype=float),
    directions: wp.array2d(dtype=float),
    near_far: wp.array2d(dtype=float),
    lower: wp.vec3,
    upper: wp.vec3,
    step: float,
    shape: wp.vec3i,
) -> Ray:
    """One ray in voxel coordinates; without near_far it reaches from max(0, entry) to the exit of the box."""
    origin = wp.vec3(origins[index, 0], origins[index, 1], origins[index, 2])
    direction = wp.vec3(directions[index, 0], directions[index, 1], directions[index, 2])
    inside = clip(origin, direction, lower, upper)
    near = wp.max(inside[0], 0.0)
    far = inside[1]
    if near_far.shape[0] > 0:
        near = near_far[index, 0]
        far = near_far[index, 1]
    stop = wp.min(far, inside[1])
    ray = Ray()
    if stop > wp.max(near, inside[0]) and stop < INFINITE:
        ray.near = near
        ray.start = voxel_position(origin + near * direction, lower, upper, shape)
        ray.slope = voxel_position(step * direction + lower, lower, upper, shape) + wp.vec3(0.5, 0.5, 0.5)
        for axis in range(3):
            ray.inverse[axis] = wp.where(wp.abs(ray.slope[axis]) > 1.0e-12, 1.0 / ray.slope[axis], INFINITE)
        ray.first = wp.max(int(wp.ceil((inside[0] - near) / step - 0.5)), 0)
        ray.end = int(wp.ceil((stop - near) / step - 0.5))
    return ray


@wp.func
@typing.no_type_check
def position_of(ray: Ray, k: int) -> wp.vec3:
    """Voxel coordinates of sample k."""
    return ray.start + (float(k) + 0.5) * ray.slope


@wp.func
@typing.no_type_check
def leap(ray: Ray, k: int, tile: wp.vec3i, distance: int) -> int:
    """The first sample after k that may lie outside the empty block of 2 * distance - 1 tiles around ``tile``."""
    steps = INFINITE
    for axis in range(3):
        tiles = tile[axis] + wp.where(ray.slope[axis] >= 0.0, distance, 1 - distance)
        steps = wp.min(steps, (float(tiles << TILE_BITS) - ray.start[axis]) * ray.inverse[axis])
    # A hundredth of a step too early costs one more look; too late could cost a sample.
    return wp.max(k + 1, int(wp.min(steps, float(ray.end)) + 0.49))


@wp.func
@typing.no_type_check
def next_occupied(
    ray: Ray, k: int, cells: wp.array3d(dtype=wp.uint8), leaps: wp.array3d(dtype=wp.uint8), shape: wp.vec3i
) -> int:
    """The first sample from k on whose cell is occupied, or ``ray.end``."""
    while k < ray.end:
        cell = cell_of(position_of(ray, k), shape)
        tile = wp.vec3i(cell[0] >> TILE_BITS, cell[1] >> TILE_BITS, cell[2] >> TILE_BITS)
        distance = int(leaps[tile[0], tile[1], tile[2]])
        if distance > 0:
            k = leap(ray, k, tile, distance)
        elif cells[cell[0], cell[1], cell[2]] != wp.uint8(0):
            return k
        else:
            k += 1
    return ray.end


@wp.func
@typing.no_type_check
def absorbed(depth: float) -> float:
    """1 - exp(-depth), accurate for small depths, too."""
    if depth < 0.03:
        return depth * (1.0 - depth * (0.5 - depth * (1.0 / 6.0 - depth * (1.0 / 24.0))))
    return 1.0 - wp.exp(-depth)


@wp.kernel(grid_stride=False)
@typing.no_type_check
def march_forward(
    offset: int,
    density: wp.array3d(dtype=Any),
    features: wp.array4d(dtype=Any),
    cells: wp.array3d(dtype=wp.uint8),
    leaps: wp.array3d(dtype=wp.uint8),
    origins: wp.array2d(dtype=float),
    directions: wp.array2d(dtype=float),
    near_far: wp.array2d(dtype=float),
    lower: wp.vec3,
    upper: wp.vec3,
    step: float,
    early_stop: float,
    out_features: wp.array2d(dtype=float),
    out_opacity: wp.array(dtype=float),
    out_distance: wp.array(dtype=float),
    out_distortion: wp.array(dtype=float),
    out_visits: wp.array(dtype=int),
):
    """Integrates ray ``offset`` + tid; ``out_visits`` counts the cells that contributed."""
    index = offset + wp.tid()
    shape = shape_of(features)
    ray = ray_at(index, origins, directions, near_far, lower, upper, step, shape)
    transmittance = float(1.0)
    opacity = float(0.0)
    moment = float(0.0)  # sum of w * (t - near)
    spread = float(0.0)
    squares = float(0.0)
    visits = int(0)
    k = next_occupied(ray, ray.first, cells, leaps, shape)
    while k < ray.end and transmittance >= early_stop:
        position = position_of(ray, k)
        cell = cell_of(position, shape)
        fetch_rows(features, cell)
        densities = corner_values(density, cell)
        weights = vec8()
        visible = bool(False)
        inside = bool(True)
        while inside and transmittance >= early_stop:
            shares = corner_shares(position, cell, shape)
            extinction = wp.dot(shares, densities)
            if extinction > 0.0:
                alpha = absorbed(extinction * step)
                weight = transmittance * alpha
                t = (float(k) + 0.5) * step
                spread += weight * (t * opacity - moment)
                squares += weight * weight
                opacity += weight
                moment += weight * t
                transmittance *= 1.0 - alpha
                weights += weight * shares
                visible = True
            k += 1
            position = position_of(ray, k)
            inside = k < ray.end and cell_of(position, shape) == cell
        if visible:
            add_rows(features, cell, weights, out_features, index)
            visits += 1
        k = next_occupied(ray, k, cells, leaps, shape)
    out_opacity[index] = opacity
    out_distance[index] = moment + ray.near * opacity
    out_distortion[index] = 2.0 * spread + squares * step / 3.0
    out_visits[index] = visits


@wp.kernel(grid_stride=False)
@typing.no_type_check
def march_backward(
    offset: int,
    first_ray: int,
    density: wp.array3d(dtype=Any),
    features: wp.array4d(dtype=Any),
    cells: wp.array3d(dtype=wp.uint8),
    leaps: wp.array3d(dtype=wp.uint8),
    origins: wp.array2d(dtype=float),
    directions: wp.array2d(dtype=float),
    near_far: wp.array2d(dtype=float),
    lower: wp.vec3,
    upper: wp.vec3,
    step: float,
    early_stop: float,
    opacity: wp.array(dtype=float),
    distance: wp.array(dtype=float),
    total: wp.array(dtype=float),
    grad_features: wp.array2d(dtype=float),
    grad_sums: wp.array2d(dtype=float),
    slots: wp.array(dtype=wp.int64),
    visited: wp.array(dtype=wp.vec4i),
    weight_shares: wp.array(dtype=vec8),
    slope_shares: wp.array(dtype=vec8),
):
    """Records what ray ``first_ray + offset`` + tid adds to the 8 corners of each cell that it visited.

    ``total`` is the ray's sum of w v, ``grad_sums`` the gradients of opacity, distance and distortion.
    Per visit: the cell, the factors of the feature gradient and the addends of the density gradient.
    """
    index = first_ray + offset + wp.tid()
    shape = shape_of(features)
    ray = ray_at(index, origins, directions, near_far, lower, upper, step, shape)
    all_moment = distance[index] - ray.near * opacity[index]
    transmittance = float(1.0)
    passed = float(0.0)
    moment = float(0.0)
    behind = total[index]
    slot = int(slots[index] - slots[first_ray])
    end_slot = int(slots[index + 1] - slots[first_ray])
    k = next_occupied(ray, ray.first, cells, leaps, shape)
    while k < ray.end and transmittance >= early_stop and slot < end_slot:
        position = position_of(ray, k)
        cell = cell_of(position, shape)
        fetch_rows(features, cell)
        densities = corner_values(density, cell)
        slopes = vec8()
        weights = vec8()
        dot_rows(features, cell, grad_features, index, slope_shares, slot)
        products = slope_shares[slot]
        visible = bool(False)
        inside = bool(True)
        while inside and transmittance >= early_stop:
            shares = corner_shares(position, cell, shape)
            extinction = wp.dot(shares, densities)
            if extinction > 0.0:
                alpha = absorbed(extinction * step)
                weight = transmittance * alpha
                t = (float(k) + 0.5) * step
                spread = 2.0 * (t * (2.0 * passed + weight - opacity[index]) - (2.0 * moment + weight * t - all_moment))
                value = (
                    wp.dot(shares, products)
                    + grad_sums[index, 0]
                    + grad_sums[index, 1] * (ray.near + t)
                    + grad_sums[index, 2] * (spread + 2.0 / 3.0 * step * weight)
                )
                passed += weight
                moment += weight * t
                transmittance *= 1.0 - alpha
                behind -= weight * value
                weights += weight * shares
                slopes += step * (transmittance * value - behind) * shares
                visible = True
            k += 1
            position = position_of(ray, k)
            inside = k < ray.end and cell_of(position, shape) == cell
        if visible:
            visited[slot] = wp.vec4i(cell[0], cell[1], cell[2], index)
            weight_shares[slot] = weights
            slope_shares[slot] = slopes
            slot += 1
        k = next_occupied(ray, k, cells, leaps, shape)
    while slot < end_slot:  # forward and backward may round differently
        visited[slot] = wp.vec4i(-1, -1, -1, index)
        slot += 1


@wp.kernel(grid_stride=False)
@typing.no_type_check
def march_scatter(
    offset: int,
    owners: int,
    count: int,
    visited: wp.array(dtype=wp.vec4i),
    weight_shares: wp.array(dtype=vec8),
    slope_shares: wp.array(dtype=vec8),
    grad_features: wp.array2d(dtype=float),
    density_gradient: wp.array(dtype=float),
    feature_gradient: wp.array4d(dtype=float),
):
    """Adds the recorded visits to the gradients; see ``launch_scatter``."""
    me = offset + wp.tid()
    shape = shape_of(feature_gradient)
    first, end = scatter_range(me, owners, count)
    for slot in range(first, end):
        ahead = visited[wp.min(slot + AHEAD, end - 1)]
        visit = visited[slot]
        weights = weight_shares[slot]
        slopes = slope_shares[slot]
        for column in range(4):
            voxel = owned_voxel(ahead, column, me, owners, shape)
            if voxel >= wp.int64(0):
                fetch_voxels(feature_gradient, voxel, 2)
            voxel = owned_voxel(visit, column, me, owners, shape)
            if voxel >= wp.int64(0):
                a, b = weights[2 * column], weights[2 * column + 1]
                scatter_rows(feature_gradient, voxel, a, b, grad_features, visit[3])
                wp.atomic_add(density_gradient, voxel, slopes[2 * column])
                if shape[2] > 1:
                    wp.atomic_add(density_gradient, voxel + wp.int64(1), slopes[2 * column + 1])
