"""Turns logs of real drives into shards or captures: cut, scaled, with depth and maps, so that training reads no more.

A shard holds scenes of one drive. What cannot be read is left out with a warning, and a drive of which that is all
stops the work.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

from nfldm3d._types import PathName
from nfldm3d.data.logs import LogCut, find_log
from nfldm3d.data.scene_folder import SceneFolder, Side
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.files import DataFormatError
from nfldm3d.jobs import Share
from nfldm3d.recording.folders import record_folders
from nfldm3d.recording.shards import RecordingReport, ShardPlan, record_shards, scene_key, split_shards

Layout = Literal["shards", "captures"]
RECORDER = 1
"""Counts the changes after which equal options give other scenes."""

logger = logging.getLogger(__name__)


def record_log(
    folder: PathName,
    log: PathName,
    cut: LogCut,
    *,
    split: Side = "all",
    layout: Layout = "shards",
    workers: int | None = None,
    share: Share | None = None,
    progress: bool = True,
) -> RecordingReport:
    """Writes the scenes of a log into ``folder``, as tar shards or as a capture each; a stopped run goes on.

    Args:
        split: which drives; see ``SceneFolder``.
        workers: processes, by default as many as there are cores; each reads the log's tables.
        share: of the scenes, where several launched processes write into one folder.

    Raises:
        ValueError: the folder holds a recording with other options.
        DataFormatError: the log cannot be used, or shards are to be written of one without a lidar.
    """
    log, folder = Path(log), Path(folder)
    if find_log(log) is None:
        raise DataFormatError(log, "holds no log of a vehicle; give the folder of nuScenes or KITTI-360")
    scenes = _open(log, split, cut)
    options: dict[str, object] = {"recorder": RECORDER, "log": str(log.resolve()), "split": split, **asdict(cut)}
    plans, run = plan_shards(scenes), {"workers": workers, "share": share, "progress": progress}
    if layout == "captures":
        fill = partial(_fill_folders, log, split, cut)
        return record_folders(folder, plans, fill, options=options | {"layout": layout}, **run)
    return record_shards(folder, plans, partial(record_samples, log, split, cut), options=options, **run)


def plan_shards(scenes: SceneFolder) -> list[ShardPlan]:
    """Shards of each drive, numbered within its split; their places are the moments in the scenes' middles."""
    plans, counts = list[ShardPlan](), {"train": 0, "test": 0}
    for drive, side in dict.fromkeys((scene.place, scene.split) for scene in scenes.scenes):
        middles = [s.stretch.middle for s in scenes.scenes if s.place == drive and s.stretch is not None]
        shards = split_shards(drive, side, counts[side], len(middles), len(middles))
        counts[side] += len(shards)
        plans += [replace(plan, places=tuple(middles[place] for place in plan.places)) for plan in shards]
    return plans


def record_samples(log: Path, split: Side, cut: LogCut, plan: ShardPlan) -> list[SceneSample]:
    """The scenes of one shard."""
    scenes = _open(log, split, cut)
    wanted = {scene_key(plan.map, place) for place in plan.places}
    samples = list(_read([n for n, key in enumerate(scenes.keys) if key in wanted], scenes))
    if samples and samples[0].depth is None:
        raise DataFormatError(log, "has no lidar sweeps, so no depth, which shards need; unpack them, or use captures")
    return samples


def _read(numbers: Sequence[int], scenes: SceneFolder) -> Iterator[SceneSample]:
    """Scenes that can be read; the first error if none can."""
    errors: list[DataFormatError] = []
    for number in numbers:
        try:
            yield scenes[number]
        except DataFormatError as error:
            logger.warning("a scene is left out: %s", error)
            errors.append(error)
    if errors and len(errors) == len(numbers):
        raise errors[0]


def _fill_folders(log: Path, split: Side, cut: LogCut, folder: Path, plan: ShardPlan) -> tuple[list[str], int]:
    """Captures of the scenes of one plan that are not there; the names of all of them, and how many views are new."""
    scenes = _open(log, split, cut)
    numbers = {scene_key(plan.map, place): -1 for place in plan.places}
    numbers |= {key: number for number, key in enumerate(scenes.keys) if key in numbers}
    keys, views = [key for key in numbers if (folder / key).is_dir()], 0
    for sample in _read([number for key, number in numbers.items() if key not in keys], scenes):
        sample.posed_images().save(folder / sample.key)
        keys.append(sample.key)
        views += len(sample.images)
    return keys, views


@lru_cache(maxsize=1)
def _open(log: Path, split: Side, cut: LogCut) -> SceneFolder:
    """A worker reads the tables once, all views of a scene."""
    return SceneFolder(log, split=split, views=None, cut=cut)
