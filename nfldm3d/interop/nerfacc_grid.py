"""nerfacc's occupancy grid, filled from a scene."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nfldm3d.fields import Field, SparseField, grid_resolution, occupied_cells, voxelize
from nfldm3d.fields.refinement import read_block
from nfldm3d.geometry import Box
from nfldm3d.interop.nerfacc_field import step_size
from nfldm3d.scene import Scene

if TYPE_CHECKING:
    import nerfacc

MAX_LEVELS = 8
"""As many nested grids as nerfacc's own kernels take."""
MAX_EDGE = 128
"""Cells along an axis if none are asked for: nerfacc's own default, some 40 bytes a cell."""
LAYERS = 8
"""Layers of cells along x that are filled from sparse fields at a time."""
SLACK = 1e-4
"""Share of a voxel by which two edges may differ and still count as one: nerfacc keeps its boxes in float32."""


def occ_grid_estimator(
    scene: Scene,
    *,
    resolution: int | tuple[int, int, int] | None = None,
    step_in_voxels: float = 0.5,
    threshold: float = 0.0,
) -> "nerfacc.OccGridEstimator":
    """A nerfacc occupancy grid that already knows the scene, on the scene's device.

    Level i covers the scene's box enlarged 2**i times, and there are as many levels as the surroundings need. No sample
    whose density exceeds the threshold lies in an empty cell. ``occs`` is the largest density that a cell's samples can
    have, times the step: what updates with ``NerfaccCallbacks.occ_eval_fn`` would tend to.

    Args:
        resolution: cells along x, y and z; None takes the field's, at most 128 along an axis.
        threshold: density in 1/metre up to which a cell counts as empty.

    Raises:
        ImportError: if nerfacc is missing.
        ValueError: if the surroundings reach farther than 8 levels.
    """
    try:
        from nerfacc import OccGridEstimator
    except ImportError as error:
        raise ImportError("occ_grid_estimator needs nerfacc: pip install nerfacc") from error
    if resolution is None:
        x, y, z = (min(count, MAX_EDGE) for count in grid_resolution(scene.field))
        resolution = (x, y, z)
    cells = (resolution, resolution, resolution) if isinstance(resolution, int) else resolution
    if min(cells) < 1:
        raise ValueError(f"an occupancy grid needs at least one cell along each axis, got {cells}")
    roi_aabb = torch.tensor([*scene.box.lower, *scene.box.upper], dtype=torch.float32)
    estimator = OccGridEstimator(roi_aabb, resolution=list(cells), levels=_count_levels(scene)).to(scene.device)
    buffers = dict(estimator.named_buffers())
    boxes = [Box((x0, y0, z0), (x1, y1, z1)) for x0, y0, z0, x1, y1, z1 in buffers["aabbs"].tolist()]
    levels = reversed(scene.levels)
    sources = [level if isinstance(level, SparseField) else _Source.read(level, threshold) for level in levels]
    grids = [_mark_slabs(sources, box, cells, threshold) for box in boxes]
    buffers["binaries"].copy_(torch.stack([solid for _, solid in grids]))
    largest = torch.stack([largest for largest, _ in grids])
    buffers["occs"].copy_(largest.flatten() * step_size(scene, step_in_voxels))
    return estimator


def _count_levels(scene: Scene) -> int:
    """How many boxes, each twice as large as the one before, enclose the surroundings."""
    box, outer = scene.box, scene.levels[-1].box
    reach = max(
        max(middle - low, high - middle) / (size / 2)
        for middle, size, low, high in zip(box.center, box.size, outer.lower, outer.upper, strict=True)
    )
    levels = 1 + max(0, math.ceil(math.log2(reach) - 1e-4))
    if levels > MAX_LEVELS:
        raise ValueError(
            f"the surroundings reach {reach:.4g} times as far as the scene's box, but nerfacc's {MAX_LEVELS} levels "
            f"reach {2 ** (MAX_LEVELS - 1)} times as far; crop them"
        )
    return levels


class _Source(NamedTuple):
    """What a level tells about where it is dense."""

    box: Box
    density: Float[Tensor, "x y z"]
    """At voxel centres."""
    mask: Bool[Tensor, "i j k"] | None
    """Cells with matter, which may lie between the voxel centres; None: the voxels tell it all."""
    threshold: float

    @classmethod
    def read(cls, level: Field, threshold: float) -> "_Source":
        grid = voxelize(level, with_features=False)
        mask = None if grid is level else occupied_cells(level, threshold)
        return cls(level.box, grid.density.detach().float(), mask, threshold)


def _mark_slabs(
    sources: Sequence["_Source | SparseField"], box: Box, cells: tuple[int, int, int], threshold: float
) -> tuple[Float[Tensor, "x y z"], Bool[Tensor, "x y z"]]:
    """As ``_mark_cells``; of sparse fields, the voxels of a few layers of cells are laid out at a time."""
    known = [source for source in sources if isinstance(source, _Source)]
    if len(known) == len(sources):
        return _mark_cells(known, box, cells)
    marked = []
    for first in range(0, cells[0], LAYERS):
        last = min(first + LAYERS, cells[0])
        low, high = (box.lower[0] + edge * box.size[0] / cells[0] for edge in (first, last))
        slab = Box((low, *box.lower[1:]), (high, *box.upper[1:]))
        here = [_read_slab(part, slab, threshold) if isinstance(part, SparseField) else part for part in sources]
        marked.append(_mark_cells(here, slab, (last - first, *cells[1:])))
    return torch.cat([largest for largest, _ in marked]), torch.cat([solid for _, solid in marked])


def _read_slab(field: SparseField, slab: Box, threshold: float) -> _Source:
    """The voxels that the samples in a slab across the x axis mix, or the nearest layers if it lies outside."""
    (x, y, z), size, origin = field.resolution, field.voxel_size[0], field.box.lower[0]
    first = min(max(math.floor((slab.lower[0] - origin) / size) - 2, 0), x - 1)
    last = max(min(math.ceil((slab.upper[0] - origin) / size) + 2, x), first + 1)
    density = read_block(field.density, field.map, (first, 0, 0), (last, y, z))
    density = field.density.new_zeros(last - first, y, z) if density is None else density
    corners = [origin + edge * size for edge in (first, last)]
    part = Box((corners[0], *field.box.lower[1:]), (corners[1], *field.box.upper[1:]))
    return _Source(part, density.detach().float(), None, threshold)


def _mark_cells(
    sources: list[_Source], box: Box, cells: tuple[int, int, int]
) -> tuple[Float[Tensor, "x y z"], Bool[Tensor, "x y z"]]:
    """The largest density of a sample in each cell of a grid over ``box``, and whether it may exceed the threshold.

    Levels come from the outside in; what an inner one hides does not count.
    """
    largest = torch.zeros(cells, device=sources[0].density.device)
    solid = torch.zeros_like(largest, dtype=torch.bool)
    for source in sources:
        reached, covered = _spread(source.density, source.box, box, cells, blur=0.5)
        found = reached > source.threshold
        if source.mask is not None:
            found = found | (_spread(source.mask.float(), source.box, box, cells, blur=0.0)[0] > 0)
        largest = torch.where(covered, reached, largest.maximum(reached))
        solid = torch.where(covered, found, solid | found)
    return largest, solid


def _spread(
    values: Float[Tensor, "i j k"], inner: Box, box: Box, cells: tuple[int, int, int], *, blur: float
) -> tuple[Float[Tensor, "x y z"], Bool[Tensor, "x y z"]]:
    """The largest of the values over ``inner`` that each cell of a grid over ``box`` meets, and if ``inner`` covers it.

    Values reach ``blur`` of their own extent beyond their borders: a trilinear sample at voxel coordinate p, where
    voxel j has its centre at j + 1/2, mixes the voxels less than 1 away.
    """
    covered = torch.ones((), dtype=torch.bool, device=values.device)
    for axis, count in enumerate(cells):
        voxels, low, high = values.shape[axis], box.lower[axis], box.upper[axis]
        edges = low + torch.arange(count + 1, dtype=torch.float64, device=values.device) * ((high - low) / count)
        edges = (edges - inner.lower[axis]) * (voxels / inner.size[axis])
        begin, end = edges[:-1].clamp(0, voxels), edges[1:].clamp(0, voxels)
        first = (begin - 1 - blur + SLACK).ceil().long().clamp(0, voxels - 1)
        last = (end + blur - SLACK).floor().long().clamp(0, voxels - 1)
        widest = int((last - first).max())
        # (... voxels ...) -> (... cells ...)
        slices = [values.index_select(axis, (first + k).minimum(last)) for k in range(widest + 1)]
        values = torch.stack(slices).amax(0)
        line = [-1 if other == axis else 1 for other in range(3)]
        values = torch.where((end - begin > SLACK).view(line), values, 0.0)
        covered = covered & ((edges[:-1] > -SLACK) & (edges[1:] < voxels + SLACK)).view(line)
    return values, covered
