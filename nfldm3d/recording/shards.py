"""Records many scenes into shards, by several processes, and goes on where it was stopped; whatever world they show.

A recorder says what each shard is to hold, and gives a function that records the scenes of one; the shards appear whole
or not at all, and do not depend on how many processes there are.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path

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
from nfldm3d.file_locks import locked
from nfldm3d.jobs import Share, claim_folder
from nfldm3d.recording.workers import start_workers

RECORDING_NAME = "recording.json"
LOCK = ".index.lock"
SCENES_PER_SHARD = 64


@dataclass(frozen=True)
class ShardPlan:
    """What one shard is to hold."""

    name: str
    map: str
    quota: int
    """Scenes to record."""
    places: tuple[int, ...]
    """Numbers of places to try, in this order."""


Record = Callable[[ShardPlan], Sequence[SceneSample]]
"""Records the scenes of one shard; it is sent to other processes."""

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

    def figures(self) -> dict[str, int | float]:
        """What commands print."""
        speed = round(self.recorded_views / max(self.seconds, 1e-9), 1)
        counts = {"scenes": self.scenes, "skipped": self.skipped, "missing": self.missing}
        return counts | {"seconds": round(self.seconds, 1), "views_per_second": speed}


def scene_key(world: str, number: int) -> str:
    """The name of the scene at a place of a world, such as a map or a track."""
    return f"{world}_{number:04d}"


def record_shards(
    folder: PathName,
    plans: Sequence[ShardPlan],
    record: Record,
    *,
    options: Mapping[str, object],
    workers: int | None = None,
    share: Share | None = None,
    progress: bool = True,
) -> RecordingReport:
    """Records scenes into shards in ``folder``, with an index; a run that was stopped goes on after its last shard.

    Args:
        plans: of all shards.
        record: records the scenes of one.
        options: on which the scenes depend; they are noted in the folder, and must be the same to go on.
        workers: processes, by default as many as there are cores.
        share: of the shards, where several launched processes record into one folder; default: all. The last one to
            end writes the index of them all.

    Raises:
        ValueError: the folder holds a recording with other options.
    """
    from tqdm.auto import tqdm

    folder, share, start = Path(folder), share or Share(), time.monotonic()
    claim_folder(folder, RECORDING_NAME, options, what="a recording", pieces="*.tar")
    own = [plans[number] for number in share.of(len(plans))]
    parts = _read_parts(folder, plans, {})
    before = sum(len(scenes) for _, scenes in parts.values())
    todo = [plan for plan in own if plan.name not in parts]
    total = before + sum(plan.quota for plan in todo)
    with (
        tqdm(total=total, initial=before, desc="record", unit="scene", disable=not progress) as bar,
        start_workers(min(workers or os.cpu_count() or 1, max(1, len(todo)))) as submit,
    ):
        for future in as_completed([submit(_record_shard, folder, record, plan) for plan in todo]):
            name = future.result()
            parts[name] = index_shard(folder / name)
            bar.update(len(parts[name][1]))
            parts = _save_index(folder, plans, parts)
    parts = _save_index(folder, plans, parts)
    views = sum(scene.views for plan in todo for scene in parts[plan.name][1])
    return _report(plans, parts, views, time.monotonic() - start)


def split_shards(world: str, split: str, first: int, quota: int, places: int) -> list[ShardPlan]:
    """Shards for ``quota`` scenes of one world that has so many ``places``; each tries its share of them.

    Args:
        first: number of the first shard among those of the split.
    """
    count = -(-quota // SCENES_PER_SHARD)
    return [
        ShardPlan(
            shard_name(split, first + part),
            world,
            quota // count + (part < quota % count),
            tuple(range(part, places, count)),
        )
        for part in range(count)
    ]


def _report(plans: Sequence[ShardPlan], parts: Mapping[str, Part], views: int, seconds: float) -> RecordingReport:
    found = {plan.name: [scene.key for scene in parts[plan.name][1]] for plan in plans if plan.name in parts}
    scenes = sum(len(keys) for keys in found.values())
    return RecordingReport(
        scenes,
        sum(_count_skipped(plan, found[plan.name]) for plan in plans if plan.name in found),
        sum(plan.quota for plan in plans) - scenes,
        views,
        seconds,
    )


def _count_skipped(plan: ShardPlan, keys: list[str]) -> int:
    """How many places were tried in vain."""
    numbers = [scene_key(plan.map, number) for number in plan.places]
    tried = numbers.index(keys[-1]) + 1 if keys and len(keys) == plan.quota else len(numbers)
    return tried - len(keys)


def _read_parts(folder: Path, plans: Sequence[ShardPlan], known: dict[str, Part]) -> dict[str, Part]:
    """What the shards in the folder hold."""
    there = [plan.name for plan in plans if plan.name in known or (folder / plan.name).exists()]
    return {name: known[name] if name in known else index_shard(folder / name) for name in there}


def _save_index(folder: Path, plans: Sequence[ShardPlan], parts: dict[str, Part]) -> dict[str, Part]:
    """Writes the index of all shards in the folder, those of other processes too, so that the last one is whole."""
    with locked(folder / LOCK):
        parts = _read_parts(folder, plans, parts)
        chosen = [parts[name] for name in sorted(parts)]
        scenes = tuple(scene for _, held in chosen for scene in held)
        write_index(folder, ShardIndex(tuple(shard for shard, _ in chosen), scenes))
    return parts


def _record_shard(folder: Path, record: Record, plan: ShardPlan) -> str:
    write_shard(folder / plan.name, record(plan))
    return plan.name
