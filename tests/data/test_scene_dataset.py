"""The reader of shards, its order, and how it goes on."""

import json
import logging
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
import torch
from small_scenes import small_scene

from nfldm3d.data.scene_dataset import SceneDataset, SceneLoader, SceneOrder
from nfldm3d.data.scene_shards import rebuild_index, write_shard
from nfldm3d.files import DataFormatError

torchdata = pytest.importorskip("torchdata")


def write_scenes(folder: Path, count: int, per_shard: int = 8) -> Path:
    for shard, start in enumerate(range(0, count, per_shard)):
        numbers = range(start, min(start + per_shard, count))
        write_shard(folder / f"train-{shard:06d}.tar", [small_scene(number, views=2) for number in numbers])
    write_shard(folder / "test-000000.tar", [small_scene(0, map_name="MAP05", split="test")])
    rebuild_index(folder)
    return folder


def damage(folder: Path, key: str, extension: str = "rgb.png") -> None:
    """Overwrites the beginning of one file of a scene."""
    scene = next(scene for scene in json.loads((folder / "index.json").read_text())["scenes"] if scene["key"] == key)
    with open(folder / scene["shard"], "r+b") as file:
        file.seek(scene["members"][extension][0])
        file.write(b"nothing at all")


def keys(batches) -> list[list[str]]:
    return [[sample.key for sample in batch] for batch in batches]


def test_scenes_are_picked_by_split_and_map(tmp_path: Path):
    write_shard(tmp_path / "train-000000.tar", [small_scene(3), small_scene(4, map_name="MAP02")])
    write_shard(tmp_path / "test-000000.tar", [small_scene(5, map_name="MAP05", split="test")])
    rebuild_index(tmp_path)
    assert SceneDataset(tmp_path).keys == ("MAP01_0003", "MAP02_0004")
    assert SceneDataset(tmp_path, split="test").keys == ("MAP05_0005",)
    assert SceneDataset(tmp_path, split="all", maps=["MAP02", "MAP05"]).keys == ("MAP05_0005", "MAP02_0004")
    dataset = SceneDataset(tmp_path)
    assert len(dataset) == 2 and torch.equal(dataset[1].images, small_scene(4, map_name="MAP02").images)
    assert [sample.key for sample in dataset] == list(dataset.keys)
    assert len(ForkingPickler.dumps(dataset)) < 20_000  # what a worker gets is the index, not the data
    with pytest.raises(DataFormatError, match=r"has no train scenes of maps MAP05, but 3 others such as"):
        SceneDataset(tmp_path, maps=["MAP05"])


@pytest.mark.parametrize("ranks", [1, 3])
def test_every_epoch_is_a_permutation_shared_out(ranks: int):
    for epoch in (0, 1):
        parts = [SceneOrder(20, seed=5, rank=rank, ranks=ranks).numbers(epoch) for rank in range(ranks)]
        assert {len(part) for part in parts} == {20 // ranks}
        together = [number for part in parts for number in part]
        assert len(set(together)) == len(together) and set(together) <= set(range(20))
    order = SceneOrder(20, seed=5)
    first, second = list(order), list(order)
    assert order.epoch == 2 and sorted(first) == sorted(second) == list(range(20)) and first != second
    assert first == list(SceneOrder(20, seed=5)) != list(SceneOrder(20, seed=6))
    assert list(SceneOrder(4, shuffle=False)) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="rank < ranks"):
        SceneOrder(20, rank=2, ranks=2)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torch's workers may abort as they end
@pytest.mark.parametrize(
    ("taken", "workers"), [(0, 0), (3, 0), (5, 0), (7, 0), pytest.param(7, 2, marks=pytest.mark.slow)]
)
def test_a_loader_goes_on_where_it_was_stopped(tmp_path: Path, taken: int, workers: int):
    """Five batches an epoch: the state is taken before, within and at the end of one, and within the second."""
    dataset = SceneDataset(write_scenes(tmp_path, 21))

    def run(loader: SceneLoader, batches: int) -> list[list[str]]:
        found: list[list[str]] = []
        while len(found) < batches:
            for batch in loader:
                found += keys([batch])
                if len(found) == batches:
                    break
        return found

    def make() -> SceneLoader:
        return SceneLoader(dataset, batch_size=4, seed=3, workers=workers)

    stopped, resumed = make(), make()
    assert len(stopped) == 5
    before = run(stopped, taken)
    state = json.loads(json.dumps(stopped.state_dict()))
    resumed.load_state_dict(state)
    assert before + run(resumed, 12 - taken) == run(make(), 12)


def test_a_state_of_other_data_is_refused(tmp_path: Path):
    dataset = SceneDataset(write_scenes(tmp_path, 12))
    loader = SceneLoader(dataset, batch_size=2)
    next(iter(loader))
    with pytest.raises(ValueError, match="the state is of 1 processes, not 2; go on with as many"):
        other = SceneLoader(dataset, batch_size=2, ranks=2)
        other.load_state_dict(loader.state_dict())
        next(iter(other))
    with pytest.raises(ValueError, match="batch_size must lie between 1 and the 12 scenes"):
        SceneLoader(dataset, batch_size=13)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_bad_scenes_are_replaced_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture, workers: int):
    folder = write_scenes(tmp_path, 40)
    damage(folder, "MAP01_0007")
    damage(folder, "MAP01_0020", "json")
    dataset = SceneDataset(folder)
    with pytest.raises(DataFormatError, match=r"train-000000.tar/MAP01_0007.rgb.png: is no PNG picture"):
        dataset[dataset.keys.index("MAP01_0007")]
    loader = SceneLoader(dataset, batch_size=4, workers=workers)
    with caplog.at_level(logging.WARNING):
        found = [key for batch in keys(loader) for key in batch]
    assert len(found) == 40 and set(found) == set(dataset.keys) - {"MAP01_0007", "MAP01_0020"}
    assert set(loader.problems) == {"MAP01_0007", "MAP01_0020"} and len(caplog.records) == 2
    damage(folder, "MAP01_0021")
    with pytest.raises(DataFormatError, match=r"3 of 40 scenes cannot be used, above 5 % it stops; .*MAP01_00"):
        list(loader)


def test_truncated_shards_lose_their_last_scenes(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = write_scenes(tmp_path, 40)
    path = folder / "train-000004.tar"
    entries = json.loads((folder / "index.json").read_text())["scenes"]
    start = next(scene["members"]["json"][0] for scene in entries if scene["key"] == "MAP01_0039")
    whole = path.read_bytes()
    path.write_bytes(whole[: start + 100])
    with caplog.at_level(logging.WARNING):
        dataset = SceneDataset(folder)
    assert len(dataset) == 39 and set(dataset.problems) == {"MAP01_0039"} and "copy the shard again" in caplog.text
    assert [sample.key for sample in dataset] == [f"MAP01_{number:04d}" for number in range(39)]
    path.write_bytes(whole[:100])
    with pytest.raises(DataFormatError, match=r"8 of 40 scenes cannot be used, above 5 % it stops.*ends at byte 100"):
        SceneDataset(folder)
    path.unlink()
    with pytest.raises(DataFormatError, match=r"8 of 40 scenes cannot be used.*is missing"):
        SceneDataset(folder)
    path.write_bytes(whole + bytes(512))
    with pytest.raises(
        DataFormatError, match=r"train-000004.tar: has \d+ bytes, the index says \d+; run rebuild_index"
    ):
        SceneDataset(folder)
