"""Cameras, fields and meshes to and from NVIDIA's Kaolin, which must be installed (but voxel grids are plain tensors).

Coordinates stay as they are. Kaolin names no world axes, so what comes from us has z up there, too; its cameras are
ours (x right, y up, looking along -z). Kaolin's tensors have exactly one batch axis: our ``*scenes`` and ``*batch``
axes are flattened into it, a single camera or field becomes a batch of one, and every camera or field that comes back
has one leading axis: ``from_kaolin_camera(...)[0]``. Gradients pass, but not into a camera of Kaolin's: it owns its
parameters.

Kaolin's grids know no place, so the way back asks for a box. A voxel grid fills the field's box. A structured point
cloud is a cube of 2^level cells on a side that Kaolin calls [-1, 1]^3: leaf (i, j, k) is our voxel (i, j, k), the cube
begins at the box's lower corner, and the cells beyond the field are empty (``spc_box`` is the whole cube in metres).
"""

from nfldm3d.interop.kaolin.cameras import from_kaolin_camera, to_kaolin_camera
from nfldm3d.interop.kaolin.meshes import from_kaolin_mesh, to_kaolin_mesh
from nfldm3d.interop.kaolin.point_clouds import (
    from_kaolin_spc,
    sparse_from_kaolin_spc,
    spc_box,
    to_kaolin_spc,
)
from nfldm3d.interop.kaolin.voxel_grids import from_kaolin_voxelgrid, to_kaolin_feature_grid, to_kaolin_voxelgrid

__all__ = [
    "from_kaolin_camera",
    "from_kaolin_mesh",
    "from_kaolin_spc",
    "from_kaolin_voxelgrid",
    "sparse_from_kaolin_spc",
    "spc_box",
    "to_kaolin_camera",
    "to_kaolin_feature_grid",
    "to_kaolin_mesh",
    "to_kaolin_spc",
    "to_kaolin_voxelgrid",
]
