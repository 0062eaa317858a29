"""Cameras from which an object is to be drawn, with the lens and the distance of the camera that has seen it."""

import math
from pathlib import Path
from typing import Literal

import torch

from nfldm3d import geometry
from nfldm3d.camera import Camera
from nfldm3d.rendering.paths import read_camera_path

ViewPath = Literal["orbit", "sphere"]
GOLDEN = math.pi * (3 - math.sqrt(5))
"""Radians between neighbours of a spiral that lie all around however many there are."""
LOWEST, HIGHEST = -10.0, 65.0
"""Degrees above the horizon of the cameras of ``sphere``."""


def make_view_path(path: str, seen: Camera, views: int) -> Camera:
    """Cameras (views) that look at the origin from as far away as ``seen`` (1) does, or those of a ``.json`` file.

    ``orbit`` goes round once at the height of ``seen`` and begins beside it; ``sphere`` lies all around and above,
    those near ``seen`` first.

    Raises:
        ValueError: unknown path, or no views.
    """
    if views < 1:
        raise ValueError(f"a path needs at least one view, got {views}")
    if path.endswith(".json"):
        return read_camera_path(Path(path), width=seen.width, height=seen.height)
    eye = seen.centers[0].double()
    distance = float(eye.norm())
    if not distance > 0:
        raise ValueError(
            "the camera stands in the middle of the object; give its place in diagonals of the object's box"
        )
    azimuth = math.atan2(float(eye[1]), float(eye[0]))
    if path == "orbit":
        angles = azimuth + torch.arange(1, views + 1).double() * 2 * math.pi / (views + 1)
        heights = torch.full((views,), float(eye[2]) / distance).double().clamp(-0.999, 0.999)
    elif path == "sphere":
        low, high = (math.sin(math.radians(angle)) for angle in (LOWEST, HIGHEST))
        heights = low + (torch.arange(views).double() + 0.5) / views * (high - low)
        angles = azimuth + GOLDEN * torch.arange(views).double()
    else:
        raise ValueError(f"unknown path {path!r}; choose orbit, sphere or a .json file")
    flat = (1 - heights.square()).sqrt()
    eyes = distance * torch.stack((flat * angles.cos(), flat * angles.sin(), heights), dim=-1)
    if path == "sphere":
        eyes = eyes[(eyes - eye).norm(dim=-1).argsort()]
    poses = geometry.look_at(eyes, torch.zeros_like(eyes)).float()
    lens = seen[[0] * views]
    return Camera(poses, lens.focal.cpu(), lens.principal.cpu(), seen.width, seen.height)
