"""Nested fields read as one: each point is answered by the innermost field around it, and no field outside its box."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nfldm3d.fields.protocol import Field
from nfldm3d.fields.voxel import VoxelField


def split_levels(
    levels: Sequence[Field], points: Float[Tensor, "points 3"], *, slack: float = 0.0
) -> list[Bool[Tensor, " points"]]:
    """For each field, innermost first, the points that it is the first to hold.

    Args:
        slack: share of their size by which the boxes are taken for larger, for points on their faces.
    """
    free = torch.ones(len(points), dtype=torch.bool, device=points.device)
    masks = []
    for level in levels:
        masks.append(free & level.box.scaled(1 + slack).contains(points))
        free = free & ~masks[-1]
    return masks


def read_innermost(
    levels: Sequence[Field],
    points: Float[Tensor, "*batch 3"],
    read: Callable[[Field, Float[Tensor, "points 3"]], Float[Tensor, "points values"]],
) -> Float[Tensor, "*batch values"]:
    """What ``read`` makes of the innermost field around each point; zeros beyond all boxes, where no field is asked."""
    flat = points.reshape(-1, 3)
    masks = split_levels(levels, flat)
    if len(levels) == 1 and isinstance(levels[0], VoxelField):  # a grid may be asked anywhere: no need to sort
        return torch.where(masks[0][:, None], read(levels[0], flat), 0.0).unflatten(0, points.shape[:-1])
    places = [mask.nonzero()[:, 0] for mask in masks]
    values = [read(level, flat[place]) for level, place in zip(levels, places, strict=True)]
    places.append((~torch.stack(masks).any(0)).nonzero()[:, 0])
    values.append(values[0].new_zeros(len(places[-1]), *values[0].shape[1:]))
    order = torch.cat(places).argsort()
    return torch.cat(values)[order].unflatten(0, points.shape[:-1])
