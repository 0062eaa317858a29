"""Records scenes of many tracks as captures, in a folder each, by several processes; goes on where it was stopped."""

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Literal

from nfldm3d._types import PathName
from nfldm3d.data.scene_folder import SPLITS_NAME
from nfldm3d.files import atomic_write
from nfldm3d.jobs import claim_folder
from nfldm3d.recording.driving.rig_recorder import record_drive, write_drive
from nfldm3d.recording.driving.scene_recorder import record_scene
from nfldm3d.recording.driving.shard_recorder import DrivingOptions, note_options, plan_shards
from nfldm3d.recording.driving.torcs import TorcsData, split_of
from nfldm3d.recording.driving.world import World
from nfldm3d.recording.shards import RECORDING_NAME, RecordingReport, ShardPlan, scene_key
from nfldm3d.recording.workers import start_workers

Layout = Literal["captures", "rig"]


def record_captures(
    folder: PathName,
    data: TorcsData,
    options: DrivingOptions,
    *,
    layout: Layout = "captures",
    workers: int | None = None,
    progress: bool = True,
) -> RecordingReport:
    """Records each scene into a subfolder, as ``transforms.json`` or as ``rig.json``; ``splits.json`` tells the splits.

    Args:
        workers: processes, by default as many as there are cores; the result does not depend on it.

    Raises:
        ValueError: the folder holds a recording with other options.
    """
    from tqdm.auto import tqdm

    folder, start = Path(folder), time.monotonic()
    noted = note_options(options) | {"layout": layout}
    claim_folder(folder, RECORDING_NAME, noted, what="a recording", pieces="*/*.json")
    plans, found, fresh = plan_shards(options), dict[str, list[str]](), 0
    quota = sum(plan.quota for plan in plans)
    with (
        tqdm(total=quota, desc="record", unit="scene", disable=not progress) as bar,
        start_workers(min(workers or os.cpu_count() or 1, len(plans))) as submit,
    ):
        for future in as_completed([submit(record_folders, folder, data, options, layout, plan) for plan in plans]):
            plan, keys, new = future.result()
            found[plan.name], fresh = keys, fresh + new
            bar.update(len(keys))
    _write_splits(folder, plans, found)
    scenes = sum(len(keys) for keys in found.values())
    views = options.shape.views if layout == "captures" else options.shape.views - options.shape.free
    return RecordingReport(scenes, 0, quota - scenes, fresh * views, time.monotonic() - start)


def record_folders(
    folder: Path, data: TorcsData, options: DrivingOptions, layout: Layout, plan: ShardPlan
) -> tuple[ShardPlan, list[str], int]:
    """Records the scenes of one plan that are not there; returns the names of all of them, and how many are new."""
    os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa's software renderer: other processes have the other cores
    keys, new = [key for key in (scene_key(plan.map, n) for n in plan.places) if (folder / key).is_dir()], 0
    if len(keys) >= plan.quota:
        return plan, keys, 0
    world = World.open(data, plan.map, options.shape, options.seed)
    keys = []
    for number in plan.places:
        if len(keys) == plan.quota:
            break
        key = scene_key(plan.map, number)
        if (folder / key).is_dir():
            keys.append(key)
        elif _record_folder(folder / key, world, layout, number):
            keys.append(key)
            new += 1
    return plan, keys, new


def _record_folder(folder: Path, world: World, layout: Layout, number: int) -> bool:
    if layout == "rig":
        moments = record_drive(world, number)
        if moments is not None:
            write_drive(folder, world, moments)
        return moments is not None
    sample = record_scene(world, number)
    if sample is None or sample.find_problem() is not None:
        return False
    sample.posed_images().save(folder)
    return True


def _write_splits(folder: Path, plans: Sequence[ShardPlan], found: dict[str, list[str]]) -> None:
    splits: dict[str, list[str]] = {"train": [], "test": []}
    for plan in plans:
        splits[split_of(plan.map)] += found[plan.name]
    with atomic_write(folder / SPLITS_NAME) as temporary:
        temporary.write_text(json.dumps(splits, indent=1), encoding="utf-8")
