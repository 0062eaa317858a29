"""Export to other programs: meshes, point clouds, splats, volumes and cameras, in each format's own axes and units.

Everything here works in world metres with z up and sRGB colours; the writers convert as their formats specify.
Files appear whole or not at all. Needs ``pip install 'nfldm3d[export]'``.
"""

from nfldm3d.export.mesh import Mesh, PointCloud
from nfldm3d.export.mesh_files import export_cameras, export_mesh
from nfldm3d.export.meshes import MeshOptions, extract_mesh
from nfldm3d.export.points import export_points, extract_points
from nfldm3d.export.scene_export import export_scene
from nfldm3d.export.splats import Splats, export_splats, extract_splats
from nfldm3d.export.volumes import export_volume

__all__ = [
    "Mesh",
    "MeshOptions",
    "PointCloud",
    "Splats",
    "export_cameras",
    "export_mesh",
    "export_points",
    "export_scene",
    "export_splats",
    "export_volume",
    "extract_mesh",
    "extract_points",
    "extract_splats",
]
