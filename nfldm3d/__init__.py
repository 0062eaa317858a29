"""Voxel neural fields: fit them to photographs, render them anywhere, export them to any 3-D program."""

from typing import TYPE_CHECKING

from nfldm3d import _moved
from nfldm3d._lazy import lazily

if TYPE_CHECKING:
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

HOMES = {
    "appearance": ("Appearance", "EnvironmentMap", "Rgb", "SphericalHarmonics"),
    "camera": ("Camera",),
    "data": ("PosedImages", "read_posed_images"),
    "export": ("MeshOptions", "export_mesh", "export_points", "export_volume", "extract_mesh", "extract_points"),
    "fields": ("Field", "VoxelField"),
    "files": ("DataFormatError",),
    "fitting": ("FitOptions", "fit"),
    "geometry": ("Box", "Rays"),
    "rendering": ("Rendering", "make_path", "prepare", "render", "render_video"),
    "scene": ("Scene",),
}
"""Where names are that are imported when they are asked for: commands hear signals before torch is there."""

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

__getattr__ = lazily(__name__, {name: home for home, names in HOMES.items() for name in names})


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *HOMES})


_moved.install()
