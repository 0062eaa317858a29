# pyright: basic, reportInvalidTypeForm=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
"""Warp kernels that march rays through a pool of bricks: those of ``march_kernels``, but rows are found by brick."""

import typing
from typing import Any

import warp as wp

from nfldm3d.ops.grid_functions import scatter_range, vec8
from nfldm3d.ops.march_kernels import AHEAD, Layout, make_march
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
from nfldm3d.ops.ray_functions import BrickCells, Ray, next_occupied

wp.set_module_options({"enable_backward": False})


@wp.func
@typing.no_type_check
def next_in_pool(
    ray: Ray,
    k: int,
    occupied: wp.array3d(dtype=int),
    marks: wp.array2d(dtype=wp.uint8),
    leaps: wp.array3d(dtype=wp.uint8),
    shape: wp.vec3i,
) -> int:
    """The first sample from k on in an occupied cell of a grid of bricks."""
    cells = BrickCells()
    cells.numbers = occupied
    cells.marks = marks
    return next_occupied(ray, k, cells, leaps, shape)


march_forward, march_backward = make_march(
    Layout(
        module=__name__,
        density=wp.array(dtype=Any),
        features=wp.array2d(dtype=Any),
        marks=wp.array2d(dtype=wp.uint8),
        corners_of=rows_of_cell,
        find_next=next_in_pool,
        read_corners=pool_values,
        fetch_rows=fetch_pool_rows,
        add_rows=add_pool_rows,
        dot_rows=dot_pool_rows,
    )
)


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
