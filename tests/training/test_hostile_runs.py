"""What strangers put into run folders is refused in words, and nothing outside is written."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from nfldm3d.files import DataFormatError
from nfldm3d.training.reports import _forget_after
from nfldm3d.training.run_folder import VERSION, RunFolder
from nfldm3d.training.saved_state import STATE, VERSION as STATE_VERSION, Progress, read_progress


def test_lines_of_logs_that_are_none_are_forgotten(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    good = b'{"step": 3, "loss": 1.5}\n'
    log.write_bytes(good + b'[3]\n{"loss": 1}\n{"step": "x"}\n\xff\xfe\n7\n' + b"[" * 100_000 + b'\n{"step": 9}\n')
    _forget_after(log, 5)
    assert log.read_bytes() == good


def test_logs_that_are_links_are_not_written(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    log = tmp_path / "run" / "log.jsonl"
    log.symlink_to(tmp_path / "outside")  # which is not there, and is not to appear
    with pytest.raises(DataFormatError, match=r"log.jsonl: is a link or no file"):
        _forget_after(log, 5)
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("name", ["model", "options"])
def test_configs_of_runs_hold_tables(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"version": VERSION, "stage": "toy", name: [1]}))
    with pytest.raises(DataFormatError, match=f"config.json: {name} is no table; choose another run folder"):
        RunFolder(tmp_path).read_config()


@pytest.mark.parametrize(("name", "value"), [("step", "7"), ("step", -1), ("samples", 1.5), ("seconds", None)])
def test_progress_is_numbers(name: str, value: object, tmp_path: Path) -> None:
    for progress in (asdict(Progress(step=5, seconds=2.0)), asdict(Progress()) | {name: value}):
        (tmp_path / STATE).write_text(json.dumps({"version": STATE_VERSION, "progress": progress}))
        if progress["step"] == 5:
            assert read_progress(tmp_path) == Progress(step=5, seconds=2.0)
    with pytest.raises(DataFormatError, match=f"{name} is .*, which is no progress"):
        read_progress(tmp_path)
