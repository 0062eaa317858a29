"""Voxel neural fields: fit them to photographs, render them anywhere, export them to any 3-D program."""

from nfldm3d.appearance import Appearance, EnvironmentMap, Rgb, SphericalHarmonics
from nfldm3d.camera import Camera
from nfldm3d.field import Field, VoxelField
from nfldm3d.files import DataFormatError
from nfldm3d.geometry import Box, Rays
from nfldm3d.scene import Scene

__all__ = [
    "Appearance",
    "Box",
    "Camera",
    "DataFormatError",
    "EnvironmentMap",
    "Field",
    "Rays",
    "Rgb",
    "Scene",
    "SphericalHarmonics",
    "VoxelField",
]
