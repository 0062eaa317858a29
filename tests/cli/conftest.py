"""Data and weights that the tests of commands share, too small to be of use."""

from dataclasses import replace
from pathlib import Path

import pytest
from small_rooms import labelled, scene_generator

from nfldm3d.data.scene_shards import ShardIndex, write_index, write_shard
from nfldm3d.models.nfldm.readers import BevReader, FrameClassifier


@pytest.fixture(autouse=True)
def without_large_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that come with packages take seconds to load, and longer on pictures drawn out to 224 pixels."""
    monkeypatch.setattr("nfldm3d.evaluation.features.EfficientNetFeatures.find", lambda: None)
    monkeypatch.setattr("nfldm3d.evaluation.metrics.Lpips.find_like", lambda: None)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, written = tmp_path_factory.mktemp("shards"), []
    for split in ("train", "test"):
        samples = [replace(labelled(n), key=f"{split}_{n}", split=split) for n in range(4)]
        written.append(write_shard(folder / f"{split}-000000.tar", samples))
    write_index(folder, ShardIndex(tuple(s for s, _ in written), tuple(s for _, entries in written for s in entries)))
    return folder


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator with a small classifier and reader."""
    folder = tmp_path_factory.mktemp("weights")
    scene_generator().save_pretrained(folder)
    FrameClassifier(maps=2, classes=2, size=16, features=4, width=8).save_pretrained(folder / "frame_classifier")
    BevReader((8, 8, 4), 5, 3, (8, 8)).save_pretrained(folder / "bev_reader")
    return folder
