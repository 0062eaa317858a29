# pyright: basic, reportInvalidTypeForm=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
"""Warp kernels between points and pools of bricks: trilinear queries, and the rows of voxels that splats fall into."""

import typing
from typing import Any

import warp as wp

from nfldm3d.ops.grid_functions import (
    cell_of,
    corner_shares,
    point_at,
    scatter_range,
    vec8,
    voxel_position,
)
from nfldm3d.ops.point_kernels import is_inside, slope_of
from nfldm3d.ops.pool_functions import (
    add_pool_rows,
    add_to_row,
    dot_pool_rows,
    owned_rows,
    row_of_voxel,
    rows_of_cell,
)

wp.set_module_options({"enable_backward": False})


@wp.kernel(grid_stride=False)
@typing.no_type_check
def interpolate_forward(
    offset: int,
    values: wp.array2d(dtype=Any),
    numbers: wp.array3d(dtype=int),
    shape: wp.vec3i,
    points: wp.array2d(dtype=float),
    lower: wp.vec3,
    upper: wp.vec3,
    result: wp.array2d(dtype=float),
):
    """Trilinear values at point ``offset`` + tid."""
    index = offset + wp.tid()
    point = point_at(points, index)
    if is_inside(point, lower, upper):
        position = voxel_position(point, lower, upper, shape)
        cell = cell_of(position, shape)
        rows = rows_of_cell(numbers, cell, shape)
        if wp.max(rows) >= 0:
            add_pool_rows(values, rows, corner_shares(position, cell, shape), result, index)


@wp.kernel(grid_stride=False)
@typing.no_type_check
def interpolate_slopes(
    offset: int,
    values: wp.array2d(dtype=Any),
    numbers: wp.array3d(dtype=int),
    shape: wp.vec3i,
    points: wp.array2d(dtype=float),
    lower: wp.vec3,
    upper: wp.vec3,
    grad_result: wp.array2d(dtype=float),
    products: wp.array(dtype=vec8),
    grad_points: wp.array2d(dtype=float),
):
    """Gradient by the coordinates of point ``offset`` + tid."""
    index = offset + wp.tid()
    point = point_at(points, index)
    if is_inside(point, lower, upper):
        position = voxel_position(point, lower, upper, shape)
        cell = cell_of(position, shape)
        rows = rows_of_cell(numbers, cell, shape)
        if wp.max(rows) >= 0:
            dot_pool_rows(values, rows, grad_result, index, products, index)
            slope = slope_of(products[index], position, cell, lower, upper, shape)
            for axis in range(3):
                grad_points[index, axis] = slope[axis]


@wp.kernel(grid_stride=False)
@typing.no_type_check
def interpolate_scatter(
    offset: int,
    owners: int,
    count: int,
    points: wp.array2d(dtype=float),
    lower: wp.vec3,
    upper: wp.vec3,
    grad_result: wp.array2d(dtype=float),
    gradient: wp.array2d(dtype=float),
    numbers: wp.array3d(dtype=int),
    shape: wp.vec3i,
):
    """Gradient by the pool; see ``launch_scatter``."""
    me = offset + wp.tid()
    first, end = scatter_range(me, owners, count)
    for index in range(first, end):
        point = point_at(points, index)
        if is_inside(point, lower, upper):
            position = voxel_position(point, lower, upper, shape)
            cell = cell_of(position, shape)
            shares = corner_shares(position, cell, shape)
            visit = wp.vec4i(cell[0], cell[1], cell[2], index)
            for column in range(4):
                rows = owned_rows(visit, column, me, owners, numbers, shape)
                for corner in range(2):
                    if rows[corner] >= 0:
                        add_to_row(gradient, rows[corner], shares[2 * column + corner], grad_result, index)


@wp.kernel(grid_stride=False)
@typing.no_type_check
def find_rows(offset: int, numbers: wp.array3d(dtype=int), shape: wp.vec3i, voxels: wp.array(dtype=int)):
    """Replaces a voxel's raster index by its row in the pool, -1 where that lacks it."""
    entry = offset + wp.tid()
    voxel = voxels[entry]
    if voxel >= 0:
        z = voxel % shape[2]
        rest = voxel // shape[2]
        voxels[entry] = row_of_voxel(numbers, rest // shape[1], rest % shape[1], z)
