"""Where cameras look at an object from, and what people call such a view.

Objects stand in a box whose diagonal is 1 with its middle at the origin, as ShapeNet's do; x lies ahead, z is up.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from nfldm3d import geometry

SRN_FOCAL = 131.25 / 128
"""Focal length of the renderings of Scene Representation Networks (Sitzmann et al. 2019), in widths of a picture."""
CARS_RADIUS, CHAIRS_RADIUS = 1.3, 2.0
"""Distances of cameras from the middle in those renderings."""
GOLDEN = math.pi * (3 - math.sqrt(5))
"""Radians from one view to the next, so that however many there are they lie all around."""
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
        low, high = (math.sin(math.radians(angle)) for angle in self.elevation)
        height = low + (np.arange(views) + 0.5) / views * (high - low)
        flat, azimuth = np.sqrt(1 - height**2), turn + GOLDEN * np.arange(views)
        eyes = self.radius * np.stack((flat * np.cos(azimuth), flat * np.sin(azimuth), height), axis=1)
        return geometry.look_at(torch.from_numpy(eyes), torch.zeros(views, 3).double()).numpy()


def name_view(pose: Float[np.ndarray, "4 4"]) -> tuple[str, float, float]:
    """What people call a view of an object that looks along +x, and its azimuth and elevation in degrees."""
    x, y, z = pose[:3, 2]  # towards the camera
    azimuth, elevation = math.degrees(math.atan2(y, x)), math.degrees(math.asin(max(-1.0, min(1.0, z))))
    if elevation > OVERHEAD_DEGREES:
        return "overhead", azimuth, elevation
    away = abs(azimuth)
    side = "front" if away < FRONT_DEGREES else "back" if away > BACK_DEGREES else "side"
    return side, azimuth, elevation
