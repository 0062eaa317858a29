"""Where cameras look at an object from, and what people call such a view.

Objects stand in a box whose diagonal is 1 with its middle at the origin, as ShapeNet's do; x lies ahead, z is up.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from nfldm3d import camera_paths, geometry
from nfldm3d.data.srn import CARS_RADIUS

OVERHEAD_DEGREES = 60.0
"""Views from higher up are called so, whatever side they are from: DreamFusion's rule."""
FRONT_DEGREES, BACK_DEGREES = 45.0, 135.0


@dataclass(frozen=True)
class Sphere:
    """Cameras on a sphere that look at its middle."""

    radius: float = CARS_RADIUS
    """In diagonals of the object's box."""
    elevation: tuple[float, float] = (-10.0, 80.0)
    """Lowest and highest camera, degrees above the horizon."""

    def __post_init__(self):
        low, high = self.elevation
        if not -90 <= low <= high <= 90:
            raise ValueError(
                f"elevation must be two angles from -90 to 90 degrees, the lower one first, got {low}, {high}"
            )
        if not 0.6 <= self.radius <= 10:
            raise ValueError(f"radius must lie between 0.6 and 10 diagonals of the object's box, got {self.radius}")

    def poses(self, views: int, turn: float) -> Float[np.ndarray, "views 4 4"]:
        """Evenly spread over the band in a golden spiral that begins at an azimuth of ``turn`` radians."""
        eyes = self.radius * camera_paths.spiral(views, *self.elevation, turn)
        return geometry.look_at(eyes, torch.zeros(views, 3).double()).numpy()


def name_view(pose: Float[np.ndarray, "4 4"]) -> tuple[str, float, float]:
    """What people call a view of an object that looks along +x, and its azimuth and elevation in degrees."""
    x, y, z = pose[:3, 2]  # towards the camera
    azimuth, elevation = math.degrees(math.atan2(y, x)), math.degrees(math.asin(max(-1.0, min(1.0, z))))
    if elevation > OVERHEAD_DEGREES:
        return "overhead", azimuth, elevation
    away = abs(azimuth)
    side = "front" if away < FRONT_DEGREES else "back" if away > BACK_DEGREES else "side"
    return side, azimuth, elevation
