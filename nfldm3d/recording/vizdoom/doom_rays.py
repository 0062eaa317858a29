"""Casts a grid of rays into a Doom map: exact depth and what was hit, at any sub-pixel position.

Doom's pictures have a vertical image plane, so all rays of one column lie in one vertical plane and meet the same
lines of the plan in the same order. A line can be crossed within a range of slopes, above the higher of the two floors
and below the lower of the two ceilings. The ranges of successive crossings only shrink, and a ray ends at the first
line whose range leaves it out: on that line's wall, or on the floor or ceiling before it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from nfldm3d.recording.vizdoom.doom_map import SKY_FLAT, DoomMap

LABEL_NAMES = ("void", "floor", "ceiling", "wall", "sky", "sprite")
LABEL_PALETTE = ((0, 0, 0), (122, 98, 68), (92, 108, 140), (190, 186, 174), (120, 190, 240), (220, 60, 160))
"""One sRGB colour (0-255) per label."""
VOID, FLOOR, CEILING, WALL, SKY, SPRITE = range(len(LABEL_NAMES))
NEAREST = 1e-3
"""Lines nearer than this count as behind the eye."""
WEDGE = 32
"""Columns for which the lines are sifted together; they must span less than half a turn."""
MAX_SCREENS = 4
"""How many gratings one ray is followed through."""


@dataclass(frozen=True, eq=False)
class Hits:
    """What each ray of a grid meets."""

    depth: Float[np.ndarray, "height width"]
    """In lengths of the column's direction; infinite for sky and void."""
    labels: UInt8[np.ndarray, "height width"]
    """Indices into ``LABEL_NAMES``."""
    sector: Int[np.ndarray, "height width"]
    """The sector whose floor, ceiling or wall is seen; -1 for void."""
    line: Int[np.ndarray, "height width"]
    """The line of the wall, or the next one behind floor or ceiling."""
    screens: Float[np.ndarray, "screens height width"]
    """Depths of see-through textures (gratings, fences) on the way, nearest first; infinite where there is none.
    Whether a ray slips through is for their pixels to say, which the map's geometry does not know."""


@dataclass(frozen=True, eq=False)
class _Crossings:
    """The lines that the columns' vertical planes cross, nearest first, padded with infinite depth."""

    depth: Float[np.ndarray, "steps width"]
    line: Int[np.ndarray, "steps width"]
    near: Int[np.ndarray, "steps width"]
    """The sector before the line, -1 for void."""
    low: Float[np.ndarray, "steps width"]
    """The smallest slope that passes this line and all before it."""
    high: Float[np.ndarray, "steps width"]
    """The largest such slope."""
    is_screen: Bool[np.ndarray, "steps width"]
    """Whether the line carries a see-through texture."""


def cast_rays(
    doom_map: DoomMap,
    eye: tuple[float, float, float],
    directions: Float[np.ndarray, "width 2"],
    slopes: Float[np.ndarray, " height"],
) -> Hits:
    """Follows the rays ``eye + depth * (direction, slope)`` to the first surface.

    Args:
        eye: map units.
        directions: horizontal, one per column, turning one way and slowly. Lengths are free: those of picture columns,
            1 along the viewing direction, give depths along it, unit lengths give horizontal distances.
        slopes: rise per depth, one per row.
    """
    crossings = _find_crossings(doom_map, eye, directions)
    passes = (slopes[:, None] >= crossings.low[:, None]) & (slopes[:, None] <= crossings.high[:, None])
    passed = passes.sum(0)  # steps height width -> height width: how many lines a ray gets across
    last = np.minimum(passed, len(crossings.depth) - 1)
    depth, line, near = (np.take_along_axis(v, last, 0) for v in (crossings.depth, crossings.line, crossings.near))
    depth = np.where(passed < len(crossings.depth), depth, np.inf)
    depth, labels = _end_rays(doom_map, eye[2], slopes[:, None], depth, near)
    return Hits(depth, labels, near, line, _find_screens(crossings, passed))


def _end_rays(
    doom_map: DoomMap,
    height: float,
    slopes: Float[np.ndarray, "height 1"],
    depth: Float[np.ndarray, "height width"],
    near: Int[np.ndarray, "height width"],
) -> tuple[Float[np.ndarray, "height width"], UInt8[np.ndarray, "height width"]]:
    """Depths and labels of rays whose way ends at a line at ``depth``, if not on floor or ceiling before it."""
    known = np.isfinite(depth) & (near >= 0)
    arrival = height + slopes * np.where(known, depth, 0.0)
    floor, ceiling = doom_map.floor[near], doom_map.ceiling[near]
    on_floor, on_ceiling = known & (arrival < floor), known & (arrival > ceiling)
    sky = (on_ceiling & doom_map.has_sky[near]) | (on_floor & (doom_map.floor_flat[near] == SKY_FLAT))
    plane = np.where(on_floor, floor, ceiling) - height
    depth = np.where(on_floor | on_ceiling, plane / np.where(slopes == 0, 1.0, slopes), depth)
    labels = np.full(depth.shape, WALL, np.uint8)
    for chosen, label in ((on_floor, FLOOR), (on_ceiling, CEILING), (sky, SKY), (~known, VOID)):
        labels[chosen] = label
    return np.where(known & ~sky, depth, np.inf), labels


def _find_screens(
    crossings: _Crossings, passed: Int[np.ndarray, "height width"]
) -> Float[np.ndarray, "screens height width"]:
    order = np.cumsum(crossings.is_screen, axis=0)
    screens = []
    for number in range(1, min(int(order[-1].max(initial=0)), MAX_SCREENS) + 1):
        step = (order < number).sum(0)  # the step at which each column meets its screen of this number
        inside = np.minimum(step, len(order) - 1)
        depth = np.take_along_axis(crossings.depth, inside[None], 0)[0]
        screens.append(np.where((step < len(order)) & (passed > step), depth, np.inf))
    return np.stack(screens) if screens else np.zeros((0, *passed.shape))


def _find_crossings(
    doom_map: DoomMap, eye: tuple[float, float, float], directions: Float[np.ndarray, "width 2"]
) -> _Crossings:
    offset = doom_map.vertices - np.array(eye[:2])
    parts = [
        _cross_lines(doom_map, offset, directions[first : first + WEDGE], first)
        for first in range(0, len(directions), WEDGE)
    ]
    line, column, depth, near_side = (np.concatenate(values) for values in zip(*parts, strict=True))
    order = np.lexsort((depth, column))
    line, column, depth, near_side = line[order], column[order], depth[order], near_side[order]
    counts = np.bincount(column, minlength=len(directions))
    step = np.arange(len(column)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = max(1, int(counts.max(initial=0))), len(directions)

    def spread(values: np.ndarray, padding: int | float) -> np.ndarray:
        grid = np.full(shape, padding, values.dtype)
        grid[step, column] = values
        return grid

    sides = doom_map.line_sides[line, near_side]
    near, far = doom_map.line_sectors[line, near_side], doom_map.line_sectors[line, 1 - near_side]
    low, high = _slope_range(doom_map, eye[2], depth, near, far)
    is_screen = (far >= 0) & (doom_map.side_middle[sides] != "-")
    low_grid = np.maximum.accumulate(spread(low, np.inf), axis=0)
    high_grid = np.minimum.accumulate(spread(high, -np.inf), axis=0)
    steps = min(shape[0], int((low_grid <= high_grid).sum(0).max()) + 1)  # no ray gets beyond
    grids = (spread(depth, np.inf), spread(line, -1), spread(near, -1), low_grid, high_grid, spread(is_screen, False))
    return _Crossings(*(grid[:steps] for grid in grids))


def _cross_lines(
    doom_map: DoomMap, offset: Float[np.ndarray, "vertices 2"], directions: Float[np.ndarray, "width 2"], first: int
) -> tuple[
    Int[np.ndarray, " crossings"],
    Int[np.ndarray, " crossings"],
    Float[np.ndarray, " crossings"],
    Int[np.ndarray, " crossings"],
]:
    """Line, column (counted from ``first``), depth and near side of all crossings of a narrow fan of rays."""
    start, end = doom_map.line_vertices.T
    edges = np.stack((directions[0], directions[-1]))
    on_right = _side(offset[:, None], edges) > 0
    both, either = on_right[start] & on_right[end], on_right[start] | on_right[end]
    ahead = offset @ edges.sum(0) > 0
    # the fan opens from its first to its last direction, to the right or to the left
    inner, outer = (1, 0) if _side(edges[1:], edges[:1])[0] > 0 else (0, 1)
    candidates = np.nonzero(either[:, outer] & ~both[:, inner] & (ahead[start] | ahead[end]))[0]
    start, end = start[candidates], end[candidates]
    # The side of a vertex decides for all its lines, so that no ray slips through where they meet.
    start_side, end_side = _side(offset[start][:, None], directions), _side(offset[end][:, None], directions)
    number, column = np.nonzero((start_side > 0) != (end_side > 0))
    from_start, from_end = start_side[number, column], end_side[number, column]
    share = (from_start / (from_start - from_end))[:, None]
    point = offset[start[number]] * (1 - share) + offset[end[number]] * share
    direction = directions[column]
    depth = (point * direction).sum(1) / (direction**2).sum(1)
    # a line that runs from right to left shows the ray its left side
    near_side = (from_start > 0).astype(np.int64)
    keep = depth > NEAREST
    return candidates[number][keep], column[keep] + first, depth[keep], near_side[keep]


def _side(points: Float[np.ndarray, "*points 2"], directions: Float[np.ndarray, "*width 2"]) -> np.ndarray:
    """Positive where a point lies to the right of the ray from the origin in a direction."""
    return points[..., 0] * directions[..., 1] - points[..., 1] * directions[..., 0]


def _slope_range(
    doom_map: DoomMap,
    height: float,
    depth: Float[np.ndarray, " crossings"],
    near: Int[np.ndarray, " crossings"],
    far: Int[np.ndarray, " crossings"],
) -> tuple[Float[np.ndarray, " crossings"], Float[np.ndarray, " crossings"]]:
    """The slopes that get across each line: none where void is on either side."""
    solid = (near < 0) | (far < 0)
    low = (np.maximum(doom_map.floor[near], doom_map.floor[far]) - height) / depth
    high = (np.minimum(doom_map.ceiling[near], doom_map.ceiling[far]) - height) / depth
    # Between two sectors under the sky Doom draws no wall and no end of the sky, whatever their ceilings' heights.
    high = np.where(doom_map.has_sky[near] & doom_map.has_sky[far], np.inf, high)
    return np.where(solid, np.inf, low), np.where(solid, -np.inf, high)
