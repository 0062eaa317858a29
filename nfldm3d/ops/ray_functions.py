# pyright: basic, reportInvalidTypeForm=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
"""Warp functions for rays of evenly spaced samples: entering a box, placing samples, leaping over empty tiles."""

import typing
from typing import Any

import warp as wp

from nfldm3d.ops.grid_functions import cell_of, voxel_position
from nfldm3d.ops.records import BRICK, TILE

BRICK_BITS = wp.constant(BRICK.bit_length() - 1)
BRICK_MASK = wp.constant(BRICK - 1)

TILE_BITS = wp.constant(TILE.bit_length() - 1)
INFINITE = wp.constant(1.0e30)


@wp.struct
@typing.no_type_check
class Ray:
    """A ray in voxel coordinates: sample k is at start + (k + 1/2) * slope, for first <= k < end."""

    start: wp.vec3
    slope: wp.vec3
    inverse: wp.vec3  # of the slope
    near: float
    first: int
    end: int


@wp.func
@typing.no_type_check
def clip(origin: wp.vec3, direction: wp.vec3, lower: wp.vec3, upper: wp.vec3) -> wp.vec2:
    """Distances at which a ray enters and leaves a box; entry > exit if it misses."""
    entry = -INFINITE
    leave = INFINITE
    for axis in range(3):
        if direction[axis] != 0.0:
            a = (lower[axis] - origin[axis]) / direction[axis]
            b = (upper[axis] - origin[axis]) / direction[axis]
            entry = wp.max(entry, wp.min(a, b))
            leave = wp.min(leave, wp.max(a, b))
        elif origin[axis] < lower[axis] or origin[axis] > upper[axis]:
            entry = INFINITE
    return wp.vec2(entry, leave)


@wp.func
@typing.no_type_check
def ray_at(
    index: int,
    origins: wp.array2d(dtype=float),
    directions: wp.array2d(dtype=float),
    near_far: wp.array2d(dtype=float),
    lower: wp.vec3,
    upper: wp.vec3,
    step: float,
    shape: wp.vec3i,
) -> Ray:
    """One ray in voxel coordinates; without near_far it reaches from max(0, entry) to the exit of the box."""
    origin = wp.vec3(origins[index, 0], origins[index, 1], origins[index, 2])
    direction = wp.vec3(directions[index, 0], directions[index, 1], directions[index, 2])
    inside = clip(origin, direction, lower, upper)
    near = wp.max(inside[0], 0.0)
    far = inside[1]
    if near_far.shape[0] > 0:
        near = near_far[index, 0]
        far = near_far[index, 1]
    stop = wp.min(far, inside[1])
    ray = Ray()
    if stop > wp.max(near, inside[0]) and stop < INFINITE:
        ray.near = near
        ray.start = voxel_position(origin + near * direction, lower, upper, shape)
        ray.slope = voxel_position(step * direction + lower, lower, upper, shape) + wp.vec3(0.5, 0.5, 0.5)
        for axis in range(3):
            ray.inverse[axis] = wp.where(wp.abs(ray.slope[axis]) > 1.0e-12, 1.0 / ray.slope[axis], INFINITE)
        ray.first = wp.max(int(wp.ceil((inside[0] - near) / step - 0.5)), 0)
        ray.end = int(wp.ceil((stop - near) / step - 0.5))
    return ray


@wp.func
@typing.no_type_check
def position_of(ray: Ray, k: int) -> wp.vec3:
    """Voxel coordinates of sample k."""
    return ray.start + (float(k) + 0.5) * ray.slope


@wp.func
@typing.no_type_check
def leap(ray: Ray, k: int, tile: wp.vec3i, distance: int) -> int:
    """The first sample after k that may lie outside the empty block of 2 * distance - 1 tiles around ``tile``."""
    steps = INFINITE
    for axis in range(3):
        tiles = tile[axis] + wp.where(ray.slope[axis] >= 0.0, distance, 1 - distance)
        steps = wp.min(steps, (float(tiles << TILE_BITS) - ray.start[axis]) * ray.inverse[axis])
    # A hundredth of a step too early costs one more look; too late could cost a sample.
    return wp.max(k + 1, int(wp.min(steps, float(ray.end)) + 0.49))


@wp.struct
@typing.no_type_check
class BrickCells:
    """The marks of cells by brick: ``numbers`` is a brick's row of ``marks``, or -1 where none of its cells is set."""

    numbers: wp.array3d(dtype=int)
    marks: wp.array2d(dtype=wp.uint8)  # (bricks, 512)


@wp.func
@typing.no_type_check
def place_in_brick(x: int, y: int, z: int) -> int:
    """Raster index of a voxel or cell within its brick."""
    column = ((x & BRICK_MASK) << BRICK_BITS) | (y & BRICK_MASK)
    return (column << BRICK_BITS) | (z & BRICK_MASK)


@wp.func
@typing.no_type_check
def is_marked(cells: wp.array3d(dtype=wp.uint8), cell: wp.vec3i) -> bool:
    """Whether a cell of a dense grid is occupied."""
    return cells[cell[0], cell[1], cell[2]] != wp.uint8(0)


@wp.func
@typing.no_type_check
def is_marked(cells: BrickCells, cell: wp.vec3i) -> bool:  # noqa: F811 -- overloads, in Warp
    """Whether a cell of a grid of bricks is occupied."""
    number = cells.numbers[cell[0] >> BRICK_BITS, cell[1] >> BRICK_BITS, cell[2] >> BRICK_BITS]
    if number < 0:
        return False
    return cells.marks[number, place_in_brick(cell[0], cell[1], cell[2])] != wp.uint8(0)


@wp.func
@typing.no_type_check
def next_occupied(ray: Ray, k: int, cells: Any, leaps: wp.array3d(dtype=wp.uint8), shape: wp.vec3i) -> int:
    """The first sample from k on whose cell is occupied, or ``ray.end``."""
    while k < ray.end:
        cell = cell_of(position_of(ray, k), shape)
        tile = wp.vec3i(cell[0] >> TILE_BITS, cell[1] >> TILE_BITS, cell[2] >> TILE_BITS)
        distance = int(leaps[tile[0], tile[1], tile[2]])
        if distance > 0:
            k = leap(ray, k, tile, distance)
        elif is_marked(cells, cell):
            return k
        else:
            k += 1
    return ray.end


@wp.func
@typing.no_type_check
def absorbed(depth: float) -> float:
    """1 - exp(-depth), accurate for small depths, too."""
    if depth < 0.03:
        return depth * (1.0 - depth * (0.5 - depth * (1.0 / 6.0 - depth * (1.0 / 24.0))))
    return 1.0 - wp.exp(-depth)
