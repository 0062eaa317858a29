# pyright: basic, reportInvalidTypeForm=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
"""Warp kernels between points and grids: trilinear queries, and the scatter of image features along their rays."""

import typing
from typing import Any

import warp as wp

from nfldm3d.ops.grid_functions import (
    add_rows,
    cell_of,
    corner_shares,
    dot_rows,
    fetch_voxels,
    fraction_along,
    grid_position,
    owned_voxel,
    point_at,
    scatter_range,
    scatter_rows,
    shape_of,
    vec8,
    voxel_position,
)

wp.set_module_options({"enable_backward": False})

AHEAD = wp.constant(4)  # entries between asking for a voxel's row and using it

_ADD_ENTRY = """
    const float* __restrict x = entries.data + entry * (int64_t)entries.shape[1];
    float* __restrict out = grid.data + (int64_t)voxel * grid.shape[3];
    #pragma clang loop vectorize(enable)
    for (int c = 0; c < grid.shape[3]; ++c) wp::atomic_add(out + c, weight * x[c]);
"""

_GATHER_ENTRY = """
    const int channels = grid.shape[3];
    const float* __restrict g = grid.data + (int64_t)voxel * channels;
    const float* __restrict x = features.data + (int64_t)ray * channels;
    float* __restrict out = grad_features.data + (int64_t)ray * channels;
    float product = 0.0f;
    #pragma clang loop vectorize(enable)
    for (int c = 0; c < channels; ++c) {
        product += g[c] * x[c];
        out[c] += weight * g[c];
    }
    grad_weights.data[(int64_t)ray * grad_weights.shape[1] + depth] = product + grad_sums.data[voxel];
"""


@wp.func_native(_ADD_ENTRY)
@typing.no_type_check
def add_entry(
    grid: wp.array4d(dtype=float), voxel: int, entries: wp.array2d(dtype=float), entry: wp.int64, weight: float
):
    """Adds ``weight * entries[entry]`` to the row of a voxel."""
    ...


@wp.func_native(_GATHER_ENTRY)
@typing.no_type_check
def gather_entry(
    grid: wp.array4d(dtype=float),
    grad_sums: wp.array3d(dtype=float),
    voxel: int,
    features: wp.array2d(dtype=float),
    ray: int,
    depth: int,
    weight: float,
    grad_features: wp.array2d(dtype=float),
    grad_weights: wp.array2d(dtype=float),
):
    """The adjoint of adding ``weight * features[ray]`` to a voxel's row, and ``weight`` to its sum of weights."""
    ...


@wp.func
@typing.no_type_check
def is_inside(point: wp.vec3, lower: wp.vec3, upper: wp.vec3) -> bool:
    """Whether a point lies in a box or on its surface."""
    return (
        (point[0] >= lower[0] and point[0] <= upper[0])
        and (point[1] >= lower[1] and point[1] <= upper[1])
        and (point[2] >= lower[2] and point[2] <= upper[2])
    )


@wp.kernel(grid_stride=False)
@typing.no_type_check
def interpolate_forward(
    offset: int,
    values: wp.array4d(dtype=Any),
    points: wp.array2d(dtype=float),
    lower: wp.vec3,
    upper: wp.vec3,
    result: wp.array2d(dtype=float),
):
    """Trilinear values at point ``offset`` + tid."""
    index = offset + wp.tid()
    point = point_at(points, index)
    if is_inside(point, lower, upper):
        shape = shape_of(values)
        position = voxel_position(point, lower, upper, shape)
        cell = cell_of(position, shape)
        add_rows(values, cell, corner_shares(position, cell, shape), result, index)


@wp.func
@typing.no_type_check
def slope_along(position: float, size: int, voxels_per_metre: float) -> float:
    """How fast the fraction within a cell grows along an axis: not at all in the outer half voxel."""
    return wp.where(position > 0.0 and position < float(size - 1), voxels_per_metre, 0.0)


@wp.func
@typing.no_type_check
def slope_of(p: vec8, position: wp.vec3, cell: wp.vec3i, lower: wp.vec3, upper: wp.vec3, shape: wp.vec3i) -> wp.vec3:
    """How fast a trilinear value grows along x, y and z in metres, given those at the corners of the cell."""
    x = fraction_along(position[0], cell[0], shape[0])
    y = fraction_along(position[1], cell[1], shape[1])
    z = fraction_along(position[2], cell[2], shape[2])
    a = wp.lerp(wp.lerp(p[4] - p[0], p[5] - p[1], z), wp.lerp(p[6] - p[2], p[7] - p[3], z), y)
    b = wp.lerp(wp.lerp(p[2] - p[0], p[3] - p[1], z), wp.lerp(p[6] - p[4], p[7] - p[5], z), x)
    c = wp.lerp(wp.lerp(p[1] - p[0], p[3] - p[2], y), wp.lerp(p[5] - p[4], p[7] - p[6], y), x)
    scale = grid_position(lower + wp.vec3(1.0, 1.0, 1.0), lower, upper, shape)
    return wp.vec3(
        a * slope_along(position[0], shape[0], scale[0]),
        b * slope_along(position[1], shape[1], scale[1]),
        c * slope_along(position[2], shape[2], scale[2]),
    )


@wp.kernel(grid_stride=False)
@typing.no_type_check
def interpolate_slopes(
    offset: int,
    values: wp.array4d(dtype=Any),
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
        shape = shape_of(values)
        position = voxel_position(point, lower, upper, shape)
        cell = cell_of(position, shape)
        dot_rows(values, cell, grad_result, index, products, index)
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
    gradient: wp.array4d(dtype=float),
):
    """Gradient by the grid; see ``launch_scatter``."""
    me = offset + wp.tid()
    shape = shape_of(gradient)
    first, end = scatter_range(me, owners, count)
    for index in range(first, end):
        point = point_at(points, index)
        if is_inside(point, lower, upper):
            position = voxel_position(point, lower, upper, shape)
            cell = cell_of(position, shape)
            shares = corner_shares(position, cell, shape)
            for column in range(4):
                voxel = owned_voxel(wp.vec4i(cell[0], cell[1], cell[2], index), column, me, owners, shape)
                if voxel >= wp.int64(0):
                    scatter_rows(gradient, voxel, shares[2 * column], shares[2 * column + 1], grad_result, index)


@wp.func
@typing.no_type_check
def owner_of_run(voxel: int, owners: int) -> int:
    """Which of ``owners`` threads writes to a voxel: runs of 64 voxels, scattered."""
    run = wp.uint32(voxel >> 6) * wp.uint32(0x1E3779B1)
    return int((wp.uint64(run) * wp.uint64(owners)) >> wp.uint64(32))


@wp.kernel(grid_stride=False)
@typing.no_type_check
def splat_scatter(
    offset: int,
    owners: int,
    count: int,
    voxels: wp.array2d(dtype=int),
    features: wp.array2d(dtype=float),
    weights: wp.array2d(dtype=float),
    values: wp.array2d(dtype=float),
    sums: wp.array4d(dtype=float),
    weight_sums: wp.array(dtype=float),
    counts: wp.array(dtype=int),
    value_sums: wp.array4d(dtype=float),
):
    """Adds the entries of all rays to their voxels; see ``launch_scatter``."""
    me = offset + wp.tid()
    depths = voxels.shape[1]
    first, end = scatter_range(me, owners, count)
    for ray in range(first, end):
        for depth in range(depths):
            if depth + AHEAD < depths:
                fetch_voxels(sums, wp.int64(voxels[ray, depth + AHEAD]), 1)
            voxel = voxels[ray, depth]
            if voxel >= 0 and (owners == 0 or owner_of_run(voxel, owners) == me):
                weight = weights[ray, depth]
                add_entry(sums, voxel, features, wp.int64(ray), weight)
                wp.atomic_add(weight_sums, voxel, weight)
                wp.atomic_add(counts, voxel, 1)
                if value_sums.shape[3] > 0:
                    add_entry(value_sums, voxel, values, wp.int64(ray) * wp.int64(depths) + wp.int64(depth), 1.0)


@wp.kernel(grid_stride=False)
@typing.no_type_check
def splat_gather(
    offset: int,
    voxels: wp.array2d(dtype=int),
    features: wp.array2d(dtype=float),
    weights: wp.array2d(dtype=float),
    grad_sums: wp.array4d(dtype=float),
    grad_weight_sums: wp.array3d(dtype=float),
    grad_value_sums: wp.array2d(dtype=float),
    grad_features: wp.array2d(dtype=float),
    grad_weights: wp.array2d(dtype=float),
    grad_values: wp.array3d(dtype=float),
):
    """The adjoint of ``splat_scatter`` for ray ``offset`` + tid."""
    ray = offset + wp.tid()
    for depth in range(voxels.shape[1]):
        if depth + AHEAD < voxels.shape[1]:
            fetch_voxels(grad_sums, wp.int64(voxels[ray, depth + AHEAD]), 1)
        voxel = voxels[ray, depth]
        if voxel >= 0:
            weight = weights[ray, depth]
            gather_entry(grad_sums, grad_weight_sums, voxel, features, ray, depth, weight, grad_features, grad_weights)
            for channel in range(grad_value_sums.shape[1]):
                grad_values[ray, depth, channel] = grad_value_sums[voxel, channel]
