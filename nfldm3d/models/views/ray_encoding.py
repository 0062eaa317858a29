"""Where pixels look from and to, as 3DiM tells it: sines of ray origins and directions (Mildenhall et al. 2020)."""

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.camera import Camera

ORIGIN_OCTAVES, DIRECTION_OCTAVES = 15, 8
"""As published: 93 numbers of a pixel for where its ray begins, 51 for where it goes."""


def encode_rays(
    camera: Camera, origin_octaves: int = ORIGIN_OCTAVES, direction_octaves: int = DIRECTION_OCTAVES
) -> Float[Tensor, "*batch encoded height width"]:
    """The rays of all pixels: x, sin(2^k x) and sin(2^k x + pi / 2), of world coordinates and unit directions, for so
    many k from 0 on."""
    rays = camera.rays()
    encoded = (_encode(rays.origins, origin_octaves), _encode(rays.directions, direction_octaves))
    return torch.cat(encoded, dim=-1).movedim(-1, -3)


def count_encoded(origin_octaves: int = ORIGIN_OCTAVES, direction_octaves: int = DIRECTION_OCTAVES) -> int:
    """The numbers that a pixel is told by."""
    return 3 * (1 + 2 * origin_octaves) + 3 * (1 + 2 * direction_octaves)


def turn_to_first(camera: Camera) -> Camera:
    """Cameras (objects frames) in a world turned about its vertical axis so that the first of each object stands above
    the +x axis: nothing but its height and distance is left to know of a single picture.

    One that stands above the middle itself, where there is no azimuth, has its picture's right along +y.
    """
    x, y = camera.centers[:, 0, :2].unbind(-1)
    right = camera.world_from_camera[:, 0, :2, 0]
    above = torch.hypot(x, y) < 1e-4
    x, y = torch.where(above, right[:, 1], x), torch.where(above, -right[:, 0], y)
    length = torch.hypot(x, y)
    cosine, sine = x / length, y / length
    turn = torch.eye(4, dtype=x.dtype, device=x.device).repeat(len(x), 1, 1)
    turn[:, 0, 0], turn[:, 0, 1], turn[:, 1, 0], turn[:, 1, 1] = cosine, sine, -sine, cosine
    return replace(camera, world_from_camera=turn[:, None] @ camera.world_from_camera)


def _encode(values: Float[Tensor, "*batch 3"], octaves: int) -> Float[Tensor, "*batch encoded"]:
    scaled = values.float()[..., None, :] * (2.0 ** torch.arange(octaves, device=values.device))[:, None]
    angles = scaled.flatten(-2)  # *batch octaves*3
    return torch.cat((values.float(), angles.sin(), (angles + math.pi / 2).sin()), dim=-1)
