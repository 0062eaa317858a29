"""Posed pictures as the networks take them, and what makes them useless."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.data.posed_images import PosedImages
from nfldm3d.data.scene_sample import FARTHEST_MEDIAN, NEAREST_MAXIMUM
from nfldm3d.geometry import Box

BRIGHTEST = 2.0
"""Pictures with larger values are not in [0, 1]."""
SIGHT = 8
"""Rays along each side of a picture that tell whether it shows any of the box."""


@dataclass(frozen=True)
class Views:
    """Pictures of one scene, to encode or to compare with."""

    images: Float[Tensor, "views 3 height width"]
    """sRGB in [0, 1]."""
    camera: Camera
    depth: Float[Tensor, "views height width"] | None
    """Metres along the optical axis, 0 where there is no surface; None if it was not measured."""
    mask: Bool[Tensor, "views height width"] | None = None
    """True where a pixel counts when pictures are compared; None if all do."""

    def __post_init__(self):
        shape = (*self.camera.shape, 3, self.camera.height, self.camera.width)
        if len(shape) != 4 or 0 in shape or self.images.shape != shape:
            raise ValueError(
                f"views need at least one picture, and a camera for each: cameras for {shape} (views, 3, height, "
                f"width) came with pictures of shape {tuple(self.images.shape)}; resize either"
            )
        for name in ("depth", "mask"):
            value = getattr(self, name)
            if value is not None and value.shape != (shape[0], *shape[2:]):
                raise ValueError(
                    f"{name} must have the shape {(shape[0], *shape[2:])} (views, height, width), got "
                    f"{tuple(value.shape)}; resize it, or leave it out with {name}=None"
                )

    @classmethod
    def from_posed_images(cls, images: PosedImages, *, use_depth: bool = True) -> "Views":
        """All views of a capture, loaded: pictures, cameras, masks, and depth where there is some and it is wanted."""
        depth = images.load_depth() if use_depth else None
        return cls(images.load_images(), images.camera, depth, images.load_masks())

    def to(self, device: torch.device | str) -> "Views":
        """The same on another device."""
        depth, mask = (None if value is None else value.to(device) for value in (self.depth, self.mask))
        return Views(self.images.to(device), self.camera.to(device), depth, mask)


def cubic_box(box: Box, resolution: tuple[int, int, int]) -> Box:
    """The smallest box about the same centre in which voxels are cubes."""
    sizes = box.voxel_size(resolution)
    if max(sizes) <= (1 + 1e-6) * min(sizes):
        return box
    return Box.from_center(box.center, tuple(max(sizes) * count for count in resolution))  # type: ignore[arg-type]


def check_views(views: Views, box: Box) -> None:
    """Raises a ValueError that says what is wrong with the views of a scene."""
    problem = _find_picture_problem(views) or _find_blind_view(views.camera, box)
    if problem is None and views.depth is not None:
        problem = _find_depth_problem(views.depth, box)
    if problem is not None:
        raise ValueError(problem)


def _find_picture_problem(views: Views) -> str | None:
    if not bool(torch.isfinite(views.images).all()):
        return "the pictures hold NaN or infinity; repair them"
    low, high = (float(value) for value in views.images.aminmax())
    if low < -BRIGHTEST or high > BRIGHTEST:
        return f"the pictures hold values from {low:.3g} to {high:.3g}, not from 0 to 1; divide 8-bit pictures by 255"
    return None


def _find_blind_view(camera: Camera, box: Box) -> str | None:
    if not bool(torch.isfinite(camera.world_from_camera).all() and torch.isfinite(camera.focal).all()):
        return "the cameras hold NaN or infinity; repair their poses and focal lengths"
    near, far = box.scaled(1.01).clip(camera.resized(SIGHT, SIGHT).rays())  # rounding puts cameras before the wall
    blind = ~(near < far).flatten(1).any(1)
    if not bool(blind.any()):
        return None
    number = int(blind.nonzero()[0])
    place = ", ".join(f"{value:.3g}" for value in camera.centers[number].tolist())
    return (
        f"view {number} at ({place}) shows nothing of the box {box.lower} to {box.upper} ({int(blind.sum())} of "
        f"{len(camera)} views do not); leave it out, or give a box around what the views show"
    )


def _find_depth_problem(depth: Float[Tensor, "views height width"], box: Box) -> str | None:
    if not bool(torch.isfinite(depth).all()) or bool((depth < 0).any()):
        return "the depth holds NaN, infinity or negative numbers; put 0 where there is no surface"
    known, diagonal = depth[depth > 0], math.dist(box.lower, box.upper)
    if not len(known):
        return "the depth is 0 everywhere; give depth=None if it was not measured"
    median, largest = float(known.median()), float(known.max())
    if median > FARTHEST_MEDIAN * diagonal or largest < NEAREST_MAXIMUM * diagonal:
        return (
            f"the depth is {median:.3g} in the middle and {largest:.3g} at most in a box {diagonal:.3g} m across: "
            "it is not in metres; rescale it"
        )
    return None
