"""Turns logs of real drives into shards or captures: cut, scaled, with depth and maps, so that training reads no more.

A shard holds scenes of one drive. What cannot be read is left out with a warning, and a drive of which that is all
stops the work.
"""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

from nfldm3d._types import PathName
from nfldm3d.data.logs import LogCut, find_log
from nfldm3d.data.scene_folder import SPLITS_NAME, SceneFolder, Side
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.files import DataFormatError, atomic_write
from nfldm3d.jobs import Share, claim_folder
from nfldm3d.recording.shards import (
    RECORDING_NAME,
    RecordingReport,
    ShardPlan,
    record_shards,
    scene_key,
    split_shards,
)

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
        workers: processes that write shards, by default as many as there are cores; each reads the log's tables.
        share: of the shards, where several launched processes write into one folder.

    Raises:
        ValueError: the folder holds a recording with other options.
        DataFormatError: the log cannot be used, or shards are to be written of one without a lidar.
    """
    log, folder = Path(log), Path(folder)
    if find_log(log) is None:
        raise DataFormatError(log, "holds no log of a vehicle; give the folder of nuScenes or KITTI-360")
    scenes = _open(log, split, cut)
    options = {"recorder": RECORDER, "log": str(log.resolve()), "split": split, **asdict(cut)}
    if layout == "captures":
        return _write_captures(folder, scenes, options, progress)
    record = partial(record_samples, log, split, cut)
    return record_shards(
        folder, plan_shards(scenes), record, options=options, workers=workers, share=share, progress=progress
    )


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


def _write_captures(folder: Path, scenes: SceneFolder, options: dict[str, object], progress: bool) -> RecordingReport:
    from tqdm.auto import tqdm

    start, views, found = time.monotonic(), 0, dict[str, list[str]]()
    claim_folder(folder, RECORDING_NAME, options | {"layout": "captures"}, what="a recording", pieces="*/*.json")
    for drive, side in dict.fromkeys((scene.place, scene.split) for scene in scenes.scenes):
        keys = found.setdefault(side, [])
        numbers = [n for n, scene in enumerate(scenes.scenes) if scene.place == drive]
        there = [n for n in numbers if (folder / scenes.keys[n]).is_dir()]
        keys += [scenes.keys[n] for n in there]
        missing = [n for n in numbers if n not in there]
        for sample in tqdm(_read(missing, scenes), desc=drive, unit="scene", disable=not progress):
            sample.posed_images().save(folder / sample.key)
            keys.append(sample.key)
            views += len(sample.images)
    with atomic_write(folder / SPLITS_NAME) as temporary:
        temporary.write_text(json.dumps(found, indent=1), encoding="utf-8")
    count = sum(len(keys) for keys in found.values())
    return RecordingReport(count, 0, len(scenes) - count, views, time.monotonic() - start)


@lru_cache(maxsize=1)
def _open(log: Path, split: Side, cut: LogCut) -> SceneFolder:
    """A worker reads the tables once, all views of a scene."""
    return SceneFolder(log, split=split, views=None, cut=cut)
