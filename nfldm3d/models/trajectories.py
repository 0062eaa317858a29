"""Camera paths as numbers that a network can make: poses in the box, each x, y, z and the direction of view."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.geometry import Box

POSES = 16
"""Poses of a path, evenly spaced in time."""


def path_of(sample: SceneSample) -> Float[Tensor, "poses 5"]:
    """The walk through a scene, or its cameras one after another: x, y, z in metres, cosine and sine of the heading."""
    if sample.trajectory is not None and len(sample.trajectory) > 1:
        return sample.trajectory
    forward = sample.camera.forward
    heading = torch.atan2(forward[:, 1], forward[:, 0])
    return torch.cat((sample.camera.centers, torch.stack((heading.cos(), heading.sin()), dim=-1)), dim=-1)


def pack_path(path: Float[Tensor, "poses 5"], box: Box) -> Float[Tensor, " numbers"]:
    """``POSES`` poses in a row, places from -1 to 1 in the box."""
    place = torch.linspace(0, len(path) - 1, POSES, device=path.device)
    before = place.long().clamp(max=max(len(path) - 2, 0))
    mixed = torch.lerp(path[before], path[(before + 1).clamp(max=len(path) - 1)], (place - before)[:, None])
    center, size = mixed.new_tensor(box.center), mixed.new_tensor(box.size)
    heading = torch.nn.functional.normalize(mixed[:, 3:], dim=-1)
    return torch.cat((2 * (mixed[:, :3] - center) / size, heading), dim=-1).flatten()


def unpack_path(numbers: Float[Tensor, " numbers"], box: Box) -> Float[Tensor, "poses 5"]:
    """The inverse of ``pack_path``; places are kept in the box, headings become unit vectors."""
    poses = numbers.unflatten(0, (-1, 5))
    center, size = poses.new_tensor(box.center), poses.new_tensor(box.size)
    heading = torch.nn.functional.normalize(poses[:, 3:], dim=-1)
    return torch.cat((center + poses[:, :3].clamp(-0.99, 0.99) * size / 2, heading), dim=-1)


def orient_path(numbers: Float[Tensor, " numbers"], orientation: int) -> Float[Tensor, " numbers"]:
    """A packed path in a world that was turned or mirrored as ``Voxels.oriented`` does."""
    poses = numbers.unflatten(0, (-1, 5)).clone()
    if orientation >= 4:
        poses[:, (1, 4)] *= -1
    angle = orientation % 4 * math.pi / 2
    cosine, sine = round(math.cos(angle)), round(math.sin(angle))
    for x, y in ((0, 1), (3, 4)):
        a, b = poses[:, x].clone(), poses[:, y].clone()
        poses[:, x], poses[:, y] = cosine * a - sine * b, sine * a + cosine * b
    return poses.flatten()


def path_cameras(path: Float[Tensor, "poses 5"], width: int, height: int, field_of_view: float = 90.0) -> Camera:
    """Level cameras along a path; the horizontal field of view is in degrees."""
    forward = torch.nn.functional.pad(path[:, 3:], (0, 1))  # horizontal
    up = torch.tensor((0.0, 0.0, 1.0), device=path.device).expand_as(forward)
    right = torch.linalg.cross(forward, up)
    rotation = torch.stack((right, up, -forward), dim=-1)
    pose = torch.eye(4, device=path.device).repeat(len(path), 1, 1)
    pose[:, :3, :3], pose[:, :3, 3] = rotation, path[:, :3]
    focal = width / 2 / math.tan(math.radians(field_of_view) / 2)
    focals = torch.full((len(path), 2), focal, device=path.device)
    middle = torch.tensor((width / 2, height / 2), device=path.device).repeat(len(path), 1)
    return Camera(pose, focals, middle, width, height)
