"""Rays through one field: by the field's own march, or by queries at the samples that lie in its occupied cells."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nfldm3d import ops
from nfldm3d.fields import Field, FoundOccupancy, FusedField, occupied_cells
from nfldm3d.geometry import Rays
from nfldm3d.ops.compositing import composite_samples, find_visible
from nfldm3d.ops.traversal import Crossings, NestedGrids, RayStretches, Stepping, intersect_boxes, traverse_grids

SAMPLES_AT_ONCE = 2**18
"""How many samples a field is asked at a time, at most; what bounds the memory."""


def find_occupancy(field: Field) -> FoundOccupancy:
    """What ``integrate`` needs to know of a field's empty space, whatever the rays: worth keeping."""
    return field.occupancy() if isinstance(field, FusedField) else occupied_cells(field)


def integrate(
    field: Field,
    rays: Rays,
    near_far: Float[Tensor, "rays 2"],
    step: float,
    early_stop: float,
    occupancy: FoundOccupancy | None = None,
    gradient: ops.FieldGradient | None = None,
) -> ops.RayIntegral:
    """Sums over the samples at near + (k + 1/2) * step, as ``ops.integrate_rays`` defines them, of any field.

    Without a march of its own the field is queried; gradients reach whatever its queries depend on. Samples behind
    ``early_stop`` and such that absorb nothing are asked for their density alone.

    Args:
        occupancy: from ``find_occupancy``; None looks anew.
    """
    if isinstance(field, FusedField):
        return field.integrate(rays, near_far, step, early_stop, occupancy, gradient)
    if gradient is not None:
        raise ValueError(f"{type(field).__name__} has no grid that a gradient could be added to: leave it out")
    cells = occupied_cells(field) if occupancy is None else occupancy
    assert isinstance(cells, Tensor)
    pieces = []
    blocks = _split(near_far, step)
    for block in blocks:
        lines, inside = rays[block], near_far[block]
        distances, counts = find_samples(field, lines, inside, step, early_stop, cells)
        inputs = (field, lines, distances, counts, step)
        if torch.is_grad_enabled() and len(blocks) > 1:  # else the graph would hold all samples of all rays
            pieces.append(checkpoint(_query_samples, *inputs, use_reentrant=False))
        else:
            pieces.append(_query_samples(*inputs))
    return ops.RayIntegral(*(torch.cat(parts) for parts in zip(*pieces, strict=True)))


def _split(near_far: Float[Tensor, "rays 2"], step: float) -> list[slice]:
    """Blocks of rays that have no more than ``SAMPLES_AT_ONCE`` samples, and those of one ray, between near and far."""
    counts = ((near_far[:, 1] - near_far[:, 0]) / step).clamp(min=0).ceil().long()
    before = counts.cumsum(0) - counts
    sizes = torch.bincount(before // SAMPLES_AT_ONCE).tolist() or [0]
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True) if size or len(sizes) == 1]


def find_samples(
    field: Field,
    rays: Rays,
    near_far: Float[Tensor, "rays 2"],
    step: float,
    early_stop: float,
    cells: Bool[Tensor, "x y z"],
) -> tuple[Float[Tensor, " samples"], Int64[Tensor, " rays"]]:
    """Distances of the samples in occupied cells, ray by ray, and how many each ray has.

    Those behind a transmittance of ``early_stop`` and such that absorb nothing are left out, unless it is 0.
    """
    origins, directions = rays.origins.detach().contiguous(), rays.directions.detach().contiguous()
    near, far = near_far.detach().unbind(-1)
    boxes = origins.new_tensor([[*field.box.lower, *field.box.upper]])
    entries, exits, hits = intersect_boxes(origins, directions, boxes)
    order = torch.arange(2, device=origins.device).expand(len(origins), 2)  # in and out
    found = traverse_grids(
        RayStretches(origins, directions, near, far, far > near),
        NestedGrids(cells[None], boxes),
        Crossings(torch.cat((entries, exits), dim=-1), order, hits),
        Stepping(step),
    )
    if early_stop == 0:
        return found.middles, found.sample_counts
    return _drop_invisible(field, rays, found.middles, found.sample_counts, step, early_stop)


@torch.no_grad()
def _drop_invisible(
    field: Field,
    rays: Rays,
    distances: Float[Tensor, " samples"],
    counts: Int64[Tensor, " rays"],
    step: float,
    early_stop: float,
) -> tuple[Float[Tensor, " _"], Int64[Tensor, " rays"]]:
    """The samples that add something to what their ray sees."""
    owners = torch.repeat_interleave(counts)
    density = field.query_density(rays[owners].at(distances))
    seen = find_visible(density, counts, step, early_stop)
    return distances[seen], torch.zeros_like(counts).index_add_(0, owners[seen], torch.ones_like(owners[seen]))


def _query_samples(
    field: Field, rays: Rays, distances: Float[Tensor, " samples"], counts: Int64[Tensor, " rays"], step: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    density, features = field.query(rays[torch.repeat_interleave(counts)].at(distances))
    sums = composite_samples(density, features, distances, counts, step)
    return sums.features, sums.opacity, sums.distance, sums.distortion
