"""Where to take pictures of a room from: scattered over it, or along a walk through it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from nfldm3d._types import Vector
from nfldm3d.recording.vizdoom.doom_grid import WalkGrid
from nfldm3d.recording.vizdoom.doom_map import DoomMap
from nfldm3d.recording.vizdoom.doom_path import plan_walk
from nfldm3d.recording.vizdoom.doom_rays import SKY, WALL, Hits, cast_rays
from nfldm3d.recording.vizdoom.doom_rooms import EYE_HEIGHT, LEVEL, Room, look_around

GOLDEN_TURN = 360.0 * (3 - 5**0.5) / 2
"""Degrees; successive multiples spread evenly over the circle, however many are used."""
YAW_JITTER = 25.0
"""Degrees."""
POINT_JITTER = 6
"""Map units; a cell is 16."""
TRIES = 12
"""Poses that are looked at before the best of them is taken."""
FAR_TRIES = 6
"""Points of which the farthest from the views so far becomes a pose."""
PREVIEW = (np.arange(16) + 0.5) / 8 - 1
"""The rows and columns of a picture of 16x16 pixels, 90 degrees wide."""
MIN_DEPTH = 104.0
"""Map units; a view whose median depth is below this, or below a third of its surroundings', faces a wall."""
MIN_INSIDE = 0.55
"""The smallest share of a view that should end within the box, where there is one."""
MAX_SKY = 0.5
MAX_ONE_WALL = 0.6
"""The largest share of a view that the sky, or one wall, should take."""

WALK_STEP = 12.0
"""Map units between the views of a walk: 0.375 m."""
SPARE_VIEWS = 12
"""More poses than views are planned, because the engine may refuse some."""
WALK_SPEED = 48.0
"""Map units per second: 1.5 m/s."""
LOOK_AHEAD = 72.0
"""Map units along the path to the point that a walker looks at."""


@dataclass(frozen=True)
class Pose:
    """Where a player stands, in whole map units, and looks."""

    x: int
    y: int
    yaw_degrees: float
    """Counter-clockwise from east."""
    seconds: float | None = None
    """Since the start of a walk."""


def scatter_poses(
    doom_map: DoomMap, room: Room, generator: np.random.Generator, *, half_box: Vector | None = None
) -> Iterator[Pose]:
    """Endless poses, spread over the room and over all directions, that do not face a wall or nothing but sky.

    Args:
        half_box: half the extent of a box around the room's centre, in map units, that most pixels should end in.
    """
    around = look_around(doom_map, np.array(room.center[:2]), room.floor).depth[LEVEL]
    min_depth = min(MIN_DEPTH, float(np.median(around)) / 3)
    taken, yaw = np.zeros((0, 2)), generator.uniform(0, 360)
    while True:
        yaw, best, best_quality = yaw + GOLDEN_TURN, None, -1.0
        for _ in range(TRIES):
            x, y = _far_point(room, taken, generator)
            pose = Pose(x, y, (yaw + generator.uniform(-YAW_JITTER, YAW_JITTER)) % 360)
            quality = _preview(doom_map, pose, room, half_box)
            if quality > best_quality:
                best, best_quality = pose, quality
            if quality >= min_depth:
                break
        assert best is not None
        taken = np.concatenate((taken, [(best.x, best.y)]))
        yield best


def walk_poses(
    grid: WalkGrid, room: Room, views: int, generator: np.random.Generator, *, step: float = WALK_STEP
) -> Iterator[Pose]:
    """At least ``views`` poses, ``step`` map units apart, along a smooth path through the room, looking along it."""
    path = plan_walk(grid, room.points, step * (views + SPARE_VIEWS) + LOOK_AHEAD, generator)
    travelled = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))))

    def at(distance: np.ndarray) -> Float[np.ndarray, "steps 2"]:
        return np.stack([np.interp(distance, travelled, path[:, axis]) for axis in (0, 1)], -1)

    stations = np.arange(0.0, travelled[-1] - LOOK_AHEAD, step)
    places = at(stations)
    way = at(stations + LOOK_AHEAD) - places
    yaws = np.degrees(np.arctan2(way[:, 1], way[:, 0])) % 360
    for (x, y), yaw, distance in zip(np.round(places).astype(int).tolist(), yaws, stations, strict=True):
        yield Pose(x, y, float(yaw), float(distance) / WALK_SPEED)


def _far_point(room: Room, taken: Float[np.ndarray, "points 2"], generator: np.random.Generator) -> tuple[int, int]:
    """Of a few random points of the room, the one farthest from those taken."""
    choice = room.points[generator.integers(len(room.points), size=FAR_TRIES)]
    choice = np.round(choice) + generator.integers(-POINT_JITTER, POINT_JITTER + 1, size=choice.shape)
    distance = np.linalg.norm(choice[:, None] - taken, axis=-1).min(1, initial=np.inf)
    x, y = choice[int(np.argmax(distance))].astype(int).tolist()
    return x, y


def _preview(doom_map: DoomMap, pose: Pose, room: Room, half_box: Vector | None) -> float:
    """The median depth of a coarse picture, in map units; 0 if sky, one wall or what is beyond the box fills it."""
    point, angle = np.array((pose.x, pose.y), dtype=float), np.radians(pose.yaw_degrees)
    floor = float(doom_map.floor[doom_map.sector_at(point[None])[0]])
    forward, right = np.array((np.cos(angle), np.sin(angle))), np.array((np.sin(angle), -np.cos(angle)))
    eye, directions = (float(point[0]), float(point[1]), floor + EYE_HEIGHT), forward + PREVIEW[:, None] * right
    hits = cast_rays(doom_map, eye, directions, -PREVIEW)
    walls = hits.line[hits.labels == WALL]
    one_wall = np.bincount(walls).max() / hits.labels.size if len(walls) else 0.0
    if one_wall > MAX_ONE_WALL or (hits.labels == SKY).mean() > MAX_SKY:
        return 0.0
    if half_box is not None and _share_inside(hits, eye, directions, room.center, half_box) < MIN_INSIDE:
        return 0.0
    return float(np.median(hits.depth))


def _share_inside(
    hits: Hits, eye: Vector, directions: Float[np.ndarray, "width 2"], center: Vector, half_box: Vector
) -> float:
    """The share of the rays of a preview that end within a box."""
    depth = np.where(np.isfinite(hits.depth), hits.depth, 1e9)
    inside = np.abs(eye[2] - center[2] - PREVIEW[:, None] * depth) <= half_box[2]
    for axis in (0, 1):
        inside &= np.abs(eye[axis] - center[axis] + directions[:, axis] * depth) <= half_box[axis]
    return float(inside.mean())
