"""How far a figure of some scenes may be off by chance: it is measured again on scenes drawn from these."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

ROUNDS = 100
SHARE = 0.9
"""Of the draws that lie between the ends of an interval."""


class Interval(NamedTuple):
    """Where the figure of all scenes of the kind lies, at odds of nine to one."""

    low: float
    high: float


def bootstrap(
    figure: Callable[[Int64[Tensor, " scenes"]], float],
    scenes: int,
    *,
    rounds: int = ROUNDS,
    generator: torch.Generator | None = None,
) -> Interval:
    """The basic bootstrap interval (Davison & Hinkley 1997, section 2.4) of a figure of ``scenes`` scenes.

    Distances of sets grow when scenes are drawn twice; that the interval is mirrored about the figure undoes it.

    Args:
        figure: of the scenes of these numbers, some of which come more than once.
    """
    whole = figure(torch.arange(scenes))
    draws = torch.tensor(
        [figure(torch.randint(scenes, (scenes,), generator=generator)) for _ in range(rounds)], dtype=torch.float64
    )
    low, high = (float(draws.quantile(share)) for share in ((1 - SHARE) / 2, (1 + SHARE) / 2))
    return Interval(2 * whole - high, 2 * whole - low)


def rows_of(scenes: Int64[Tensor, " drawn"], numbers: Int64[Tensor, " rows"]) -> Int64[Tensor, " chosen"]:
    """The rows that belong to the drawn scenes, as often as these were drawn."""
    return torch.cat([(numbers == scene).nonzero()[:, 0] for scene in scenes.tolist()])
