"""Space without bounds in a cube: MERF's contraction (Reiser et al. 2023, eq. 7) and its inverse.

What matters lies in the cube [-1, 1]^3, which stays as it is. Beyond, with n the largest coordinate by size, that
coordinate becomes (2 - 1 / n) with its sign and the others are divided by n: all of space lies in [-2, 2]^3.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

REACH = 2.0
"""Largest coordinate of contracted points."""


def contract(points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Points of the world in the cube [-2, 2]^3."""
    size = points.abs()
    largest = size.amax(-1, keepdim=True)
    length = largest.clamp(min=1)
    outer = torch.where(size == largest, (REACH - 1 / length) * points.sign(), points / length)
    return torch.where(largest > 1, outer, points)


def expand(contracted: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Where contracted points lie in the world: the inverse of ``contract`` where ``is_seen``."""
    size = contracted.abs()
    largest = size.amax(-1, keepdim=True)
    length = 1 / (REACH - largest.clamp(min=1)).clamp(min=1e-3)
    outer = torch.where(size == largest, length * contracted.sign(), contracted * length)
    return torch.where(largest > 1, outer, contracted)


def is_seen(contracted: Float[Tensor, "*batch 3"]) -> Bool[Tensor, "*batch"]:
    """Which points are images of the world: those of which at most one coordinate lies beyond 1 by size."""
    return (contracted.abs() > 1).sum(-1) <= 1
