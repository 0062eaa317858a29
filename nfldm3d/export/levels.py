"""Which density is a surface."""

from dataclasses import replace

import torch

from nfldm3d.export.coloring import spread_views
from nfldm3d.fields import SparseField, VoxelField, surface_density
from nfldm3d.geometry import Box
from nfldm3d.scene import Scene

RAYS = 8192
"""How many rays of the capture's cameras are asked."""
SHARE = 0.1
"""Share of the rays whose surface may be softer than the level."""


@torch.no_grad()
def choose_level(scene: Scene, field: VoxelField | SparseField, hole: Box | None = None) -> float:
    """The density in 1/metre at which a field of the scene has its surface.

    It is ln 2 / voxel size, where one voxel absorbs half of the light; but fitted surfaces are often softer, and then
    it is half of the density at which the rays of the capture's cameras are absorbed in the mean, all but the softest
    tenth of them. ``hole`` is left out: another field stands there.
    """
    level = surface_density(field.voxel_size)
    if scene.cameras is None or scene.cameras.shape.numel() == 0:
        return level
    cameras = spread_views(scene.cameras)
    width = max(1, round((RAYS / len(cameras) * cameras.width / cameras.height) ** 0.5))
    height = max(1, round(RAYS / len(cameras) / width))
    rays = cameras.resized(width, height).rays().reshape(-1)
    density = field.density
    if hole is not None:
        density = torch.where(hole.contains(field.voxel_centers()), 0.0, density)
    known = replace(field, density=density, features=density[..., None])
    near_far = torch.stack(field.box.clip(rays), dim=-1)
    seen = known.integrate(rays, near_far, min(field.voxel_size) / 2, 1e-4)
    solid = seen.opacity > 0.5
    if int(solid.sum()) < RAYS // 100:
        return level
    softness = (seen.features[solid, 0] / seen.opacity[solid]).float().quantile(SHARE)
    return min(level, float(softness) / 2)
