"""Fields: density and features at every point of a box, on a grid or otherwise."""

from nfldm3d.fields.protocol import Brick, Field
from nfldm3d.fields.voxel import VoxelField, surface_density

__all__ = ["Brick", "Field", "VoxelField", "surface_density"]
