"""Data sets of scenes, whatever they are read from."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch

from nfldm3d.data.scene_sample import SceneSample


@runtime_checkable
class Scenes(Protocol):
    """A data set of scenes: ``SceneDataset``, ``SceneFolder``, or a plain list."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> SceneSample: ...


class Selection:
    """Some scenes of a data set, in a given order."""

    def __init__(self, scenes: Scenes, numbers: Sequence[int]):
        self.scenes, self.numbers = scenes, tuple(numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> SceneSample:
        return self.scenes[self.numbers[index]]


def hash_content(content: object) -> str:
    """A sha256 of JSON values, which tells them from others."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def require_scenes(scenes: Scenes) -> Scenes:
    """The same; a ValueError if there are none."""
    if not len(scenes):
        raise ValueError("the split for judging holds no scenes; record scenes of test maps, or change the split")
    return scenes


def spread(scenes: Scenes, count: int) -> Iterator[SceneSample]:
    """At most ``count`` scenes, evenly spread, read one after the other."""
    count = min(count, len(scenes))
    return (scenes[number * len(scenes) // count] for number in range(count))


def spread_views(count: int, chosen: int, name: str) -> list[int]:
    """Numbers of ``chosen`` of ``count`` views: one of each of as many stretches, by chance seeded by the scene's name.

    Evenly spaced ones would be of the same few cameras of a rig whose views come camera by camera.
    """
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    shares = torch.rand(chosen, generator=torch.Generator().manual_seed(seed)).tolist()
    edges = [number * count // chosen for number in range(chosen + 1)]
    return [low + int(share * (high - low)) for share, (low, high) in zip(shares, pairwise(edges), strict=True)]
