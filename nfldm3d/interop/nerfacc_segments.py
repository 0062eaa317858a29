"""nerfacc's ray segments: numbers along rays, in rows or flat, and how they come from and go to the kernels' rows."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from nfldm3d.ops.resampling import Rows


@dataclass
class RaySegmentsSpec:
    """Numbers along rays: ``vals`` has a row a ray, or is flat and ray n has chunk_cnts[n] from chunk_starts[n] on."""

    vals: Tensor | None = None
    chunk_starts: Tensor | None = None
    chunk_cnts: Tensor | None = None
    ray_indices: Tensor | None = None
    is_left: Tensor | None = None
    is_right: Tensor | None = None
    is_valid: Tensor | None = None


@torch.no_grad()
def pack_info(ray_indices: Int[Tensor, " samples"], n_rays: int | None = None) -> Int[Tensor, "rays 2"]:
    """Where each ray's samples start and how many it has, for ascending ray indices, on any device.

    Raises:
        ValueError: an index is not that of one of ``n_rays`` rays (on CUDA only torch's own assertion sees it).
    """
    if n_rays is None:
        n_rays = int(ray_indices.max()) + 1 if len(ray_indices) > 0 else 0
    if ray_indices.device.type == "cpu" and len(ray_indices) > 0:
        low, high = (int(bound) for bound in ray_indices.aminmax())
        if low < 0 or high >= n_rays:
            raise ValueError(f"ray_indices must lie between 0 and n_rays - 1 = {n_rays - 1}, got {low} to {high}")
    counts = ray_indices.new_zeros(n_rays).index_add_(0, ray_indices, torch.ones_like(ray_indices))
    return torch.stack([counts.cumsum(0, dtype=counts.dtype) - counts, counts], dim=-1)


def pack(
    values: Float[Tensor, " n"], counts: Int64[Tensor, " rays"], rays: Int64[Tensor, " n"] | None = None
) -> RaySegmentsSpec:
    """Flat numbers, of which each ray has ``counts``; ``rays`` says whose each is, unless they lie ray after ray."""
    if rays is None:
        rays = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    return RaySegmentsSpec(vals=values, chunk_starts=counts.cumsum(0) - counts, chunk_cnts=counts, ray_indices=rays)


def pack_intervals(edges: Rows) -> RaySegmentsSpec:
    """Adjoining intervals of each ray: its last edge is nobody's left one, its first nobody's right one."""
    intervals = pack(edges.values, edges.counts)
    intervals.is_left, intervals.is_right = (torch.ones_like(edges.values, dtype=torch.bool) for _ in range(2))
    starts = edges.starts[edges.counts > 0]
    intervals.is_right[starts] = False
    intervals.is_left[starts + edges.counts[edges.counts > 0] - 1] = False
    return intervals


def values_of(spec: RaySegmentsSpec) -> Tensor:
    """The numbers, in rows or flat, without their gradient."""
    if spec.vals is None:
        raise ValueError("these ray segments have no vals")
    return spec.vals.detach()


def rows_of(spec: RaySegmentsSpec) -> Rows:
    """The numbers, one row a ray; a ValueError says that flat ones tell nothing about rays."""
    values = values_of(spec)
    if values.dim() > 1:
        number, length = values[..., 0].numel(), values.shape[-1]
        starts = torch.arange(number, device=values.device) * length
        return Rows(values.reshape(-1), starts, torch.full_like(starts, length))
    if spec.chunk_starts is not None and spec.chunk_cnts is not None:
        return Rows(values, spec.chunk_starts.long(), spec.chunk_cnts.long())
    if spec.ray_indices is not None:
        packed = pack_info(spec.ray_indices.long())
        return Rows(values, packed[:, 0], packed[:, 1])
    raise ValueError("flat vals need packed_info or ray_indices, which say whose they are")
