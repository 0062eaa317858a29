"""Bird's-eye maps of logs: areas of the set's own map, and the boxes of what stands on them."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nfldm3d.data.bev_map import BevMap
from nfldm3d.data.logs.drive import CLASS_NAMES, PALETTE, Drive, GroundArea, LogObject
from nfldm3d.geometry import Box, invert_pose

CELL = 0.5
"""Metres, as in the driving world."""
FINE = 4
"""Along each side of a cell so many points are asked for whether a box covers them."""
COVERED = 0.4
"""A cell belongs to a box that covers this share of it."""


def draw_ground(
    drive: Drive, objects: Sequence[LogObject], scene_from_world: Float[Tensor, "4 4"], box: Box
) -> BevMap | None:
    """The map of a scene; None if the log has neither map nor boxes there."""
    shape = tuple(max(1, round(size / CELL)) for size in box.size[:2])
    world_from_scene = invert_pose(scene_from_world)
    corners = np.array([(x, y) for x in (box.lower[0], box.upper[0]) for y in (box.lower[1], box.upper[1])])
    world = _move(corners, world_from_scene)
    areas = drive.ground(tuple(world.min(0).tolist()), tuple(world.max(0).tolist()))
    if areas is None and not objects:
        return None
    classes = np.zeros(shape, dtype=np.uint8)
    x, y = (box.lower[axis] + (np.arange(count) + 0.5) * CELL for axis, count in enumerate(shape))
    for area in areas or ():
        moved = replace(area, rings=tuple(_move(ring, scene_from_world) for ring in area.rings))
        classes[cover(moved, x, y)] = CLASS_NAMES.index(area.map_class)
    for item in sorted(objects, key=lambda item: CLASS_NAMES.index(item.map_class)):
        classes[_stand_on(item, scene_from_world, box, shape)] = CLASS_NAMES.index(item.map_class)
    return BevMap(torch.from_numpy(classes), None, (box.lower[0], box.lower[1]), CELL, CLASS_NAMES, PALETTE)


def cover(area: GroundArea, x: Float[np.ndarray, " x"], y: Float[np.ndarray, " y"]) -> Bool[np.ndarray, "x y"]:
    """Which points of a grid lie in an area, by the even-odd rule along lines of equal y."""
    start = np.concatenate([np.zeros((0, 2)), *area.rings])
    end = np.concatenate([np.zeros((0, 2)), *(np.roll(ring, -1, axis=0) for ring in area.rings)])
    inside = np.zeros((len(x), len(y)), dtype=bool)
    if not len(start) or start[:, 0].max() < x[0] or start[:, 0].min() > x[-1]:
        return inside
    for column in np.nonzero((y >= start[:, 1].min()) & (y <= start[:, 1].max()))[0]:
        level = y[column]
        crossing = (start[:, 1] > level) != (end[:, 1] > level)
        low, high = start[crossing], end[crossing]
        at = low[:, 0] + (level - low[:, 1]) / (high[:, 1] - low[:, 1]) * (high[:, 0] - low[:, 0])
        inside[:, column] = (at[None, :] > x[:, None]).sum(1) % 2 == 1
    return inside


def describe_object(item: LogObject, scene_from_world: Float[Tensor, "4 4"]) -> dict[str, object]:
    """What metadata say of an object: its middle and heading in the scene."""
    pose = scene_from_world @ item.world_from_object
    return {
        "name": item.name,
        "kind": item.kind,
        "class": item.map_class,
        "position": [round(value, 3) for value in pose[:3, 3].tolist()],
        "heading": round(math.atan2(float(pose[1, 0]), float(pose[0, 0])), 4),
        "size": [round(value, 3) for value in item.size],
        "moving": item.moving,
    }


def _stand_on(
    item: LogObject, scene_from_world: Float[Tensor, "4 4"], box: Box, shape: tuple[int, ...]
) -> Bool[np.ndarray, "x y"]:
    pose = (scene_from_world @ item.world_from_object).numpy()
    step = CELL / FINE
    x, y = (box.lower[a] + (np.arange(count * FINE) + 0.5) * step - pose[a, 3] for a, count in enumerate(shape))
    heading = math.atan2(pose[1, 0], pose[0, 0])
    cosine, sine = math.cos(heading), math.sin(heading)
    ahead, left = x[:, None] * cosine + y * sine, y * cosine - x[:, None] * sine
    inside = (np.abs(ahead) < item.size[0] / 2) & (np.abs(left) < item.size[1] / 2)
    covered = inside.reshape(shape[0], FINE, shape[1], FINE).mean((1, 3))
    return covered >= min(COVERED, float(covered.max()) or 1.0)  # what is smaller than a cell has its best one


def _move(points: Float[np.ndarray, "points 2"], motion: Float[Tensor, "4 4"]) -> Float[np.ndarray, "points 2"]:
    """Points of the ground after a motion that turns about z alone."""
    matrix = motion.numpy()
    return points @ matrix[:2, :2].T + matrix[:2, 3]
