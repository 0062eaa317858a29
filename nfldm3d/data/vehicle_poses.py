"""Poses of a vehicle: from quaternions, as places along a way, and the level world around one of them."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def level(world_from_vehicle: Float[Tensor, "4 4"]) -> Float[Tensor, "4 4"]:
    """The motion that takes the vehicle to the origin and its heading to +x, turning about z alone."""
    x, y, z, cosine, sine = trace(world_from_vehicle)
    turn = torch.eye(4, dtype=torch.float64)
    turn[:2, :2] = torch.tensor(((cosine, sine), (-sine, cosine)), dtype=torch.float64)
    shift = torch.eye(4, dtype=torch.float64)
    shift[:3, 3] = -torch.tensor((x, y, z), dtype=torch.float64)
    return turn @ shift


def trace(world_from_vehicle: Float[Tensor, "4 4"]) -> list[float]:
    """Position in metres, and cosine and sine of the heading, counter-clockwise from +x; the vehicle's x lies ahead."""
    heading = math.atan2(float(world_from_vehicle[1, 0]), float(world_from_vehicle[0, 0]))
    return [*world_from_vehicle[:3, 3].tolist(), math.cos(heading), math.sin(heading)]


def pose_from_quaternion(quaternion: Sequence[float], position: Sequence[float]) -> Float[Tensor, "4 4"]:
    """The float64 pose of a quaternion w, x, y, z of any length but 0, and a position."""
    w, x, y, z = torch.nn.functional.normalize(torch.tensor(quaternion, dtype=torch.float64), dim=0).tolist()
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = torch.tensor(
        (
            (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
            (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
            (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
        )
    )
    pose[:3, 3] = torch.tensor(position, dtype=torch.float64)
    return pose
