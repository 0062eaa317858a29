"""Records scenes of many tracks as captures, in a folder each, by several processes; goes on where it was stopped."""

import os
from functools import partial
from pathlib import Path
from typing import Literal

from nfldm3d._types import PathName
from nfldm3d.jobs import Share
from nfldm3d.recording.driving.rig_recorder import record_drive, write_drive
from nfldm3d.recording.driving.scene_recorder import record_scene
from nfldm3d.recording.driving.shard_recorder import DrivingOptions, note_options, plan_shards
from nfldm3d.recording.driving.torcs import TorcsData
from nfldm3d.recording.driving.world import World
from nfldm3d.recording.folders import record_folders
from nfldm3d.recording.shards import RecordingReport, ShardPlan, scene_key

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
        share: of the tracks' parts, where several launched processes record into one folder; default: all.

    Raises:
        ValueError: the folder holds a recording with other options.
    """
    fill = partial(_fill_folders, data, options, layout)
    noted = note_options(options) | {"layout": layout}
    plans = plan_shards(options)
    return record_folders(folder, plans, fill, options=noted, workers=workers, share=share, progress=progress)


def _fill_folders(
    data: TorcsData, options: DrivingOptions, layout: Layout, folder: Path, plan: ShardPlan
) -> tuple[list[str], int]:
    """Records the scenes of one plan that are not there; returns the names of all, and how many views are new."""
    os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa's software renderer: other processes have the other cores
    places = [scene_key(plan.map, number) for number in plan.places]
    keys, new = [key for key in places if (folder / key).is_dir()], 0
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
    views = options.shape.views if layout == "captures" else options.shape.views - options.shape.free
    return keys, new * views


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
