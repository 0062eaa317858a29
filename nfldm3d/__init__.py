"""Voxel neural fields: fit them to photographs, render them anywhere, export them to any 3-D program."""

from nfldm3d import _moved
from nfldm3d.appearance import Appearance, EnvironmentMap, Rgb, SphericalHarmonics
from nfldm3d.camera import Camera
from nfldm3d.data import PosedImages, read_posed_images
from nfldm3d.export import MeshOptions, export_mesh, export_points, export_volume, extract_mesh, extract_points
from nfldm3d.fields import Field, VoxelField
from nfldm3d.files import DataFormatError
from nfldm3d.fitting import FitOptions, fit
from nfldm3d.geometry import Box, Rays
from nfldm3d.rendering import Rendering, make_path, prepare, render, render_video
from nfldm3d.scene import Scene

__all__ = [
    "Appearance",
    "Box",
    "Camera",
    "DataFormatError",
    "EnvironmentMap",
    "Field",
    "FitOptions",
    "MeshOptions",
    "PosedImages",
    "Rays",
    "Rendering",
    "Rgb",
    "Scene",
    "SphericalHarmonics",
    "VoxelField",
    "export_mesh",
    "export_points",
    "export_volume",
    "extract_mesh",
    "extract_points",
    "fit",
    "make_path",
    "prepare",
    "read_posed_images",
    "render",
    "render_video",
]

_moved.install()
