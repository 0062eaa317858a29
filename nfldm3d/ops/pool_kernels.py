# pyright: basic, reportInvalidTypeForm=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
# ruff: noqa: RUF046 -- int(0) tells Warp that a variable changes in a loop
"""Warp kernels that march rays through a pool of bricks: as ``march_kernels``, but rows are found by brick."""

import typing
from typing import Any

import warp as wp

from nfldm3d.ops.crossing_functions import Passage, Return, Totals, cross_cell, cross_cell_back
from nfldm3d.ops.grid_functions import cell_of, scatter_range, vec8
from nfldm3d.ops.pool_functions import (
    add_pool_rows,
    add_to_row,
    dot_pool_rows,
    fetch_pool_rows,
    fetch_row,
    owned_rows,
    pool_values,
    rows_of_cell,
)
from nfldm3d.ops.ray_functions import BrickCells, next_occupied, position_of, ray_at

wp.set_module_options({"enable_backward": False})

AHEAD = wp.constant(2)  # visits between asking for rows and using them


@wp.func
@typing.no_type_check
def cells_in(occupied: wp.array3d(dtype=int), marks: wp.array2d(dtype=wp.uint8)) -> BrickCells:
    """The two arrays as one."""
    cells = BrickCells()
    cells.numbers = occupied
    cells.marks = marks
    return cells


@wp.kernel(grid_stride=False)
@typing.no_type_check
def march_forward(
    offset: int,
    density: wp.array(dtype=Any),
    features: wp.array2d(dtype=Any),
    numbers: wp.array3d(dtype=int),
    shape: wp.vec3i,
    occupied: wp.array3d(dtype=int),
    marks: wp.array2d(dtype=wp.uint8),
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
    cells = cells_in(occupied, marks)
    ray = ray_at(index, origins, directions, near_far, lower, upper, step, shape)
    way = Passage()
    way.transmittance = 1.0
    visits = int(0)
    way.k = next_occupied(ray, ray.first, cells, leaps, shape)
    while way.k < ray.end and way.transmittance >= early_stop:
        cell = cell_of(position_of(ray, way.k), shape)
        rows = rows_of_cell(numbers, cell, shape)
        fetch_pool_rows(features, rows)
        way = cross_cell(ray, cell, shape, pool_values(density, rows), step, early_stop, way)
        if way.visible:
            add_pool_rows(features, rows, way.weights, out_features, index)
            visits += 1
        way.k = next_occupied(ray, way.k, cells, leaps, shape)
    out_opacity[index] = way.opacity
    out_distance[index] = way.moment + ray.near * way.opacity
    out_distortion[index] = 2.0 * way.spread + way.squares * step / 3.0
    out_visits[index] = visits


@wp.kernel(grid_stride=False)
@typing.no_type_check
def march_backward(
    offset: int,
    first_ray: int,
    density: wp.array(dtype=Any),
    features: wp.array2d(dtype=Any),
    numbers: wp.array3d(dtype=int),
    shape: wp.vec3i,
    occupied: wp.array3d(dtype=int),
    marks: wp.array2d(dtype=wp.uint8),
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
    """Records what ray ``first_ray + offset`` + tid adds to the 8 corners of each cell that it visited."""
    index = first_ray + offset + wp.tid()
    cells = cells_in(occupied, marks)
    ray = ray_at(index, origins, directions, near_far, lower, upper, step, shape)
    totals = Totals()
    totals.opacity = opacity[index]
    totals.moment = distance[index] - ray.near * opacity[index]
    totals.grad_opacity = grad_sums[index, 0]
    totals.grad_distance = grad_sums[index, 1]
    totals.grad_distortion = grad_sums[index, 2]
    way = Return()
    way.transmittance = 1.0
    way.behind = total[index]
    slot = int(slots[index] - slots[first_ray])
    end_slot = int(slots[index + 1] - slots[first_ray])
    way.k = next_occupied(ray, ray.first, cells, leaps, shape)
    while way.k < ray.end and way.transmittance >= early_stop and slot < end_slot:
        cell = cell_of(position_of(ray, way.k), shape)
        rows = rows_of_cell(numbers, cell, shape)
        fetch_pool_rows(features, rows)
        densities = pool_values(density, rows)
        dot_pool_rows(features, rows, grad_features, index, slope_shares, slot)
        way = cross_cell_back(ray, cell, shape, densities, slope_shares[slot], step, early_stop, totals, way)
        if way.visible:
            visited[slot] = wp.vec4i(cell[0], cell[1], cell[2], index)
            weight_shares[slot] = way.weights
            slope_shares[slot] = way.slopes
            slot += 1
        way.k = next_occupied(ray, way.k, cells, leaps, shape)
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
    feature_gradient: wp.array2d(dtype=float),
    numbers: wp.array3d(dtype=int),
    shape: wp.vec3i,
):
    """Adds the recorded visits to the gradients; see ``launch_scatter``."""
    me = offset + wp.tid()
    first, end = scatter_range(me, owners, count)
    for slot in range(first, end):
        ahead = visited[wp.min(slot + AHEAD, end - 1)]
        visit = visited[slot]
        weights = weight_shares[slot]
        slopes = slope_shares[slot]
        for column in range(4):
            rows = owned_rows(ahead, column, me, owners, numbers, shape)
            for corner in range(2):
                if rows[corner] >= 0:
                    fetch_row(feature_gradient, rows[corner])
            rows = owned_rows(visit, column, me, owners, numbers, shape)
            for corner in range(2):
                if rows[corner] >= 0:
                    add_to_row(feature_gradient, rows[corner], weights[2 * column + corner], grad_features, visit[3])
                    wp.atomic_add(density_gradient, rows[corner], slopes[2 * column + corner])
