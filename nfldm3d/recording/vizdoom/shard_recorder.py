"""Records scenes of many Freedoom maps at once into shards, by several processes, and goes on where it was stopped."""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal

import numpy as np

from nfldm3d._types import PathName
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.jobs import Share
from nfldm3d.recording.shards import RecordingReport, ShardPlan, record_shards, split_shards
from nfldm3d.recording.vizdoom.game import SCREENS, choose_screen, find_wad, load_vizdoom, open_game
from nfldm3d.recording.vizdoom.scene_recorder import ALL_MAPS, World, measure_exposure, record_scene, split_of

RECORDER = 2
"""Counts the changes after which equal options give other scenes."""
ATTEMPTS = 3
"""How often a shard is begun whose engine dies."""


@dataclass(frozen=True)
class SceneOptions:
    """Which scenes to record."""

    scenes: int = 2000
    """Number of scenes, spread evenly over the maps; places without good views are replaced."""
    views: int = 24
    """Views per scene; a third of them, rounded down, is taken along its walk."""
    size: int = 64
    """Width and height of the pictures in pixels, of views 90 degrees wide."""
    seed: int = 0
    """Decides on places and views."""
    maps: tuple[str, ...] = ()
    """Freedoom maps; none means all 68."""
    split: Literal["train", "test", "all"] = "all"
    """Which of them: ten maps are for tests only."""

    def __post_init__(self):
        if self.scenes < 1 or self.seed < 0:
            raise ValueError(f"scenes must be at least 1 and seed at least 0, got {self.scenes} and {self.seed}")
        if not 2 <= self.views <= 48:
            raise ValueError(f"a scene has 2 to 48 views (a third of them along a walk of 16 poses), got {self.views}")
        if not 8 <= self.size <= SCREENS[-1].width:
            raise ValueError(f"size must lie between 8 and {SCREENS[-1].width} pixels, got {self.size}")
        for name in self.maps:
            find_wad(name)
        if not self.chosen_maps:
            raise ValueError(
                f"none of the maps {', '.join(self.maps)} belongs to split {self.split!r}; use split 'all'"
            )

    @property
    def chosen_maps(self) -> tuple[str, ...]:
        """The maps of the split, in the order of the game."""
        among = self.maps or ALL_MAPS
        return tuple(name for name in ALL_MAPS if name in among and self.split in ("all", split_of(name)))


def record_scenes(
    folder: PathName,
    *,
    options: SceneOptions | None = None,
    workers: int | None = None,
    share: Share | None = None,
    progress: bool = True,
) -> RecordingReport:
    """Records scenes into shards in ``folder``; see ``record_shards``.

    Raises:
        ValueError: the folder holds a recording with other options.
        ChildProcessError: the engine died again and again.
    """
    options = options or SceneOptions()
    noted = {"vizdoom": load_vizdoom().__version__, "recorder": RECORDER} | asdict(options)
    record = partial(record_samples, options)
    plans = plan_shards(options)
    return record_shards(folder, plans, record, options=noted, workers=workers, share=share, progress=progress)


def plan_shards(options: SceneOptions) -> list[ShardPlan]:
    """The shards of a recording: each of one map, which gives as many scenes as the others unless it is too small."""
    worlds = {name: World.open(name, options.seed) for name in options.chosen_maps}
    quotas = _share_out(options.scenes, [world.levels for world in worlds.values()])
    plans, numbers = [], {"train": 0, "test": 0}
    for (name, world), quota in zip(worlds.items(), quotas, strict=True):
        split = split_of(name)
        shards = split_shards(name, split, numbers[split], quota, len(world.places))
        numbers[split] += len(shards)
        plans += shards
    return plans


def record_samples(options: SceneOptions, plan: ShardPlan) -> list[SceneSample]:
    """The scenes of one shard; an engine that dies is started again."""
    for _ in range(ATTEMPTS - 1):
        try:
            return _record_samples(options, plan)
        except ChildProcessError:
            continue
    return _record_samples(options, plan)


def _record_samples(options: SceneOptions, plan: ShardPlan) -> list[SceneSample]:
    world, samples = World.open(plan.map, options.seed), []
    with open_game(plan.map, screen=choose_screen(options.size)) as game:
        exposure = measure_exposure(world, game)
        for number in plan.places:
            if len(samples) == plan.quota:
                break
            sample = record_scene(world, game, number, views=options.views, size=options.size, exposure=exposure)
            if sample is not None and sample.find_problem() is None:
                samples.append(sample)
    return samples


def _share_out(scenes: int, levels: list[np.ndarray]) -> list[int]:
    """How many scenes each map gives: as equal as its places allow, of coarser levels before finer ones."""
    quotas, reach = np.zeros(len(levels), dtype=int), np.zeros(len(levels), dtype=int)
    for level in range(len(levels[0])):
        reach = reach + np.array([counts[level] for counts in levels])
        while quotas.sum() < scenes and (quotas < reach).any():
            open_maps = np.nonzero(quotas < reach)[0]
            share = max(1, (scenes - quotas.sum()) // len(open_maps))
            for index in open_maps[: scenes - quotas.sum()]:
                quotas[index] += min(share, reach[index] - quotas[index])
    if quotas.sum() < scenes:
        raise ValueError(f"{len(levels)} maps have places for {quotas.sum()} scenes, not {scenes}; ask for fewer")
    return quotas.tolist()
