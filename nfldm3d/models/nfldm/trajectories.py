"""Camera paths as numbers that a network can make: poses in the box, each x, y, z and the direction of view."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.geometry import Box

POSES = 16
"""Poses of a path, evenly spaced in time."""
PATH_CHANNELS = 4
"""Of a drawn path: how near it is, its height, cosine and sine of the heading."""
STROKE = 1 / 16
"""Width of a drawn path, as a share of the box."""
LIKELY = 0.5
"""Odds from which on a pose may stand on a class of a map."""


def path_size(dimensions: int) -> int:
    """How many of the last numbers of g are the camera path."""
    return min(5 * POSES, dimensions)


def path_of(sample: SceneSample) -> Float[Tensor, "poses 5"]:
    """The walk through a scene, or its cameras one after another: x, y, z in metres, cosine and sine of the heading."""
    if sample.trajectory is not None and len(sample.trajectory) > 1:
        return sample.trajectory
    return path_past(sample.camera)


def path_past(camera: Camera) -> Float[Tensor, "poses 5"]:
    """The places of cameras ``(views,)`` one after another, and where they head; whoever looks straight down, to +x."""
    forward = camera.forward
    heading = torch.atan2(forward[:, 1], forward[:, 0])
    return torch.cat((camera.centers, torch.stack((heading.cos(), heading.sin()), dim=-1)), dim=-1)


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


def draw_path(
    numbers: Float[Tensor, "scenes numbers"], size: Sequence[int], shift: Float[Tensor, "scenes 2"] | None = None
) -> Float[Tensor, "scenes 4 x y"]:
    """Packed paths as pictures from above of ``size`` cells along x and y, soft strokes on zeros.

    ``shift`` is where the middle of each picture lies, in half boxes along x and y.
    """
    poses = numbers.unflatten(1, (-1, 5))  # scenes poses 5
    if shift is not None:
        poses = torch.cat((poses[..., :2] - shift[:, None], poses[..., 2:]), dim=-1)
    lines = [(torch.arange(count, device=numbers.device) + 0.5) * 2 / count - 1 for count in size]
    cells = torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1)  # x y 2
    distance = (cells[None, None] - poses[:, :, None, None, :2]).square().sum(-1)
    nearness = torch.exp(-distance / (2 * (2 * STROKE) ** 2))  # scenes poses x y; the box is 2 wide
    values = torch.einsum("spxy,spc->scxy", nearness, poses[..., 2:]) / (nearness.sum(1, keepdim=True) + 1e-3)
    return torch.cat((nearness.amax(1, keepdim=True), values), dim=1)


def classes_under(
    numbers: Float[Tensor, "*scenes numbers"], maps: Int64[Tensor, "*scenes x y"]
) -> Int64[Tensor, "*scenes poses"]:
    """The class of a bird's-eye map under each pose of packed paths."""
    poses, size = numbers.unflatten(-1, (-1, 5)), maps.shape[-2:]
    x, y = ((((poses[..., axis] + 1) / 2 * size[axis]).long()).clamp(0, size[axis] - 1) for axis in (0, 1))
    return maps.flatten(-2).gather(-1, x * size[1] + y)


def measure_path_odds(
    numbers: Float[Tensor, "scenes numbers"], maps: Int64[Tensor, "scenes x y"], classes: int
) -> Float[Tensor, " classes"]:
    """How much more often each class lies under a path than anywhere; 1 for classes that maps do not hold."""
    under, anywhere = (
        torch.bincount(values.flatten(), minlength=classes)[:classes] / values.numel()
        for values in (classes_under(numbers, maps), maps)
    )
    return torch.where(anywhere > 0, under / anywhere.clamp(min=1e-9), 1.0)


def count_unlikely(
    numbers: Float[Tensor, "scenes numbers"], maps: Int64[Tensor, "scenes x y"], odds: Float[Tensor, " classes"]
) -> Int64[Tensor, " scenes"]:
    """Poses of packed paths on classes where paths hardly stand; cells of no class count as likely."""
    known = torch.cat((odds, odds.new_ones(1)))
    return (known[classes_under(numbers, maps).clamp(max=len(odds))] < LIKELY).sum(-1)


def path_cameras(path: Float[Tensor, "poses 5"], width: int, height: int, field_of_view: float = 90.0) -> Camera:
    """Level cameras along a path; the horizontal field of view is in degrees."""
    forward = torch.nn.functional.pad(path[:, 3:], (0, 1))  # horizontal
    up = torch.tensor((0.0, 0.0, 1.0), device=path.device).expand_as(forward)
    right = torch.linalg.cross(forward, up)
    rotation = torch.stack((right, up, -forward), dim=-1)
    pose = torch.eye(4, device=path.device).repeat(len(path), 1, 1)
    pose[:, :3, :3], pose[:, :3, 3] = rotation, path[:, :3]
    return Camera.from_fov(pose, width=width, height=height, horizontal_fov_degrees=field_of_view)
