"""Where a player can stand and walk in a Doom map, on a grid of 16-unit cells."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from nfldm3d.recording.vizdoom.doom_map import PLAYER_THINGS, DoomMap

CELL = 16
"""Map units; the radius of a player."""
HEADROOM = 64
"""Between floor and ceiling where a view is taken from."""
PLAYER_START, TELEPORT_EXIT = 1, 14
THING_REACH = 56.0
"""Map units from a thing to the middle of a cell; what is nearer than 44 is picked up, and cells are jittered in."""
STEPS = ((1, 0), (-1, 0), (0, 1), (0, -1))
"""East, west, north, south."""
OFF_CENTER = 0.1
"""Cells are judged this far from their middle, because lines like to run through the middle."""


@dataclass(frozen=True, eq=False)
class WalkGrid:
    """Cells (i, j) over a map, centred at ``lower + (ij + 0.5) * CELL``."""

    lower: tuple[float, float]
    sector: Int[np.ndarray, "x y"]
    """-1 is void."""
    open_steps: Bool[np.ndarray, "4 x y"]
    """Whether a player gets from a cell to its neighbour in each direction of STEPS, doors staying as they are."""
    standable: Bool[np.ndarray, "x y"]
    """Cells for a camera: reachable in play, high enough, dry, and clear of walls by a cell."""

    def centers(self, cells: Bool[np.ndarray, "x y"]) -> Float[np.ndarray, "points 2"]:
        """The middles of the chosen cells."""
        return np.argwhere(cells) * float(CELL) + (np.array(self.lower) + CELL / 2)

    def center(self, cell: tuple[int, int]) -> Float[np.ndarray, " 2"]:
        """The middle of a cell."""
        return (np.array(cell) + 0.5) * CELL + np.array(self.lower)

    def cell_at(self, point: Float[np.ndarray, " 2"]) -> tuple[int, int]:
        """The cell that holds a point; the nearest one outside the grid."""
        index = np.floor((point - np.array(self.lower)) / CELL).astype(int)
        i, j = np.clip(index, 0, np.array(self.sector.shape) - 1).tolist()
        return i, j


def build_grid(doom_map: DoomMap, *, avoid_things: bool = False) -> WalkGrid:
    """The grid of a whole map; with ``avoid_things``, cameras stay where a player would not pick up an item."""
    used = doom_map.vertices[doom_map.line_vertices.ravel()]
    first = np.floor(used.min(0) / CELL).astype(int) - 1
    shape = np.ceil(used.max(0) / CELL).astype(int) + 1 - first
    lower = first * float(CELL)
    sector, blank = rasterise_sectors(doom_map, lower, shape), np.zeros((4, *shape.tolist()), bool)
    inside = sector >= 0
    open_steps = _find_steps(doom_map, lower, inside, doom_map.passable(opened=False), blank)
    steps_in_play = _find_steps(doom_map, lower, inside, doom_map.passable(opened=True), blank)
    starts = doom_map.thing_position[np.isin(doom_map.thing_type, (PLAYER_START, TELEPORT_EXIT))]
    cells = np.clip(np.floor((starts - lower) / CELL).astype(int), 0, shape - 1)
    reached = walk_distance(steps_in_play, cells) >= 0
    high = doom_map.ceiling - doom_map.floor >= HEADROOM
    suits = reached & inside & (high & ~doom_map.is_liquid)[sector] & ~_near_walls(doom_map, lower, sector.shape)
    if avoid_things:
        suits &= ~_near_things(doom_map, lower, sector.shape)
    return WalkGrid((lower[0], lower[1]), sector, open_steps, suits)


def rasterise_sectors(
    doom_map: DoomMap, lower: Float[np.ndarray, " 2"], shape: Int[np.ndarray, " 2"]
) -> Int[np.ndarray, "x y"]:
    """The sector at the middle of each cell of a grid, -1 for void: the one on the near side of the next line east.

    Args:
        lower: the corner with the smallest x and y, in map units.
    """
    width, height = shape.tolist()
    line, row, position, forwards = _scan(doom_map, lower, (width, height), 0)
    stride = 2.0 * width  # a row's crossings and cells lie within one stride
    key = row * stride + np.clip(position, -0.5 * width, 1.4 * width)
    order = np.argsort(key)
    columns, rows = np.meshgrid(np.arange(width), np.arange(height), indexing="ij")
    following = np.searchsorted(key[order], rows * stride + columns)
    exists = following < len(order)
    crossing = order[np.minimum(following, len(order) - 1)]
    exists &= row[crossing] == rows
    near = np.where(
        forwards[crossing], doom_map.line_sectors[line[crossing], 0], doom_map.line_sectors[line[crossing], 1]
    )
    return np.where(exists, near, -1)


def walk_distance(open_steps: Bool[np.ndarray, "4 x y"], starts: Int[np.ndarray, "points 2"]) -> Int[np.ndarray, "x y"]:
    """The number of steps from the nearest of the cells ``starts`` to each cell; -1 where no way leads."""
    _, width, height = open_steps.shape
    distance = np.full(width * height, -1)
    allowed = open_steps.reshape(4, -1)
    front, steps = np.unique(starts[:, 0] * height + starts[:, 1]), 0
    distance[front] = 0
    while len(front):
        steps, found = steps + 1, []
        for (east, north), allow in zip(STEPS, allowed, strict=True):
            ahead = front[allow[front]] + (east * height + north)
            ahead = ahead[distance[ahead] < 0]
            distance[ahead] = steps
            found.append(ahead)
        front = np.concatenate(found)
    return distance.reshape(width, height)


def _find_steps(
    doom_map: DoomMap,
    lower: Float[np.ndarray, " 2"],
    inside: Bool[np.ndarray, "x y"],
    passable: Bool[np.ndarray, "lines 2"],
    blank: Bool[np.ndarray, "4 x y"],
) -> Bool[np.ndarray, "4 x y"]:
    """Steps between neighbours inside the map that no line between their middles forbids."""
    blocked = blank.copy()
    for axis, (ahead, back) in ((0, (0, 1)), (1, (2, 3))):
        line, cross, position, forwards = _scan(doom_map, lower, inside.shape, axis)
        cell = np.floor(position).astype(int)  # between this cell's middle and the next one's
        keep = (cell >= 0) & (cell < inside.shape[axis] - 1)
        line, cross, cell, forwards = line[keep], cross[keep], cell[keep], forwards[keep]
        for direction, offset, crossing in ((ahead, 0, forwards), (back, 1, ~forwards)):
            # passable[:, 0] is from the right of the line to its left
            stopped = ~np.where(crossing, passable[line, 0], passable[line, 1])
            index = (cell[stopped] + offset, cross[stopped])
            blocked[(direction, *(index if axis == 0 else index[::-1]))] = True
    steps = blank.copy()
    steps[0, :-1], steps[1, 1:] = inside[:-1] & inside[1:], inside[:-1] & inside[1:]
    steps[2, :, :-1], steps[3, :, 1:] = inside[:, :-1] & inside[:, 1:], inside[:, :-1] & inside[:, 1:]
    return steps & ~blocked


def _scan(
    doom_map: DoomMap, lower: Float[np.ndarray, " 2"], shape: tuple[int, ...], axis: int
) -> tuple[
    Int[np.ndarray, " crossings"],
    Int[np.ndarray, " crossings"],
    Float[np.ndarray, " crossings"],
    Bool[np.ndarray, " crossings"],
]:
    """Where lines cross the rows of cell middles that run along ``axis``.

    Returns:
        For each crossing the line, the row, the position along it in cells from the first cell's middle, and whether
        going up the row leads from the line's right to its left.
    """
    cells = (doom_map.vertices - lower) / CELL - 0.5 - OFF_CENTER / CELL
    start, end = cells[doom_map.line_vertices[:, 0]], cells[doom_map.line_vertices[:, 1]]
    other = 1 - axis
    above = start[:, other, None] > np.arange(shape[other])
    line, row = np.nonzero(above != (end[:, other, None] > np.arange(shape[other])))
    share = (row - start[line, other]) / (end[line, other] - start[line, other])
    position = start[line, axis] + share * (end[line, axis] - start[line, axis])
    # along x, the right of a line that runs down is in the west; along y, the right of one that runs east is south
    forwards = (end[line, other] < start[line, other]) == (axis == 0)
    return line, row, position, forwards


def _near_walls(doom_map: DoomMap, lower: Float[np.ndarray, " 2"], shape: tuple[int, ...]) -> Bool[np.ndarray, "x y"]:
    """Cells that hold a piece of a line that lets no one through, and their eight neighbours."""
    walls = doom_map.line_vertices[~doom_map.passable(opened=False).any(1)]
    start, end = doom_map.vertices[walls[:, 0]], doom_map.vertices[walls[:, 1]]
    points = sample_segments(start, end, CELL / 4)[0]
    near = np.zeros(shape, bool)
    i, j = np.floor((points - lower) / CELL).astype(int).T
    for east in (-1, 0, 1):
        for north in (-1, 0, 1):
            near[np.clip(i + east, 0, shape[0] - 1), np.clip(j + north, 0, shape[1] - 1)] = True
    return near


def _near_things(doom_map: DoomMap, lower: Float[np.ndarray, " 2"], shape: tuple[int, ...]) -> Bool[np.ndarray, "x y"]:
    """Cells whose middle is within reach of a thing."""
    things = doom_map.thing_position[~np.isin(doom_map.thing_type, PLAYER_THINGS)]
    cells, reach = np.floor((things - lower) / CELL).astype(int), int(THING_REACH / CELL) + 1
    near = np.zeros(shape, bool)
    for shift in np.ndindex(2 * reach + 1, 2 * reach + 1):
        moved = cells + np.array(shift) - reach
        middle = (moved + 0.5) * CELL + lower
        close = (np.linalg.norm(middle - things, axis=1) < THING_REACH) & ((moved >= 0) & (moved < shape)).all(1)
        near[tuple(moved[close].T)] = True
    return near


def sample_segments(
    start: Float[np.ndarray, "lines 2"], end: Float[np.ndarray, "lines 2"], spacing: float
) -> tuple[Float[np.ndarray, "points 2"], Int[np.ndarray, " points"]]:
    """Points along segments, no farther apart than ``spacing`` and ends included, and the segment of each."""
    counts = np.ceil(np.linalg.norm(end - start, axis=1) / spacing).astype(int) + 1
    segment = np.repeat(np.arange(len(start)), counts)
    number = np.arange(len(segment)) - np.repeat(np.cumsum(counts) - counts, counts)
    share = (number / np.maximum(counts[segment] - 1, 1))[:, None]
    return start[segment] * (1 - share) + end[segment] * share, segment
