"""Recordings of a vehicle with six cameras, in each of the axes: 8x6 pixels a view."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from small_captures import numbers, picture

YAWS = {"front": 0, "front_left": 60, "back_left": 120, "back": 180, "back_right": 240, "front_right": 300}
"""Degrees from ahead, towards the vehicle's left."""


LENS = {"w": 8, "h": 6, "fx": 4.0, "fy": 4.5, "cx": 4.25, "cy": 2.75}


MOUNT = (0.4, -0.2, 1.6)
"""Where the cameras sit, x ahead, y left, z up."""


LANDMARK = np.array((26.0, 12.5, 1.0))
"""A point of the right-handed world."""


def turn_z(degrees: float, position: tuple[float, float, float]) -> np.ndarray:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y, z = position
    return np.array(((cosine, -sine, 0, x), (sine, cosine, 0, y), (0, 0, 1, z), (0, 0, 0, 1.0)))


def mount(axes: str, yaw: float) -> np.ndarray:
    """A camera's place on the vehicle, written in the given axes."""
    if axes == "carla":  # left-handed: the same numbers with y and the sense of turning reversed
        return turn_z(-yaw, (MOUNT[0], -MOUNT[1], MOUNT[2]))
    right_down_ahead = np.array(((0, 0, 1, 0), (-1, 0, 0, 0), (0, -1, 0, 0), (0, 0, 0, 1.0)))
    return turn_z(yaw, MOUNT) @ right_down_ahead @ np.diag((1, 1, 1, 1) if axes == "opencv" else (1, -1, -1, 1))


def drive(axes: str, number: int) -> np.ndarray:
    """The vehicle at a moment: it drives north-east and turns."""
    yaw, x, y = 30.0 + 5 * number, 20.0 + number, 10.0 + number / 2
    return turn_z(-yaw, (x, -y, 0.5)) if axes == "carla" else turn_z(yaw, (x, y, 0.5))


def write_rig(folder: Path, axes: str = "opencv", frames: int = 5) -> Path:
    """Each picture is grey, 10 times the number of its moment plus the number of its camera."""
    cameras = [{"name": name, **LENS, "vehicle_from_camera": mount(axes, yaw).tolist()} for name, yaw in YAWS.items()]
    moments = []
    for number in range(frames):
        images = {name: f"{name}/{number:04d}.png" for name in YAWS}
        depth = {name: f"depth/{name}_{number:04d}.png" for name in YAWS}
        for place, name in enumerate(YAWS):
            picture(folder / images[name], 10 * number + place)
            numbers(folder / depth[name], np.full((6, 8), 2000 + number, dtype=np.uint16))
        pose = drive(axes, number).tolist()
        moments.append({"timestamp": 0.5 * number, "world_from_vehicle": pose, "images": images, "depth": depth})
    return write(folder, {"axes": axes, "cameras": cameras, "frames": moments})


def write(folder: Path, content: dict[str, Any]) -> Path:
    (folder / "rig.json").write_text(json.dumps(content))
    return folder


def alter(folder: Path, change) -> Path:
    content = json.loads((folder / "rig.json").read_text())
    change(content)
    return write(folder, content)
