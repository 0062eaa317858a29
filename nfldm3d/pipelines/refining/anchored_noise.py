"""Noise that sticks to surfaces: where several cameras see the same place, a restorer draws the same there."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nfldm3d.camera import Camera

SKY_CELLS = 64.0
"""Along a direction of length one, where nothing is hit."""


def anchor_noise(
    camera: Camera,
    distance: Float[Tensor, "views height width"],
    cell: float,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "views 3 height width"]:
    """White noise of deviation 1 for each view, whose sum over the pixels of a place is the same in all views.

    Places are cubes; the noise of one is spread over its pixels as the conditional distribution of white noise given
    its sum, so each picture alone is white (Chang et al. 2024, their equation 6).

    Args:
        distance: from the camera to the surface along each ray, in metres; 0 where nothing is hit: directions are
            places there.
        cell: edge of a place in metres.
    """
    rays = camera.rays()
    directions = rays.directions.reshape(*distance.shape, 3)
    points = rays.origins.reshape(*distance.shape, 3) + distance[..., None] * directions
    hit = (distance > 0)[..., None]
    places = torch.where(hit, points / cell, SKY_CELLS * directions).floor().long()
    places = torch.cat((places, hit.long()), dim=-1).flatten(0, -2)
    _, number = places.cpu().unique(dim=0, return_inverse=True)
    views = torch.arange(len(distance)).repeat_interleave(distance[0].numel())
    count = int(number.max()) + 1
    shared = torch.randn(count, 3, generator=generator)[number]
    own = torch.randn(len(number), 3, generator=generator)
    mean, pixels = _means(own, views * count + number)
    noise = shared / pixels[:, None].sqrt() + own - mean
    return noise.unflatten(0, distance.shape).movedim(-1, 1).to(distance)


def _means(
    values: Float[Tensor, "pixels 3"], group: Int64[Tensor, " pixels"]
) -> tuple[Float[Tensor, "pixels 3"], Float[Tensor, " pixels"]]:
    """The mean of each pixel's group, and how many pixels that has."""
    _, number, pixels = group.unique(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(pixels), 3).index_add_(0, number, values)
    return (sums / pixels[:, None])[number], pixels[number].to(values)
