# pyright: basic, reportInvalidTypeForm=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
# ruff: noqa: RUF046 -- int(0) tells Warp that a variable changes in a loop
"""Warp kernels that march rays through occupied cells, forward and backward, whatever the layout of the grid.

Both directions handle all samples of a ray within one cell together: the eight densities are read once, and the rows
of features are read (or written) once, with the samples' weights already summed per corner.

Gradients, with w_i = T_i alpha_i and v_i = dL/dw_i:
    dL/d density_i = step * (T_(i+1) v_i - sum over j > i of w_j v_j)
    v_i = <dL/d features, feature_i> + dL/d opacity + t_i dL/d distance + dL/d distortion * d_i
    d_i = 2 (t_i (A_<i - A_>i) - (B_<i - B_>i)) + 2/3 step w_i     with A = sum of w, B = sum of w t before and behind i
The sum behind i is the total less the sum up to i, and the total follows from the forward pass's results, since
sum w_j d_j is twice the distortion.
"""

import typing
from typing import Any, NamedTuple

import warp as wp

from nfldm3d.ops import grid_functions
from nfldm3d.ops.crossing_functions import Passage, Return, Totals, cross_cell, cross_cell_back
from nfldm3d.ops.grid_functions import (
    cell_of,
    corner_values,
    fetch_voxels,
    owned_voxel,
    scatter_range,
    scatter_rows,
    shape_of,
    vec8,
)
from nfldm3d.ops.ray_functions import Ray, next_occupied, position_of, ray_at

wp.set_module_options({"enable_backward": False})

AHEAD = wp.constant(2)  # visits between asking for rows and using them


class Layout(NamedTuple):
    """How kernels reach the voxels of a field: types of arrays, and Warp functions that take these."""

    module: str
    """Of the kernels; two layouts have different ones."""
    density: Any
    features: Any
    marks: Any
    """Which cells are occupied."""
    corners_of: Any
    """(numbers, cell, shape): the corners of a cell as the other functions take them."""
    find_next: Any
    """(ray, k, occupied, marks, leaps, shape): the first sample from k on in an occupied cell, or the ray's end."""
    read_corners: Any
    fetch_rows: Any
    add_rows: Any
    dot_rows: Any
    """This and the three before do to corners what the functions of these names in ``grid_functions`` do to a cell."""


def make_march(layout: Layout) -> tuple[Any, Any]:
    """The kernels ``march_forward`` and ``march_backward`` for fields of a layout."""
    corners_of, find_next, read_corners = layout.corners_of, layout.find_next, layout.read_corners
    fetch_rows, add_rows, dot_rows = layout.fetch_rows, layout.add_rows, layout.dot_rows

    @wp.kernel(grid_stride=False, module=layout.module)
    @typing.no_type_check
    def march_forward(
        offset: int,
        density: layout.density,
        features: layout.features,
        numbers: wp.array3d(dtype=int),
        shape: wp.vec3i,
        occupied: wp.array3d(dtype=int),
        marks: layout.marks,
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
        ray = ray_at(index, origins, directions, near_far, lower, upper, step, shape)
        way = Passage()
        way.transmittance = 1.0
        visits = int(0)
        way.k = find_next(ray, ray.first, occupied, marks, leaps, shape)
        while way.k < ray.end and way.transmittance >= early_stop:
            cell = cell_of(position_of(ray, way.k), shape)
            corners = corners_of(numbers, cell, shape)
            fetch_rows(features, corners)
            way = cross_cell(ray, cell, shape, read_corners(density, corners), step, early_stop, way)
            if way.visible:
                add_rows(features, corners, way.weights, out_features, index)
                visits += 1
            way.k = find_next(ray, way.k, occupied, marks, leaps, shape)
        out_opacity[index] = way.opacity
        out_distance[index] = way.moment + ray.near * way.opacity
        out_distortion[index] = 2.0 * way.spread + way.squares * step / 3.0
        out_visits[index] = visits

    @wp.kernel(grid_stride=False, module=layout.module)
    @typing.no_type_check
    def march_backward(
        offset: int,
        first_ray: int,
        density: layout.density,
        features: layout.features,
        numbers: wp.array3d(dtype=int),
        shape: wp.vec3i,
        occupied: wp.array3d(dtype=int),
        marks: layout.marks,
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
        """Records what ray ``first_ray + offset`` + tid adds to the 8 corners of each cell that it visited.

        ``total`` is the ray's sum of w v, ``grad_sums`` the gradients of opacity, distance and distortion.
        Per visit: the cell, the factors of the feature gradient and the addends of the density gradient.
        """
        index = first_ray + offset + wp.tid()
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
        way.k = find_next(ray, ray.first, occupied, marks, leaps, shape)
        while way.k < ray.end and way.transmittance >= early_stop and slot < end_slot:
            cell = cell_of(position_of(ray, way.k), shape)
            corners = corners_of(numbers, cell, shape)
            fetch_rows(features, corners)
            densities = read_corners(density, corners)
            dot_rows(features, corners, grad_features, index, slope_shares, slot)
            way = cross_cell_back(ray, cell, shape, densities, slope_shares[slot], step, early_stop, totals, way)
            if way.visible:
                visited[slot] = wp.vec4i(cell[0], cell[1], cell[2], index)
                weight_shares[slot] = way.weights
                slope_shares[slot] = way.slopes
                slot += 1
            way.k = find_next(ray, way.k, occupied, marks, leaps, shape)
        while slot < end_slot:  # forward and backward may round differently
            visited[slot] = wp.vec4i(-1, -1, -1, index)
            slot += 1

    return march_forward, march_backward


@wp.func
@typing.no_type_check
def same_cell(numbers: wp.array3d(dtype=int), cell: wp.vec3i, shape: wp.vec3i) -> wp.vec3i:
    """The cell itself, by which a dense grid finds its corners."""
    return cell


@wp.func
@typing.no_type_check
def next_marked(
    ray: Ray,
    k: int,
    occupied: wp.array3d(dtype=int),
    marks: wp.array3d(dtype=wp.uint8),
    leaps: wp.array3d(dtype=wp.uint8),
    shape: wp.vec3i,
) -> int:
    """The first sample from k on in an occupied cell of a dense grid."""
    return next_occupied(ray, k, marks, leaps, shape)


march_forward, march_backward = make_march(
    Layout(
        module=__name__,
        density=wp.array3d(dtype=Any),
        features=wp.array4d(dtype=Any),
        marks=wp.array3d(dtype=wp.uint8),
        corners_of=same_cell,
        find_next=next_marked,
        read_corners=corner_values,
        fetch_rows=grid_functions.fetch_rows,
        add_rows=grid_functions.add_rows,
        dot_rows=grid_functions.dot_rows,
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
    feature_gradient: wp.array4d(dtype=float),
):
    """Adds the recorded visits to the gradients; see ``launch_scatter``."""
    me = offset + wp.tid()
    shape = shape_of(feature_gradient)
    first, end = scatter_range(me, owners, count)
    for slot in range(first, end):
        ahead = visited[wp.min(slot + AHEAD, end - 1)]
        visit = visited[slot]
        weights = weight_shares[slot]
        slopes = slope_shares[slot]
        for column in range(4):
            voxel = owned_voxel(ahead, column, me, owners, shape)
            if voxel >= wp.int64(0):
                fetch_voxels(feature_gradient, voxel, 2)
            voxel = owned_voxel(visit, column, me, owners, shape)
            if voxel >= wp.int64(0):
                a, b = weights[2 * column], weights[2 * column + 1]
                scatter_rows(feature_gradient, voxel, a, b, grad_features, visit[3])
                wp.atomic_add(density_gradient, voxel, slopes[2 * column])
                if shape[2] > 1:
                    wp.atomic_add(density_gradient, voxel + wp.int64(1), slopes[2 * column + 1])
