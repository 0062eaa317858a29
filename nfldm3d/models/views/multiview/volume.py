"""From the features of many views to a volume, and from the volume back into views.

The volume is a cube of contracted space (see ``contraction``): its inner half along each axis is the cube
[-1, 1]^3 of what matters, the rest all that lies beyond. Arrays are indexed x, y, z, as everywhere.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from nfldm3d import ops
from nfldm3d.camera import Camera
from nfldm3d.geometry import Box, Rays
from nfldm3d.models.views.multiview.contraction import REACH, contract, expand, is_seen

CUBE = Box((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
ALL = Box((-REACH,) * 3, (REACH,) * 3)  # type: ignore[arg-type]
"""Contracted space."""
BACKGROUND_SAMPLES = 24
"""Along each ray beyond the cube, evenly in r with distance r / (1 - r) from where they begin."""
FARTHEST = 0.995
"""r of the last."""


@dataclass(frozen=True)
class Fetched:
    """What views show at points."""

    values: Float[Tensor, "views points channels"]
    """0 where a view does not see the point."""
    seen: Bool[Tensor, "views points"]
    """Whether it projects into the picture, before the camera."""
    directions: Float[Tensor, "views points 3"]
    """Unit vectors from the cameras to the points."""
    depths: Float[Tensor, "views points"]
    """Along the optical axes."""


@dataclass(frozen=True)
class RenderedFeatures:
    """What a volume shows along rays."""

    foreground: Float[Tensor, "rays channels"]
    """Sum of the weights times the features in the cube."""
    opacity: Float[Tensor, " rays"]
    """Of what lies in the cube."""
    background: Float[Tensor, "rays channels"]
    """The same of what lies beyond, as if the cube were empty; ones where there is nothing."""

    def together(self) -> Float[Tensor, "rays channels"]:
        """The cube before what lies beyond."""
        return self.foreground + (1 - self.opacity)[:, None] * self.background


def voxel_points(
    grid: int, like: Tensor, *, unbounded: bool
) -> tuple[Float[Tensor, "points 3"], Bool[Tensor, " points"]]:
    """Where in the world the voxels of a cube of ``grid`` a side lie, x first, and which of them are anywhere."""
    centers = (ALL if unbounded else CUBE).voxel_centers((grid, grid, grid), like).reshape(-1, 3)
    if not unbounded:
        return centers, torch.ones(len(centers), dtype=torch.bool, device=centers.device)
    return expand(centers), is_seen(centers)


def unproject(
    features: Float[Tensor, "views channels height width"], camera: Camera, points: Float[Tensor, "points 3"]
) -> Fetched:
    """What each view shows at world points, between its pixels bilinearly; ``camera`` (views) may be of any size."""
    height, width = features.shape[-2:]
    camera = camera.resized(width, height)
    everywhere = points.expand(len(features), -1, -1)
    pixels, depths = camera.project(everywhere)
    size = pixels.new_tensor((width, height))
    inside = ((pixels >= 0) & (pixels <= size)).all(-1) & (depths > 1e-4)
    place = torch.where(inside[..., None], 2 * pixels / size - 1, -3.0)  # -1 is the picture's edge
    values = functional.grid_sample(features, place[:, None].to(features), align_corners=False)[:, :, 0]
    offsets = everywhere - camera.centers[:, None]
    directions = functional.normalize(offsets, dim=-1)
    return Fetched(values.transpose(1, 2) * inside[..., None], inside, directions, torch.where(inside, depths, 0.0))


def render_volume(
    density: Float[Tensor, "x y z"], features: Float[Tensor, "x y z channels"], rays: Rays, *, unbounded: bool
) -> RenderedFeatures:
    """Features of rays through a volume; density is per unit of length, beyond the cube of contracted length.

    The cube is marched by ``ops.integrate_rays``, which needs no memory for its samples.
    """
    density, features = density.float(), features.float()
    origins, directions = rays.origins.float().detach().contiguous(), rays.directions.float().detach().contiguous()
    grid = density.shape[0]
    inner = slice(grid // 4, grid - grid // 4) if unbounded else slice(None)
    cube = density[inner, inner, inner].contiguous(), features[inner, inner, inner].contiguous()
    step = 2.0 / (grid // 2 if unbounded else grid) / 2
    integral = ops.integrate_rays(*cube, origins, directions, None, ops.March((CUBE.lower, CUBE.upper), step))
    if not unbounded:
        return RenderedFeatures(integral.features, integral.opacity, torch.ones_like(integral.features))
    beyond = _render_beyond(density, features, Rays(origins, directions))
    return RenderedFeatures(integral.features, integral.opacity, beyond)


def _render_beyond(
    density: Float[Tensor, "x y z"], features: Float[Tensor, "x y z channels"], rays: Rays
) -> Float[Tensor, "rays channels"]:
    """What lies behind the cube, or for rays that miss it, behind where they come nearest to its middle."""
    _, leaves = CUBE.clip(rays)
    nearest = -(rays.origins * rays.directions).sum(-1).clamp(max=0)
    start = torch.where(leaves > 0, leaves, nearest)
    share = torch.linspace(0, FARTHEST, BACKGROUND_SAMPLES + 1).to(start)
    edges, middles = (start[:, None] + each / (1 - each) for each in (share, (share[1:] + share[:-1]) / 2))
    lines = Rays(*(part[:, None].expand(-1, BACKGROUND_SAMPLES + 1, 3) for part in (rays.origins, rays.directions)))
    lengths = contract(lines.at(edges)).diff(dim=1).norm(dim=-1)
    points = contract(lines[:, 1:].at(middles))
    values = torch.cat((features, density[..., None]), dim=-1)
    fetched = ops.interpolate(values, points.reshape(-1, 3).contiguous(), (ALL.lower, ALL.upper))
    fetched = fetched.unflatten(0, points.shape[:2])
    passed = torch.exp(-(fetched[..., -1].clamp(min=0) * lengths).cumsum(-1))
    weights = functional.pad(passed[:, :-1], (1, 0), value=1.0) - passed
    return (weights[..., None] * fetched[..., :-1]).sum(1) + passed[:, -1:]
