"""What fields of voxels have in common, however they keep them: checks, normals, and which voxels hold points."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nfldm3d._types import Vector
from nfldm3d.geometry import Box


def check_values(density: Float[Tensor, "*voxels"], features: Float[Tensor, "*voxels channels"], signed: bool) -> None:
    """Raises a ValueError that names the first voxel whose density or features are not finite.

    Densities below zero are refused as well, unless ``signed``.
    """
    if not density.numel():
        return
    low, high = density.aminmax()
    least = torch.finfo(density.dtype).min if signed else 0.0
    if not (low >= least and torch.isfinite(high)):  # NaN fails the comparison, too
        bad = ~(torch.isfinite(density) & (density >= least))
        where = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"density{list(where)} is {float(density[where])} ({int(bad.sum())} such voxels); "
            f"densities must be finite{'' if signed else ' and not negative'}: clamp them or repair the source"
        )
    if not torch.isfinite(features.sum(dtype=torch.float32)):  # large finite numbers may overflow, too
        bad = ~torch.isfinite(features)
        if bool(bad.any()):
            where = tuple(bad.nonzero()[0].tolist())
            raise ValueError(
                f"features{list(where)} is {float(features[where])} ({int(bad.sum())} such values); "
                "features must be finite: repair the source, e.g. with torch.nan_to_num"
            )


def find_normals(
    read: Callable[[Float[Tensor, "points 3"]], Float[Tensor, "points 1"]],
    points: Float[Tensor, "*batch 3"],
    voxel_size: Vector,
) -> Float[Tensor, "*batch 3"]:
    """Unit vectors against the gradient of a density, by central differences of a voxel to each side; zero if flat."""
    flat, size = points.reshape(-1, 3), points.new_tensor(voxel_size)
    slopes = [read(flat + offset) - read(flat - offset) for offset in torch.diag(size).to(points)]
    gradient = torch.cat(slopes, dim=-1) / (2 * size)
    return -torch.nn.functional.normalize(gradient, dim=-1).view(points.shape)


def find_voxels(
    points: Float[Tensor, "points 3"], box: Box, resolution: tuple[int, int, int]
) -> Int[Tensor, "points 3"]:
    """The voxel of a grid that holds each of some points in its box."""
    size, limit = points.new_tensor(box.voxel_size(resolution)), torch.tensor(resolution, device=points.device) - 1
    return ((points - points.new_tensor(box.lower)) / size).long().clamp(min=0).minimum(limit)


def average_rows(
    rows: Int[Tensor, " points"], features: Float[Tensor, "points channels"], voxels: int
) -> tuple[Float[Tensor, " voxels"], Float[Tensor, "voxels channels"]]:
    """1 for voxels that hold points, which lie in the given rows of all voxels, and the mean of their features."""
    count = torch.zeros(voxels, device=rows.device).index_add_(0, rows, torch.ones(len(rows), device=rows.device))
    total = torch.zeros(voxels, features.shape[-1], device=rows.device).index_add_(0, rows, features.float())
    return count.clamp(max=1), total / count.clamp(min=1)[:, None]
