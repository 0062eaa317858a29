"""Jobs that torchrun's processes share: whoever comes first or alone, the whole is the same."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_rooms import labelled, scene_generator

from nfldm3d.cli import main
from nfldm3d.data.scene_shards import ShardIndex, write_index, write_shard


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four recorded scenes, and networks."""
    root = tmp_path_factory.mktemp("place")
    (root / "scenes").mkdir()
    samples = [replace(labelled(number), key=f"test_{number}", split="test") for number in range(4)]
    shard, entries = write_shard(root / "scenes" / "test-000000.tar", samples)
    write_index(root / "scenes", ShardIndex((shard,), entries))
    scene_generator().save_pretrained(root / "weights")
    return root


def jobs(place: Path, out: Path) -> dict[str, list[str]]:
    given = ["--weights", str(place / "weights"), "--device", "cpu"]
    scenes = str(place / "scenes")
    look = ["--frames", "0", "--no-mesh", "--width", "8", "--height", "6", "--steps", "1"]
    return {
        "encode": ["encode", scenes, "--split", "test", "--out", str(out), *given],
        "generate": ["generate", "--scenes", "3", "--out", str(out), *look, *given],
        "evaluate": [
            "evaluate",
            "autoencoders",
            "--data",
            scenes,
            "--views",
            "2",
            "--out",
            str(out),
            *given,
            "--json",
        ],
    }


def files(folder: Path) -> dict[str, bytes]:
    """What a job has made, without its own notes."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".nfldm3d.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def result(text: str) -> dict:
    return json.loads(text.strip().splitlines()[-1])


@pytest.mark.parametrize("name", ["encode", pytest.param("generate", marks=pytest.mark.slow), "evaluate"])
def test_two_processes_make_what_one_makes(
    name: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One after the other, in either order, and once more: nobody waits, and nothing is made twice."""
    assert main(jobs(place, tmp_path / "alone")[name]) == 0
    alone = result(capsys.readouterr().out)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for order in ("01", "10"):
        out = tmp_path / order
        for rank in order:
            monkeypatch.setenv("RANK", rank)
            assert main(jobs(place, out)[name]) == 0
            told = result(capsys.readouterr().out)
        assert files(out).keys() == files(tmp_path / "alone").keys()
        if name == "evaluate":
            assert told == alone
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if path.suffix != ".json"}
        assert main(jobs(place, out)[name]) == 0
        assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if path.suffix != ".json"}


def test_an_evaluation_that_is_shared_needs_a_folder(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    command = jobs(place, tmp_path)["evaluate"]
    start = command.index("--out")
    assert main([*command[:start], *command[start + 2 :]]) == 2
    assert "several processes share an evaluation through a folder; give --out" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encode", "evaluate"])
def test_two_processes_at_the_same_time(name: str, place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "nfldm3d.cli", *jobs(place, out)[name]],
            env=os.environ | {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0], told
    assert len(list(out.glob("*.safetensors"))) == 4
    if name == "encode":
        assert sum(result(text)["written"] for text, _ in told) == 4
    else:
        assert any("scene_autoencoder" in result(text) for text, _ in told)
