"""Records many scenes into a folder each, by several processes, and goes on where it was stopped."""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from pathlib import Path

from nfldm3d._types import PathName
from nfldm3d.data.json_record import Record
from nfldm3d.data.scene_folder import SPLITS_NAME
from nfldm3d.file_locks import locked
from nfldm3d.files import DataFormatError, atomic_write, read_json
from nfldm3d.jobs import Share, claim_folder
from nfldm3d.recording.shards import LOCK, RECORDING_NAME, RecordingReport, ShardPlan
from nfldm3d.recording.workers import start_workers

Fill = Callable[[Path, ShardPlan], tuple[list[str], int]]
"""Records the scenes of a plan that are not there, in a folder each; returns the names of all of them and how many
views are new. It is sent to other processes."""


def record_folders(
    folder: PathName,
    plans: Sequence[ShardPlan],
    fill: Fill,
    *,
    options: Mapping[str, object],
    workers: int | None = None,
    share: Share | None = None,
    progress: bool = True,
) -> RecordingReport:
    """Records each scene into a folder of its own; ``splits.json`` tells the splits of captures.

    Args:
        plans: of all scenes; their names begin with the split, as those of shards.
        options: on which the scenes depend; they are noted in the folder, and must be the same to go on.
        workers: processes, by default as many as there are cores; the result does not depend on it.
        share: of the plans, where several launched processes record into one folder; default: all.

    Raises:
        ValueError: the folder holds a recording with other options.
    """
    from tqdm.auto import tqdm

    folder, share, start = Path(folder), share or Share(), time.monotonic()
    claim_folder(folder, RECORDING_NAME, options, what="a recording", pieces="*/*.json")
    own = [plans[number] for number in share.of(len(plans))]
    splits: dict[str, list[str]] = {"train": [], "test": []}
    quota, views = sum(plan.quota for plan in own), 0
    with (
        tqdm(total=quota, desc="record", unit="scene", disable=not progress) as bar,
        start_workers(min(workers or os.cpu_count() or 1, max(1, len(own)))) as submit,
    ):
        futures = {submit(fill, folder, plan): plan for plan in own}
        for future in as_completed(futures):
            keys, new = future.result()
            splits[futures[future].name.partition("-")[0]] += keys
            views += new
            bar.update(len(keys))
    _note_splits(folder, splits)
    scenes = sum(len(keys) for keys in splits.values())
    return RecordingReport(scenes, 0, quota - scenes, views, time.monotonic() - start)


def _note_splits(folder: Path, splits: dict[str, list[str]]) -> None:
    """Adds scenes to the list, which processes that share the work all write to."""
    path = folder / SPLITS_NAME
    with locked(folder / LOCK):
        known = Record.of(path, read_json(path) if path.is_file() else {})
        names = {side: known.items(side) if side in known else [] for side in splits}
        if not all(isinstance(name, str) for side in names.values() for name in side):
            raise DataFormatError(path, "must list names of captures under train and test; restore or remove it")
        merged = {side: sorted({*names[side], *keys}) for side, keys in splits.items()}
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(merged, indent=1), encoding="utf-8")
