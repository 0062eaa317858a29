"""Reading a field at and just below a surface: densities, and the features that a camera would see there."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nfldm3d.fields import Field, SparseField, VoxelField, read_innermost
from nfldm3d.ops.bricks import find_rows

STEP = 0.5
"""Distance of samples along the short ray through a surface, in voxels."""
DEPTH = 1.5
"""How far below the surface the short ray ends, in voxels."""
CHUNK = 65536
"""Points handled at a time: keeps the temporaries below 200 MiB."""


def read_density(field: VoxelField | SparseField, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
    """Trilinear density; the same as ``field.interpolate`` without its features."""
    index, weight = find_taps(field, points)
    return (field.density.reshape(-1)[index].float() * weight).sum(-1)


def read_surface_features(
    field: Field,
    points: Float[Tensor, "points 3"],
    normals: Float[Tensor, "points 3"],
    *,
    height: float = 0.5,
) -> Float[Tensor, "points channels"]:
    """The features seen by a ray that comes down along each normal from ``height`` voxels above the surface.

    They are composited as the renderer does it, with one difference: of a voxel field, each of the eight voxels behind
    a sample counts by its own opacity as well, so what the empty voxels above a surface hold (nothing ever trained it)
    stays out.
    """
    step = STEP * min(field.voxel_size)
    offsets = torch.arange(-height + STEP / 2, DEPTH, STEP, device=points.device) * (step / STEP)
    keeps_voxels = isinstance(field, VoxelField) or (isinstance(field, SparseField) and len(field.places) > 0)
    read = _read_taps if keeps_voxels else _read_queries
    parts = []
    for point, normal in zip(points.split(CHUNK), normals.split(CHUNK), strict=True):
        parts.append(read(field, point[:, None] - offsets[:, None] * normal[:, None], step))  # type: ignore[arg-type]
    return torch.cat(parts).float() if parts else points.new_zeros(0, field.channels)


def _read_queries(
    field: Field, places: Float[Tensor, "points samples 3"], step: float
) -> Float[Tensor, "points channels"]:
    values = read_innermost((field,), places, _read_all)  # the ray may begin or end beyond the box
    weight = _visibility(values[..., 0].float(), step)
    inside = field.box.contains(places).to(weight)
    total = weight.sum(-1, keepdim=True)
    share = torch.where(total > 1e-12, weight / total.clamp(min=1e-12), inside / inside.sum(-1, keepdim=True).clamp(1))
    return (share[..., None] * values[..., 1:]).sum(1)


def _read_all(field: Field, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points values"]:
    density, features = field.query(points)
    return torch.cat((density[:, None], features), dim=-1)


def _read_taps(
    field: VoxelField | SparseField, places: Float[Tensor, "points samples 3"], step: float
) -> Float[Tensor, "points channels"]:
    table, size = field.features.reshape(-1, field.channels), min(field.voxel_size)
    index, tap = find_taps(field, places)  # (points samples 8)
    density = field.density.reshape(-1)[index].float()
    weight = _visibility((density * tap).sum(-1), step)
    share = weight[..., None] * tap * -torch.expm1(-density.relu() * size)
    total = share.sum((1, 2), keepdim=True)
    # a point of a decimated mesh may lie in empty space: there every tap counts alike
    share = torch.where(total > 1e-12, share / total.clamp(min=1e-12), tap / tap.sum((1, 2), keepdim=True).clamp(1e-12))
    return torch.nn.functional.embedding_bag(
        index.flatten(1), table, mode="sum", per_sample_weights=share.flatten(1).to(table.dtype)
    )


def _visibility(density: Float[Tensor, "points samples"], step: float) -> Float[Tensor, "points samples"]:
    """Transmittance times alpha."""
    optical = density.relu() * step
    return torch.exp(optical - optical.cumsum(-1)) * -torch.expm1(-optical)


def find_taps(
    field: VoxelField | SparseField, points: Float[Tensor, "*batch 3"]
) -> tuple[Int[Tensor, "*batch 8"], Float[Tensor, "*batch 8"]]:
    """Flat voxel numbers (rows of a pool) and trilinear weights around each point; these are zero outside the box."""
    count = torch.tensor(field.resolution, device=points.device)
    size = points.new_tensor(field.voxel_size)
    position = ((points - points.new_tensor(field.box.lower)) / size - 0.5).clamp(min=0).minimum(count - 1)
    first = position.floor().minimum((count - 2).clamp(min=0))
    share = position - first
    step = (count > 1).long()  # an axis of one voxel has no neighbour
    _, y, z = field.resolution
    stride = torch.tensor((y * z, z, 1), device=points.device)
    index = (first.long() * stride).sum(-1, keepdim=True)
    weight = field.box.contains(points).to(points.dtype)[..., None]
    for axis in range(3):
        near, far = 1 - share[..., axis : axis + 1], share[..., axis : axis + 1]
        index = torch.cat((index, index + int(stride[axis] * step[axis])), dim=-1)
        weight = torch.cat((weight * near, weight * far), dim=-1)
    if isinstance(field, SparseField):
        rows = find_rows(field.map, torch.stack((index // (y * z), index // z % y, index % z), dim=-1))
        return rows.clamp(min=0), torch.where(rows < 0, 0.0, weight)
    return index, weight
