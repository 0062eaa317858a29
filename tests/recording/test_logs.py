"""Logs of real drives become shards and captures: the same scenes, whichever way they are taken."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from small_logs import write_nuscenes

from nfldm3d.cli import main
from nfldm3d.cli.scene_sets import open_scenes
from nfldm3d.data import SceneFolder
from nfldm3d.data.logs import LogCut
from nfldm3d.data.scene_shards import rebuild_index, write_shard
from nfldm3d.files import DataFormatError
from nfldm3d.recording import logs

CUT = LogCut(box=(16.0, 24.0, 8.0), stops=1, longest=32, spacing=6.0)
OPTIONS = ["--box", "16", "24", "8", "--stops", "1", "--longest", "32", "--spacing", "6"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    root = write_nuscenes(tmp_path / "log", moments=(8, 1))
    (root / "splits.json").write_text(json.dumps({"train": ["scene-0061"], "test": ["scene-0103"]}))
    return root


def test_shards_hold_the_scenes_of_the_log(log: Path, tmp_path: Path):
    scenes = open_scenes(log, "all", whole=True, cut=CUT)
    assert isinstance(scenes, SceneFolder)
    plans = logs.plan_shards(scenes)
    assert [plan.name for plan in plans] == ["train-000000.tar", "test-000000.tar"]
    (tmp_path / "shards").mkdir()
    for plan in plans:
        samples = logs.record_samples(log, "all", CUT, plan)
        assert len(samples) == plan.quota == len(plan.places)
        write_shard(tmp_path / "shards" / plan.name, samples)
    rebuild_index(tmp_path / "shards")
    shards = open_scenes(tmp_path / "shards", "train")
    assert shards.keys == tuple(key for key in scenes.keys if "0061" in key) and len(shards) > 1
    sample = scenes[0]
    assert torch.equal(shards[0].images, sample.images) and len(sample.images) == 6
    assert torch.allclose(shards[0].known_depth(), sample.known_depth(), atol=1e-3)


def test_captures_are_written_once_and_read_back(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "captures"
    command = ["capture", "log", str(log), "--out", str(out), "--layout", "captures", *OPTIONS]
    assert main(command) == 0
    figures = json.loads(capsys.readouterr().out)
    scenes = SceneFolder(log, split="all", cut=CUT)
    assert figures["scenes"] == len(scenes) and figures["missing"] == 0
    again = SceneFolder(out, split="train", views=None)
    assert set(again.keys) == {scene.key for scene in scenes.scenes if scene.split == "train"}
    sample, read = scenes[0], again[0]
    assert torch.equal(read.images, sample.images) and read.box == sample.box and read.masks is not None
    assert read.metadata["objects"] == sample.metadata["objects"] and read.bev is not None
    assert torch.allclose(read.known_depth(), sample.known_depth(), atol=6e-4)
    assert main(command) == 0 and json.loads(capsys.readouterr().out)["views_per_second"] == 0
    assert main([*command[:-1], "4"]) == 2 and "spacing 6.0, not 4.0" in capsys.readouterr().err


def test_bad_scenes_are_left_out_and_bad_drives_named(log: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    scenes = SceneFolder(log, split="all", cut=CUT)
    plan, stretch = logs.plan_shards(scenes)[0], scenes.scenes[0].stretch
    logs._open.cache_clear()
    assert stretch is not None
    for file in log.glob(f"samples/CAM_BACK/d-scene-0061-{stretch.stops[0]}-*"):
        file.unlink()
    samples = logs.record_samples(log, "all", CUT, plan)
    assert 0 < len(samples) < plan.quota and "a scene is left out: " in caplog.text
    shutil.rmtree(log / "samples" / "CAM_BACK")
    with pytest.raises(DataFormatError, match=r"CAM_BACK/.*jpg: is missing"):
        logs.record_samples(log, "all", CUT, plan)


def test_shards_need_a_lidar_and_a_log(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    table = log / "v1.0-mini" / "sample_data.json"
    rows = json.loads(table.read_text())
    table.write_text(json.dumps([row for row in rows if row["calibrated_sensor_token"] != "c-LIDAR_TOP"]))
    logs._open.cache_clear()
    plan = logs.plan_shards(SceneFolder(log, split="all", cut=CUT))[0]
    with pytest.raises(DataFormatError, match="has no lidar sweeps, so no depth, which shards need"):
        logs.record_samples(log, "all", CUT, plan)
    assert main(["capture", "log", str(tmp_path), "--out", str(tmp_path / "new")]) == 3
    assert "holds no log of a vehicle" in capsys.readouterr().err and not (tmp_path / "new").exists()
