"""What measured depth says about space: where matter can be, and where it cannot."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nfldm3d.camera import Camera

RELATIVE_MARGIN = 0.01
"""Share of a depth by which measurements may be off."""


def find_empty_space(
    points: Float[Tensor, "points 3"], camera: Camera, depth: Float[Tensor, "views height width"], margin: float
) -> Bool[Tensor, " points"]:
    """Which points cannot hold visible matter: some depth map passes or hides them, and none ends near them.

    Args:
        depth: metres along the optical axes, 0 where unknown; unknown pixels say nothing.
        margin: half the thickness in metres that a surface is given, e.g. two voxels.
    """
    known = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    surface = known.clone()
    for view in range(len(camera)):
        pixels, distance = camera[view].project(points)
        column, row = pixels.nan_to_num(-1.0).clamp(-1, 1e6).floor().long().unbind(-1)
        visible = (distance > 0) & (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
        seen = visible.nonzero()[:, 0]
        measured = depth[view, row[seen], column[seen]]
        gap = (distance[seen] - measured).abs()
        known[seen] |= measured > 0
        surface[seen] |= (measured > 0) & (gap < margin + RELATIVE_MARGIN * measured)
    return known & ~surface
