"""Records many objects at once, by several processes, and goes on where it was stopped.

First all meshes are looked at, and what was found is noted in ``objects.json``: the side of the split that each object
belongs to, and why some are left out. Then they are drawn.
"""

import json
import os
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from nfldm3d._types import PathName
from nfldm3d.data.json_record import Record
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.data.scene_shards import shard_name
from nfldm3d.files import DataFormatError, atomic_write, read_json
from nfldm3d.jobs import Share, claim_folder
from nfldm3d.recording.folders import record_folders
from nfldm3d.recording.objects.object_files import write_capture, write_srn
from nfldm3d.recording.objects.object_recorder import ObjectShape, record_object
from nfldm3d.recording.objects.sources import ObjectFile, Up, find_objects, split_objects
from nfldm3d.recording.shards import (
    RECORDING_NAME,
    SCENES_PER_SHARD,
    RecordingReport,
    ShardPlan,
    record_shards,
    scene_key,
)
from nfldm3d.recording.workers import start_workers

RECORDER = 1
"""Counts the changes after which equal options give other pictures."""
FOUND_NAME = "objects.json"
MESHES_AT_A_TIME = 16

Layout = Literal["srn", "captures", "shards"]


@dataclass(frozen=True)
class ObjectOptions:
    """Which objects to record, and how."""

    places: tuple[str, ...]
    """Folders of meshes, or packages."""
    layout: Layout = "srn"
    seed: int = 0
    """Turns each object's cameras."""
    up: Up = "y"
    """Of meshes in plain folders."""
    shape: ObjectShape = field(default_factory=ObjectShape)

    def __post_init__(self):
        if not self.places:
            raise ValueError("give at least one folder of meshes or package")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")


@dataclass(frozen=True)
class Findings:
    """What a look at all meshes told."""

    sides: dict[int, str]
    """``train`` or ``test`` by the object's number."""
    problems: dict[int, str]
    """Why others are left out."""


def record_objects(
    folder: PathName,
    options: ObjectOptions,
    *,
    workers: int | None = None,
    share: Share | None = None,
    progress: bool = True,
) -> tuple[RecordingReport, list[str]]:
    """Records objects into ``folder``; also returns why some were left out.

    Raises:
        ValueError: there are no objects, or the folder holds a recording with other options.
        ImportError: panda3d or trimesh is missing.
        OSError: the machine cannot draw without a screen.
    """
    folder, things = Path(folder), [thing for place in options.places for thing in find_objects(place, options.up)]
    noted = {"recorder": RECORDER} | asdict(options) | {"objects": len(things)}
    claim_folder(folder, RECORDING_NAME, noted, what="a recording", pieces="*.tar")
    findings = look_at_objects(folder, things, workers=workers, progress=progress)
    plans = plan_objects(things, findings)
    if not plans:
        raise DataFormatError(folder, f"none of {len(things)} objects can be drawn; {FOUND_NAME} there tells why")
    run = {"options": noted, "workers": workers, "share": share, "progress": progress}
    if options.layout == "shards":
        report = record_shards(folder, plans, partial(_record_shard, options, things, findings), **run)
    else:
        report = record_folders(folder, plans, partial(_record_folders, options, things, findings), **run)
    skipped, problems = len(findings.problems), list(findings.problems.values())
    return RecordingReport(report.scenes, skipped, report.missing, report.recorded_views, report.seconds), problems


def look_at_objects(
    folder: Path, things: Sequence[ObjectFile], *, workers: int | None = None, progress: bool = True
) -> Findings:
    """Reads every mesh once, or what an earlier run noted."""
    from tqdm.auto import tqdm

    path = folder / FOUND_NAME
    if path.is_file():
        return _read_findings(path, len(things))
    groups: dict[str, list[tuple[int, ObjectFile]]] = {}
    for number, thing in enumerate(things):
        groups.setdefault(thing.mesh_key, []).append((number, thing))
    distinct = list(groups.values())
    batches = [distinct[k : k + MESHES_AT_A_TIME] for k in range(0, len(distinct), MESHES_AT_A_TIME)]
    signatures, problems = dict[int, str](), dict[int, str]()
    with (
        tqdm(total=len(distinct), desc="look", unit="mesh", disable=not progress) as bar,
        start_workers(min(workers or os.cpu_count() or 1, max(1, len(batches)))) as submit,
    ):
        for future in as_completed([submit(_look, batch) for batch in batches]):
            good, bad = future.result()
            signatures |= good
            problems |= bad
            bar.update(MESHES_AT_A_TIME)
    findings = Findings(split_objects(things, signatures), dict(sorted(problems.items())))
    with atomic_write(path) as temporary:
        names = [{"name": thing.name, "caption": thing.caption, "source": thing.source} for thing in things]
        temporary.write_text(json.dumps(asdict(findings) | {"objects": names}, indent=1), encoding="utf-8")
    return findings


def _read_findings(path: Path, count: int) -> Findings:
    """What an earlier run noted of ``count`` objects; a DataFormatError if it is something else."""
    top, again = Record.of(path, read_json(path)), "remove the file to look at the meshes again"
    found: list[dict[int, str]] = []
    for key in ("sides", "problems"):
        texts = Record.of(path, top.values.get(key), key).values
        if not all(len(number) < 10 and number.isdecimal() and int(number) < count for number in texts):
            raise DataFormatError(path, f"{key} has numbers of other objects than these {count}; {again}")
        if not all(isinstance(text, str) for text in texts.values()):
            raise DataFormatError(path, f"{key} holds something else than texts; {again}")
        found.append({int(number): text for number, text in texts.items()})
    sides, problems = found
    if not set(sides.values()) <= {"train", "test"}:
        raise DataFormatError(path, f"sides must be train or test; {again}")
    return Findings(sides, problems)


def plan_objects(things: Sequence[ObjectFile], findings: Findings) -> list[ShardPlan]:
    """The shards of a recording: each of objects of one source and one side of the split."""
    groups: dict[tuple[str, str], list[int]] = {}
    for number, side in sorted(findings.sides.items()):
        groups.setdefault((side, things[number].source), []).append(number)
    plans, counts = list[ShardPlan](), {"train": 0, "test": 0}
    for (side, source), numbers in groups.items():
        for start in range(0, len(numbers), SCENES_PER_SHARD):
            part = tuple(numbers[start : start + SCENES_PER_SHARD])
            plans.append(ShardPlan(shard_name(side, counts[side]), source, len(part), part))
            counts[side] += 1
    return plans


def _look(groups: Sequence[Sequence[tuple[int, ObjectFile]]]) -> tuple[dict[int, str], dict[int, str]]:
    """Signatures of objects, and problems of those that cannot be drawn; a group shares a mesh, which is read once."""
    good, bad = dict[int, str](), dict[int, str]()
    for group in groups:
        signature = None
        for number, thing in group:
            try:
                problem = thing.find_problem()
                if problem is None and signature is None:
                    signature = thing.read().signature()
            except ValueError as error:
                problem = str(error)
            if problem is None and signature is not None:
                good[number] = signature
            else:
                bad[number] = problem or ""
    return good, bad


def _record_one(
    options: ObjectOptions, things: Sequence[ObjectFile], findings: Findings, plan: ShardPlan, number: int
) -> SceneSample | None:
    """None where nothing of the object is seen."""
    key = scene_key(plan.map, number)
    sample = record_object(things[number], key, findings.sides[number], options.shape, options.seed)
    return sample if sample.find_problem() is None else None


def _record_shard(
    options: ObjectOptions, things: Sequence[ObjectFile], findings: Findings, plan: ShardPlan
) -> list[SceneSample]:
    os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa's software renderer: other processes have the other cores
    samples = (_record_one(options, things, findings, plan, number) for number in plan.places)
    return [sample for sample in samples if sample is not None]


def _record_folders(
    options: ObjectOptions, things: Sequence[ObjectFile], findings: Findings, folder: Path, plan: ShardPlan
) -> tuple[list[str], int]:
    os.environ.setdefault("LP_NUM_THREADS", "0")
    keys, new = list[str](), 0
    for number in plan.places:
        key, side = scene_key(plan.map, number), findings.sides[number]
        name = f"{plan.map}_{side}/{key}" if options.layout == "srn" else key
        if not (folder / name).is_dir():
            sample = _record_one(options, things, findings, plan, number)
            if sample is None:
                continue
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (write_srn if options.layout == "srn" else write_capture)(sample, folder / name)
            new += len(sample.camera)
        keys.append(name)
    return keys, new
