"""The box of a scene whose capture names none: around its cameras and what they see."""

import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.data.posed_images import PosedImages
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
MIN_POINTS = 100
"""Of fewer points that a capture knows no box is made."""
INWARD, AROUND = 0.6, 1.5
"""Half of the box, without depth: as a share of the cameras' distance from what they look at, of their spread."""


def find_box(views: PosedImages, depth: Float[Tensor, "views height width"] | None, source: Path) -> Box:
    """The box around the cameras and nearly all surfaces that they see.

    Without depth the capture's points tell where surfaces are, and if there are too few of them the cameras: what all
    of them look at, or the place that they walk through.

    Raises:
        DataFormatError: there is no depth at all, or its scale is not that of the cameras, which names ``source``.
    """
    camera = views.camera
    if depth is None:
        if views.points is None or len(views.points) < MIN_POINTS:
            return _hold(camera.centers, guess_surfaces(camera))
        return _hold(camera.centers, _without_outliers(views.points))
    known = depth[depth > 0]
    if not len(known):
        raise DataFormatError(source, "has no depth at all; record it again with depth")
    centers = camera.centers
    span, median = float((centers.amax(0) - centers.amin(0)).norm()), float(known.median())
    if span > 0 and not 1 / MAX_RATIO < median / span < MAX_RATIO:
        raise DataFormatError(
            source, f"has depths of {median:.3g} m in the middle, but its cameras span {span:.3g} m; check depth's unit"
        )
    return _hold(centers, _without_outliers(camera.unproject(depth)[depth > 0]))


def find_focus(
    centers: Float[Tensor, "views 3"], forward: Float[Tensor, "views 3"]
) -> tuple[Float[Tensor, " 3"], bool]:
    """The point nearest to all optical axes (least squares), and whether it lies in front of nearly all cameras."""
    across = torch.eye(3).to(forward) - forward[:, :, None] * forward[:, None, :]
    normal = across.sum(0) + 1e-6 * torch.eye(3).to(forward)
    focus = torch.linalg.solve(normal, (across @ centers[:, :, None]).sum(0))[:, 0]
    offset = focus - centers
    distance = offset.norm(dim=-1).clamp(min=1e-9)
    cosine = (offset * forward).sum(-1) / distance
    return focus, bool((cosine > 0.7).float().mean() > 0.9)


def _without_outliers(surfaces: Float[Tensor, "points 3"]) -> Float[Tensor, "2 3"]:
    """Two corners that hold nearly all points."""
    surfaces = surfaces[:: math.ceil(len(surfaces) / BOX_POINTS)]
    return torch.quantile(surfaces, surfaces.new_tensor((SEEN_QUANTILE, 1 - SEEN_QUANTILE)), dim=0)


def guess_surfaces(camera: Camera) -> Float[Tensor, "2 3"]:
    """Two corners around what cameras see, from where they are and look."""
    centers = camera.centers
    focus, looks_inward = find_focus(centers, camera.forward)
    if looks_inward:
        half = INWARD * (centers - focus).norm(dim=-1).median()
        return torch.stack((focus - half, focus + half))
    middle = (centers.amin(0) + centers.amax(0)) / 2
    half = (AROUND * (centers - middle).abs().max()).clamp(min=1e-3)
    return torch.stack((middle - half, middle + half))


def _hold(centers: Float[Tensor, "views 3"], corners: Float[Tensor, "2 3"]) -> Box:
    """The box around cameras and surfaces, with a margin."""
    held = Box.around(torch.cat((corners, centers)))
    margin = MARGIN_SHARE * math.dist(held.lower, held.upper)
    return Box(
        tuple(value - margin for value in held.lower),  # type: ignore[arg-type]
        tuple(value + margin for value in held.upper),  # type: ignore[arg-type]
    )
