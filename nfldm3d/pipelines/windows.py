"""Grids larger than a denoiser's own: overlapping windows, each half a window on from the one before."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.models.nfldm.denoisers import FAR, GridDenoiser


def window_starts(windows: tuple[int, int], size: int) -> list[tuple[int, int]]:
    """The first cell of each window along x and y."""
    return [(x * size // 2, y * size // 2) for x in range(windows[0]) for y in range(windows[1])]


def window_weight(size: int) -> Float[Tensor, "x y"]:
    """Falls from the middle of a window to its edges, so that windows meet without seams."""
    line = torch.sin(math.pi * (torch.arange(size) + 0.5) / size).square() + 1e-3
    return line[:, None] * line


def over_windows(
    model: GridDenoiser,
    noisy: Tensor,
    step: Tensor,
    g: Tensor | None,
    parent: Tensor | None,
    bev: Tensor | None,
    embedding: Tensor | None,
    windows: tuple[int, int],
    path: bool = True,
) -> Tensor:
    """v on a grid that may be larger than the network's: the weighted mean over windows; ``path`` tells whether they
    see the camera path of g.
    """
    size = int(model.config["size"])
    nowhere = noisy.new_full((len(noisy), 2), FAR)
    if windows == (1, 1):
        return model(noisy, step, g, parent, bev, embedding, None if path else nowhere)
    total, weights = torch.zeros_like(noisy), torch.zeros_like(noisy[:1, :1])
    weight = window_weight(size).to(noisy)
    for x, y in window_starts(windows, size):
        part = (..., slice(x, x + size), slice(y, y + size))
        pieces = _window(parent, part, noisy), _window(bev, part, noisy)
        away = noisy.new_tensor((2 * x / size - (windows[0] - 1) / 2, 2 * y / size - (windows[1] - 1) / 2))
        shift = away.expand(len(noisy), 2) if path else nowhere
        total[part] += weight * model(noisy[part], step, g, *pieces, embedding, shift)
        weights[part] += weight
    return total / weights


def _window(values: Tensor | None, part: tuple, like: Tensor) -> Tensor | None:
    """The piece of a grid of another resolution that lies in a window."""
    if values is None:
        return None
    spans = [
        slice(piece.start * have // want, piece.stop * have // want)
        for piece, have, want in zip(part[1:], values.shape[-2:], like.shape[-2:], strict=True)
    ]
    return values[(..., *spans)]
