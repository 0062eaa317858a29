"""Chooses a place worth recording in a Doom map, and the cells from which it is seen."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from nfldm3d.data.doom_grid import CELL, WalkGrid, walk_distance
from nfldm3d.data.doom_map import UNITS_PER_METRE, DoomMap
from nfldm3d.data.doom_rays import SKY, Hits, cast_rays

EYE_HEIGHT = 41.0
CENTER_HEIGHT = 64.0
"""Map units from the floor to the middle of a place."""
COLUMNS = 96
SLOPES = np.tan(np.radians(np.linspace(-40, 40, 9)))
LEVEL = len(SLOPES) // 2
"""The row of SLOPES that looks straight ahead."""
SPACING = 12
"""Cells between the points that are compared."""
CANDIDATES = 96
"""How many points are looked around from, those in the widest surroundings."""
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
    start = _best_cell(doom_map, grid, radius) if center is None else grid.cell_at(np.array(center))
    if not grid.standable[start]:
        raise ValueError(_not_standable(doom_map, grid, start, center))
    floor = float(doom_map.floor[grid.sector[start]])
    middle = np.array(grid.lower) + (np.array(start) + 0.5) * CELL
    distance = walk_distance(grid.open_steps, np.array([start]))
    points = grid.centers(grid.standable & (distance >= 0))
    points = points[_in_sight(look_around(doom_map, middle, floor), points - middle, radius)]
    if len(points) < MIN_CELLS:
        raise ValueError(
            f"the place around ({middle[0]:.0f}, {middle[1]:.0f}) of {doom_map.name} has {len(points)} cells of "
            f"{CELL} map units to take views from, {MIN_CELLS} are needed; choose another centre or a larger extent"
        )
    nearest_first = np.argsort(np.linalg.norm(points - middle, axis=1), kind="stable")
    center_3d = float(middle[0]), float(middle[1]), floor + CENTER_HEIGHT
    return Room(center_3d, floor, points[nearest_first])


def look_around(doom_map: DoomMap, point: Float[np.ndarray, " 2"], floor: float) -> Hits:
    """All around at eye height: columns counter-clockwise from east, rows by SLOPES, depth as horizontal distance."""
    angles = (np.arange(COLUMNS) + 0.5) * (2 * np.pi / COLUMNS)
    directions = np.stack((np.cos(angles), np.sin(angles)), -1)
    return cast_rays(doom_map, (float(point[0]), float(point[1]), floor + EYE_HEIGHT), directions, SLOPES)


def _best_cell(doom_map: DoomMap, grid: WalkGrid, radius: float) -> tuple[int, int]:
    """Of one cell per block, that with the best score; the first of equals."""
    cells = np.argwhere(grid.standable)
    middles = (cells // SPACING) * SPACING + SPACING // 2
    off_center = ((cells - middles) ** 2).sum(1)
    order = np.lexsort((off_center, middles[:, 1], middles[:, 0]))
    _, first = np.unique(middles[order], axis=0, return_index=True)
    chosen = cells[order[first]]
    if not len(chosen):
        raise ValueError(f"no player can stand anywhere in {doom_map.name}; choose another map")
    roomy = np.argsort(-_count_around(grid.standable, chosen, round(radius / CELL)), kind="stable")
    chosen = chosen[np.sort(roomy[:CANDIDATES])]
    standable = grid.centers(grid.standable)
    scores = [_score(doom_map, grid, cell, standable, radius) for cell in chosen]
    i, j = chosen[int(np.argmax(scores))].tolist()
    return i, j


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
    cell: np.ndarray,
    standable: Float[np.ndarray, "points 2"],
    radius: float,
) -> float:
    """High for an enclosed place with floor to walk on, much to see and no sky."""
    point = np.array(grid.lower) + (cell + 0.5) * CELL
    hits = look_around(doom_map, point, float(doom_map.floor[grid.sector[cell[0], cell[1]]]))
    area = min(_in_sight(hits, standable - point, radius).sum(), ENOUGH_CELLS) / ENOUGH_CELLS
    indoors = 1 - (hits.labels == SKY).mean()
    enclosed = (hits.depth[LEVEL] < 1.25 * radius).mean()
    sectors, rays = np.unique(hits.sector, return_counts=True)
    shares = rays[sectors >= 0] / rays.sum()
    variety = float(np.exp(-(shares * np.log(shares)).sum()))  # the effective number of sectors in view
    return area * indoors**3 * enclosed**3 * np.log1p(min(variety, 12.0))


def _in_sight(hits: Hits, offsets: Float[np.ndarray, "points 2"], radius: float) -> np.ndarray:
    """Which points, relative to the eye, are nearer than the walls at eye height, by a cell, and than ``radius``."""
    distance = np.linalg.norm(offsets, axis=1)
    turns = np.arctan2(offsets[:, 1], offsets[:, 0]) / (2 * np.pi) % 1
    column = np.minimum((turns * COLUMNS).astype(int), COLUMNS - 1)
    return (distance <= radius) & (distance + CELL <= np.maximum(hits.depth[LEVEL], 2 * CELL)[column])


def _not_standable(
    doom_map: DoomMap, grid: WalkGrid, start: tuple[int, int], center: tuple[float, float] | None
) -> str:
    cells = np.argwhere(grid.standable)
    nearest = cells[((cells - np.array(start)) ** 2).sum(1).argmin()]
    x, y = (np.array(grid.lower) + (nearest + 0.5) * CELL).tolist()
    assert center is not None
    metres = float(np.hypot(x - center[0], y - center[1])) / UNITS_PER_METRE
    return (
        f"no camera can stand at ({center[0]:g}, {center[1]:g}) in {doom_map.name}: it is void, wall, liquid, too low or "
        f"out of reach; the nearest point that suits is ({x:.0f}, {y:.0f}), {metres:.1f} m away"
    )
