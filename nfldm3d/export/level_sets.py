"""The triangles of a level set: of a dense grid in one piece, of a sparse one a block of its bricks after the other."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nfldm3d.export.marching_cubes import marching_cubes
from nfldm3d.export.regions import find_pieces
from nfldm3d.export.visibility import Triangles
from nfldm3d.fields import Field, SparseField, VoxelField
from nfldm3d.fields.refinement import read_block
from nfldm3d.geometry import Box

BLOCK = 64
"""Edge in nodes of the blocks of sparse fields: 1 MB of densities at a time."""


class Surface(NamedTuple):
    """A level set to extract: the part of a field inside ``box`` and outside ``hole``."""

    field: VoxelField | SparseField
    box: Box
    level: float
    hole: Box | None
    source: Field
    """What ``field`` was read from, if it kept no grid."""


def extract_level_set(surface: Surface, min_component_share: float) -> Triangles:
    """The cleaned triangles of one field."""
    axes = [lay_out_nodes(surface.field, surface.box, axis) for axis in range(3)]
    position, faces = _march_blocks(surface, axes) if isinstance(surface.field, SparseField) else _march(surface)
    nodes = [torch.cat((axis.places[:1], axis.places, axis.places[-1:])) for axis in axes]  # padding lies on the wall
    vertices = torch.stack([_to_world(position[:, axis], node) for axis, node in enumerate(nodes)], dim=-1)
    vertices, faces = _weld(position, vertices, faces, [len(node) for node in nodes])
    if surface.hole is not None:
        faces = faces[~surface.hole.contains(vertices[faces].mean(1))]
    return compact(vertices, _drop_small_components(faces, len(vertices), min_component_share))


class Nodes(NamedTuple):
    """Along one axis: the faces of a box and the voxel centres between them."""

    places: Float[Tensor, " nodes"]
    """World coordinates."""
    voxels: Float[Tensor, " nodes"]
    """Voxel coordinates, at most the outer centres': whole numbers but for the faces."""


def lay_out_nodes(field: VoxelField | SparseField, box: Box, axis: int) -> Nodes:
    """The nodes between which a field is trilinear, so that marching cubes sees exactly the field inside the box."""
    count, size, origin = field.resolution[axis], field.voxel_size[axis], field.box.lower[axis]
    start, end = ((corner[axis] - origin) / size - 0.5 for corner in (box.lower, box.upper))  # in voxels
    centers = [i for i in range(count) if start + 1e-3 < i < end - 1e-3]
    places = [box.lower[axis], *(origin + (i + 0.5) * size for i in centers), box.upper[axis]]
    voxels = [min(max(at, 0.0), count - 1.0) for at in (start, *centers, end)]
    return Nodes(*(torch.tensor(values, dtype=torch.float64, device=field.device) for values in (places, voxels)))


def _march(surface: Surface) -> Triangles:
    """Triangles in node numbers of a dense grid, around which there is nothing."""
    values = surface.field.density.float()
    for axis in range(3):
        values = _read_along(values, lay_out_nodes(surface.field, surface.box, axis).voxels, axis)
    return marching_cubes(torch.nn.functional.pad(values, (1, 1) * 3), surface.level)


def _march_blocks(surface: Surface, axes: Sequence[Nodes]) -> Triangles:
    """As ``_march`` for the bricks of a sparse field, a block of nodes after the other; seams are left open."""
    assert isinstance(surface.field, SparseField)
    positions, faces, total = [torch.zeros(0, 3, device=surface.field.device)], [], 0
    starts = [range(0, len(nodes.voxels) + 1, BLOCK) for nodes in axes]  # with the padding there are two more nodes
    for start in product(*starts):
        values = _read_block(surface.field, axes, start)
        if values is None:
            continue
        position, triangles = marching_cubes(values, surface.level)
        positions.append(position + position.new_tensor(start))
        faces.append(triangles + total)
        total += len(position)
    none = torch.zeros(0, 3, dtype=torch.long, device=surface.field.device)
    return torch.cat(positions), torch.cat([none, *faces])


def _read_block(field: SparseField, axes: Sequence[Nodes], start: Sequence[int]) -> Float[Tensor, "x y z"] | None:
    """The densities of up to ``BLOCK`` + 1 nodes from ``start`` on, padding included; None where there is no brick."""
    parts, padding = [], []
    for nodes, first in zip(axes, start, strict=True):
        last = min(first + BLOCK + 1, len(nodes.voxels) + 2)
        parts.append(nodes.voxels[max(first - 1, 0) : last - 1])
        padding = [int(first == 0), int(last == len(nodes.voxels) + 2), *padding]
    lower = [int(part[0].floor()) for part in parts]
    upper = [min(int(part[-1].floor()) + 2, count) for part, count in zip(parts, field.resolution, strict=True)]
    values = read_block(field.density, field.map, lower, upper)
    if values is None:
        return None
    values = values.float()
    for axis, (part, first) in enumerate(zip(parts, lower, strict=True)):
        values = _read_along(values, part - first, axis)
    return torch.nn.functional.pad(values, padding)


def _read_along(values: Float[Tensor, "x y z"], voxels: Float[Tensor, " nodes"], axis: int) -> Float[Tensor, "..."]:
    """Linear between the layers of a grid."""
    first, count = voxels.long(), values.shape[axis]
    whole = torch.arange(-1, count + 1).clamp(0, count - 1).to(voxels)
    if torch.equal(voxels, whole):  # all layers, the outer ones twice: faster than by their numbers
        return torch.cat((values.narrow(axis, 0, 1), values, values.narrow(axis, count - 1, 1)), dim=axis)
    read = values.index_select(axis, first)
    for node in (voxels != first).nonzero()[:, 0].tolist():  # two at most: the faces of the box
        layer, share = int(first[node]), float(voxels[node] - first[node])
        between = torch.lerp(values.narrow(axis, layer, 1), values.narrow(axis, layer + 1, 1), share)
        read.narrow(axis, node, 1).copy_(between)
    return read


def find_range(field: VoxelField | SparseField, box: Box) -> tuple[float, float]:
    """The smallest and the largest density at voxel centres in a box."""
    inside = field.density[box.contains(field.voxel_centers())]
    return (float(inside.min()), float(inside.max())) if inside.numel() else (0.0, 0.0)


def _to_world(position: Float[Tensor, " vertices"], nodes: Float[Tensor, " nodes"]) -> Float[Tensor, " vertices"]:
    first = position.long().clamp(max=len(nodes) - 2)
    return torch.lerp(nodes[first], nodes[first + 1], position.double() - first).to(position.dtype)


def _weld(position: Float[Tensor, "vertices 3"], vertices: Tensor, faces: Tensor, shape: Sequence[int]) -> Triangles:
    """Joins vertices that coincide (on walls, seams, and where a node holds the level) and drops empty faces."""
    last = position.new_tensor(shape) - 2
    exact = (position == position.round()).all(-1)
    on_seam = (position % BLOCK == 0).any(-1)
    candidates = (exact | on_seam | (position < 1).any(-1) | (position > last).any(-1)).nonzero()[:, 0]
    _, first, inverse = np.unique(vertices[candidates].cpu().numpy(), axis=0, return_index=True, return_inverse=True)
    target = torch.arange(len(vertices), device=vertices.device)
    twin = torch.from_numpy(first[inverse.reshape(-1)]).to(vertices.device)
    target[candidates] = candidates[twin]
    faces = target[faces]
    a, b, c = faces.unbind(1)
    return vertices, faces[(a != b) & (b != c) & (c != a)]


def _drop_small_components(faces: Int[Tensor, "faces 3"], count: int, share: float) -> Int[Tensor, "kept 3"]:
    if share == 0 or len(faces) == 0:
        return faces
    piece, size = find_pieces(faces, count)
    keep = size >= min(share * len(faces), float(size.max()))
    return faces[keep[piece]]


def compact(vertices: Float[Tensor, "vertices 3"], faces: Int[Tensor, "faces 3"]) -> Triangles:
    """Without the vertices that no face uses."""
    used = torch.zeros(len(vertices), dtype=torch.bool, device=vertices.device)
    used[faces.reshape(-1)] = True
    return vertices[used], (used.cumsum(0) - 1)[faces]
