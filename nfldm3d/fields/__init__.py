"""Fields: density and features at every point of a box, on a grid or otherwise."""

from nfldm3d.fields.encodings import HashGrid
from nfldm3d.fields.nesting import read_innermost, split_levels
from nfldm3d.fields.neural import NeuralField
from nfldm3d.fields.protocol import (
    Brick,
    Field,
    FieldState,
    FoundOccupancy,
    FusedField,
    GridField,
    StoredField,
    find_missing,
    occupied_cells,
)
from nfldm3d.fields.sparse import SparseField
from nfldm3d.fields.voxel import VoxelField, require_voxels, surface_density
from nfldm3d.fields.voxelization import grid_resolution, voxelize

__all__ = [
    "Brick",
    "Field",
    "FieldState",
    "FoundOccupancy",
    "FusedField",
    "GridField",
    "HashGrid",
    "NeuralField",
    "SparseField",
    "StoredField",
    "VoxelField",
    "find_missing",
    "grid_resolution",
    "occupied_cells",
    "read_innermost",
    "require_voxels",
    "split_levels",
    "surface_density",
    "voxelize",
]
