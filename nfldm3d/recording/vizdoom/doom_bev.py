"""The ground of a place in a Doom map from above: a class and a height per cell."""

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from nfldm3d.data.bev_map import BevMap
from nfldm3d.recording.vizdoom.doom_grid import CELL, rasterise_sectors, sample_segments
from nfldm3d.recording.vizdoom.doom_map import BLOCKING, PLAYER_HEIGHT, STEP_UP, UNITS_PER_METRE, DoomMap

BEV_NAMES = ("void", "floor", "raised", "lowered", "liquid", "door", "wall", "ledge", "pickup", "decoration")
"""Raised and lowered are more than a step (0.75 m) above and below the floor at the centre; a ledge is such a step."""
BEV_PALETTE = (
    *((0, 0, 0), (150, 150, 150), (200, 180, 140), (95, 85, 110), (40, 110, 200)),
    *((220, 120, 40), (255, 255, 255), (120, 70, 40), (80, 200, 90), (180, 60, 160)),
)
VOID, FLOOR, RAISED, LOWERED, LIQUID, DOOR, WALL, LEDGE, PICKUP, DECORATION = range(len(BEV_NAMES))
BEV_CELL = CELL / UNITS_PER_METRE
"""Metres: half a metre."""
SAMPLES_PER_CELL = 8

PICKUP_THINGS = (5, 6, 8, 13, 17, *range(38, 41), 82, 83, *range(2001, 2027), *range(2045, 2050))
"""Doom's numbers of weapons, ammunition, health, armour, powers and keys."""
SOLID_THINGS = (*range(25, 34), *range(35, 38), *range(41, 49), *range(54, 58), 70, 85, 86, 2028, 2035)
"""Doom's numbers of lamps, pillars, trees, barrels and the like."""


def draw_bev(
    doom_map: DoomMap,
    center: tuple[float, float, float],
    lower: tuple[float, float],
    shape: tuple[int, int],
    *,
    with_things: bool,
    ground: float | None = None,
) -> BevMap:
    """The map of the cells from ``lower`` (metres from the centre), each half a metre wide.

    Args:
        center: origin of the world in map units.
        shape: number of cells along x and y.
        with_things: mark what lies and stands around.
        ground: the height that raised and lowered floors are told by, in map units; by default that at the centre.
    """
    corner = np.array(center[:2]) + np.array(lower) * UNITS_PER_METRE
    sector = rasterise_sectors(doom_map, corner, np.array(shape))
    if ground is None:
        ground = float(doom_map.floor[doom_map.sector_at(np.array([center[:2]]))[0]])
    classes = _ground_classes(doom_map, sector, ground)
    _draw_lines(doom_map, corner, classes)
    if with_things:
        _draw_things(doom_map, corner, classes)
    height = np.where(sector < 0, ground, doom_map.floor[sector]) - center[2]
    return BevMap(
        torch.from_numpy(classes),
        torch.from_numpy((height / UNITS_PER_METRE).astype(np.float32)),
        lower,
        BEV_CELL,
        BEV_NAMES,
        BEV_PALETTE,
    )


def _ground_classes(doom_map: DoomMap, sector: Int[np.ndarray, "x y"], ground: float) -> UInt8[np.ndarray, "x y"]:
    height = doom_map.floor[sector] - ground
    classes = np.full(sector.shape, FLOOR, np.uint8)
    for chosen, value in (
        (height > STEP_UP, RAISED),
        (height < -STEP_UP, LOWERED),
        (doom_map.is_liquid[sector], LIQUID),
        (doom_map.is_door[sector], DOOR),
        (sector < 0, VOID),
    ):
        classes[chosen] = value
    return classes


def _draw_lines(doom_map: DoomMap, corner: Float[np.ndarray, " 2"], classes: UInt8[np.ndarray, "x y"]) -> None:
    """Marks ledges, and walls over them; the open lines of doors stay doors."""
    right, left = doom_map.line_sectors.T
    gap = np.minimum(doom_map.ceiling[right], doom_map.ceiling[left])
    gap = gap - np.maximum(doom_map.floor[right], doom_map.floor[left])
    closed_door = doom_map.is_door[right] | doom_map.is_door[left]
    one_sided = (right < 0) | (left < 0)
    narrow = (gap < PLAYER_HEIGHT) & ~closed_door
    walls = one_sided | narrow | (doom_map.line_flags & BLOCKING != 0)
    ledges = ~walls & (np.abs(doom_map.floor[right] - doom_map.floor[left]) > STEP_UP)
    ends = doom_map.vertices[doom_map.line_vertices]  # lines 2 2
    near = ((ends.max(1) >= corner) & (ends.min(1) <= corner + np.array(classes.shape) * CELL)).all(1)
    walls, ledges = walls & near, ledges & near
    for chosen, value in ((ledges, LEDGE), (walls, WALL)):
        start, end = (doom_map.vertices[index] for index in doom_map.line_vertices[chosen].T)
        points, _ = sample_segments(start, end, CELL / SAMPLES_PER_CELL)
        _mark(classes, points - corner, value)


def _draw_things(doom_map: DoomMap, corner: Float[np.ndarray, " 2"], classes: UInt8[np.ndarray, "x y"]) -> None:
    for kinds, value in ((PICKUP_THINGS, PICKUP), (SOLID_THINGS, DECORATION)):
        _mark(classes, doom_map.thing_position[np.isin(doom_map.thing_type, kinds)] - corner, value)


def _mark(classes: UInt8[np.ndarray, "x y"], offsets: Float[np.ndarray, "points 2"], value: int) -> None:
    cells = np.floor(offsets / CELL).astype(int)
    cells = cells[((cells >= 0) & (cells < classes.shape)).all(1)]
    classes[cells[:, 0], cells[:, 1]] = value
