"""The reader of shards: which scenes, and what becomes of broken ones."""

import json
import logging
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
import torch
from small_scenes import small_scene

from nfldm3d.data.scene_dataset import SceneDataset
from nfldm3d.data.scene_shards import rebuild_index, write_shard
from nfldm3d.files import DataFormatError


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


def test_bad_scenes_are_named(tmp_path: Path):
    folder = write_scenes(tmp_path, 9)
    damage(folder, "MAP01_0007")
    dataset = SceneDataset(folder)
    with pytest.raises(DataFormatError, match=r"train-000000.tar/MAP01_0007.rgb.png: is no PNG picture"):
        dataset[dataset.keys.index("MAP01_0007")]


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
