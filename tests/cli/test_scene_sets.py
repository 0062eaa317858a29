"""Commands on data sets: the same names do not make the same data, and all views that are asked for are read."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from small_colmaps import write_text
from small_rooms import labelled, room_sample

from nfldm3d.cli import main
from nfldm3d.data.scene_shards import rebuild_index, write_shard


def told(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


@pytest.mark.parametrize("command", ["encode", "evaluate"])
def test_other_data_of_the_same_names_is_refused(
    command: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("first", "second")):
        (tmp_path / name).mkdir()
        write_shard(tmp_path / name / "test-000000.tar", [replace(labelled(number), key="room", split="test")])
        rebuild_index(tmp_path / name)
    given = ["--weights", str(weights), "--split", "test", "--out", str(tmp_path / "out"), "--device", "cpu"]
    before = ["encode"] if command == "encode" else ["evaluate", "autoencoders", "--views", "2", "--json", "--data"]
    assert main([*before, str(tmp_path / "first"), *given]) == 0
    assert main([*before, str(tmp_path / "first"), *given]) == 0
    assert main([*before, str(tmp_path / "second"), *given]) == 2
    assert " with data '" in capsys.readouterr().err


def test_all_views_of_a_capture_can_be_encoded(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    room_sample(views=30).posed_images().save(tmp_path / "room")
    given = ["--weights", str(weights), "--device", "cpu"]
    encode = ["encode", str(tmp_path / "room"), "--out", str(tmp_path / "room.nfld"), *given]
    assert main([*encode, "--views", "40"]) == 0
    assert told(capsys)["views"] == 30
    evaluate = ["evaluate", "autoencoders", "--data", str(tmp_path / "room"), *given, "--json"]
    assert main([*evaluate, "--views", "24"]) == 0
    assert told(capsys)["views"] == 6, "views that were not encoded"


def test_pictures_of_a_model_are_found_beside_it(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (write_text(tmp_path / "hall") / "images").rename(tmp_path / "hall" / "images_4")
    given = ["encode", str(tmp_path / "hall"), "--weights", str(weights), "--device", "cpu", "--out"]
    assert main([*given, str(tmp_path / "hall.nfld"), "--images", "images_4"]) == 0, capsys.readouterr().err
    assert main([*given, str(tmp_path / "none.nfld"), "--images", "images_5"]) == 3
    assert "images_5: is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--images", "pictures"], ["--up", "-y"]])
def test_shards_leave_nothing_to_say_about_pictures(
    option: list[str], shards: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--weights", str(weights), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["encode", str(shards), *given, *option]) == 2
    assert "holds shards" in capsys.readouterr().err and not (tmp_path / "out").exists()
