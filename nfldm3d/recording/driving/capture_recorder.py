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
from nfldm3d.jobs import Share, claim_folder
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
    share: Share | None = None,
    progress: bool = True,
) -> RecordingReport:
    """Records each scene into a subfolder, as ``transforms.json`` or as ``rig.json``; ``splits.json`` tells the splits.

    Args:
        workers: processes, by default as many as there are cores; the result does not depend on it.
        share: of the tracks' parts, where several launched processes record into one folder; default: all. The last
            one to end lists the scenes of them all in ``splits.json``.

    Raises:
        ValueError: the folder holds a recording with other options.
    """
    from tqdm.auto import tqdm

    folder, start = Path(folder), time.monotonic()
    noted = note_options(options) | {"layout": layout}
    claim_folder(folder, RECORDING_NAME, noted, what="a recording", pieces="*/*.json")
    plans, fresh = plan_shards(options), 0
    own = [plans[number] for number in (share or Share()).of(len(plans))]
    with (
        tqdm(total=_quota(own), desc="record", unit="scene", disable=not progress) as bar,
        start_workers(min(workers or os.cpu_count() or 1, max(1, len(own)))) as submit,
    ):
        for future in as_completed([submit(record_folders, folder, data, options, layout, plan) for plan in own]):
            keys, new = future.result()
            fresh += new
            bar.update(len(keys))
    scenes = _write_splits(folder, plans)
    views = options.shape.views if layout == "captures" else options.shape.views - options.shape.free
    return RecordingReport(scenes, 0, _quota(plans) - scenes, fresh * views, time.monotonic() - start)


def record_folders(
    folder: Path, data: TorcsData, options: DrivingOptions, layout: Layout, plan: ShardPlan
) -> tuple[list[str], int]:
    """Records the scenes of one plan that are not there; returns the names of all of them, and how many are new."""
    os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa's software renderer: other processes have the other cores
    keys, new = _find_recorded(folder, plan), 0
    if len(keys) >= plan.quota:
        return keys, 0
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
    return keys, new


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


def _quota(plans: Sequence[ShardPlan]) -> int:
    return sum(plan.quota for plan in plans)


def _find_recorded(folder: Path, plan: ShardPlan) -> list[str]:
    """The names of the scenes of a plan that are there."""
    return [key for key in (scene_key(plan.map, number) for number in plan.places) if (folder / key).is_dir()]


def _write_splits(folder: Path, plans: Sequence[ShardPlan]) -> int:
    """Lists the scenes in the folder, again if another process has added some meanwhile; returns how many they are."""
    found: list[list[str]] | None = None
    while found != (now := [_find_recorded(folder, plan) for plan in plans]):
        found, splits = now, {"train": list[str](), "test": list[str]()}
        for plan, keys in zip(plans, found, strict=True):
            splits[split_of(plan.map)] += keys
        with atomic_write(folder / SPLITS_NAME) as temporary:
            temporary.write_text(json.dumps(splits, indent=1), encoding="utf-8")
    return sum(map(len, now))
