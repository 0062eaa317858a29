"""Where the cameras of a room are: along a walk through its free floor, and all over it."""

from collections import deque

import numpy as np
from jaxtyping import Bool, Float

from nfldm3d.recording.driving.poses import look_along
from nfldm3d.recording.rooms.layout import CELL, Room

EYE_HEIGHT = 1.5
"""Metres of the walk."""
SHORTEST = 1.2
"""Metres of a walk."""
FREE_HEIGHT = (0.6, 2.0)
FREE_PITCH = (-0.55, 0.12)
"""Radians."""
TOWARDS_SHARE = 0.7
"""Of free cameras look at a piece of furniture, the others anywhere."""
SMOOTH = 7
"""Steps of the walk whose mean each is."""


def find_walk(room: Room, poses: int, generator: np.random.Generator) -> Float[np.ndarray, "poses 4"] | None:
    """x, y, z and heading of cameras along a way from a point of the floor to the one farthest away on foot; None if it
    is too short."""
    free, corner = room.free_floor()
    places = np.argwhere(free)
    if not len(places):
        return None
    start = tuple(places[int(generator.integers(len(places)))].tolist())
    far = _search(free, start)[-1][0]
    ways = dict(_search(free, far))  # from the farthest one back: about the longest of all
    way = [list(ways)[-1]]
    while (before := ways[way[-1]]) is not None:
        way.append(before)
    points = corner + CELL * np.array(way, float)
    if len(points) < 3 or np.linalg.norm(np.ptp(points, axis=0)) < SHORTEST:
        return None
    padded = np.pad(points, ((SMOOTH // 2, SMOOTH // 2), (0, 0)), mode="edge")
    smooth = np.stack([np.convolve(padded[:, axis], np.full(SMOOTH, 1 / SMOOTH), "valid") for axis in (0, 1)], axis=1)
    length = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(smooth, axis=0), axis=1))))
    at = np.linspace(0, length[-1], poses)
    x, y = (np.interp(at, length, smooth[:, axis]) for axis in (0, 1))
    heading = np.unwrap(np.arctan2(np.gradient(y), np.gradient(x)))
    return np.stack((x, y, np.full(poses, EYE_HEIGHT), heading), axis=1)


def walk_pose(pose: Float[np.ndarray, " 4"]) -> Float[np.ndarray, "4 4"]:
    """A level camera that looks along the walk."""
    return look_along(pose[:3], float(pose[3]), 0.0)


def free_pose(room: Room, generator: np.random.Generator) -> Float[np.ndarray, "4 4"]:
    """A camera anywhere above the free floor."""
    free, corner = room.free_floor()
    places = np.argwhere(free)
    x, y = corner + CELL * (places[int(generator.integers(len(places)))] + generator.uniform(-0.5, 0.5, 2))
    z = generator.uniform(FREE_HEIGHT[0], min(FREE_HEIGHT[1], room.height - 0.3))
    yaw, pitch = float(generator.uniform(-np.pi, np.pi)), float(generator.uniform(*FREE_PITCH))
    if room.placed and generator.random() < TOWARDS_SHARE:
        item = room.placed[int(generator.integers(len(room.placed)))]
        yaw = float(np.arctan2(item.y - y, item.x - x) + generator.normal(0, 0.3))
    return look_along(np.array((x, y, z)), yaw, pitch)


Cell = tuple[int, int]


def _search(free: Bool[np.ndarray, "x y"], start: Cell) -> list[tuple[Cell, Cell | None]]:
    """All points that one can walk to, the nearest first, each with the one before."""
    found: dict[Cell, Cell | None] = {start: None}
    queue = deque([start])
    while queue:
        x, y = queue.popleft()
        for near in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
            inside = 0 <= near[0] < free.shape[0] and 0 <= near[1] < free.shape[1]
            if inside and near not in found and free[near]:
                found[near] = (x, y)
                queue.append(near)
    return list(found.items())
