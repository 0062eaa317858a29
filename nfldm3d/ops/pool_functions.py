# pyright: basic, reportInvalidTypeForm=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
"""Warp functions for pools of bricks: finding a voxel's row in the pool, and working on the rows of a cell's corners.

A pool holds the 512 voxels of brick n in its rows 512 n to 512 n + 511; ``numbers`` says which brick of the grid is
which of the pool. A voxel of a brick that the pool lacks has the row -1 and counts as zero.
"""

import typing
from typing import Any

import warp as wp

from nfldm3d.ops.grid_functions import ADD_ROWS, DOT_ROWS, KEEP_PRODUCTS, owner_of, vec8
from nfldm3d.ops.ray_functions import BRICK_BITS, BRICK_MASK, place_in_brick
from nfldm3d.ops.records import BRICK

VOXELS = wp.constant(BRICK**3)

vec8i = wp.types.vector(length=8, dtype=int)

# Pointers to the rows of a cell's 8 corners; missing ones share the first row of the pool, and their weight is zero.
_ROWS = "const int64_t channels = features.shape[1];\n" + "\n".join(
    f"const auto* __restrict r{corner} = features.data + (rows[{corner}] < 0 ? 0 : rows[{corner}]) * channels;"
    for corner in range(8)
)
_FETCH_ROWS = (
    _ROWS
    + """
    #if !defined(__CUDA_ARCH__)
    for (int64_t c = 0; c < channels; c += 16) {
        __builtin_prefetch(r0 + c); __builtin_prefetch(r1 + c); __builtin_prefetch(r2 + c); __builtin_prefetch(r3 + c);
        __builtin_prefetch(r4 + c); __builtin_prefetch(r5 + c); __builtin_prefetch(r6 + c); __builtin_prefetch(r7 + c);
    }
    #endif
"""
)
_KNOWN_WEIGHTS = "wp::vec_t<8, float> w;\nfor (int corner = 0; corner < 8; ++corner)\n" + (
    "    w[corner] = rows[corner] < 0 ? 0.0f : weights[corner];\n"
)
_DROP_MISSING = "\n".join(f"if (rows[{corner}] < 0) s{corner} = 0.0f;" for corner in range(8))
_ADD_ROW = """
    const int64_t channels = features.shape[1];
    const float* __restrict v = vectors.data + (int64_t)vector * channels;
    float* __restrict out = features.data + (int64_t)row * channels;
    #pragma clang loop vectorize(enable)
    for (int c = 0; c < channels; ++c) wp::atomic_add(out + c, weight * v[c]);
"""
_FETCH_ROW = """
    #if !defined(__CUDA_ARCH__)
    const float* row_of = features.data + (int64_t)row * features.shape[1];
    for (int64_t c = 0; c < features.shape[1]; c += 16) __builtin_prefetch(row_of + c);
    #endif
"""


@wp.func_native(_FETCH_ROWS)
@typing.no_type_check
def fetch_pool_rows(features: wp.array2d(dtype=Any), rows: vec8i):
    """Asks for the rows of the 8 corners ahead of their use."""
    ...


@wp.func_native(_ROWS + "\n" + _KNOWN_WEIGHTS + ADD_ROWS)
@typing.no_type_check
def add_pool_rows(features: wp.array2d(dtype=Any), rows: vec8i, weights: vec8, sums: wp.array2d(dtype=float), row: int):
    """Adds the weighted rows of the 8 corners to ``sums[row]``."""
    ...


@wp.func_native(_ROWS + DOT_ROWS + _DROP_MISSING + KEEP_PRODUCTS)
@typing.no_type_check
def dot_pool_rows(
    features: wp.array2d(dtype=Any),
    rows: vec8i,
    vectors: wp.array2d(dtype=float),
    row: int,
    products: wp.array(dtype=vec8),
    slot: int,
):
    """Writes the products of ``vectors[row]`` with the rows of the 8 corners to ``products[slot]``."""
    ...


@wp.func_native(_ADD_ROW)
@typing.no_type_check
def add_to_row(
    features: wp.array2d(dtype=float), row: int, weight: float, vectors: wp.array2d(dtype=float), vector: int
):
    """Adds ``weight * vectors[vector]`` to a row."""
    ...


@wp.func_native(_FETCH_ROW)
@typing.no_type_check
def fetch_row(features: wp.array2d(dtype=float), row: int):
    """Asks for a row ahead of its use."""
    ...


@wp.func
@typing.no_type_check
def row_of_voxel(numbers: wp.array3d(dtype=int), x: int, y: int, z: int) -> int:
    """The row of a voxel in the pool, or -1."""
    number = numbers[x >> BRICK_BITS, y >> BRICK_BITS, z >> BRICK_BITS]
    if number < 0:
        return -1
    return number * VOXELS + place_in_brick(x, y, z)


@wp.func
@typing.no_type_check
def rows_of_cell(numbers: wp.array3d(dtype=int), cell: wp.vec3i, shape: wp.vec3i) -> vec8i:
    """The rows of a cell's 8 corners, numbered as in ``grid_functions``."""
    x, y, z = cell[0], cell[1], cell[2]
    u, v, w = wp.min(x + 1, shape[0] - 1), wp.min(y + 1, shape[1] - 1), wp.min(z + 1, shape[2] - 1)
    last = BRICK_MASK
    if (x & last) < last and (y & last) < last and (z & last) < last:  # two of three cells lie within one brick
        row = row_of_voxel(numbers, x, y, z)
        if row < 0:
            return vec8i(-1, -1, -1, -1, -1, -1, -1, -1)
        dx, dy, dz = (u - x) << (2 * BRICK_BITS), (v - y) << BRICK_BITS, w - z
        return vec8i(row, row + dz, row + dy, row + dy + dz, row + dx, row + dx + dz, row + dx + dy, row + dx + dy + dz)
    return vec8i(
        row_of_voxel(numbers, x, y, z),
        row_of_voxel(numbers, x, y, w),
        row_of_voxel(numbers, x, v, z),
        row_of_voxel(numbers, x, v, w),
        row_of_voxel(numbers, u, y, z),
        row_of_voxel(numbers, u, y, w),
        row_of_voxel(numbers, u, v, z),
        row_of_voxel(numbers, u, v, w),
    )


@wp.func
@typing.no_type_check
def pool_values(pool: wp.array(dtype=Any), rows: vec8i) -> vec8:
    """The values of the 8 corners of a cell."""
    values = vec8()
    for corner in range(8):
        if rows[corner] >= 0:
            values[corner] = float(pool[rows[corner]])
    return values


@wp.func
@typing.no_type_check
def owned_rows(
    visit: wp.vec4i, column: int, me: int, owners: int, numbers: wp.array3d(dtype=int), shape: wp.vec3i
) -> wp.vec2i:
    """The rows of both corners in one of a visited cell's 4 columns; -1 for those that the pool lacks.

    Both are -1 if another thread owns the column. A visit is as for ``grid_functions.owned_voxel``.
    """
    x = wp.min(visit[0] + column // 2, shape[0] - 1)
    y = wp.min(visit[1] + column % 2, shape[1] - 1)
    if visit[0] < 0 or (owners > 0 and owner_of(x, y, owners) != me):
        return wp.vec2i(-1, -1)
    z = visit[2]
    row = row_of_voxel(numbers, x, y, z)
    if z + 1 >= shape[2]:
        return wp.vec2i(row, -1)
    if (z & BRICK_MASK) < BRICK_MASK:  # within one brick
        return wp.vec2i(row, wp.where(row < 0, -1, row + 1))
    return wp.vec2i(row, row_of_voxel(numbers, x, y, z + 1))
