# pyright: basic, reportInvalidTypeForm=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
# ruff: noqa: RUF046 -- int(0) tells Warp that a variable changes in a loop
"""Warp kernels that mark occupied cells and measure how far each tile is from the next one that holds any."""

import typing
from typing import Any

import warp as wp

from nfldm3d.ops.records import BRICK, TILE

wp.set_module_options({"enable_backward": False})

TILE_EDGE = wp.constant(TILE)
FARTHEST = wp.constant(255)

# One line of cells along z: the largest of four lines of voxels, then of two neighbours in it.
_MARK_LINE = """
    const int64_t ny = density.shape[1], nz = density.shape[2];
    const int64_t dx = x + 1 < density.shape[0] ? ny * nz : 0, dy = y + 1 < ny ? nz : 0;
    const auto* __restrict a = density.data + (x * ny + y) * nz;
    const auto* __restrict b = a + dx;
    const auto* __restrict c = a + dy;
    const auto* __restrict d = b + dy;
    uint8_t* __restrict out = cells.data + (x * ny + y) * nz;
    #pragma clang loop vectorize(enable)
    for (int z = 0; z < nz; ++z)
        out[z] = ((float)a[z] > threshold) | ((float)b[z] > threshold)
               | ((float)c[z] > threshold) | ((float)d[z] > threshold);
    for (int z = 0; z + 1 < nz; ++z) out[z] |= out[z + 1];
"""


# The voxels of a brick and those after it, then the cells between them.
_MARK_BRICK = f"""
    const int edge = {BRICK}, tile = {TILE};
    unsigned char solid[{BRICK + 1}][{BRICK + 1}][{BRICK + 1}];
    for (int i = 0; i <= edge; ++i)
        for (int j = 0; j <= edge; ++j)
            for (int k = 0; k <= edge; ++k) {{
                const int x = wp::min(place[0] * edge + i, shape[0] - 1);
                const int y = wp::min(place[1] * edge + j, shape[1] - 1);
                const int z = wp::min(place[2] * edge + k, shape[2] - 1);
                const int64_t at = ((x / edge) * (int64_t)numbers.shape[1] + y / edge) * numbers.shape[2] + z / edge;
                const int64_t number = numbers.data[at];
                const int within = (x % edge * edge + y % edge) * edge + z % edge;
                solid[i][j][k] = number >= 0 && (float)density.data[number * edge * edge * edge + within] > threshold;
            }}
    unsigned char* out = marks.data + (int64_t)brick * edge * edge * edge;
    for (int i = 0; i < edge; ++i)
        for (int j = 0; j < edge; ++j)
            for (int k = 0; k < edge; ++k) {{
                const int x = place[0] * edge + i, y = place[1] * edge + j, z = place[2] * edge + k;
                if (x >= shape[0] || y >= shape[1] || z >= shape[2]) continue;
                unsigned char any = 0;
                for (int corner = 0; corner < 8; ++corner)
                    any |= solid[i + (corner >> 2)][j + (corner >> 1 & 1)][k + (corner & 1)];
                out[(i * edge + j) * edge + k] = any;
                if (any)
                    leaps.data[((x / tile) * (int64_t)leaps.shape[1] + y / tile) * leaps.shape[2] + z / tile] = 0;
            }}
"""


@wp.func_native(_MARK_BRICK)
@typing.no_type_check
def mark_cells_of(
    density: wp.array(dtype=Any),
    numbers: wp.array3d(dtype=int),
    shape: wp.vec3i,
    threshold: float,
    place: wp.vec3i,
    brick: int,
    marks: wp.array2d(dtype=wp.uint8),
    leaps: wp.array3d(dtype=wp.uint8),
):
    """Marks the cells of the brick at ``place`` with a corner above the threshold in row ``brick``, and their tiles."""
    ...


@wp.func_native(_MARK_LINE)
@typing.no_type_check
def mark_line(density: wp.array3d(dtype=Any), threshold: float, x: int, y: int, cells: wp.array3d(dtype=wp.uint8)):
    """Marks the cells (x, y, :) with a corner above the threshold."""
    ...


@wp.func
@typing.no_type_check
def tile_is_occupied(cells: wp.array3d(dtype=wp.uint8), x: int, y: int, z: int) -> bool:
    """Whether a cell of the tile that begins at (x, y, z) is marked."""
    for i in range(x, wp.min(x + TILE_EDGE, cells.shape[0])):
        for j in range(y, wp.min(y + TILE_EDGE, cells.shape[1])):
            for k in range(z, wp.min(z + TILE_EDGE, cells.shape[2])):
                if cells[i, j, k] != wp.uint8(0):
                    return True
    return False


@wp.func
@typing.no_type_check
def measure_along(leaps: wp.array3d(dtype=wp.uint8), bx: int, by: int):
    """Each tile's distance along z to an occupied one of its column."""
    distance = int(FARTHEST)
    for bz in range(leaps.shape[2]):
        distance = wp.min(distance + 1, int(leaps[bx, by, bz]))
        leaps[bx, by, bz] = wp.uint8(distance)
    for step in range(leaps.shape[2]):
        bz = leaps.shape[2] - 1 - step
        distance = wp.min(distance + 1, int(leaps[bx, by, bz]))
        leaps[bx, by, bz] = wp.uint8(distance)


@wp.kernel(grid_stride=False)
@typing.no_type_check
def mark_cells(
    offset: int,
    density: wp.array3d(dtype=Any),
    threshold: float,
    cells: wp.array3d(dtype=wp.uint8),
    leaps: wp.array3d(dtype=wp.uint8),
):
    """Marks the cells of a column of tiles, and measures each tile's distance along z to an occupied one."""
    column = offset + wp.tid()
    bx = column // leaps.shape[1]
    by = column % leaps.shape[1]
    x = bx * TILE_EDGE
    y = by * TILE_EDGE
    for i in range(x, wp.min(x + TILE_EDGE, density.shape[0])):
        for j in range(y, wp.min(y + TILE_EDGE, density.shape[1])):
            mark_line(density, threshold, i, j, cells)
    for bz in range(leaps.shape[2]):
        leaps[bx, by, bz] = wp.uint8(wp.where(tile_is_occupied(cells, x, y, bz * TILE_EDGE), 0, FARTHEST))
    measure_along(leaps, bx, by)


@wp.kernel(grid_stride=False)
@typing.no_type_check
def mark_brick(
    offset: int,
    density: wp.array(dtype=Any),
    numbers: wp.array3d(dtype=int),
    shape: wp.vec3i,
    threshold: float,
    bricks: wp.array2d(dtype=int),
    marks: wp.array2d(dtype=wp.uint8),
    leaps: wp.array3d(dtype=wp.uint8),
):
    """Marks the cells of a brick, and with zero the tiles in it that hold any."""
    brick = offset + wp.tid()
    place = wp.vec3i(bricks[brick, 0], bricks[brick, 1], bricks[brick, 2])
    mark_cells_of(density, numbers, shape, threshold, place, brick, marks, leaps)


@wp.kernel(grid_stride=False)
@typing.no_type_check
def sweep_column(offset: int, leaps: wp.array3d(dtype=wp.uint8)):
    """Measures the distances of a column of tiles, of which the occupied ones are zero and the others 255."""
    column = offset + wp.tid()
    measure_along(leaps, column // leaps.shape[1], column % leaps.shape[1])


@wp.kernel(grid_stride=False)
@typing.no_type_check
def spread_distances(offset: int, axis: int, before: wp.array3d(dtype=wp.uint8), after: wp.array3d(dtype=wp.uint8)):
    """Takes one more axis into account: the least of max(steps along the axis, distance found there)."""
    tile = offset + wp.tid()
    z = tile % before.shape[2]
    rest = tile // before.shape[2]
    y = rest % before.shape[1]
    x = rest // before.shape[1]
    best = int(before[x, y, z])
    step = int(1)
    while step < best:
        if axis == 0:
            if x >= step:
                best = wp.min(best, wp.max(step, int(before[x - step, y, z])))
            if x + step < before.shape[0]:
                best = wp.min(best, wp.max(step, int(before[x + step, y, z])))
        else:
            if y >= step:
                best = wp.min(best, wp.max(step, int(before[x, y - step, z])))
            if y + step < before.shape[1]:
                best = wp.min(best, wp.max(step, int(before[x, y + step, z])))
        step += 1
    after[x, y, z] = wp.uint8(best)
