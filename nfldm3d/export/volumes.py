"""Writes a scene's density, and its colour, as a sparse volume for renderers: .vdb (OpenVDB) or .nvdb (NanoVDB)."""

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nfldm3d._types import PathName
from nfldm3d.export.coloring import color_features
from nfldm3d.export.mesh import linear_from_srgb
from nfldm3d.export.openvdb import LEAF, Grid, encode_vdb
from nfldm3d.fields import SparseField, VoxelField, voxelize
from nfldm3d.fields.packing import mark_bricks
from nfldm3d.files import atomic_write
from nfldm3d.geometry import Box
from nfldm3d.ops.bricks import BRICK, gather_bricks
from nfldm3d.scene import Scene

VOLUME_SUFFIXES = (".nvdb", ".vdb")
AT_ONCE = 1024
"""Leaves coloured at a time."""

assert BRICK == LEAF, "bricks of a field become leaves of a volume one by one"


@torch.no_grad()
def export_volume(scene: Scene, path: PathName, *, box: Box | None = None, color: bool = True) -> None:
    """Writes the voxels of the field in focus that hold matter; z up, index (i, j, k) at its voxel's centre in metres.

    A ``.vdb`` file holds the grids ``density`` (1/metre: a renderer's density multiplier of 1 is right where its
    unit is the metre) and ``color`` (linear RGB); a ``.nvdb`` file, which Warp writes, the density alone.

    Args:
        box: only voxels whose centre lies inside.
        color: whether to write the colours, too.

    Raises:
        ValueError: if the field is empty, the suffix is unknown, or the path cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in VOLUME_SUFFIXES:
        raise ValueError(f"cannot write {path}: unknown volume format {suffix!r}; use .vdb or .nvdb")
    with atomic_write(path) as temporary:
        density, colors = _collect_leaves(scene, box, color and suffix == ".vdb")
        if suffix == ".nvdb":
            from nfldm3d.export.nanovdb import write_nvdb

            write_nvdb(density, temporary)
        else:
            temporary.write_bytes(encode_vdb([density] if colors is None else [density, colors]))


def _collect_leaves(scene: Scene, box: Box | None, color: bool) -> tuple[Grid, Grid | None]:
    """The density grid of the field, and its colour grid if wanted."""
    field = scene.field
    if not isinstance(field, SparseField):
        field = voxelize(field, box if box is not None and scene.box.overlaps(box) else None)
    starts, densities, masks, colors = [], [], [], []
    size, lower = (torch.tensor(value, device=field.device) for value in (field.voxel_size, field.box.lower))
    axis, limit = torch.arange(LEAF, device=field.device), torch.tensor(field.resolution, device=field.device)
    offsets = torch.cartesian_prod(axis, axis, axis).view(LEAF, LEAF, LEAF, 3)
    for start, density, features in _stack_leaves(field, color):
        voxels = start[:, None, None, None] + offsets
        mask, centers = (density > 0) & (voxels < limit).all(-1), lower + (voxels + 0.5) * size
        if box is not None:
            mask &= box.contains(centers)
        used = mask.flatten(1).any(1)
        starts.append(start[used])
        densities.append((density * mask)[used])
        masks.append(mask[used])
        if features is not None:
            colors.append(_color_leaves(scene, features, centers, mask)[used])
    if not any(map(len, starts)):
        where = "" if box is None else f" from {box.lower} to {box.upper}"
        raise ValueError(
            f"the field is empty{where}: there is no density to export; fit the scene first or choose another box"
        )
    origin = tuple(low + size / 2 for low, size in zip(field.box.lower, field.voxel_size, strict=True))
    place = {"origin": origin, "voxel_size": field.voxel_size}
    corner, active = (torch.cat(parts).cpu().numpy() for parts in (starts, masks))
    density_grid = Grid("density", corner, torch.cat(densities).cpu().numpy(), active, **place, kind="fog volume")
    if not color:
        return density_grid, None
    return density_grid, Grid("color", corner, torch.cat(colors).cpu().numpy(), active, **place)


def _stack_leaves(
    field: VoxelField | SparseField, with_features: bool
) -> Iterator[
    tuple[
        Int[Tensor, "leaves 3"],
        Float[Tensor, "leaves x y z"],
        Float[Tensor, "leaves x y z channels"] | None,
    ]
]:
    """The bricks that hold matter, some at a time: their first voxels, densities and features if wanted.

    What lies beyond the end of the grid counts for nothing.
    """
    sparse = isinstance(field, SparseField)
    used = (field.density > 0).flatten(1).any(1) if sparse else mark_bricks(field.density > 0)
    for some in used.nonzero().split(AT_ONCE):
        if sparse:
            rows = some[:, 0]
            places, density = field.places[rows], field.density[rows]
            features = field.features[rows] if with_features else None
        else:
            places = some.int()
            density = gather_bricks(field.density, places)
            features = gather_bricks(field.features, places) if with_features else None
        yield places.long() * LEAF, density.float(), None if features is None else features.float()


def _color_leaves(
    scene: Scene,
    features: Float[Tensor, "leaves x y z channels"],
    centers: Float[Tensor, "leaves x y z 3"],
    mask: Bool[Tensor, "leaves x y z"],
) -> Float[Tensor, "leaves x y z 3"]:
    """Linear colours of the active voxels, black elsewhere."""
    result = torch.zeros_like(centers)
    points = centers[mask]
    result[mask] = linear_from_srgb(color_features(scene, features[mask], points, scene.field.normals(points)))
    return result
