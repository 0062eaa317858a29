# pyright: basic, reportInvalidTypeForm=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
"""Warp functions that the kernels share: finding cells, reading their 8 corners, working on rows of channels.

A cell lies between the centres of voxel (i, j, k) and its upper neighbours. Its corners are numbered like the bits of
x y z: corner 6 is (i + 1, j + 1, k). Along an axis of one voxel both corners are that voxel.

The loops over channels are C++, because their length is known at run time only and the CPU's vector units are what
makes them fast; clang vectorises them as written and nvrtc takes the same source.
"""

import typing
from typing import Any

import warp as wp

vec8 = wp.types.vector(length=8, dtype=float)

_FETCH_VOXELS = """
    #if !defined(__CUDA_ARCH__)
    const auto* row = grid.data + voxel * grid.shape[3];
    for (int64_t c = 0; c < count * grid.shape[3]; c += 16) __builtin_prefetch(row + c);
    #endif
"""

# Pointers to the rows of channels of a cell's 8 corners.
_ROWS = """
    const int64_t channels = features.shape[3];
    const int64_t nx = features.shape[0], ny = features.shape[1], nz = features.shape[2];
    const int64_t dx = nx > 1 ? ny * nz * channels : 0, dy = ny > 1 ? nz * channels : 0, dz = nz > 1 ? channels : 0;
    const auto* __restrict r0 = features.data + ((cell[0] * ny + cell[1]) * nz + cell[2]) * channels;
    const auto* __restrict r1 = r0 + dz;
    const auto* __restrict r2 = r0 + dy;
    const auto* __restrict r3 = r2 + dz;
    const auto* __restrict r4 = r0 + dx;
    const auto* __restrict r5 = r4 + dz;
    const auto* __restrict r6 = r4 + dy;
    const auto* __restrict r7 = r6 + dz;
"""

_FETCH_ROWS = (
    _ROWS
    + """
    #if !defined(__CUDA_ARCH__)
    for (int64_t c = 0; c < (dz ? 2 : 1) * channels; c += 16) {
        __builtin_prefetch(r0 + c);
        __builtin_prefetch(r2 + c);
        __builtin_prefetch(r4 + c);
        __builtin_prefetch(r6 + c);
    }
    #endif
"""
)

# What is done with the eight rows, wherever they lie.
ADD_ROWS = """
    float* __restrict out = sums.data + (int64_t)row * channels;
    const float w0 = w[0], w1 = w[1], w2 = w[2], w3 = w[3], w4 = w[4], w5 = w[5], w6 = w[6], w7 = w[7];
    #pragma clang loop vectorize(enable) vectorize_predicate(enable)
    for (int c = 0; c < channels; ++c)
        out[c] += ((w0 * (float)r0[c] + w1 * (float)r1[c]) + (w2 * (float)r2[c] + w3 * (float)r3[c]))
                + ((w4 * (float)r4[c] + w5 * (float)r5[c]) + (w6 * (float)r6[c] + w7 * (float)r7[c]));
"""

DOT_ROWS = """
    const float* __restrict g = vectors.data + (int64_t)row * channels;
    float s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
    #pragma clang loop vectorize(enable)
    for (int c = 0; c < channels; ++c) {
        const float v = g[c];
        s0 += v * (float)r0[c]; s1 += v * (float)r1[c]; s2 += v * (float)r2[c]; s3 += v * (float)r3[c];
        s4 += v * (float)r4[c]; s5 += v * (float)r5[c]; s6 += v * (float)r6[c]; s7 += v * (float)r7[c];
    }
"""

KEEP_PRODUCTS = """
    products.data[slot] = wp::vec_t<8, float>({s0, s1, s2, s3, s4, s5, s6, s7});
"""

_SCATTER_ROWS = """
    const int64_t channels = features.shape[3];
    const float* __restrict v = vectors.data + (int64_t)row * channels;
    float* __restrict lower = features.data + voxel * channels;
    float* __restrict upper = lower + channels;
    #pragma clang loop vectorize(enable)
    for (int c = 0; c < channels; ++c) wp::atomic_add(lower + c, a * v[c]);
    if (features.shape[2] > 1) {
        #pragma clang loop vectorize(enable)
        for (int c = 0; c < channels; ++c) wp::atomic_add(upper + c, b * v[c]);
    }
"""


@wp.func_native(_FETCH_VOXELS)
@typing.no_type_check
def fetch_voxels(grid: wp.array4d(dtype=Any), voxel: wp.int64, count: int):
    """Asks for the rows of ``count`` voxels along z ahead of their use: they mostly lie outside the nearest caches."""
    ...


@wp.func_native(_FETCH_ROWS)
@typing.no_type_check
def fetch_rows(features: wp.array4d(dtype=Any), cell: wp.vec3i):
    """Asks for the rows of the 8 corners ahead of their use: they mostly lie outside the nearest caches."""
    ...


@wp.func_native(_ROWS + ADD_ROWS)
@typing.no_type_check
def add_rows(features: wp.array4d(dtype=Any), cell: wp.vec3i, w: vec8, sums: wp.array2d(dtype=float), row: int):
    """Adds the weighted rows of the 8 corners to ``sums[row]``."""
    ...


@wp.func_native(_ROWS + DOT_ROWS + KEEP_PRODUCTS)
@typing.no_type_check
def dot_rows(
    features: wp.array4d(dtype=Any),
    cell: wp.vec3i,
    vectors: wp.array2d(dtype=float),
    row: int,
    products: wp.array(dtype=vec8),
    slot: int,
):
    """Writes the products of ``vectors[row]`` with the rows of the 8 corners to ``products[slot]``."""
    ...


@wp.func_native(_SCATTER_ROWS)
@typing.no_type_check
def scatter_rows(
    features: wp.array4d(dtype=float), voxel: wp.int64, a: float, b: float, vectors: wp.array2d(dtype=float), row: int
):
    """Adds ``a * vectors[row]`` to a voxel's row and ``b * vectors[row]`` to that of its upper neighbour along z."""
    ...


@wp.func
@typing.no_type_check
def point_at(points: wp.array2d(dtype=float), index: int) -> wp.vec3:
    """A row of three numbers as a vector."""
    return wp.vec3(points[index, 0], points[index, 1], points[index, 2])


@wp.func
@typing.no_type_check
def shape_of(grid: wp.array4d(dtype=Any)) -> wp.vec3i:
    """The number of voxels along x, y and z."""
    return wp.vec3i(grid.shape[0], grid.shape[1], grid.shape[2])


@wp.func
@typing.no_type_check
def grid_position(point: wp.vec3, lower: wp.vec3, upper: wp.vec3, shape: wp.vec3i) -> wp.vec3:
    """A point in voxels from the lower corner of the box."""
    size = wp.vec3(float(shape[0]), float(shape[1]), float(shape[2]))
    return wp.cw_mul(point - lower, wp.cw_div(size, upper - lower))


@wp.func
@typing.no_type_check
def voxel_position(point: wp.vec3, lower: wp.vec3, upper: wp.vec3, shape: wp.vec3i) -> wp.vec3:
    """A point in voxel coordinates: the centres of voxels lie at whole numbers."""
    return grid_position(point, lower, upper, shape) - wp.vec3(0.5, 0.5, 0.5)


@wp.func
@typing.no_type_check
def cell_of(position: wp.vec3, shape: wp.vec3i) -> wp.vec3i:
    """The cell around a position in voxel coordinates; positions beyond the outer centres belong to the last cell."""
    return wp.vec3i(
        wp.min(int(wp.max(position[0], 0.0)), wp.max(shape[0] - 2, 0)),
        wp.min(int(wp.max(position[1], 0.0)), wp.max(shape[1] - 2, 0)),
        wp.min(int(wp.max(position[2], 0.0)), wp.max(shape[2] - 2, 0)),
    )


@wp.func
@typing.no_type_check
def fraction_along(position: float, cell: int, size: int) -> float:
    """Where a position lies between the two corners of its cell, from 0 to 1."""
    return wp.clamp(position - float(cell), 0.0, float(wp.min(size - 1, 1)))


@wp.func
@typing.no_type_check
def corner_shares(position: wp.vec3, cell: wp.vec3i, shape: wp.vec3i) -> vec8:
    """Trilinear weights of the 8 corners; they add up to one."""
    x = fraction_along(position[0], cell[0], shape[0])
    y = fraction_along(position[1], cell[1], shape[1])
    z = fraction_along(position[2], cell[2], shape[2])
    a, b, c, d = (1.0 - x) * (1.0 - y), (1.0 - x) * y, x * (1.0 - y), x * y
    return vec8(a * (1.0 - z), a * z, b * (1.0 - z), b * z, c * (1.0 - z), c * z, d * (1.0 - z), d * z)


@wp.func
@typing.no_type_check
def owner_of(x: int, y: int, owners: int) -> int:
    """Which of ``owners`` threads writes to the voxels of column (x, y): patches of 4 x 4 columns, scattered."""
    patch = wp.uint32(x >> 2) * wp.uint32(0x1E3779B1) + wp.uint32(y >> 2) * wp.uint32(0x05EBCA77)
    return int((patch >> wp.uint32(15)) % wp.uint32(owners))


@wp.func
@typing.no_type_check
def scatter_range(me: int, owners: int, count: int):
    """The records that thread ``me`` of a scatter looks at: all of them if voxels have owners, else its own one."""
    if owners == 0:
        return me, me + 1
    return 0, count


@wp.func
@typing.no_type_check
def owned_voxel(visit: wp.vec4i, column: int, me: int, owners: int, shape: wp.vec3i) -> wp.int64:
    """Raster index of the lower corner in one of a visited cell's 4 columns; -1 if another thread owns it, or no visit.

    A visit is the cell (x, y, z), x = -1 for none, and the row of the vector that is scattered into it.
    """
    x = wp.min(visit[0] + column // 2, shape[0] - 1)
    y = wp.min(visit[1] + column % 2, shape[1] - 1)
    if visit[0] < 0 or (owners > 0 and owner_of(x, y, owners) != me):
        return wp.int64(-1)
    return (wp.int64(x) * wp.int64(shape[1]) + wp.int64(y)) * wp.int64(shape[2]) + wp.int64(visit[2])


@wp.func
@typing.no_type_check
def corner_values(grid: wp.array3d(dtype=Any), cell: wp.vec3i) -> vec8:
    """The values at the 8 corners of a cell."""
    x, y, z = cell[0], cell[1], cell[2]
    u, v, w = wp.min(x + 1, grid.shape[0] - 1), wp.min(y + 1, grid.shape[1] - 1), wp.min(z + 1, grid.shape[2] - 1)
    return vec8(
        float(grid[x, y, z]),
        float(grid[x, y, w]),
        float(grid[x, v, z]),
        float(grid[x, v, w]),
        float(grid[u, y, z]),
        float(grid[u, y, w]),
        float(grid[u, v, z]),
        float(grid[u, v, w]),
    )
