"""Records scenes of many Freedoom maps at once into shards, by several processes, and goes on where it was stopped."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from nfldm3d._types import PathName
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.data.scene_shards import (
    SceneEntry,
    ShardEntry,
    ShardIndex,
    index_shard,
    shard_name,
    write_index,
    write_shard,
)
from nfldm3d.jobs import Share, claim_folder
from nfldm3d.recording.vizdoom.game import SCREENS, choose_screen, find_wad, load_vizdoom, open_game
from nfldm3d.recording.vizdoom.scene_recorder import (
    ALL_MAPS,
    World,
    measure_exposure,
    record_scene,
    scene_key,
    split_of,
)

RECORDING_NAME = "recording.json"
RECORDER = 2
"""Counts the changes after which equal options give other scenes."""
SCENES_PER_SHARD = 64
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


@dataclass(frozen=True)
class ShardPlan:
    """What one shard is to hold."""

    name: str
    map: str
    quota: int
    """Scenes to record."""
    places: tuple[int, ...]
    """Numbers of places to try, in this order."""


Part = tuple[ShardEntry, tuple[SceneEntry, ...]]
"""A shard and the scenes in it."""


@dataclass(frozen=True)
class RecordingReport:
    """How a recording went."""

    scenes: int
    """All in the folder now."""
    skipped: int
    """Places that did not yield enough good views; others took their turn."""
    missing: int
    """Scenes for which no place was left, or whose shards other processes have not recorded yet."""
    recorded_views: int
    """Taken by this run, in how many seconds."""
    seconds: float


def record_scenes(
    folder: PathName,
    *,
    options: SceneOptions | None = None,
    workers: int | None = None,
    share: Share | None = None,
    progress: bool = True,
) -> RecordingReport:
    """Records scenes into shards in ``folder``, with an index; a run that was stopped goes on after its last shard.

    Args:
        workers: processes, by default as many as there are cores; the result does not depend on it.
        share: of the shards, where several launched processes record into one folder; default: all. The last one to
            end writes the index of them all.

    Raises:
        ValueError: the folder holds a recording with other options.
        ChildProcessError: the engine died again and again.
    """
    from tqdm.auto import tqdm

    options, folder, share = options or SceneOptions(), Path(folder), share or Share()
    start = time.monotonic()
    _claim(folder, options)
    plans = plan_shards(options)
    own = [plans[number] for number in share.of(len(plans))]
    _sweep(folder, own)
    parts = _read_parts(folder, plans, {})
    before = sum(len(scenes) for _, scenes in parts.values())
    todo = [plan for plan in own if plan.name not in parts]
    total = before + sum(plan.quota for plan in todo)
    with (
        tqdm(total=total, initial=before, desc="record", unit="scene", disable=not progress) as bar,
        _workers(min(workers or os.cpu_count() or 1, max(1, len(todo)))) as submit,
    ):
        for future in as_completed([submit(folder, options, plan) for plan in todo]):
            name = future.result()
            parts[name] = index_shard(folder / name)
            bar.update(len(parts[name][1]))
            _save_index(folder, parts)
    recorded = sum(len(parts[plan.name][1]) for plan in todo)
    parts = _save_whole_index(folder, plans, parts)
    found = {plan.name: [scene.key for scene in parts[plan.name][1]] for plan in plans if plan.name in parts}
    scenes = sum(len(keys) for keys in found.values())
    return RecordingReport(
        scenes,
        sum(_count_skipped(plan, found[plan.name]) for plan in plans if plan.name in found),
        sum(plan.quota for plan in plans) - scenes,
        recorded * options.views,
        time.monotonic() - start,
    )


def plan_shards(options: SceneOptions) -> list[ShardPlan]:
    """The shards of a recording: each of one map, which gives as many scenes as the others unless it is too small."""
    worlds = {name: World.open(name, options.seed) for name in options.chosen_maps}
    quotas = _share_out(options.scenes, [world.levels for world in worlds.values()])
    plans, numbers = [], {"train": 0, "test": 0}
    for (name, world), quota in zip(worlds.items(), quotas, strict=True):
        count, split = -(-quota // SCENES_PER_SHARD), split_of(name)
        for part in range(count):
            places = tuple(range(part, len(world.places), count))
            share = quota // count + (part < quota % count)
            plans.append(ShardPlan(shard_name(split, numbers[split]), name, share, places))
            numbers[split] += 1
    return plans


def record_shard(folder: Path, options: SceneOptions, plan: ShardPlan) -> str:
    """Records one shard; returns its name."""
    torch.set_num_threads(1)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            write_shard(folder / plan.name, _record_samples(options, plan))
            break
        except ChildProcessError:
            if attempt == ATTEMPTS:
                raise
    return plan.name


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


def _count_skipped(plan: ShardPlan, keys: list[str]) -> int:
    """How many places were tried in vain."""
    numbers = [scene_key(plan.map, number) for number in plan.places]
    tried = numbers.index(keys[-1]) + 1 if keys and len(keys) == plan.quota else len(numbers)
    return tried - len(keys)


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


def _claim(folder: Path, options: SceneOptions) -> None:
    """Notes the options in the folder, or compares them with those noted there."""
    wanted = {"vizdoom": load_vizdoom().__version__, "recorder": RECORDER} | asdict(options)
    claim_folder(folder, RECORDING_NAME, wanted, what="a recording", pieces="*.tar")


def _sweep(folder: Path, plans: Sequence[ShardPlan]) -> None:
    """Removes what a killed run left of these shards: files under temporary names of ``atomic_write``."""
    for plan in plans:
        name = Path(plan.name)
        for left in folder.glob(f".{name.stem}.????????{name.suffix}"):
            left.unlink(missing_ok=True)


def _read_parts(folder: Path, plans: Sequence[ShardPlan], known: dict[str, Part]) -> dict[str, Part]:
    """What the shards in the folder hold."""
    there = [plan.name for plan in plans if plan.name in known or (folder / plan.name).exists()]
    return {name: known[name] if name in known else index_shard(folder / name) for name in there}


def _save_whole_index(folder: Path, plans: Sequence[ShardPlan], parts: dict[str, Part]) -> dict[str, Part]:
    """Writes the index of all shards in the folder, again if another process has added some meanwhile: so the last
    index that is written knows all shards."""
    while True:
        parts = _read_parts(folder, plans, parts)
        _save_index(folder, parts)
        if not any((folder / plan.name).exists() for plan in plans if plan.name not in parts):
            return parts


def _save_index(folder: Path, parts: dict[str, Part]) -> None:
    chosen = [parts[name] for name in sorted(parts)]
    write_index(folder, ShardIndex(tuple(part[0] for part in chosen), tuple(s for part in chosen for s in part[1])))


@contextmanager
def _workers(count: int) -> Iterator[Callable[[Path, SceneOptions, ShardPlan], "Future[str]"]]:
    """Runs ``record_shard`` in so many processes, which do not survive the block or this process."""
    context = multiprocessing.get_context("spawn")
    pool: Executor = ProcessPoolExecutor(count, mp_context=context, initializer=_obey, initargs=(os.getpid(),))
    others = set(multiprocessing.active_children())
    try:
        yield lambda folder, options, plan: pool.submit(_record_or_leave, folder, options, plan)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown()


def _record_or_leave(folder: Path, options: SceneOptions, plan: ShardPlan) -> str:
    try:
        return record_shard(folder, options, plan)
    except SystemExit:  # the pool would take it for a result and go on
        os._exit(143)


def _obey(parent: int) -> None:
    """Ends this process tidily when its parent asks for it or is gone."""

    def stop(*_: object) -> None:
        raise SystemExit(143)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent decides
    threading.Thread(target=watch, daemon=True).start()
