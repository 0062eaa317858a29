"""Scenes in folders of their own, by processes that share them; what is recorded here is nothing."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nfldm3d.files import DataFormatError
from nfldm3d.jobs import Share
from nfldm3d.recording import folders
from nfldm3d.recording.folders import record_folders
from nfldm3d.recording.shards import ShardPlan, scene_key

WORLDS = {"a": "train", "b": "test", "c": "train"}
PLANS = [ShardPlan(f"{split}-00000{n}.tar", name, 2, tuple(range(4))) for n, (name, split) in enumerate(WORLDS.items())]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is recorded in this process."""

    def submit(function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future

    @contextmanager
    def start_workers(count: int) -> Iterator[Callable[..., "Future[Any]"]]:
        assert count >= 1
        yield submit

    monkeypatch.setattr(folders, "start_workers", start_workers)


def fill(folder: Path, plan: ShardPlan) -> tuple[list[str], int]:
    keys = [scene_key(plan.map, number) for number in plan.places[: plan.quota]]
    fresh = [key for key in keys if not (folder / key).is_dir()]
    for key in fresh:
        (folder / key).mkdir()
        (folder / key / "transforms.json").touch()
    return keys, 3 * len(fresh)


def record(folder: Path, share: Share | None = None):
    return record_folders(folder, PLANS, fill, options={"seed": 0}, workers=2, share=share, progress=False)


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_processes_share_the_scenes(tmp_path: Path, processes: int) -> None:
    reports = [record(tmp_path, Share(number, processes)) for number in reversed(range(processes))]
    splits = json.loads((tmp_path / "splits.json").read_text())
    assert {side: len(names) for side, names in splits.items()} == {"train": 4, "test": 2}
    assert set(splits["train"] + splits["test"]) == {path.parent.name for path in tmp_path.glob("*/*.json")}
    assert sum(report.scenes for report in reports) == 6 and sum(report.recorded_views for report in reports) == 18
    again = record(tmp_path)
    assert (again.scenes, again.missing, again.recorded_views) == (6, 0, 0)
    with pytest.raises(ValueError, match="seed"):
        record_folders(tmp_path, PLANS, fill, options={"seed": 1}, progress=False)


def test_no_scene_gets_lost_from_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that notes its scenes while another does so waits for it."""
    write, late = folders.atomic_write, []

    @contextmanager
    def write_slowly(path: Path) -> Iterator[Path]:
        with write(path) as temporary:
            yield temporary
            late.append((tmp_path / folders.LOCK).is_file())

    monkeypatch.setattr(folders, "atomic_write", write_slowly)
    record(tmp_path)
    assert late == [True] and not (tmp_path / folders.LOCK).exists()


@pytest.mark.parametrize("text", ["[]", '{"train": "all"}', '{"train": [1]}'])
def test_a_damaged_list_of_splits_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "splits.json").write_text(text)
    with pytest.raises(DataFormatError, match="splits.json"):
        record(tmp_path)
