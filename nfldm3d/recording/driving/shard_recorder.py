"""Records scenes of many tracks at once into shards, by several processes, and goes on where it was stopped."""

import os
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from nfldm3d._types import PathName
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.jobs import Share
from nfldm3d.recording.driving.scene_recorder import record_scene
from nfldm3d.recording.driving.torcs import TRACKS, VERSION, TorcsData, split_of
from nfldm3d.recording.driving.world import SceneShape, World
from nfldm3d.recording.shards import RecordingReport, ShardPlan, record_shards, split_shards

RECORDER = 1
"""Counts the changes after which equal options give other scenes."""
PLACES_PER_SCENE = 4
"""So many places are tried for each scene before it is given up."""
MOST_SCENES = 1_000_000


@dataclass(frozen=True)
class DrivingOptions:
    """Which scenes to record."""

    scenes: int = 1600
    """Number of scenes, spread evenly over the tracks."""
    test_scenes: int | None = None
    """How many of these are on test tracks; by default each track gives as many as any other."""
    seed: int = 0
    """Decides on places, cars, weather and views."""
    tracks: tuple[str, ...] = ()
    """Of TORCS; none means all."""
    split: Literal["train", "test", "all"] = "all"
    """Which of them: four tracks are for tests only."""
    shape: SceneShape = field(default_factory=SceneShape)
    """What a scene consists of."""

    def __post_init__(self):
        if self.scenes < 1 or self.seed < 0:
            raise ValueError(f"scenes must be at least 1 and seed at least 0, got {self.scenes} and {self.seed}")
        if self.scenes > MOST_SCENES:
            raise ValueError(f"scenes must be at most {MOST_SCENES}, got {self.scenes}")
        unknown = [name for name in self.tracks if name not in TRACKS]
        if unknown:
            raise ValueError(f"no track is called {', '.join(unknown)}; choose of {', '.join(TRACKS)}")
        if self.test_scenes is not None and (self.split != "all" or not 0 <= self.test_scenes <= self.scenes):
            raise ValueError(
                f"test_scenes are some of all {self.scenes} scenes, and only where both splits are recorded; got "
                f"{self.test_scenes} with split {self.split!r}"
            )
        if not self.chosen_tracks:
            raise ValueError(f"none of {', '.join(self.tracks)} belongs to split {self.split!r}; use split 'all'")

    @property
    def chosen_tracks(self) -> tuple[str, ...]:
        """The tracks of the split, in alphabetical order."""
        among = self.tracks or TRACKS
        return tuple(name for name in TRACKS if name in among and self.split in ("all", split_of(name)))


def record_scenes(
    folder: PathName,
    data: TorcsData,
    *,
    options: DrivingOptions | None = None,
    workers: int | None = None,
    share: Share | None = None,
    progress: bool = True,
) -> RecordingReport:
    """Records scenes into shards in ``folder``; see ``record_shards``.

    Raises:
        ValueError: the folder holds a recording with other options.
        ImportError: panda3d is missing.
        OSError: the machine cannot draw without a screen.
    """
    options = options or DrivingOptions()
    record = partial(record_samples, options, data)
    plans, noted = plan_shards(options), note_options(options)
    return record_shards(folder, plans, record, options=noted, workers=workers, share=share, progress=progress)


def note_options(options: DrivingOptions) -> dict[str, object]:
    """All that scenes depend on, as plain values."""
    return {"torcs": VERSION, "panda3d": _panda_version(), "recorder": RECORDER} | asdict(options)


def plan_shards(options: DrivingOptions) -> list[ShardPlan]:
    """The shards of a recording: each of one track; all tracks of a split give equally many scenes."""
    plans, numbers = [], {"train": 0, "test": 0}
    for name, quota in share_out(options).items():
        split = split_of(name)
        shards = split_shards(name, split, numbers[split], quota, PLACES_PER_SCENE * quota)
        numbers[split] += len(shards)
        plans += shards
    return plans


def share_out(options: DrivingOptions) -> dict[str, int]:
    """How many scenes each track gives."""
    tracks = options.chosen_tracks
    groups = [(tracks, options.scenes)]
    if options.test_scenes is not None:
        tests = tuple(name for name in tracks if split_of(name) == "test")
        rest = tuple(name for name in tracks if split_of(name) == "train")
        groups = [(tests, options.test_scenes), (rest, options.scenes - options.test_scenes)]
    quotas: dict[str, int] = {}
    for names, scenes in groups:
        if scenes and not names:
            raise ValueError(f"there is no track for {scenes} of the scenes; change tracks or test_scenes")
        quotas |= {name: scenes // len(names) + (index < scenes % len(names)) for index, name in enumerate(names)}
    return quotas


def record_samples(options: DrivingOptions, data: TorcsData, plan: ShardPlan) -> list[SceneSample]:
    """The scenes of one shard."""
    os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa's software renderer: other processes have the other cores
    world, samples = World.open(data, plan.map, options.shape, options.seed), []
    for number in plan.places:
        if len(samples) == plan.quota:
            break
        sample = record_scene(world, number)
        if sample is not None and sample.find_problem() is None:
            samples.append(sample)
    return samples


def _panda_version() -> str:
    try:
        return version("panda3d")
    except PackageNotFoundError as error:
        raise ImportError("recording the driving world needs panda3d: pip install nfldm3d[driving]") from error
