# pyright: basic, reportInvalidTypeForm=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
"""Warp kernels of multi-resolution hash grids: reading them, and their gradients of first and second order.

Corner c of a cell lies one step up along x, y and z where bits 0, 1 and 2 of c are set, as in tiny-cuda-nn. Wherever
``directions`` has rows, trilinear weights are replaced by their derivatives along them: what gradients of gradients
are made of.
"""

import typing

import warp as wp

from nfldm3d.ops.grid_functions import point_at, vec8

wp.set_module_options({"enable_backward": False})

PRIME_Y, PRIME_Z = wp.constant(wp.uint32(2654435761)), wp.constant(wp.uint32(805459861))

vec8i = wp.types.vector(length=8, dtype=int)

_SUM_ROWS = """
    const int features = table.shape[1];
    float* __restrict out = result.data + (int64_t)point * result.shape[1] + level * features;
    for (int f = 0; f < features; ++f) {
        float sum = 0.0f;
        for (int c = 0; c < 8; ++c) sum += w[c] * table.data[(int64_t)rows[c] * features + f];
        out[f] = sum;
    }
"""

_ADD_TO_ROWS = """
    const int features = table.shape[1];
    const float* __restrict g = vectors.data + (int64_t)point * vectors.shape[1] + level * features;
    for (int c = 0; c < 8; ++c)
        for (int f = 0; f < features; ++f) wp::atomic_add(table.data + (int64_t)rows[c] * features + f, w[c] * g[f]);
"""


@wp.func_native(_SUM_ROWS)
@typing.no_type_check
def sum_rows(
    table: wp.array2d(dtype=float), rows: vec8i, w: vec8, result: wp.array2d(dtype=float), point: int, level: int
):
    """Writes the weighted sum of 8 rows to the part of ``result[point]`` that belongs to a level."""
    ...


@wp.func_native(_ADD_TO_ROWS)
@typing.no_type_check
def add_to_rows(
    table: wp.array2d(dtype=float), rows: vec8i, w: vec8, vectors: wp.array2d(dtype=float), point: int, level: int
):
    """The adjoint of ``sum_rows``."""
    ...


@wp.func
@typing.no_type_check
def products_of_rows(
    table: wp.array2d(dtype=float), rows: vec8i, vectors: wp.array2d(dtype=float), point: int, level: int
) -> vec8:
    """The products of a level's part of ``vectors[point]`` with 8 rows."""
    products = vec8()
    for feature in range(table.shape[1]):
        factor = vectors[point, level * table.shape[1] + feature]
        for corner in range(8):
            products[corner] += factor * table[rows[corner], feature]
    return products


@wp.func
@typing.no_type_check
def position_along(coordinate: float, scale: float) -> float:
    """Where a coordinate lies on a level's axis, rounded once: tiny-cuda-nn's fused product, whatever the compiler."""
    return float(wp.float64(scale) * wp.float64(coordinate) + wp.float64(0.5))


@wp.func
@typing.no_type_check
def scaled_position(point: wp.vec3, scale: float) -> wp.vec3:
    """Where a point of the unit cube lies in a level's grid; nodes are at whole numbers."""
    return wp.vec3(position_along(point[0], scale), position_along(point[1], scale), position_along(point[2], scale))


@wp.func
@typing.no_type_check
def floor_of(position: wp.vec3) -> wp.vec3:
    """The lower corner of the cell around a position."""
    return wp.vec3(wp.floor(position[0]), wp.floor(position[1]), wp.floor(position[2]))


@wp.func
@typing.no_type_check
def node_row(x: wp.uint32, y: wp.uint32, z: wp.uint32, resolution: wp.uint32, size: wp.uint32, hashed: int) -> int:
    """The row of a node within its level; hashed levels have a power of two of them."""
    if hashed != 0:
        mixed = x ^ (y * PRIME_Y) ^ (z * PRIME_Z)
        return int(mixed & (size - wp.uint32(1)))
    row = x + (y + z * resolution) * resolution
    if row >= size:
        row = row % size
    return int(row)


@wp.func
@typing.no_type_check
def corner_rows(base: wp.vec3, level: int, resolutions: wp.array(dtype=int), offsets: wp.array(dtype=int)) -> vec8i:
    """The rows of a cell's corners in the whole table."""
    first = offsets[level]
    size = wp.uint32(offsets[level + 1] - first)
    side = wp.uint64(resolutions[level])
    hashed = int(side * side * side > wp.uint64(size))
    x, y, z = wp.uint32(int(base[0])), wp.uint32(int(base[1])), wp.uint32(int(base[2]))
    rows = vec8i()
    for corner in range(8):
        a = x + wp.uint32(corner & 1)
        b = y + wp.uint32((corner >> 1) & 1)
        c = z + wp.uint32((corner >> 2) & 1)
        rows[corner] = first + node_row(a, b, c, wp.uint32(side), size, hashed)
    return rows


@wp.func
@typing.no_type_check
def direction_at(directions: wp.array2d(dtype=float), index: int, scale: float) -> wp.vec3:
    """A direction in a level's own units; nothing where there are none."""
    if directions.shape[0] == 0:
        return wp.vec3()
    return scale * point_at(directions, index)


@wp.func
@typing.no_type_check
def corner_weights(fraction: wp.vec3, direction: wp.vec3, along: bool) -> vec8:
    """Trilinear weights of the corners, or their derivatives along a direction."""
    weights = vec8()
    for corner in range(8):
        a, u = 1.0 - fraction[0], -1.0
        b, v = 1.0 - fraction[1], -1.0
        c, w = 1.0 - fraction[2], -1.0
        if (corner & 1) != 0:
            a, u = fraction[0], 1.0
        if (corner & 2) != 0:
            b, v = fraction[1], 1.0
        if (corner & 4) != 0:
            c, w = fraction[2], 1.0
        if along:
            weights[corner] = direction[0] * u * b * c + direction[1] * a * v * c + direction[2] * a * b * w
        else:
            weights[corner] = a * b * c
    return weights


@wp.func
@typing.no_type_check
def corner_slope(products: vec8, fraction: wp.vec3, direction: wp.vec3, along: bool) -> wp.vec3:
    """The gradient, by the place in the cell, of the sum of ``products`` with the weights of the corners."""
    slope = wp.vec3()
    for corner in range(8):
        a, u = 1.0 - fraction[0], -1.0
        b, v = 1.0 - fraction[1], -1.0
        c, w = 1.0 - fraction[2], -1.0
        if (corner & 1) != 0:
            a, u = fraction[0], 1.0
        if (corner & 2) != 0:
            b, v = fraction[1], 1.0
        if (corner & 4) != 0:
            c, w = fraction[2], 1.0
        part = wp.vec3(u * b * c, a * v * c, a * b * w)
        if along:
            x = u * (direction[1] * v * c + direction[2] * b * w)
            y = v * (direction[0] * u * c + direction[2] * a * w)
            z = w * (direction[0] * u * b + direction[1] * a * v)
            part = wp.vec3(x, y, z)
        slope += products[corner] * part
    return slope


@wp.kernel(grid_stride=False)
@typing.no_type_check
def encode_forward(
    offset: int,
    table: wp.array2d(dtype=float),
    points: wp.array2d(dtype=float),
    directions: wp.array2d(dtype=float),
    scales: wp.array(dtype=float),
    resolutions: wp.array(dtype=int),
    offsets: wp.array(dtype=int),
    result: wp.array2d(dtype=float),
):
    """The features of one level at one point; level by level, so that one level at a time is in the caches."""
    index = offset + wp.tid()
    level = index // points.shape[0]
    point = index - level * points.shape[0]
    position = scaled_position(point_at(points, point), scales[level])
    base = floor_of(position)
    direction = direction_at(directions, point, scales[level])
    weights = corner_weights(position - base, direction, directions.shape[0] > 0)
    sum_rows(table, corner_rows(base, level, resolutions, offsets), weights, result, point, level)


@wp.kernel(grid_stride=False)
@typing.no_type_check
def encode_scatter(
    offset: int,
    stride: int,
    points: wp.array2d(dtype=float),
    directions: wp.array2d(dtype=float),
    scales: wp.array(dtype=float),
    resolutions: wp.array(dtype=int),
    offsets: wp.array(dtype=int),
    grad_result: wp.array2d(dtype=float),
    grad_table: wp.array2d(dtype=float),
):
    """The gradient of a level's rows from every ``stride``-th point: all of them on the CPU, one on CUDA."""
    index = offset + wp.tid()
    level = index // stride
    for point in range(index - level * stride, points.shape[0], stride):
        position = scaled_position(point_at(points, point), scales[level])
        base = floor_of(position)
        direction = direction_at(directions, point, scales[level])
        weights = corner_weights(position - base, direction, directions.shape[0] > 0)
        add_to_rows(grad_table, corner_rows(base, level, resolutions, offsets), weights, grad_result, point, level)


@wp.kernel(grid_stride=False)
@typing.no_type_check
def encode_slopes(
    offset: int,
    table: wp.array2d(dtype=float),
    points: wp.array2d(dtype=float),
    directions: wp.array2d(dtype=float),
    scales: wp.array(dtype=float),
    resolutions: wp.array(dtype=int),
    offsets: wp.array(dtype=int),
    grad_result: wp.array2d(dtype=float),
    grad_points: wp.array2d(dtype=float),
):
    """The gradient by the coordinates of one point."""
    point = offset + wp.tid()
    total = wp.vec3()
    for level in range(scales.shape[0]):
        position = scaled_position(point_at(points, point), scales[level])
        base = floor_of(position)
        rows = corner_rows(base, level, resolutions, offsets)
        products = products_of_rows(table, rows, grad_result, point, level)
        direction = direction_at(directions, point, scales[level])
        total += scales[level] * corner_slope(products, position - base, direction, directions.shape[0] > 0)
    grad_points[point, 0] = total[0]
    grad_points[point, 1] = total[1]
    grad_points[point, 2] = total[2]
