"""Data sets of scenes, whatever they are read from."""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

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


def require_scenes(scenes: Scenes) -> Scenes:
    """The same; a ValueError if there are none."""
    if not len(scenes):
        raise ValueError("the split for judging holds no scenes; record scenes of test maps, or change the split")
    return scenes


def spread(scenes: Scenes, count: int) -> Iterator[SceneSample]:
    """At most ``count`` scenes, evenly spread, read one after the other."""
    count = min(count, len(scenes))
    return (scenes[number * len(scenes) // count] for number in range(count))
