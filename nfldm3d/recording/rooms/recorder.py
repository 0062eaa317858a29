"""Records many rooms at once, by several processes, and goes on where it was stopped."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from nfldm3d._types import PathName
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.jobs import Share
from nfldm3d.recording.folders import record_folders
from nfldm3d.recording.furniture import Furniture, list_furniture
from nfldm3d.recording.rooms.finishes import read_finishes
from nfldm3d.recording.rooms.pieces import sort_pieces
from nfldm3d.recording.rooms.room_recorder import RoomShape, record_room
from nfldm3d.recording.shards import RecordingReport, ShardPlan, record_shards, scene_key, split_shards

RECORDER = 1
"""Counts the changes after which equal options give other rooms."""
PLACES_PER_SCENE = 4
"""So many rooms are tried for each scene before it is given up."""
MAPS = {"rooms": "train", "test_rooms": "test"}
"""Names of the two sets of rooms, which share no furniture, and their splits."""


@dataclass(frozen=True)
class RoomOptions:
    """Which rooms to record."""

    scenes: int = 332
    test_scenes: int = 32
    """How many of these are of furniture that the others do not have."""
    seed: int = 0
    layout: Literal["shards", "captures"] = "shards"
    shape: RoomShape = field(default_factory=RoomShape)

    def __post_init__(self):
        if self.scenes < 1 or self.seed < 0 or not 0 <= self.test_scenes <= self.scenes:
            raise ValueError(
                f"scenes must be at least 1, seed at least 0 and test_scenes some of the scenes; got {self.scenes}, "
                f"{self.seed} and {self.test_scenes}"
            )


def record_rooms(
    folder: PathName,
    options: RoomOptions,
    *,
    data: Path | None = None,
    textures: Path | None = None,
    workers: int | None = None,
    share: Share | None = None,
    progress: bool = True,
) -> RecordingReport:
    """Records rooms into shards, or into a capture each.

    Args:
        data: the folder of the package sweethome3d-furniture, or of the unpacked package; default: as installed.
        textures: likewise of the package sweethome3d; where it is not installed, floors and walls are painted.

    Raises:
        ValueError: there is no furniture, or the folder holds a recording with other options.
        ImportError: panda3d or trimesh is missing.
        OSError: the machine cannot draw without a screen.
    """
    furniture, finishes = list_furniture(data), read_finishes(textures)
    noted = {"recorder": RECORDER} | asdict(options) | {"furniture": len(furniture), "textures": len(finishes)}
    plans = plan_rooms(options)
    run = {"options": noted, "workers": workers, "share": share, "progress": progress}
    if options.layout == "shards":
        return record_shards(folder, plans, partial(_record_shard, options, furniture, textures), **run)
    return record_folders(folder, plans, partial(_record_folders, options, furniture, textures), **run)


def plan_rooms(options: RoomOptions) -> list[ShardPlan]:
    """The shards of a recording."""
    quotas = {"rooms": options.scenes - options.test_scenes, "test_rooms": options.test_scenes}
    plans = list[ShardPlan]()
    for name, quota in quotas.items():
        if quota:
            plans += split_shards(name, MAPS[name], 0, quota, PLACES_PER_SCENE * quota)
    return plans


def _record_rooms(
    options: RoomOptions, furniture: list[Furniture], textures: Path | None, plan: ShardPlan, skip: dict[str, bool]
) -> Iterator[tuple[str, SceneSample | None]]:
    """Keys and scenes until the quota is filled; those to ``skip`` are there, and are not recorded again."""
    os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa's software renderer: other processes have the other cores
    split = MAPS[plan.map]
    pieces, finishes = sort_pieces(furniture, split), read_finishes(textures)
    found = 0
    for number in plan.places:
        if found == plan.quota:
            return
        key = scene_key(plan.map, number)
        if skip.get(key):
            found += 1
            yield key, None
            continue
        generator = np.random.default_rng((options.seed, split == "test", number))
        sample = record_room(key, split, options.shape, pieces, finishes, generator)
        if sample is not None and sample.find_problem() is None:
            found += 1
            yield key, sample


def _record_shard(
    options: RoomOptions, furniture: list[Furniture], textures: Path | None, plan: ShardPlan
) -> list[SceneSample]:
    rooms = _record_rooms(options, furniture, textures, plan, {})
    return [sample for _, sample in rooms if sample is not None]


def _record_folders(
    options: RoomOptions, furniture: list[Furniture], textures: Path | None, folder: Path, plan: ShardPlan
) -> tuple[list[str], int]:
    there = {path.name: True for path in folder.glob(f"{plan.map}_*") if path.is_dir()}
    keys, new = list[str](), 0
    for key, sample in _record_rooms(options, furniture, textures, plan, there):
        keys.append(key)
        if sample is not None:
            sample.posed_images().save(folder / key)
            new += len(sample.camera)
    return keys, new
