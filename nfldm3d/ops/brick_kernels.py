# pyright: basic, reportInvalidTypeForm=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
"""Warp kernels that update the listed bricks of a grid in place; no thread writes another's voxels."""

import typing

import warp as wp

from nfldm3d.ops.pool_functions import row_of_voxel
from nfldm3d.ops.records import BRICK

wp.set_module_options({"enable_backward": False})

EDGE = wp.constant(BRICK)

# A gradient of zero means that no ray has met the voxel: neither its value nor its moments change. Bits are compared
# as integers because their "or" needs no order, so that compilers may take many at once.
ADAM_COLUMN = """
    const unsigned* bits = reinterpret_cast<const unsigned*>(gradient.data + start);
    unsigned any = 0;
    for (int i = 0; i < length * channels; ++i) any |= bits[i] & 0x7fffffffu;
    for (int step = 0; any && step < length; ++step) {
        const wp::int64 row = start + wp::int64(step) * channels;
        float* __restrict p = value.data + row;
        float* __restrict g = gradient.data + row;
        float* __restrict m = mean.data + row;
        float* __restrict v = variance.data + row;
        unsigned here = 0;
        for (int i = 0; i < channels; ++i) here |= bits[step * channels + i] & 0x7fffffffu;
        if (!here) continue;
        for (int i = 0; i < channels; ++i) {
            const float slope = g[i];
            m[i] = beta1 * m[i] + (1.0f - beta1) * slope;
            v[i] = beta2 * v[i] + (1.0f - beta2) * slope * slope;
            p[i] -= rate * m[i] / (sqrtf(v[i] * correction) + 1e-15f);
            g[i] = 0.0f;
        }
    }
"""

ADAM_DENSITY_COLUMN = """
    float* __restrict p = logarithm.data + start;
    float* __restrict d = density.data + start;
    float* __restrict g = gradient.data + start;
    float* __restrict m = mean.data + start;
    float* __restrict v = variance.data + start;
    for (int i = 0; i < length; ++i) {
        const float slope = g[i];
        if (slope == 0.0f) continue;
        m[i] = beta1 * m[i] + (1.0f - beta1) * slope;
        v[i] = beta2 * v[i] + (1.0f - beta2) * slope * slope;
        const float moved = p[i] - rate * m[i] / (sqrtf(v[i] * correction) + 1e-15f);
        p[i] = moved < 9.0f ? moved : 9.0f;
        d[i] = expf(p[i]) / unit;
        g[i] = 0.0f;
    }
"""

SMOOTH_ROW = """
    const float* __restrict x = value.data + start;
    const float* __restrict n = value.data + neighbour;
    float* __restrict g = gradient.data + start;
    #pragma clang loop vectorize(enable)
    for (int i = 0; i < count; ++i) {
        const float slope = x[i] - n[i];
        g[i] += weight * (slope > limit ? limit : (slope < -limit ? -limit : slope));
    }
"""


@wp.func_native(ADAM_COLUMN)
@typing.no_type_check
def adam_column(
    value: wp.array(dtype=float),
    gradient: wp.array(dtype=float),
    mean: wp.array(dtype=float),
    variance: wp.array(dtype=float),
    start: wp.int64,
    length: int,
    channels: int,
    rate: float,
    beta1: float,
    beta2: float,
    correction: float,
): ...


@wp.func_native(ADAM_DENSITY_COLUMN)
@typing.no_type_check
def adam_density_column(
    logarithm: wp.array(dtype=float),
    density: wp.array(dtype=float),
    gradient: wp.array(dtype=float),
    mean: wp.array(dtype=float),
    variance: wp.array(dtype=float),
    start: wp.int64,
    length: int,
    unit: float,
    rate: float,
    beta1: float,
    beta2: float,
    correction: float,
): ...


@wp.func_native(SMOOTH_ROW)
@typing.no_type_check
def smooth_row(
    value: wp.array(dtype=float),
    gradient: wp.array(dtype=float),
    start: wp.int64,
    neighbour: wp.int64,
    count: int,
    weight: float,
    limit: float,
): ...


@wp.func
@typing.no_type_check
def any_nonzero(gradient: wp.array(dtype=float), start: wp.int64, count: int) -> bool:
    """Whether some voxels have received a gradient."""
    for channel in range(count):
        if gradient[start + wp.int64(channel)] != 0.0:
            return True
    return False


@wp.func
@typing.no_type_check
def column_of(bricks: wp.array(dtype=wp.vec3i), thread: int) -> wp.vec3i:
    """The first voxel of a thread's column: 64 consecutive threads share a brick, each has 8 voxels along z."""
    rest = thread % (EDGE * EDGE)
    return bricks[thread // (EDGE * EDGE)] * EDGE + wp.vec3i(rest // EDGE, rest % EDGE, 0)


@wp.func
@typing.no_type_check
def length_of(voxel: wp.vec3i, shape: wp.vec3i) -> int:
    """Voxels of a column inside the grid."""
    if voxel[0] >= shape[0] or voxel[1] >= shape[1]:
        return 0
    return wp.min(EDGE, shape[2] - voxel[2])


@wp.func
@typing.no_type_check
def row_of(voxel: wp.vec3i, shape: wp.vec3i) -> wp.int64:
    """Raster index of a voxel."""
    return (wp.int64(voxel[0]) * wp.int64(shape[1]) + wp.int64(voxel[1])) * wp.int64(shape[2]) + wp.int64(voxel[2])


@wp.kernel
@typing.no_type_check
def adam_features(
    offset: int,
    bricks: wp.array(dtype=wp.vec3i),
    shape: wp.vec3i,
    channels: int,
    value: wp.array(dtype=float),
    gradient: wp.array(dtype=float),
    mean: wp.array(dtype=float),
    variance: wp.array(dtype=float),
    rate: float,
    beta1: float,
    beta2: float,
    correction: float,
):
    """An Adam step for the voxels that have a gradient, which is cleared."""
    first = column_of(bricks, offset + wp.tid())
    start = row_of(first, shape) * wp.int64(channels)
    length = length_of(first, shape)
    adam_column(value, gradient, mean, variance, start, length, channels, rate, beta1, beta2, correction)


@wp.kernel
@typing.no_type_check
def adam_density(
    offset: int,
    bricks: wp.array(dtype=wp.vec3i),
    shape: wp.vec3i,
    logarithm: wp.array(dtype=float),
    density: wp.array(dtype=float),
    gradient: wp.array(dtype=float),
    mean: wp.array(dtype=float),
    variance: wp.array(dtype=float),
    unit: float,
    rate: float,
    beta1: float,
    beta2: float,
    correction: float,
):
    """An Adam step on the logarithm of density * unit for the voxels that have a gradient, which is cleared."""
    first = column_of(bricks, offset + wp.tid())
    start = row_of(first, shape)
    length = length_of(first, shape)
    adam_density_column(
        logarithm, density, gradient, mean, variance, start, length, unit, rate, beta1, beta2, correction
    )


@wp.kernel
@typing.no_type_check
def log_gradient(
    offset: int,
    bricks: wp.array(dtype=wp.vec3i),
    shape: wp.vec3i,
    density: wp.array(dtype=float),
    gradient: wp.array(dtype=float),
    decay: float,
):
    """Turns the gradient by density into the gradient by its logarithm, plus a constant slope."""
    first = column_of(bricks, offset + wp.tid())
    start = row_of(first, shape)
    for step in range(length_of(first, shape)):
        row = start + wp.int64(step)
        if gradient[row] != 0.0:
            gradient[row] = gradient[row] * density[row] + decay


@wp.kernel
@typing.no_type_check
def smooth(
    offset: int,
    bricks: wp.array(dtype=wp.vec3i),
    numbers: wp.array3d(dtype=int),
    shape: wp.vec3i,
    channels: int,
    value: wp.array(dtype=float),
    gradient: wp.array(dtype=float),
    weight: float,
    limit: float,
):
    """Adds the gradient of a pool's clipped total variation for the voxels that already have one."""
    first = column_of(bricks, offset + wp.tid())
    length = length_of(first, shape)
    if length > 0:
        top = wp.int64(row_of_voxel(numbers, first[0], first[1], first[2])) * wp.int64(channels)
        if any_nonzero(gradient, top, length * channels):
            for step in range(length):
                voxel = first + wp.vec3i(0, 0, step)
                start = top + wp.int64(step * channels)
                if any_nonzero(gradient, start, channels):
                    for axis in range(3):
                        for side in range(2):
                            other = voxel
                            other[axis] = voxel[axis] + 2 * side - 1
                            if other[axis] >= 0 and other[axis] < shape[axis]:
                                row = row_of_voxel(numbers, other[0], other[1], other[2])
                                if row >= 0:
                                    neighbour = wp.int64(row) * wp.int64(channels)
                                    smooth_row(value, gradient, start, neighbour, channels, weight, limit)
