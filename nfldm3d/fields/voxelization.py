"""Any field on a grid: for exporters, editing, and whatever else reads voxels."""

import math

import torch
from jaxtyping import Bool
from torch import Tensor

from nfldm3d.fields.protocol import Field, GridField, occupied_cells
from nfldm3d.fields.voxel import VoxelField
from nfldm3d.geometry import Box

POINTS_AT_ONCE = 2**17


def grid_resolution(field: Field) -> tuple[int, int, int]:
    """Voxels along x, y and z: those of a field's grid, or of one that shows its finest detail."""
    if isinstance(field, GridField):
        return field.resolution
    x, y, z = (max(1, round(size / voxel)) for size, voxel in zip(field.box.size, field.voxel_size, strict=True))
    return (x, y, z)


@torch.no_grad()
def voxelize(field: Field, part: Box | None = None, *, with_features: bool = True) -> VoxelField:
    """The field on a grid: a VoxelField as it is; others at voxel centres ``voxel_size`` apart where occupied.

    Args:
        part: read only the voxels that meet this box; a VoxelField stays whole.
        with_features: without them the grid has one channel of zeros.

    Raises:
        ValueError: the grid does not fit in memory, or ``part`` lies outside the field.
    """
    if isinstance(field, VoxelField):
        return field
    if isinstance(field, GridField):
        return _from_bricks(field, field, field.box if part is None else part, with_features)
    box, resolution = _snap(field.box, grid_resolution(field), field.box if part is None else part)
    grid = VoxelField.zeros(box, resolution, field.channels if with_features else 1, field.device)
    lower, size = (torch.tensor(values, device=field.device) for values in (box.lower, grid.voxel_size))
    for voxels in _find_occupied(field, box, resolution).nonzero().split(POINTS_AT_ONCE):
        points, place = lower + (voxels + 0.5) * size, voxels.unbind(-1)
        if with_features:
            density, features = field.query(points)
            grid.features[place] = features.to(grid.features)
        else:
            density = field.query_density(points)
        grid.density[place] = density.relu().to(grid.density)
    grid.check()
    return grid


def _from_bricks(field: Field, keeper: GridField, part: Box, with_features: bool) -> VoxelField:
    box, resolution = _snap(field.box, keeper.resolution, part)
    grid = VoxelField.zeros(box, resolution, field.channels if with_features else 1, field.device)
    axes = zip(box.lower, field.box.lower, field.box.voxel_size(keeper.resolution), strict=True)
    first = [round((low - origin) / size) for low, origin, size in axes]
    for brick in keeper.bricks():
        begin = [max(start - skipped, 0) for start, skipped in zip(brick.start, first, strict=True)]
        ends = zip(brick.start, brick.density.shape, first, resolution, strict=True)
        end = [min(start + size - skipped, count) for start, size, skipped, count in ends]
        if any(low >= high for low, high in zip(begin, end, strict=True)):
            continue
        here = tuple(slice(low, high) for low, high in zip(begin, end, strict=True))
        moved = [skipped - start for skipped, start in zip(first, brick.start, strict=True)]
        there = tuple(slice(low + by, high + by) for low, high, by in zip(begin, end, moved, strict=True))
        grid.density[here] = brick.density[there].to(grid.density)
        if with_features:
            grid.features[here] = brick.features[there].to(grid.features)
    return VoxelField(grid.density, grid.features, grid.box, bool((grid.density < 0).any()))


def _snap(whole: Box, resolution: tuple[int, int, int], part: Box) -> tuple[Box, tuple[int, int, int]]:
    """The voxels of a grid that meet a box: what box they fill, and how many they are along each axis."""
    corners, counts = [], []
    axes = (whole.lower, whole.upper, whole.voxel_size(resolution), resolution)
    part = whole.intersection(part)
    for low, high, size, count, start, end in zip(*axes, part.lower, part.upper, strict=True):
        first = min(max(math.floor((start - low) / size + 1e-6), 0), count - 1)
        last = max(first + 1, min(math.ceil((end - low) / size - 1e-6), count))
        corners.append((low + first * size, high if last == count else low + last * size))
        counts.append(last - first)
    (x0, x1), (y0, y1), (z0, z1) = corners
    return Box((x0, y0, z0), (x1, y1, z1)), (counts[0], counts[1], counts[2])


def _find_occupied(field: Field, box: Box, resolution: tuple[int, int, int]) -> Bool[Tensor, "x y z"]:
    """Which voxels of a grid over a part of the field have their centre in an occupied cell."""
    mask = occupied_cells(field)
    for axis, (count, size) in enumerate(zip(resolution, box.voxel_size(resolution), strict=True)):
        cells, extent = mask.shape[axis], field.box.size[axis]
        centers = box.lower[axis] - field.box.lower[axis] + (torch.arange(count, device=mask.device) + 0.5) * size
        mask = mask.index_select(axis, (centers * (cells / extent)).long().clamp(0, cells - 1))
    return mask
