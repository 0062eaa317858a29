"""Captures of scenes in folders of their own, by processes that share them; what is recorded here is nothing."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nfldm3d.jobs import Share
from nfldm3d.recording.driving import capture_recorder
from nfldm3d.recording.driving.capture_recorder import record_captures
from nfldm3d.recording.driving.shard_recorder import DrivingOptions
from nfldm3d.recording.driving.torcs import TorcsData
from nfldm3d.recording.shards import ShardPlan, scene_key

TRACKS = ("street-1", "wheel-1", "alpine-1")


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the plans that were recorded, in this process, as folders with one file."""
    names: list[str] = []

    def record(folder: Path, data: TorcsData, options: DrivingOptions, layout: str, plan: ShardPlan):
        names.append(plan.name)
        keys = [scene_key(plan.map, number) for number in plan.places[: plan.quota]]
        fresh = [key for key in keys if not (folder / key).is_dir()]
        for key in fresh:
            (folder / key).mkdir()
            (folder / key / "transforms.json").touch()
        return keys, len(fresh)

    def submit(function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future

    @contextmanager
    def start_workers(count: int) -> Iterator[Callable[..., "Future[Any]"]]:
        assert count >= 1
        yield submit

    monkeypatch.setattr(capture_recorder, "record_folders", record)
    monkeypatch.setattr(capture_recorder, "start_workers", start_workers)
    monkeypatch.setattr(capture_recorder, "note_options", lambda options: {"scenes": options.scenes})
    return names


@pytest.mark.parametrize("processes", [1, 2, 5])
@pytest.mark.parametrize("layout", ["captures", "rig"])
def test_processes_share_the_scenes(tmp_path: Path, recorded: list[str], layout: str, processes: int) -> None:
    options, reports = DrivingOptions(scenes=7, tracks=TRACKS), []
    for number in reversed(range(processes)):
        share = Share(number, processes)
        given: Any = {"layout": layout, "share": share, "workers": 2, "progress": False}
        reports.append(record_captures(tmp_path, TorcsData(tmp_path), options, **given))
    assert len(recorded) == len(set(recorded)) == 3, "no part is recorded twice"
    splits = json.loads((tmp_path / "splits.json").read_text())
    assert {side: len(names) for side, names in splits.items()} == {"train": 5, "test": 2}
    assert set(splits["train"] + splits["test"]) == {path.parent.name for path in tmp_path.glob("*/*.json")}
    assert (reports[-1].scenes, reports[-1].missing) == (7, 0)
    views = options.shape.views - (options.shape.free if layout == "rig" else 0)
    assert sum(report.recorded_views for report in reports) == 7 * views


def test_scenes_that_come_while_the_list_is_written_are_on_it(
    tmp_path: Path, recorded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options, write = DrivingOptions(scenes=4, tracks=TRACKS[:2]), capture_recorder.atomic_write

    @contextmanager
    def write_late(path: Path) -> Iterator[Path]:
        with write(path) as temporary:
            yield temporary
        if not list(tmp_path.glob("wheel-1*")):  # the other process was a little slower
            (tmp_path / "wheel-1_0000").mkdir()

    monkeypatch.setattr(capture_recorder, "atomic_write", write_late)
    share = Share(0, 2)  # street-1 alone
    report = record_captures(tmp_path, TorcsData(tmp_path), options, share=share, progress=False)
    assert (report.scenes, report.missing) == (3, 1)
    assert json.loads((tmp_path / "splits.json").read_text())["test"] == ["wheel-1_0000"]
