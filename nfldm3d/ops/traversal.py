"""Where rays cross boxes and the occupied cells of nested grids: samples and their intervals, packed by ray."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from nfldm3d.ops.checks import require
from nfldm3d.ops.launch import launch
from nfldm3d.ops.records import BRICK

COUNT, FILL = 1, 2
BRICKS, INTERSECTIONS = 1 << 13, 1 << 15
"""How many a thread should get at least: they take a millisecond, to wake a thread and wait for it a third."""
MOST_GRIDS = 62
"""A set of grids is one 64-bit number in the kernel."""


@dataclass(frozen=True)
class RayStretches:
    """Rays through grids, and the stretch of each that counts; those outside the mask are left out."""

    origins: Float[Tensor, "rays 3"]
    directions: Float[Tensor, "rays 3"]
    near: Float[Tensor, " rays"]
    far: Float[Tensor, " rays"]
    mask: Bool[Tensor, " rays"]


@dataclass(frozen=True)
class NestedGrids:
    """Occupied cells of grids of one resolution; where several overlap, the first one decides."""

    cells: Bool[Tensor, "grids x y z"]
    boxes: Float[Tensor, "grids 6"]


@dataclass(frozen=True)
class Crossings:
    """Where rays enter (index < grids) and leave (index - grids) the grids that they hit, in ascending order."""

    distances: Float[Tensor, "rays crossings"]
    indices: Int64[Tensor, "rays crossings"]
    hits: Bool[Tensor, "rays grids"]


@dataclass(frozen=True)
class Stepping:
    """How samples follow each other: a step of max(size, distance * cone); size <= 0 means one sample per cell.

    A ray takes ``limit`` samples at most, if it is positive, and 8 388 608 in any case. Steps shorter than 2^-22 of the
    distance, which float32 cannot tell apart, are lengthened to it.
    """

    size: float
    cone: float = 0.0
    limit: int = 0


@dataclass(frozen=True)
class Traversal:
    """Samples and the edges of their intervals, one after the other; adjoining intervals of a ray share an edge.

    ``ends`` tells where each ray's walk ended, and a further one may begin.
    """

    edges: Float[Tensor, " edges"]
    edge_rays: Int64[Tensor, " edges"]
    is_left: Bool[Tensor, " edges"]
    is_right: Bool[Tensor, " edges"]
    middles: Float[Tensor, " samples"]
    sample_rays: Int64[Tensor, " samples"]
    is_valid: Bool[Tensor, " samples"]
    edge_counts: Int64[Tensor, " rays"]
    sample_counts: Int64[Tensor, " rays"]
    ends: Float[Tensor, " rays"]


def intersect_boxes(
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    boxes: Float[Tensor, "boxes 6"],
    *,
    near: float = -math.inf,
    far: float = math.inf,
    miss: float = math.inf,
) -> tuple[Float[Tensor, "rays boxes"], Float[Tensor, "rays boxes"], Bool[Tensor, "rays boxes"]]:
    """Distances at which rays enter and leave boxes (xyz min, xyz max), clamped to near and far, and whether they do.

    A box behind the origin is missed, as is every box by rays that are not finite or have no direction.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
    """
    from nfldm3d.ops import traversal_kernels as kernels

    count, device = len(origins), origins.device
    require("rays_o", origins, ("rays", 3), device, torch.float32)
    require("rays_d", directions, (count, 3), device, torch.float32)
    _require_on_rays_device("aabbs", boxes, device)
    require("aabbs", boxes, ("boxes", 6), device, torch.float32)
    entries, exits = (torch.zeros(count, len(boxes), device=device) for _ in range(2))
    hits = torch.zeros(count, len(boxes), dtype=torch.bool, device=device)
    inputs = [t.contiguous() for t in (origins, directions, boxes)]
    grain = INTERSECTIONS // max(len(boxes), 1)
    launch(kernels.intersect_boxes, count, [*inputs, near, far, miss, entries, exits, hits], device, grain=grain)
    return entries, exits, hits


def traverse_grids(
    rays: RayStretches, grids: NestedGrids, crossings: Crossings, stepping: Stepping, *, in_one_pass: bool = False
) -> Traversal:
    """Walks rays through nested grids and returns the samples whose middles lie in occupied cells.

    In one pass, every ray of the mask gets room for ``limit`` samples and twice as many edges, which it need not fill:
    ``is_valid``, ``is_left`` and ``is_right`` tell what is used. Else the rays are walked twice, and nothing is wasted.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together, a step is not finite, or one pass has no limit.
    """
    from nfldm3d.ops import traversal_kernels as kernels

    _check(rays, grids, crossings, stepping)
    count, device = len(rays.origins), rays.origins.device
    counts = torch.zeros(2, count, dtype=torch.int64, device=device)
    ends = rays.near.detach().clone(memory_format=torch.contiguous_format)
    cells = grids.cells.contiguous()
    is_even = stepping.size > 0 and stepping.cone == 0
    tensors = (rays.origins, rays.directions, rays.mask, cells, _bricks(cells if is_even else cells[:0]), grids.boxes)
    tensors += (crossings.distances, crossings.indices, crossings.hits, rays.near, rays.far)
    inputs = [*(t.contiguous() for t in tensors), stepping.size, stepping.cone, stepping.limit]
    if in_one_pass:
        if stepping.limit <= 0:
            raise ValueError(f"over_allocate needs a positive traverse_steps_limit, got {stepping.limit}")
        room = torch.stack((2 * stepping.limit * rays.mask, stepping.limit * rays.mask))
        starts, results = _allocate(room)
        launch(kernels.walk_rays, count, [COUNT | FILL, *inputs, *starts, *results, *counts, ends], device, grain=64)
        return _traversal(results, counts, ends)
    nowhere = _allocate(counts[:, :0])
    launch(kernels.walk_rays, count, [COUNT, *inputs, *nowhere[0], *nowhere[1], *counts, ends], device, grain=64)
    starts, results = _allocate(counts)
    launch(kernels.walk_rays, count, [FILL, *inputs, *starts, *results, *counts, ends], device, grain=64)
    return _traversal(results, counts, ends)


def _bricks(cells: Bool[Tensor, "grids x y z"]) -> Bool[Tensor, "grids bricks_x bricks_y bricks_z"]:
    """Where bricks of cells hold an occupied one: the others are crossed in one leap by walks with even steps."""
    from nfldm3d.ops import traversal_kernels as kernels

    shape = [-(-size // BRICK) for size in cells.shape[1:]]
    bricks = torch.zeros(len(cells), *shape, dtype=torch.bool, device=cells.device)
    launch(kernels.mark_bricks, bricks.numel(), [cells, bricks], cells.device, grain=BRICKS)
    return bricks


def _allocate(counts: Int64[Tensor, "2 rays"]) -> tuple[tuple[Tensor, Tensor], list[Tensor]]:
    """Where each ray's edges and samples start (and the last ones end), and zeros for all of them."""
    starts = torch.nn.functional.pad(counts.cumsum(dim=-1), (1, 0))
    edges, samples = starts[:, -1].tolist()
    results = []
    for size, dtypes in (
        (edges, (torch.float32, torch.int64, torch.bool, torch.bool)),
        (samples, (torch.float32, torch.int64, torch.bool)),
    ):
        results += [torch.zeros(size, dtype=dtype, device=counts.device) for dtype in dtypes]
    return (starts[0], starts[1]), results


def _traversal(results: list[Tensor], counts: Int64[Tensor, "2 rays"], ends: Float[Tensor, " rays"]) -> Traversal:
    edges, edge_rays, is_left, is_right, middles, sample_rays, is_valid = results
    return Traversal(edges, edge_rays, is_left, is_right, middles, sample_rays, is_valid, *counts.unbind(), ends=ends)


def _check(rays: RayStretches, grids: NestedGrids, crossings: Crossings, stepping: Stepping) -> None:
    device, count, number = rays.origins.device, len(rays.origins), len(grids.cells)
    require("rays_o", rays.origins, ("rays", 3), device, torch.float32)
    require("rays_d", rays.directions, (count, 3), device, torch.float32)
    require("near_planes", rays.near, (count,), device, torch.float32)
    require("far_planes", rays.far, (count,), device, torch.float32)
    require("rays_mask", rays.mask, (count,), device, torch.bool)
    _require_on_rays_device("binaries", grids.cells, device)
    _require_on_rays_device("aabbs", grids.boxes, device)
    require("binaries", grids.cells, ("grids", "x", "y", "z"), device, torch.bool)
    require("aabbs", grids.boxes, (number, 6), device, torch.float32)
    require("t_sorted", crossings.distances, (count, 2 * number), device, torch.float32)
    require("t_indices", crossings.indices, (count, 2 * number), device, torch.int64)
    require("hits", crossings.hits, (count, number), device, torch.bool)
    if number > MOST_GRIDS:
        raise ValueError(f"binaries holds {number} grids, but at most {MOST_GRIDS} can be traversed at once")
    if 0 in grids.cells.shape[1:]:
        raise ValueError(f"binaries must have at least one cell along each axis, got {tuple(grids.cells.shape)}")
    if not math.isfinite(stepping.size):
        raise ValueError(f"step_size must be finite (0 for one sample per cell), got {stepping.size}")
    if not 0 <= stepping.cone < math.inf:
        raise ValueError(f"cone_angle must be 0 or more and finite, got {stepping.cone}")


def _require_on_rays_device(name: str, tensor: Tensor, device: torch.device) -> None:
    if tensor.device != device:
        raise ValueError(
            f"{name} of the grid are on {tensor.device}, the rays are on {device}: "
            f"move the estimator with .to('{device}') or the rays to '{tensor.device}'"
        )
