"""Where the cameras of a scene are: a rig of six at several stops along the way, and free ones all over the box."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from nfldm3d.geometry import Box
from nfldm3d.recording.driving.places import EYE_HEIGHT, Place
from nfldm3d.recording.driving.track import Ground

RIG = ("front", "front_left", "back_left", "back", "back_right", "front_right")
"""The cameras, 60 degrees apart counter-clockwise from the way ahead; each sees 90 degrees and looks level."""
FREE_HEIGHT = (1.3, 5.2)
"""Metres above the ground."""
FREE_PITCH = (-0.66, -0.035)
"""Radians: free cameras look down, on surfaces that the rig sees edge-on."""
INWARD_SHARE, INWARD_SPREAD = 0.7, 6.0
"""So many free cameras look at a point about the middle of the box, the spread in metres; the others anywhere."""
MARGIN = 1.2
"""Metres from a free camera to the sides of the box."""


def look_along(position: Float[np.ndarray, " 3"], yaw: float, pitch: float) -> Float[np.ndarray, "4 4"]:
    """The pose of a camera that looks along a direction, its x axis level."""
    forward = np.array((np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)))
    right = np.array((np.sin(yaw), -np.cos(yaw), 0.0))
    pose = np.eye(4)
    pose[:3, :3] = np.stack((right, np.cross(right, forward), -forward), axis=1)
    pose[:3, 3] = position
    return pose


def rig_poses(vehicle: Float[np.ndarray, " 4"]) -> list[Float[np.ndarray, "4 4"]]:
    """The rig's cameras when the vehicle is at x, y, z with a heading."""
    eye = vehicle[:3] + np.array((0.0, 0.0, EYE_HEIGHT))
    return [look_along(eye, float(vehicle[3]) + number * np.pi / 3, 0.0) for number in range(len(RIG))]


def free_poses(
    place: Place, ground: Ground, box: Box, generator: np.random.Generator
) -> Iterator[Float[np.ndarray, "4 4"]]:
    """Random poses in the box above the ground, without end."""
    lower, upper = np.array(box.lower) + MARGIN, np.array(box.upper) - MARGIN
    while True:
        x, y = generator.uniform(lower[:2], upper[:2])
        point = (place.track_from_scene @ (x, y, 0.0, 1.0))[:3]
        found = ground.find_height(point, point[2] + box.upper[2])
        above, pitch = generator.uniform(*FREE_HEIGHT), generator.uniform(*FREE_PITCH)
        aim = generator.normal(0, INWARD_SPREAD, 2) - (x, y)
        inward = generator.random() < INWARD_SHARE
        yaw = float(np.arctan2(aim[1], aim[0])) if inward else float(generator.uniform(-np.pi, np.pi))
        if found is None:
            continue
        z = found[0] - place.origin[2] + above
        if box.lower[2] + 0.3 < z < box.upper[2] - 0.3:
            yield look_along(np.array((x, y, z)), yaw, float(pitch))
