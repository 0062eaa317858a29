"""The index of a recording that several processes share knows the shards of all of them at any time."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from small_scenes import small_scene

from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.data.scene_shards import read_index, write_shard
from nfldm3d.jobs import Share
from nfldm3d.recording import shards
from nfldm3d.recording.shards import ShardPlan, record_shards

PLANS = [ShardPlan(f"train-{number:06d}.tar", "MAP01", 1, (number,)) for number in range(4)]


def scenes_of(plan: ShardPlan) -> list[SceneSample]:
    return [small_scene(number, views=2) for number in plan.places]


def submit(function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
    future: Future[Any] = Future()
    try:
        future.set_result(function(*arguments))
    except KeyboardInterrupt as error:
        future.set_exception(error)
    return future


@contextmanager
def start_workers(count: int) -> Iterator[Callable[..., "Future[Any]"]]:
    yield submit


def test_a_process_that_is_killed_leaves_the_shards_of_others_in_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "start_workers", start_workers)
    monkeypatch.setattr(shards, "as_completed", list)  # in order

    def record(plan: ShardPlan) -> list[SceneSample]:
        if plan == PLANS[2]:  # the other process has begun after this one, and was faster
            write_shard(tmp_path / PLANS[1].name, scenes_of(PLANS[1]))
            raise KeyboardInterrupt
        return scenes_of(plan)

    with pytest.raises(KeyboardInterrupt):
        record_shards(tmp_path, PLANS, record, options={}, share=Share(0, 2), progress=False)
    assert [shard.name for shard in read_index(tmp_path).shards] == [PLANS[0].name, PLANS[1].name]
    report = record_shards(tmp_path, PLANS, scenes_of, options={}, share=Share(0, 2), progress=False)
    assert (report.scenes, report.missing, report.recorded_views) == (3, 1, 2)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
