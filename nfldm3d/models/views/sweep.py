"""The given view swept over planes before the camera of the view to draw (Collins 1996; as in MVSNet, Yao et al. 2018).

Attention must find out by itself which of the given view's pixels a ray may show, which takes small networks tens of
thousands of steps. A sweep lays what the given view shows at each of some depths beside each other, so that what is
left to learn is which of them it is; what is chosen may then be shown as it is (view synthesis by appearance flow,
Zhou et al. 2016).
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
        self.finest = min(patch, FINEST)
        self.fold = patch // self.finest
        self.look = nn.Sequential(
            nn.Conv2d(3, WIDTH, 3, padding=1), nn.SiLU(), nn.Conv2d(WIDTH, WIDTH - 3, 3, padding=1)
        )
        self.mix = nn.Sequential(
            nn.Conv2d(WIDTH * planes, MIXED, 1), nn.SiLU(), nn.Conv2d(MIXED, MIXED, 3, padding=1), nn.SiLU()
        )
        self.answer = nn.Conv2d(MIXED * self.fold**2, outputs, 1)

    def forward(
        self, given: Float[Tensor, "objects 3 height width"], points: Float[Tensor, "objects planes height width 2"]
    ) -> Float[Tensor, "objects outputs _ _"]:
        """``points`` are ``sweep_points``'s."""
        features = torch.cat((given, self.look(given).to(given)), dim=1)
        fewer = functional.avg_pool2d(points.flatten(0, 1).movedim(-1, 1), self.finest)
        planes = fetch(features, fewer.movedim(1, -1).unflatten(0, points.shape[:2]))
        return self.answer(functional.pixel_unshuffle(self.mix(planes.flatten(1, 2)), self.fold))


def fetch(
    pictures: Float[Tensor, "objects channels _ _"], points: Float[Tensor, "objects planes height width 2"]
) -> Float[Tensor, "objects channels planes height width"]:
    """What pictures show at points; 0 outside of them."""
    rows = points.flatten(1, 2).float()  # all planes above each other
    fetched = functional.grid_sample(pictures.float(), rows, align_corners=False)
    return fetched.unflatten(2, points.shape[1:3]).to(pictures)


def show_swept(
    said: Float[Tensor, "objects numbers height width"],
    given: Float[Tensor, "objects 3 height width"],
    points: Float[Tensor, "objects planes height width 2"],
    shown: Float[Tensor, " objects"],
) -> Float[Tensor, "objects 3 height width"]:
    """A picture, of which some is the given one on the planes that were chosen for each pixel.

    Args:
        said: three colours of the network's own, how much a pixel shows the given view instead, and how likely each
            plane is.
        shown: 0 for objects of which no view is known, else 1.
    """
    own, gate, likely = said.float().split((3, 1, said.shape[1] - 4), dim=1)
    chosen = (likely.softmax(1)[:, None] * fetch(given.float(), points)).sum(2)
    share = torch.sigmoid(gate) * shown.float()[:, None, None, None]
    return torch.lerp(own, chosen, share)


def sweep_points(camera: Camera, planes: int) -> Float[Tensor, "objects planes height width 2"]:
    """Where the given picture, -1 to 1 along each side, shows what may be seen in the pixels of the drawn one.

    Planes stand across the drawn camera's axis, evenly about the world's origin as far as the picture is wide there.

    Args:
        camera: (objects 2), given and drawn.
    """
    given, drawn = camera[:, 0], camera[:, 1]
    distance = drawn.centers.norm(dim=-1)
    reach = distance * drawn.width / (2 * drawn.focal[:, 0])
    steps = torch.linspace(-1, 1, planes, device=distance.device, dtype=distance.dtype)
    depth = distance[:, None] + reach[:, None] * steps  # objects planes
    rays = drawn.rays()
    along = depth[:, :, None, None] / drawn.depth_per_distance(rays)[:, None]
    points = rays.origins[:, None] + along[..., None] * rays.directions[:, None]
    pixels, ahead = given.project(points.flatten(1, 3))
    sides = pixels.new_tensor((given.width, given.height))
    placed = torch.where(ahead[..., None] > 0, 2 * pixels / sides - 1, NOWHERE)
    return placed.clamp(-NOWHERE, NOWHERE).unflatten(1, points.shape[1:4])
