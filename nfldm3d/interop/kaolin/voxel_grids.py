"""Fields to and from Kaolin's voxel grids ``(scenes, x, y, z)`` and feature grids ``(scenes, channels, x, y, z)``.

Both are plain tensors: Kaolin itself is not needed.
"""

from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from nfldm3d.fields import VoxelField, surface_density
from nfldm3d.geometry import Box

Content = Literal["occupancy", "opacity", "density"]
"""What a voxel grid holds: 1 where a voxel absorbs half of the light or more; the share of light that a voxel absorbs
along its shortest edge, in [0, 1]; or the density in 1/metre."""


def to_kaolin_voxelgrid(field: VoxelField, content: Content = "occupancy") -> Float[Tensor, "scenes x y z"]:
    """One of Kaolin's voxel grids: binary as most of its functions want it, or with real values.

    The level 0.5 of opacity is the surface that ``export_mesh`` extracts.
    """
    _check_content(content)
    density = field.unsigned().density.reshape(-1, *field.resolution)
    if content == "density":
        return density
    surface = surface_density(field.voxel_size)
    if content == "occupancy":
        return (density >= surface).to(density.dtype)
    return 1 - torch.exp2(-density / surface)  # half of the light passes at the surface's density


def to_kaolin_feature_grid(field: VoxelField) -> Float[Tensor, "scenes channels x y z"]:
    """The features in the axis order of Kaolin's feature grids."""
    return field.features.reshape(-1, *field.resolution, field.channels).movedim(-1, 1).contiguous()


def from_kaolin_voxelgrid(
    voxelgrid: Shaped[Tensor, "scenes x y z"],
    box: Box,
    *,
    content: Content = "occupancy",
    features: Float[Tensor, "scenes channels x y z"] | None = None,
) -> VoxelField:
    """Fields ``(scenes, x, y, z)`` over ``box`` from Kaolin's voxel grid and feature grid (default: grey, 3 channels).

    Occupied voxels get the density of a surface; an opacity of 1 becomes the largest that can be told from 1.
    """
    _check_content(content)
    if voxelgrid.dim() != 4 or 0 in voxelgrid.shape:
        raise ValueError(f"a voxel grid must be (scenes, x, y, z), none of them 0, got {tuple(voxelgrid.shape)}")
    if features is not None and (features.dim() != 5 or features[:, 0].shape != voxelgrid.shape):
        raise ValueError(
            f"features must be (scenes, channels, x, y, z) with the voxel grid's {tuple(voxelgrid.shape)}, "
            f"got {tuple(features.shape)}"
        )
    values = voxelgrid if voxelgrid.is_floating_point() else voxelgrid.float()
    if features is None:
        features = torch.full_like(values, 0.5)[:, None].expand(-1, 3, -1, -1, -1)
    x, y, z = voxelgrid.shape[1:]
    surface = surface_density(box.voxel_size((x, y, z)))
    if content != "density" and not bool(((values >= 0) & (values <= 1)).all()):
        low, high = values.detach().aminmax()
        raise ValueError(f"{content} must lie in [0, 1], got {float(low)} to {float(high)}; or pass content='density'")
    if content == "occupancy":
        values = (values >= 0.5).to(values.dtype) * surface
    elif content == "opacity":
        values = -surface * torch.log2(1 - values.clamp(max=1 - torch.finfo(values.dtype).eps))
    return VoxelField(values, features.movedim(1, -1).contiguous(), box)


def _check_content(content: str) -> None:
    if content not in ("occupancy", "opacity", "density"):
        raise ValueError(f"content must be 'occupancy', 'opacity' or 'density', got {content!r}")
