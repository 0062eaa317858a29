"""Cameras from which an object is to be drawn, with the lens and the distance of the camera that has seen it."""

import math
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d import camera_paths, geometry
from nfldm3d.camera import Camera
from nfldm3d.memory import require_bytes
from nfldm3d.rendering.paths import read_camera_path

ViewPath = Literal["orbit", "sphere"]
COPIES = 4
"""Of all pictures in memory at once, at least."""
STEEPEST = 87.0
"""Degrees above or below the horizon to which circles are kept off the poles."""
LOWEST, HIGHEST = -10.0, 65.0
"""Degrees above the horizon of the cameras of ``sphere``."""


def make_view_path(path: str, seen: Camera, views: int, *, given: bool = True) -> Camera:
    """Cameras (views) that look at the origin from as far away as ``seen`` (1) does, or those of a ``.json`` file.

    ``orbit`` goes round once at the height of ``seen``; ``sphere`` lies all around and above, those near ``seen``
    first. Their pictures have the focal length of ``seen``, and the origin in their middles.

    Args:
        given: whether there is a picture from ``seen``, so that ``orbit`` begins beside it; else it begins there.

    Raises:
        ValueError: unknown path, no views, or more than memory holds.
    """
    if views < 1:
        raise ValueError(f"a path needs at least one view, got {views}")
    if path.endswith(".json"):
        return read_camera_path(Path(path), width=seen.width, height=seen.height)
    pixels = 4 * 3 * seen.width * seen.height * COPIES
    require_bytes(views * pixels, f"{views} views of {seen.width}x{seen.height}", "draw fewer", torch.device("cpu"))
    eye = seen.centers[0].double().cpu()
    distance = float(eye.norm())
    if not distance > 0:
        raise ValueError(
            "the camera stands in the middle of the object; give its place in diagonals of the object's box"
        )
    azimuth = math.atan2(float(eye[1]), float(eye[0]))
    if path == "orbit":
        degrees = math.degrees(math.asin(max(-1.0, min(1.0, float(eye[2]) / distance))))
        degrees = max(-STEEPEST, min(STEEPEST, degrees))
        around = camera_paths.circle(views + given, degrees)[int(given) :].double()
        eyes = around @ _turn(azimuth).T
    elif path == "sphere":
        eyes = camera_paths.spiral(views, LOWEST, HIGHEST, azimuth)
        eyes = eyes[(eyes - eye / distance).norm(dim=-1).argsort()]
    else:
        raise ValueError(f"unknown path {path!r}; choose orbit, sphere or a .json file")
    poses = geometry.look_at(distance * eyes, torch.zeros_like(eyes)).float()
    middle = torch.tensor([[seen.width / 2, seen.height / 2]]).expand(views, 2)
    return Camera(poses, seen.focal[0].cpu().expand(views, 2).clone(), middle.clone(), seen.width, seen.height)


def _turn(azimuth: float) -> Float[Tensor, "3 3"]:
    """About the vertical."""
    cosine, sine = math.cos(azimuth), math.sin(azimuth)
    return torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
