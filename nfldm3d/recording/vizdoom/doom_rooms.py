"""Chooses a place worth recording in a Doom map, and the cells from which it is seen."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from nfldm3d.recording.vizdoom.doom_grid import CELL, WalkGrid, walk_distance
from nfldm3d.recording.vizdoom.doom_map import UNITS_PER_METRE, DoomMap
from nfldm3d.recording.vizdoom.doom_rays import SKY, Hits, cast_rays

EYE_HEIGHT = 41.0
CENTER_HEIGHT = 64.0
"""Map units from the floor to the middle of a place."""
COLUMNS = 96
SLOPES = np.tan(np.radians(np.linspace(-40, 40, 9)))
LEVEL = len(SLOPES) // 2
"""The row of SLOPES that looks straight ahead."""
SPACING = 12
"""Cells between the points that are compared."""
SHORTLIST = 8
"""How many of the best are looked at closely: what can be seen cannot always be walked to."""
CANDIDATES = 160
"""How many points are looked around from."""
ENOUGH_CELLS = 400
"""100 square metres of floor: larger rooms are no better."""
MIN_CELLS = 24
"""6 square metres of floor, the least to take views from."""


@dataclass(frozen=True, eq=False)
class Room:
    """A place and where a camera may stand in it; map units."""

    center: tuple[float, float, float]
    """The middle of the place, about an arm's length above eye height."""
    floor: float
    """Height of the floor there."""
    points: Float[np.ndarray, "points 2"]
    """Middles of cells that are in sight of the centre and can be walked to from there, the nearest first."""


def find_room(doom_map: DoomMap, grid: WalkGrid, *, center: tuple[float, float] | None = None, radius: float) -> Room:
    """The place around ``center``, or the best enclosed one of the map, seen from at most ``radius`` map units away."""
    if center is None:
        room = _best_room(doom_map, grid, radius)
    else:
        cell = grid.cell_at(np.array(center))
        if not grid.standable[cell]:
            raise ValueError(_not_standable(doom_map, grid, cell, center))
        room = _room_around(doom_map, grid, cell, radius)
    if len(room.points) < MIN_CELLS:
        raise ValueError(
            f"the place around ({room.center[0]:.0f}, {room.center[1]:.0f}) of {doom_map.name} has "
            f"{len(room.points)} cells of {CELL} map units to take views from, {MIN_CELLS} are needed; choose another "
            "centre or a larger extent"
        )
    return room


def look_around(doom_map: DoomMap, point: Float[np.ndarray, " 2"], floor: float) -> Hits:
    """All around at eye height: columns counter-clockwise from east, rows by SLOPES, depth as horizontal distance."""
    angles = (np.arange(COLUMNS) + 0.5) * (2 * np.pi / COLUMNS)
    directions = np.stack((np.cos(angles), np.sin(angles)), -1)
    return cast_rays(doom_map, (float(point[0]), float(point[1]), floor + EYE_HEIGHT), directions, SLOPES)


def _room_around(doom_map: DoomMap, grid: WalkGrid, cell: tuple[int, int], radius: float) -> Room:
    middle, floor = grid.center(cell), float(doom_map.floor[grid.sector[cell]])
    distance = walk_distance(grid.open_steps, np.array([cell]))
    points = grid.centers(grid.standable & (distance >= 0))
    points = points[_in_sight(look_around(doom_map, middle, floor), points - middle, radius)]
    nearest_first = np.argsort(np.linalg.norm(points - middle, axis=1), kind="stable")
    return Room((float(middle[0]), float(middle[1]), floor + CENTER_HEIGHT), floor, points[nearest_first])


def _best_room(doom_map: DoomMap, grid: WalkGrid, radius: float) -> Room:
    """Of one cell per block with room around it, the place around the best; the first of equals."""
    cells = np.argwhere(grid.standable)
    if not len(cells):
        raise ValueError(f"no player can stand anywhere in {doom_map.name}; choose another map")
    middles = (cells // SPACING) * SPACING + SPACING // 2
    order = np.lexsort((((cells - middles) ** 2).sum(1), middles[:, 1], middles[:, 0]))
    _, first = np.unique(middles[order], axis=0, return_index=True)
    chosen = cells[order[first]]
    counts = _count_around(grid.standable, chosen, round(radius / CELL))
    roomy = chosen[counts >= min(ENOUGH_CELLS // 2, counts.max())]
    spread = np.unique(np.linspace(0, len(roomy) - 1, CANDIDATES).astype(int))
    surroundings = grid.centers(grid.standable)
    scored = [(_score(doom_map, grid, (i, j), surroundings, radius), (i, j)) for i, j in roomy[spread].tolist()]
    scored.sort(key=lambda entry: -entry[0][0] * entry[0][1])
    rooms = [(appeal, _room_around(doom_map, grid, cell, radius)) for (appeal, _), cell in scored[:SHORTLIST]]
    return max(rooms, key=lambda entry: entry[0] * _roominess(len(entry[1].points)))[1]


def _count_around(
    standable: Bool[np.ndarray, "x y"], cells: Int[np.ndarray, "points 2"], reach: int
) -> Int[np.ndarray, " points"]:
    """How many cells of the square around each cell are standable."""
    sums = np.pad(standable.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    (i0, j0), (i1, j1) = np.maximum(cells - reach, 0).T, np.minimum(cells + reach + 1, standable.shape).T
    return sums[i1, j1] - sums[i0, j1] - sums[i1, j0] + sums[i0, j0]


def _score(
    doom_map: DoomMap,
    grid: WalkGrid,
    cell: tuple[int, int],
    surroundings: Float[np.ndarray, "points 2"],
    radius: float,
) -> tuple[float, float]:
    """How enclosed and varied a place is, and how much floor is in sight."""
    point = grid.center(cell)
    hits = look_around(doom_map, point, float(doom_map.floor[grid.sector[cell]]))
    indoors = 1 - float((hits.labels == SKY).mean())
    enclosed = float((hits.depth[LEVEL] < 1.25 * radius).mean())
    sectors, rays = np.unique(hits.sector, return_counts=True)
    shares = rays[sectors >= 0] / rays.sum()
    variety = float(np.exp(-(shares * np.log(shares)).sum()))  # the effective number of sectors in view
    appeal = indoors**6 * enclosed**3 * float(np.log1p(min(variety, 12.0)))
    return appeal, _roominess(int(_in_sight(hits, surroundings - point, radius).sum()))


def _roominess(cells: int) -> float:
    return min(cells, ENOUGH_CELLS) / ENOUGH_CELLS


def _in_sight(hits: Hits, offsets: Float[np.ndarray, "points 2"], radius: float) -> np.ndarray:
    """Which points, relative to the eye, are nearer than the walls at eye height, by a cell, and than ``radius``."""
    distance = np.linalg.norm(offsets, axis=1)
    turns = np.arctan2(offsets[:, 1], offsets[:, 0]) / (2 * np.pi) % 1
    column = np.minimum((turns * COLUMNS).astype(int), COLUMNS - 1)
    return (distance <= radius) & (distance + CELL <= np.maximum(hits.depth[LEVEL], 2 * CELL)[column])


def _not_standable(doom_map: DoomMap, grid: WalkGrid, cell: tuple[int, int], center: tuple[float, float]) -> str:
    cells = np.argwhere(grid.standable)
    if not len(cells):
        return f"no player can stand anywhere in {doom_map.name}; choose another map"
    i, j = cells[((cells - np.array(cell)) ** 2).sum(1).argmin()].tolist()
    x, y = grid.center((i, j)).tolist()
    metres = float(np.hypot(x - center[0], y - center[1])) / UNITS_PER_METRE
    return (
        f"no camera can stand at ({center[0]:g}, {center[1]:g}) in {doom_map.name}: it is void, wall, liquid, too low "
        f"or out of reach; the nearest point that suits is ({x:.0f}, {y:.0f}), {metres:.1f} m away"
    )
