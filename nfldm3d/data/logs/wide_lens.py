"""Views cut out of pictures of more than half a sphere: the unified model of catadioptric and fisheye lenses.

A point is moved to the unit sphere around the camera, seen from ``xi`` behind its middle, distorted as OpenCV distorts
(k1 k2 p1 p2) and scaled (Mei and Rives 2007, "Single View Point Omnidirectional Camera Calibration from Planar Grids").
KITTI-360 calibrates its side cameras so; camera axes are OpenCV's, x right, y down, z ahead.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from nfldm3d import lens as optics
from nfldm3d.data.intrinsics import Intrinsics


@dataclass(frozen=True)
class WideLens:
    """A lens of the unified model, in pixels; the centre of the first pixel is (0, 0), as calibrations count."""

    width: int
    height: int
    xi: float
    distortion: tuple[float, float, float, float]
    """k1 k2 p1 p2."""
    scale: tuple[float, float]
    """gamma1 and gamma2."""
    principal: tuple[float, float]

    def project(self, points: Float[Tensor, "*batch 3"]) -> tuple[Float[Tensor, "*batch 2"], Bool[Tensor, "*batch"]]:
        """Pixels of points in OpenCV's camera axes, and which of them the lens can see."""
        unit = functional.normalize(points, dim=-1)
        ahead = unit[..., 2] + self.xi
        plane = unit[..., :2] / ahead.clamp(min=1e-6)[..., None]
        terms = plane.new_tensor((*self.distortion, 0, 0, 0, 0))
        moved = optics.distort(plane.flatten(0, -2), terms).view_as(plane)
        pixels = moved * plane.new_tensor(self.scale) + plane.new_tensor(self.principal)
        limit = -1 / self.xi if self.xi > 1 else -self.xi  # what lies farther back would be seen a second time
        return pixels, unit[..., 2] > limit + 1e-6


@dataclass(frozen=True, eq=False)
class WideView:
    """A camera without distortion that looks somewhere through a wide lens."""

    lens: WideLens
    turn: Float[Tensor, "3 3"]
    """Its axes, OpenCV's too, as columns in those of the lens; float64."""

    def cut(
        self, picture: Float[Tensor, "3 _ _"], view: Intrinsics
    ) -> tuple[Float[Tensor, "3 height width"], Bool[Tensor, "height width"]]:
        """What it sees of a picture, and where; black where it sees nothing."""
        rows, columns = torch.meshgrid(torch.arange(view.height) + 0.5, torch.arange(view.width) + 0.5, indexing="ij")
        x = (columns - view.principal[0]) / view.focal[0]
        y = (rows - view.principal[1]) / view.focal[1]
        rays = torch.stack((x, y, torch.ones_like(x)), dim=-1) @ self.turn.float().T
        pixels, visible = self.lens.project(rays)
        grid = 2 * (pixels + 0.5) / pixels.new_tensor((self.lens.width, self.lens.height)) - 1  # edges are -1 and 1
        visible = visible & (grid.abs() <= 1).all(-1)
        seen = functional.grid_sample(picture[None], grid[None], padding_mode="border", align_corners=False)[0]
        return seen * visible, visible
