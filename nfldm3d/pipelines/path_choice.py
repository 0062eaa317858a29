"""Camera paths that fit a map: more are drawn until one stands where paths do."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nfldm3d.models.nfldm.trajectories import POSES, count_unlikely
from nfldm3d.pipelines.sampling import split_generator

Draw: TypeAlias = Callable[[Sequence[torch.Generator], Tensor], Tensor]
"""g with the camera path, for generators and the number of the scene that each is for."""

ROUNDS = (0, 4, 8, 16, 32, 64)
"""Candidates tried by the end of each round; scenes whose path fits leave early."""


def draw_fitting(
    draw: Draw,
    generators: Sequence[torch.Generator],
    maps: Int64[Tensor, "scenes x y"],
    odds: Float[Tensor, " classes"],
) -> Float[Tensor, "scenes dimensions"]:
    """For each scene the first candidate with no pose on an unlikely class; if all have some, the one with fewest.

    The first rather than the best: then a map that changes elsewhere keeps its path.
    """
    seeds = [split_generator(generator, ROUNDS[-1]) for generator in generators]
    chosen: list[Tensor] = [maps.new_empty(0)] * len(seeds)
    fewest = [POSES + 1] * len(seeds)
    for start, stop in pairwise(ROUNDS):
        waiting = [scene for scene, poses in enumerate(fewest) if poses]
        if not waiting:
            break
        rows = torch.tensor(waiting, device=maps.device).repeat_interleave(stop - start)
        drawn = draw([seed for scene in waiting for seed in seeds[scene][start:stop]], rows)
        unlikely = count_unlikely(drawn[:, -5 * POSES :], maps[rows], odds)
        for scene, candidates, counts in zip(
            waiting, drawn.split(stop - start), unlikely.split(stop - start), strict=True
        ):
            best = int(counts.argmin())  # the first of several
            if counts[best] < fewest[scene]:
                chosen[scene], fewest[scene] = candidates[best], int(counts[best])
    return torch.stack(chosen)
