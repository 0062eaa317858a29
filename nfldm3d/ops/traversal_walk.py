# pyright: basic, reportInvalidTypeForm=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
"""Warp functions for the way of a ray through the cells of a grid that are all occupied, or all empty.

Empty cells are left a brick of 8 x 8 x 8 at a time where a brick is empty. It is C++, because each cell costs four
nanoseconds in registers and more than twice that in Warp's own loops.
"""

import typing

import warp as wp

# Rows of a whole brick are read as one number.
_MARK_BRICK = """
    const int64_t nx = cells.shape[1], ny = cells.shape[2], nz = cells.shape[3];
    const int64_t bx = (nx + 7) / 8, by = (ny + 7) / 8, bz = (nz + 7) / 8;
    const int64_t x = brick / (by * bz) % bx * 8, y = brick / bz % by * 8, z = brick % bz * 8;
    const bool* __restrict first = cells.data + ((brick / (bx * by * bz) * nx + x) * ny + y) * nz + z;
    uint64_t any = 0;
    for (int64_t i = 0; i < 8 && x + i < nx; ++i)
        for (int64_t j = 0; j < 8 && y + j < ny; ++j) {
            const bool* __restrict row = first + (i * ny + j) * nz;
    #if !defined(__CUDA_ARCH__)
            if (z + 8 <= nz) {
                uint64_t eight;
                __builtin_memcpy(&eight, row, 8);
                any |= eight;
                continue;
            }
    #endif
            for (int64_t k = 0; k < 8 && z + k < nz; ++k) any |= row[k];
        }
    bricks.data[brick] = any != 0;
"""


def _to_nearest_plane(then: str) -> str:
    """Code that crosses the nearest plane ahead, where the walk may end, and does ``then`` for its AXIS."""
    cross = """
        t = ahead[AXIS];
        if (!(t < leave) || plane[AXIS] == border[AXIS]) {
            place[0] = leave;
            return;
        }
    """
    x, y, z = ((cross + then).replace("AXIS", axis) for axis in "012")
    return f"""
        if (ahead[0] <= ahead[1] && ahead[0] <= ahead[2]) {{ {x} }}
        else if (ahead[1] <= ahead[2]) {{ {y} }}
        else {{ {z} }}
    """


_NEXT_CELL = _to_nearest_plane("""
        is_new_brick = plane[AXIS] % 8 == 0;
        plane[AXIS] += step[AXIS];
        ahead[AXIS] = first[AXIS] + (float)plane[AXIS] * spacing[AXIS];
        cell += cell_stride[AXIS];
""")

_NEXT_BRICK = _to_nearest_plane("""
        plane[AXIS] += 8 * step[AXIS];
        if (plane[AXIS] > size[AXIS]) plane[AXIS] = size[AXIS];
        ahead[AXIS] = first[AXIS] + (float)plane[AXIS] * spacing[AXIS];
        brick += brick_stride[AXIS];
""")

# ``plane`` is the one that comes next on each axis.
_WALK_ALIKE = """{
    const int size[3] = {cells.shape[1], cells.shape[2], cells.shape[3]};
    const int64_t ny = size[1], nz = size[2], by = (ny + 7) / 8, bz = (nz + 7) / 8;
    const int64_t cell_stride[3] = {step[0] * ny * nz, step[1] * nz, step[2]};
    const int64_t brick_stride[3] = {step[0] * by * bz, step[1] * bz, step[2]};
    const bool* const all_cells = cells.data + level * (size[0] * ny * nz);
    const bool* const all_bricks = bricks.data + level * ((size[0] + 7) / 8 * by * bz);
    int at[3], plane[3], border[3];
    float t = place[0], ahead[3];
    for (int a = 0; a < 3; ++a) {
        at[a] = (int)place[a + 1];
        border[a] = step[a] > 0 ? size[a] : 0;
        plane[a] = at[a] + (step[a] > 0);
        ahead[a] = step[a] == 0 ? 1.0e30f : first[a] + (float)plane[a] * spacing[a];
    }
    const bool* cell = all_cells + (at[0] * ny + at[1]) * nz + at[2];
    bool is_new_brick = true;
    while (*cell == alike) {
        if (is_new_brick && !alike) {
            for (int a = 0; a < 3; ++a) if (step[a] != 0) at[a] = plane[a] - (step[a] > 0);
            const bool* brick = all_bricks + (at[0] / 8 * by + at[1] / 8) * bz + at[2] / 8;
            if (!*brick) {
                for (int a = 0; a < 3; ++a) {
                    plane[a] = step[a] > 0 ? wp::min(at[a] / 8 * 8 + 8, size[a]) : at[a] / 8 * 8;
                    if (step[a] != 0) ahead[a] = first[a] + (float)plane[a] * spacing[a];
                }
                do { NEXT_BRICK } while (!*brick);
                for (int a = 0; a < 3; ++a) {
                    if (step[a] == 0) continue;
                    const int front = step[a] > 0, low = (plane[a] - front) / 8 * 8;
                    const int high = wp::min(low + 8, size[a]) - 1;
                    const int begin = front ? low : high, end = front ? high : low;
                    const float guess = (t - first[a]) / spacing[a];
                    int i = guess > low ? (guess < high ? (int)guess : high) : low;
                    while (i != begin && first[a] + (float)(i + 1 - front) * spacing[a] > t) i -= step[a];
                    while (i != end && first[a] + (float)(i + front) * spacing[a] <= t) i += step[a];
                    at[a] = i;
                    plane[a] = i + front;
                    ahead[a] = first[a] + (float)plane[a] * spacing[a];
                }
                cell = all_cells + (at[0] * ny + at[1]) * nz + at[2];
                is_new_brick = false;
                continue;
            }
        }
        NEXT_CELL
    }
    place[0] = t;
    for (int a = 0; a < 3; ++a) if (step[a] != 0) place[a + 1] = (float)(plane[a] - (step[a] > 0));
}""".replace("NEXT_BRICK", _NEXT_BRICK).replace("NEXT_CELL", _NEXT_CELL)


@wp.func_native(_MARK_BRICK)
@typing.no_type_check
def mark_brick(cells: wp.array4d(dtype=wp.bool), bricks: wp.array4d(dtype=wp.bool), brick: int):
    """Notes whether any cell of a brick is occupied."""
    ...


@wp.func_native(_WALK_ALIKE)
@typing.no_type_check
def walk_alike(
    cells: wp.array4d(dtype=wp.bool),
    bricks: wp.array4d(dtype=wp.bool),
    level: int,
    alike: bool,
    first: wp.vec3,
    spacing: wp.vec3,
    step: wp.vec3i,
    place: wp.ref[wp.vec4],
    leave: float,
):
    """Moves a place (distance and cell) through cells that are occupied or not, as ``alike`` tells, to the next other.

    If there is none before ``leave``, that is the distance, and the cell means nothing. A ray meets plane n of an
    axis at first + n * spacing and its step is 0 if it is parallel to them.
    """
    ...
