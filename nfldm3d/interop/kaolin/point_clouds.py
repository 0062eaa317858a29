"""Fields to and from Kaolin's structured point clouds (SPC): octrees with a row of features for each leaf."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nfldm3d.fields import SparseField, VoxelField
from nfldm3d.fields.refinement import place_voxels
from nfldm3d.geometry import Box
from nfldm3d.interop.kaolin import octree
from nfldm3d.interop.kaolin.optional import import_kaolin
from nfldm3d.memory import require_memory
from nfldm3d.ops.bricks import BRICK


def spc_box(field: VoxelField | SparseField) -> Box:
    """The cube that a structured point cloud of this field fills, [-1, 1]^3 in Kaolin's coordinates."""
    cells = 2 ** octree.octree_level(field.resolution)
    pairs = zip(field.box.lower, field.voxel_size, strict=True)
    return Box(field.box.lower, tuple(low + cells * size for low, size in pairs))  # type: ignore[arg-type]


def to_kaolin_spc(field: VoxelField | SparseField, *, threshold: float | None = None) -> Any:
    """A ``kaolin.rep.Spc`` whose features are ``[density, *features]`` of each leaf, in the order of its points.

    Kept are voxels with a density above ``threshold`` (1/metre); by default all that hold any value but zero, which
    loses nothing but densities below zero. Levels, pyramids and points are filled in, since Kaolin computes them on
    CUDA only. Move the field to a device, not the result: Kaolin's ``Spc.to`` leaves the features behind.
    """
    kaolin = import_kaolin("kaolin.rep")
    level = octree.octree_level(field.resolution)
    trees, rows = [], []
    for number, (points, values) in enumerate(_read_voxels(field, threshold)):
        if not len(points):
            raise ValueError(f"scene {number} has no occupied voxel, and Kaolin has no empty octrees; leave it out")
        leaves, order = octree.morton_from_points(points).sort()
        rows.append(values[order])
        trees.append(octree.cells_above(leaves, level))
    octrees = [octree.encode_octree(cells) for cells in trees]
    return kaolin.Spc(
        torch.cat(octrees),
        torch.tensor([len(part) for part in octrees], dtype=torch.int),
        max_level=level,
        pyramids=_pyramids(trees, level),
        point_hierarchies=octree.points_from_morton(torch.cat([codes for cells in trees for codes in cells])).short(),
        features=torch.cat(rows),
    )


def _read_voxels(
    field: VoxelField | SparseField, threshold: float | None
) -> Iterator[tuple[Int[Tensor, "voxels 3"], Float[Tensor, "voxels values"]]]:
    """The places of the voxels to keep of each scene, and ``[density, *features]`` there; bricks stay bricks."""
    field = field.unsigned()
    if isinstance(field, SparseField):
        mask = field.inside & _find_kept(field.density, field.features, threshold)
        yield field.voxels[mask], torch.cat((field.density[mask][:, None], field.features[mask]), dim=-1)
        return
    density = field.density.reshape(-1, *field.resolution)
    features = field.features.reshape(*density.shape, field.channels)
    for values, others in zip(density, features, strict=True):
        mask = _find_kept(values, others, threshold)
        yield mask.nonzero(), torch.cat((values[mask][:, None], others[mask]), dim=-1)


def _find_kept(density: Tensor, features: Tensor, threshold: float | None) -> Tensor:
    return (density != 0) | (features != 0).any(-1) if threshold is None else density > threshold


def sparse_from_kaolin_spc(spc: Any, box: Box, *, resolution: tuple[int, int, int] | None = None) -> SparseField:
    """As ``from_kaolin_spc``, for a single octree: the field keeps the bricks of its leaves, and no other voxels."""
    _, points, features, resolution = _read_leaves(spc, resolution)
    if len(spc.lengths) != 1:
        raise ValueError(f"a sparse field holds one scene, got {len(spc.lengths)} octrees; convert them one by one")
    places, rows = place_voxels(points, resolution)
    pool = features.new_zeros(len(places) * BRICK**3, features.shape[1])
    pool = pool.index_put((rows,), features).view(len(places), BRICK, BRICK, BRICK, -1)
    return SparseField(pool[..., 0].contiguous(), pool[..., 1:].contiguous(), places, resolution, box)


def from_kaolin_spc(spc: Any, box: Box, *, resolution: tuple[int, int, int] | None = None) -> VoxelField:
    """Fields ``(scenes, x, y, z)`` from a ``kaolin.rep.Spc`` with features ``[density, *features]`` of each leaf.

    ``resolution`` is the field's, ``box`` the box of that many voxels (default: the whole cube). Other voxels are 0.
    """
    scenes, points, features, resolution = _read_leaves(spc, resolution)
    batch, channels = len(spc.lengths), features.shape[1] - 1
    require_memory(resolution, channels, features.device, copies=batch)
    grid = features.new_zeros(batch, *resolution, channels + 1)
    grid = grid.index_put((scenes, *points.unbind(-1)), features)
    return VoxelField(grid[..., 0].contiguous(), grid[..., 1:].contiguous(), box)


def _read_leaves(
    spc: Any, resolution: tuple[int, int, int] | None
) -> tuple[Int[Tensor, " leaves"], Int[Tensor, "leaves 3"], Float[Tensor, "leaves values"], tuple[int, int, int]]:
    """The scene, place and features of every leaf, and the resolution of the grid that they lie in."""
    points, scenes, cells = _leaf_points(spc)
    features = spc.features
    if features is None or features.dim() != 2 or len(features) != len(points) or features.shape[1] < 2:
        got = "none" if features is None else tuple(features.shape)
        raise ValueError(
            f"spc.features must be (leaves, 1 + channels), [density, *features] of each of {len(points)} leaves, "
            f"got {got}; set spc.features"
        )
    resolution = resolution or (cells, cells, cells)
    outside = (points >= points.new_tensor(resolution)).any(-1)
    if bool(outside.any()):
        raise ValueError(
            f"leaf {points[outside][0].tolist()} lies outside a grid of {resolution} voxels; the octree has {cells} "
            "on a side: pass the resolution of the field that it came from, or none"
        )
    return scenes, points, features, resolution


def _leaf_points(spc: Any) -> tuple[Tensor, Tensor, int]:
    """Coordinates of all leaves, the number of the octree that each belongs to, and cells along an edge."""
    if int(spc.lengths.sum()) != len(spc.octrees):
        raise ValueError(f"spc.lengths add up to {int(spc.lengths.sum())}, but there are {len(spc.octrees)} bytes")
    levels = [octree.decode_octree(part) for part in spc.octrees.split(spc.lengths.tolist())]
    depths = {len(cells) - 1 for cells in levels}
    if len(depths) != 1:
        raise ValueError(f"all octrees of a batch must have one level, got {sorted(depths)}; convert them one by one")
    leaves = [cells[-1] for cells in levels]
    counts = torch.tensor([len(codes) for codes in leaves], device=spc.octrees.device)
    scenes = torch.repeat_interleave(torch.arange(len(leaves), device=counts.device), counts)
    return octree.points_from_morton(torch.cat(leaves)), scenes, 2 ** depths.pop()


def _pyramids(trees: list[list[Tensor]], level: int) -> Int[Tensor, "scenes 2 _"]:
    """Kaolin's index of point hierarchies, always on the CPU: cells of each level, and how many come before them."""
    pyramids = torch.zeros(len(trees), 2, level + 2, dtype=torch.int)
    pyramids[:, 0, :-1] = torch.tensor([[len(codes) for codes in cells] for cells in trees])
    pyramids[:, 1, 1:] = pyramids[:, 0, :-1].cumsum(-1)
    return pyramids
