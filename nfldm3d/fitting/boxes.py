"""Where to put the grid: the box in focus and the surroundings, from whatever a capture knows about its scene."""

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.data.posed_images import PosedImages
from nfldm3d.data.scene_box import MIN_POINTS, SEEN_QUANTILE, guess_surfaces
from nfldm3d.fitting.hulls import Hull, find_hull
from nfldm3d.geometry import Box, Rays

MAX_SURROUNDINGS = 3
"""Shells of an unbounded capture: 2, 4 and 8 times the box in focus; what is farther is background."""


def estimate_boxes(images: PosedImages) -> tuple[Box, int]:
    """The box in focus and the number of surrounding shells for a capture.

    The first of these that exists decides: the box in the capture's metadata, the visual hull of an object in
    transparent pictures or on a plain background, its depth maps, its sparse points, its cameras. Cameras that look at
    a common point see an object: the box is centred there. Others look around: the box holds them all. Around an
    object that has a hull lies nothing.
    """
    return choose_boxes(images, find_hull(images))


def choose_boxes(images: PosedImages, hull: Hull | None) -> tuple[Box, int]:
    """As ``estimate_boxes``, given what ``find_hull`` found."""
    recorded = images.metadata.get("box")
    if isinstance(recorded, dict):
        shells = 0 if hull is not None else _shells_for(images, recorded=True)
        return Box(tuple(recorded["lower"]), tuple(recorded["upper"])), shells
    if hull is not None:
        return hull.box, 0
    points = _known_points(images)
    if points is not None:
        lower, upper = points.quantile(SEEN_QUANTILE, dim=0), points.quantile(1 - SEEN_QUANTILE, dim=0)
        center, half = (lower + upper) / 2, (upper - lower) / 2 * 1.1
        half = half.maximum(half.max() * 0.1)  # a flat wall still needs some depth
        return Box.around(torch.stack((center - half, center + half))), _shells_for(images, recorded=False)
    return Box.around(guess_surfaces(images.camera)), MAX_SURROUNDINGS


def nest_boxes(box: Box, surroundings: int) -> list[Box]:
    """The box and its surroundings, each twice as large as the one before, about the same centre."""
    return [box.scaled(2.0**level) for level in range(surroundings + 1)]


def _shells_for(images: PosedImages, *, recorded: bool) -> int:
    """Depth that reaches beyond a recorded box needs shells; a box around everything seen needs one, for outliers."""
    return 2 if recorded else 1


def _known_points(images: PosedImages, most: int = 100_000) -> Float[Tensor, "points 3"] | None:
    """Surface points in the world from the capture's depth or its sparse reconstruction."""
    depth = images.load_depth()
    if depth is None:
        return images.points if images.points is not None and len(images.points) >= MIN_POINTS else None
    views, rows, columns = (depth > 0).nonzero(as_tuple=True)
    if len(views) < MIN_POINTS:
        return None
    stride = max(1, len(views) // most)
    views, rows, columns = views[::stride], rows[::stride], columns[::stride]
    return unproject(images.camera, views, rows, columns, depth[views, rows, columns])


def unproject(camera: Camera, views: Tensor, rows: Tensor, columns: Tensor, depth: Tensor) -> Float[Tensor, "points 3"]:
    """World points at ``depth`` metres along the optical axes behind the given pixels."""
    chosen = camera[views]
    rays: Rays = chosen.rays(torch.stack((columns + 0.5, rows + 0.5), dim=-1)[:, None].to(depth))[:, 0]
    return rays.at(depth / chosen.depth_per_distance(rays))
