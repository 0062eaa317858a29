"""Where a scene is looked at from: its cameras, and places around them where somebody could stand."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.export.occluders import Occluder, see
from nfldm3d.export.regions import number_regions

PLACES = 32
"""At most so many places to stand join the cameras."""
SPACING = 3.0
"""How far these lie apart, in eye heights."""
WITNESSES = 2
"""So many cameras must see a place: a single one may do so through a gap that should not be there."""


class Viewpoints(NamedTuple):
    """Eyes inside a scene."""

    cameras: Camera
    """Those in free space."""
    places: Float[Tensor, "places 3"]
    """Where somebody could stand beside, in metres."""
    height: float | None
    """How far above the ground the cameras are, in metres; None if there is no ground below them."""


def find_viewpoints(cameras: Camera, occluder: Occluder) -> Viewpoints:
    """Cameras in free space, and the places at their height above the ground that they see and could walk to."""
    cameras = cameras[~occluder.holds(cameras.centers)]
    eyes = cameras.centers
    down = eyes.new_tensor((0.0, 0.0, -1.0)).expand_as(eyes)
    distance = occluder.measure(eyes, down)
    standing = distance.isfinite()
    if not len(eyes) or float(standing.float().mean()) < 0.5:
        return Viewpoints(cameras, eyes[:0], None)
    height = float(distance[standing].median())
    places = _thin(_reach(occluder, eyes, height), SPACING * height)
    pairs = torch.cartesian_prod(torch.arange(len(places)), torch.arange(len(eyes))).to(eyes.device)
    seen = see(occluder, places[pairs[:, 0]], eyes[pairs[:, 1]])
    witnesses = seen.view(len(places), len(eyes)).sum(1)
    return Viewpoints(cameras, places[witnesses >= min(WITNESSES, len(eyes))], height)


def _reach(occluder: Occluder, eyes: Float[Tensor, "eyes 3"], height: float) -> Float[Tensor, "places 3"]:
    """Centres of the voxels at eye height above some ground from which one can walk to one of the eyes.

    Walkers are three voxels wide, so that they do not slip through the gaps of a wall, and climb half their height.
    """
    layer = _find_layer(occluder, height)
    rise = max(1, round(height / 2 / occluder.cell_size[2]))
    bridged = _spread(layer, (0, 0, rise))
    number = number_regions(bridged, across_corners=True)
    at_eyes = torch.zeros_like(layer)
    at_eyes[tuple(occluder.locate(eyes).unbind(-1))] = True
    near = number[_spread(at_eyes, (1, 1, rise)) & bridged].unique()
    reached = layer & torch.isin(number, near[near > 0])
    lower, size = eyes.new_tensor(occluder.box.lower), eyes.new_tensor(occluder.cell_size)
    return lower + (reached.nonzero() + 0.5) * size


def _find_layer(occluder: Occluder, height: float) -> Bool[Tensor, "x y z"]:
    """The free voxels at eye height above a solid one, with free voxels around and between."""
    solid = occluder.solid
    order = torch.arange(solid.shape[2], device=solid.device)
    ground = torch.where(solid, order, -1).cummax(2).values  # the highest solid voxel up to here
    steps = order - ground
    wanted = max(1, round(height / occluder.cell_size[2] + 0.5))
    narrow = _spread(torch.nn.functional.pad(solid, (0, 0, 1, 1, 1, 1), value=True), (1, 1, 0))[1:-1, 1:-1]
    return ~narrow & (ground >= 0) & (steps == wanted)


def _spread(mask: Bool[Tensor, "x y z"], radii: tuple[int, int, int]) -> Bool[Tensor, "x y z"]:
    """The voxels of a mask and those around within the radii along x, y and z."""
    for axis, radius in enumerate(radii):
        spread = mask.clone()
        for step in range(1, min(radius, mask.shape[axis] - 1) + 1):
            rest = mask.shape[axis] - step
            spread.narrow(axis, step, rest).logical_or_(mask.narrow(axis, 0, rest))
            spread.narrow(axis, 0, rest).logical_or_(mask.narrow(axis, step, rest))
        mask = spread
    return mask


def _thin(points: Float[Tensor, "points 3"], spacing: float) -> Float[Tensor, "kept 3"]:
    """One point for each cube of edge ``spacing``, and at most ``PLACES`` of them."""
    _, cube = (points / spacing).floor().long().unique(dim=0, return_inverse=True)
    first = cube.new_full((int(cube.max()) + 1 if len(cube) else 0,), len(points))
    first.scatter_reduce_(0, cube, torch.arange(len(points), device=points.device), "amin")
    count = min(PLACES, len(first))
    return points[first[torch.linspace(0, len(first) - 1, count).round().long()] if count else first]
