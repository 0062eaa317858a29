"""From where a scene is looked at while it is refined: along its path and about its middle, in free space."""

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.fields.voxel import surface_density
from nfldm3d.scene import Scene

AREA = 6.0
"""Square metres about the origin on which viewpoints lie (NF-LDM, section 7)."""
CLEARANCE = 0.4
"""Metres around a camera in which there must be nothing."""
TRIES = 8
"""Random cameras that are tried for each one that is wanted."""


def choose_cameras(scene: Scene, views: int, size: int, generator: torch.Generator) -> Camera:
    """Cameras of ``size`` pixels along each side: a third as the scene's own, a third of those turned about, a third on
    6 square metres about the middle of the box. Where there is no free space, the scene's own take their place.

    Raises:
        ValueError: the scene has no cameras.
    """
    if scene.cameras is None or not len(scene.cameras.reshape(-1)):
        raise ValueError(
            "the scene has no cameras, so nobody knows from where it is looked at; give it some: "
            "dataclasses.replace(scene, cameras=Camera...)"
        )
    own = square(scene.cameras.to("cpu").reshape(-1), size)
    turned, middle = views // 3, views // 3
    kept = _pick(own, views - turned - middle, generator)
    parts = [kept]
    for count, moved in ((turned, False), (middle, True)):
        tried = _scatter(scene, _pick(own, TRIES * count, generator), generator, moved) if count else own[:0]
        free = tried[is_free(scene, tried.centers)]
        parts += [free[:count], _pick(own, count - len(free[:count]), generator)]
    return Camera.cat([part for part in parts if len(part)]).to(scene.device)


def square(camera: Camera, size: int) -> Camera:
    """The middle of the pictures, at ``size`` pixels along each side."""
    side = min(camera.width, camera.height)
    middle = camera.cropped((camera.width - side) // 2, (camera.height - side) // 2, side, side)
    return middle.resized(size, size)


@torch.no_grad()
def is_free(scene: Scene, points: Float[Tensor, "points 3"]) -> Bool[Tensor, " points"]:
    """Whether a camera can stand there: in the box, with nothing within ``CLEARANCE``."""
    offsets = torch.cat((torch.zeros(1, 3), CLEARANCE * torch.eye(3), -CLEARANCE * torch.eye(3))).to(points)
    around = (points[:, None] + offsets).to(scene.device)
    thick = scene.field.query_density(around) > 0.5 * surface_density(scene.field.voxel_size)
    return (scene.box.contains(points.to(scene.device)) & ~thick.any(-1)).to(points.device)


def _pick(camera: Camera, count: int, generator: torch.Generator) -> Camera:
    """Cameras in random order; each again where there are too few."""
    order = [torch.randperm(len(camera), generator=generator) for _ in range(-(-count // len(camera)))]
    return camera[torch.cat(order)[:count] if order else []]


def _scatter(scene: Scene, camera: Camera, generator: torch.Generator, moved: bool) -> Camera:
    """The cameras with random headings, and, if ``moved``, at random places about the middle, at their own heights."""
    angle, share, way = (torch.rand(len(camera), generator=generator) for _ in range(3))
    pose = camera.world_from_camera.clone()
    turn = torch.eye(3).to(pose).repeat(len(camera), 1, 1)
    cosine, sine = (2 * math.pi * angle).cos().to(pose), (2 * math.pi * angle).sin().to(pose)
    turn[:, 0, 0], turn[:, 0, 1], turn[:, 1, 0], turn[:, 1, 1] = cosine, -sine, sine, cosine
    pose[:, :3, :3] = turn @ pose[:, :3, :3]
    if moved:
        radius = (AREA / math.pi * share).sqrt()
        pose[:, 0, 3] = scene.box.center[0] + (radius * (2 * math.pi * way).cos()).to(pose)
        pose[:, 1, 3] = scene.box.center[1] + (radius * (2 * math.pi * way).sin()).to(pose)
    return replace(camera, world_from_camera=pose)
