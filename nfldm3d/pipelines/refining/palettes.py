"""Moves the colours of a scene as a whole to those of other pictures, before a prior works on its parts."""

import torch
from jaxtyping import Float
from torch import Tensor

LEAST_VARIANCE = 1e-5
"""Of colours along any direction, so that pictures of one colour can be matched, too."""

Palette = tuple[Float[Tensor, "3 3"], Float[Tensor, " 3"]]
"""A linear map of colours, and what is added then."""


def match_palette(
    shown: Float[Tensor, "views 3 height width"], wanted: Float[Tensor, "pictures 3 rows columns"], share: float = 1.0
) -> Palette:
    """The affine map that gives the colours of some pictures the mean and covariance of others', with the least change
    of each: the linear Monge map (Pitié and Kokaram 2007, section 3), or a ``share`` of the way there."""
    (mean, spread), (other, aim) = (_describe(pictures) for pictures in (shown, wanted))
    root = _power(spread, 0.5)
    inverse = _power(spread, -0.5)
    matrix = inverse @ _power(root @ aim @ root, 0.5) @ inverse
    matrix = share * matrix + (1 - share) * torch.eye(3, dtype=matrix.dtype)
    shift = share * other + (1 - share) * mean - matrix @ mean
    return matrix.to(shown), shift.to(shown)


def apply_palette(colors: Float[Tensor, "*places 3"], palette: Palette) -> Float[Tensor, "*places 3"]:
    """Mapped colours in [0, 1]. What is rendered of them is mapped alike, as it is a mean of colours."""
    matrix, shift = palette
    return (colors @ matrix.T + shift).clamp(0, 1)


def _describe(pictures: Float[Tensor, "views 3 height width"]) -> tuple[Float[Tensor, " 3"], Float[Tensor, "3 3"]]:
    """Mean and covariance of colours, in double precision on the CPU."""
    colors = pictures.detach().double().cpu().movedim(1, -1).reshape(-1, 3)
    return colors.mean(0), torch.cov(colors.T) + LEAST_VARIANCE * torch.eye(3, dtype=colors.dtype)


def _power(matrix: Float[Tensor, "3 3"], exponent: float) -> Float[Tensor, "3 3"]:
    """Of a symmetric positive matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp(min=1e-12) ** exponent) @ vectors.T
