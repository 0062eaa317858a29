"""Sweeps of a lidar: their files, and the sparse depth that they give a camera."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.files import DataFormatError, read_content

MAX_BYTES = 64 * 2**20
"""Some three million points: more than any lidar gives in a turn."""
NEAREST = 0.1
"""Metres in front of a camera."""


def read_sweep(path: Path, columns: int, vehicle_radius: float) -> Float[Tensor, "points 3"]:
    """Positions in the lidar's axes, float64; without the vehicle itself, which lies within a radius in metres.

    Args:
        columns: float32 numbers of a point, of which x, y, z are the first: 5 in nuScenes, 4 in KITTI-360.
    """
    content = read_content(path, MAX_BYTES, "restore the lidar's file")
    if len(content) % (4 * columns):
        raise DataFormatError(
            path,
            f"has {len(content)} bytes, no multiple of {4 * columns}: a point is {columns} float32; restore the file",
        )
    numbers = np.frombuffer(content, dtype="<f4")
    with np.errstate(invalid="ignore"):  # some NaN complain when they are widened
        points = torch.from_numpy(numbers.reshape(-1, columns)[:, :3].astype(np.float64))
    distance = points.norm(dim=-1)
    return points[torch.isfinite(distance) & (distance > vehicle_radius)]


def splat_depth(camera: Camera, points: Float[Tensor, "points 3"]) -> Float[Tensor, "height width"]:
    """Depth along the optical axis at the pixels of one camera that points fall on, the nearest of each; 0 elsewhere.

    What the lidar sees past something that hides it from the camera stays, where nothing nearer falls on its pixel.
    """
    pixels, depth = camera.project(points)
    # pixels beside a point behind the camera may be anything, NaN included
    held = (
        (depth > NEAREST) & (pixels >= 0).all(-1) & (pixels < pixels.new_tensor((camera.width, camera.height))).all(-1)
    )
    column, row = pixels[held].floor().long().unbind(-1)
    nearest = torch.full((camera.height * camera.width,), torch.inf)
    nearest.scatter_reduce_(0, row * camera.width + column, depth[held], "amin")
    return torch.where(torch.isfinite(nearest), nearest, 0.0).view(camera.height, camera.width)
