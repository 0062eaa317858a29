"""The given view swept over planes before the camera of the view to draw (Collins 1996; as in MVSNet, Yao et al. 2018).

Attention must find out by itself which of the given view's pixels a ray may show, which takes small networks tens of
thousands of steps. A sweep lays what the given view shows at each of some depths beside each other, so that what is
left to learn is which of them it is.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nfldm3d.camera import Camera

WIDTH = 16
"""Channels of what is swept, the colours among them."""
MIXED = 64
"""Channels that all planes of a pixel become."""
NOWHERE = 2.0
"""A coordinate outside of every picture."""
FINEST = 2
"""Pixels along each side that are one place of a sweep, at least."""


class Sweep(nn.Module):
    """Features of the drawn frame from what the given one shows along its rays."""

    def __init__(self, planes: int, patch: int, outputs: int):
        """``outputs`` channels for each patch of ``patch`` pixels a side."""
        super().__init__()
        self.fold = patch // min(patch, FINEST)
        self.look = nn.Sequential(
            nn.Conv2d(3, WIDTH, 3, padding=1), nn.SiLU(), nn.Conv2d(WIDTH, WIDTH - 3, 3, padding=1)
        )
        self.mix = nn.Sequential(
            nn.Conv2d(WIDTH * planes, MIXED, 1), nn.SiLU(), nn.Conv2d(MIXED, MIXED, 3, padding=1), nn.SiLU()
        )
        self.answer = nn.Conv2d(MIXED * self.fold**2, outputs, 1)

    def forward(
        self, given: Float[Tensor, "objects 3 height width"], points: Float[Tensor, "objects planes side side 2"]
    ) -> Float[Tensor, "objects outputs _ _"]:
        """``points`` are ``sweep_points``'s; what lies outside of the given view is 0."""
        features = torch.cat((given, self.look(given).to(given)), dim=1).float()
        rows = points.flatten(1, 2).float()  # all planes above each other
        fetched = functional.grid_sample(features, rows, align_corners=False)
        planes = fetched.unflatten(2, points.shape[1:3]).flatten(1, 2)  # objects width*planes side side
        return self.answer(functional.pixel_unshuffle(self.mix(planes.to(given)), self.fold))


def sweep_points(camera: Camera, side: int, planes: int) -> Float[Tensor, "objects planes side side 2"]:
    """Where the given picture, -1 to 1 along each side, shows what may be seen in side x side pixels of the drawn one.

    Planes stand across the drawn camera's axis, evenly about the world's origin as far as the picture is wide there.

    Args:
        camera: (objects 2), given and drawn.
    """
    given, drawn = camera[:, 0], camera[:, 1].resized(side, side)
    distance = drawn.centers.norm(dim=-1)
    reach = distance * side / (2 * drawn.focal[:, 0])
    steps = torch.linspace(-1, 1, planes, device=distance.device, dtype=distance.dtype)
    depth = distance[:, None] + reach[:, None] * steps  # objects planes
    rays = drawn.rays()
    along = depth[:, :, None, None] / drawn.depth_per_distance(rays)[:, None]
    points = rays.origins[:, None] + along[..., None] * rays.directions[:, None]
    pixels, ahead = given.project(points.flatten(1, 3))
    sides = pixels.new_tensor((given.width, given.height))
    placed = torch.where(ahead[..., None] > 0, 2 * pixels / sides - 1, NOWHERE)
    return placed.clamp(-NOWHERE, NOWHERE).unflatten(1, points.shape[1:4])


def sweep_side(size: int, patch: int) -> int:
    """Places along each side of a sweep for pictures of ``size`` pixels in patches."""
    return size // min(patch, FINEST)
