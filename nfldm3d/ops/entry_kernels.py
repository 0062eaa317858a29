# pyright: basic, reportInvalidTypeForm=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
"""The Warp kernel that finds the voxels of entries along rays, and rounds as its torch twin does.

An entry on the border of two voxels must not fall into different ones, so products are rounded before they are added.
"""

import typing

import warp as wp

from nfldm3d.ops.grid_functions import point_at

wp.set_module_options({"enable_backward": False, "fuse_fp": False})

_LOCATE_ENTRIES = """
    const int64_t depths = voxels.shape[1];
    const float* __restrict t = distances.data + ray * depths;
    int* __restrict out = voxels.data + ray * depths;
    const int nx = shape[0], ny = shape[1], nz = shape[2];
    #pragma clang loop vectorize(enable)
    for (int i = 0; i < depths; ++i) {
        const float x = ((origin[0] + t[i] * direction[0]) - lower[0]) * scale[0];
        const float y = ((origin[1] + t[i] * direction[1]) - lower[1]) * scale[1];
        const float z = ((origin[2] + t[i] * direction[2]) - lower[2]) * scale[2];
        const bool inside = (x >= 0.0f) & (y >= 0.0f) & (z >= 0.0f) & (x < nx) & (y < ny) & (z < nz);
        out[i] = inside ? ((int)x * ny + (int)y) * nz + (int)z : -1;
    }
"""


@wp.func_native(_LOCATE_ENTRIES)
@typing.no_type_check
def locate_row(
    distances: wp.array2d(dtype=float),
    ray: int,
    origin: wp.vec3,
    direction: wp.vec3,
    lower: wp.vec3,
    scale: wp.vec3,
    shape: wp.vec3i,
    voxels: wp.array2d(dtype=int),
):
    """Raster indices of the voxels that contain the entries of a ray; -1 outside the box."""
    ...


@wp.kernel(grid_stride=False)
@typing.no_type_check
def locate_entries(
    offset: int,
    distances: wp.array2d(dtype=float),
    origins: wp.array2d(dtype=float),
    directions: wp.array2d(dtype=float),
    lower: wp.vec3,
    upper: wp.vec3,
    shape: wp.vec3i,
    voxels: wp.array2d(dtype=int),
):
    """Raster indices of the voxels that contain the entries of ray ``offset`` + tid; -1 outside the box."""
    ray = offset + wp.tid()
    size = wp.vec3(float(shape[0]), float(shape[1]), float(shape[2]))
    scale = wp.cw_div(size, upper - lower)
    locate_row(distances, ray, point_at(origins, ray), point_at(directions, ray), lower, scale, shape, voxels)
