# pyright: basic, reportInvalidTypeForm=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
"""Warp kernels that update the listed bricks of a grid in place: one thread a brick, no thread writes another's voxels."""

import typing

import warp as wp

wp.set_module_options({"enable_backward": False})

BRICK = wp.constant(8)
LOG_DENSITY_LIMIT = wp.constant(9.0)

ADAM_ROW = """
    float* __restrict p = value.data + start;
    float* __restrict g = gradient.data + start;
    float* __restrict m = mean.data + start;
    float* __restrict v = variance.data + start;
    #pragma clang loop vectorize(enable) interleave(enable)
    for (int i = 0; i < count; ++i) {
        const float slope = g[i];
        m[i] = beta1 * m[i] + (1.0f - beta1) * slope;
        v[i] = beta2 * v[i] + (1.0f - beta2) * slope * slope;
        p[i] -= rate * m[i] / (sqrtf(v[i] * correction) + 1e-15f);
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


@wp.func_native(ADAM_ROW)
@typing.no_type_check
def adam_row(
    value: wp.array(dtype=float),
    gradient: wp.array(dtype=float),
    mean: wp.array(dtype=float),
    variance: wp.array(dtype=float),
    start: wp.int64,
    count: int,
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
    """Whether a voxel has received a gradient."""
    for channel in range(count):
        if gradient[start + wp.int64(channel)] != 0.0:
            return True
    return False


@wp.func
@typing.no_type_check
def voxel_of(bricks: wp.array(dtype=wp.vec3i), shape: wp.vec3i, thread: int) -> wp.vec3i:
    """The voxel of a thread: 512 consecutive threads share a brick; (-1, -1, -1) beyond the grid's edge."""
    brick = bricks[thread // (BRICK * BRICK * BRICK)]
    rest = thread % (BRICK * BRICK * BRICK)
    voxel = brick * BRICK + wp.vec3i(rest // (BRICK * BRICK), rest // BRICK % BRICK, rest % BRICK)
    if voxel[0] >= shape[0] or voxel[1] >= shape[1] or voxel[2] >= shape[2]:
        return wp.vec3i(-1, -1, -1)
    return voxel


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
    voxel = voxel_of(bricks, shape, offset + wp.tid())
    if voxel[0] >= 0:
        start = row_of(voxel, shape) * wp.int64(channels)
        if any_nonzero(gradient, start, channels):
            adam_row(value, gradient, mean, variance, start, channels, rate, beta1, beta2, correction)


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
    voxel = voxel_of(bricks, shape, offset + wp.tid())
    if voxel[0] >= 0:
        row = row_of(voxel, shape)
        if gradient[row] != 0.0:
            adam_row(logarithm, gradient, mean, variance, row, 1, rate, beta1, beta2, correction)
            logarithm[row] = wp.min(logarithm[row], LOG_DENSITY_LIMIT)
            density[row] = wp.exp(logarithm[row]) / unit


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
    voxel = voxel_of(bricks, shape, offset + wp.tid())
    if voxel[0] >= 0:
        row = row_of(voxel, shape)
        if gradient[row] != 0.0:
            gradient[row] = gradient[row] * density[row] + decay


@wp.kernel
@typing.no_type_check
def smooth(
    offset: int,
    bricks: wp.array(dtype=wp.vec3i),
    shape: wp.vec3i,
    channels: int,
    value: wp.array(dtype=float),
    gradient: wp.array(dtype=float),
    weight: float,
    limit: float,
):
    """Adds the gradient of a clipped total variation for the voxels that already have one."""
    voxel = voxel_of(bricks, shape, offset + wp.tid())
    if voxel[0] >= 0:
        start = row_of(voxel, shape) * wp.int64(channels)
        if any_nonzero(gradient, start, channels):
            for axis in range(3):
                for side in range(2):
                    other = voxel
                    other[axis] = voxel[axis] + 2 * side - 1
                    if other[axis] >= 0 and other[axis] < shape[axis]:
                        neighbour = row_of(other, shape) * wp.int64(channels)
                        smooth_row(value, gradient, start, neighbour, channels, weight, limit)
