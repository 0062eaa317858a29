"""Writes a sparse grid as NanoVDB (.nvdb) with Warp; imported only when such a file is written."""

import typing
from pathlib import Path

import torch
import warp as wp

from nfldm3d.export.openvdb import LEAF, Grid
from nfldm3d.ops.launch import launch, quiet_warp

GRID_NAME, GRID_CLASS = slice(40, 296), slice(632, 636)
"""Bytes of the grid header (nanovdb::GridData) that Warp leaves empty."""
FOG_VOLUME = 2


def write_nvdb(grid: Grid, path: Path) -> None:
    """Writes a grid of scalars; whole leaves are active, their other voxels are zero."""
    warp = quiet_warp()
    starts = torch.from_numpy(grid.starts).int().contiguous()
    values = torch.from_numpy(grid.values).float().reshape(len(starts), -1).contiguous()
    volume = warp.Volume.allocate_by_tiles(
        warp.from_torch(starts), voxel_size=grid.voxel_size, translation=grid.origin, bg_value=0.0, device="cpu"
    )
    launch(_store_leaves, len(starts), [wp.uint64(volume.id), starts, values], torch.device("cpu"))
    header = volume.array().numpy()  # a view on the volume's own memory
    header[GRID_NAME] = list(grid.name.encode().ljust(256, b"\0"))
    header[GRID_CLASS] = list(FOG_VOLUME.to_bytes(4, "little"))
    volume.save_to_nvdb(str(path))


@wp.kernel
@typing.no_type_check
def _store_leaves(first: int, volume: wp.uint64, starts: wp.array2d(dtype=int), values: wp.array2d(dtype=float)):
    leaf = first + wp.tid()
    for voxel in range(wp.static(LEAF * LEAF * LEAF)):
        i = starts[leaf, 0] + voxel // wp.static(LEAF * LEAF)
        j = starts[leaf, 1] + voxel // wp.static(LEAF) % wp.static(LEAF)
        k = starts[leaf, 2] + voxel % wp.static(LEAF)
        wp.volume_store_f(volume, i, j, k, values[leaf, voxel])
