"""The box of a scene whose capture names none: around its cameras and what they see."""

import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.files import DataFormatError
from nfldm3d.geometry import Box

SEEN_QUANTILE = 0.02
"""The box leaves out this share of the surfaces on each side."""
MARGIN_SHARE = 0.02
"""By which the box is larger than what it must hold, on each side."""
MAX_RATIO = 200.0
"""Depths that are so many times larger or smaller than the span of the cameras are in other units."""
BOX_POINTS = 200_000
"""Surfaces that are looked at."""


def find_box(camera: Camera, depth: Float[Tensor, "views height width"], source: Path) -> Box:
    """The box around the cameras and nearly all surfaces that they see.

    Raises:
        DataFormatError: there is no depth, or its scale is not that of the cameras, which names ``source``.
    """
    known = depth[depth > 0]
    if not len(known):
        raise DataFormatError(source, "has no depth at all; record it again with depth")
    centers = camera.centers
    span, median = float((centers.amax(0) - centers.amin(0)).norm()), float(known.median())
    if span > 0 and not 1 / MAX_RATIO < median / span < MAX_RATIO:
        raise DataFormatError(
            source, f"has depths of {median:.3g} m in the middle, but its cameras span {span:.3g} m; check depth's unit"
        )
    surfaces = camera.unproject(depth)[depth > 0]
    surfaces = surfaces[:: math.ceil(len(surfaces) / BOX_POINTS)]
    shares = surfaces.new_tensor((SEEN_QUANTILE, 1 - SEEN_QUANTILE))
    held = Box.around(torch.cat((torch.quantile(surfaces, shares, dim=0), centers)))
    margin = MARGIN_SHARE * math.dist(held.lower, held.upper)
    return Box(
        tuple(value - margin for value in held.lower),  # type: ignore[arg-type]
        tuple(value + margin for value in held.upper),  # type: ignore[arg-type]
    )
