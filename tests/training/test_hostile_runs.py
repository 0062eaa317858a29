"""What strangers put into run folders is refused in words, and nothing outside is written."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy_stage import ToyStage

from nfldm3d.files import DataFormatError
from nfldm3d.tensor_files import read_tensors, write_tensors
from nfldm3d.training import TrainingOptions, train
from nfldm3d.training.averaging import AveragedWeights
from nfldm3d.training.processes import make_optimizer
from nfldm3d.training.reports import _forget_after
from nfldm3d.training.run_folder import VERSION, RunFolder
from nfldm3d.training.saved_state import (
    EMA,
    MODEL,
    OPTIMIZER,
    STATE,
    VERSION as STATE_VERSION,
    Progress,
    TrainingState,
    find_damage,
    load_checkpoint,
    read_progress,
)

pytest.importorskip("accelerate")


def test_lines_of_logs_that_are_none_are_forgotten(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    good = b'{"step": 3, "loss": 1.5}\n'
    log.write_bytes(good + b'[3]\n{"loss": 1}\n{"step": "x"}\n\xff\xfe\n7\n' + b"[" * 100_000 + b'\n{"step": 9}\n')
    _forget_after(log, 5)
    assert log.read_bytes() == good


def test_configs_that_are_links_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("{}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").symlink_to(tmp_path / "outside")
    with pytest.raises(DataFormatError, match=r"config.json: is a link that leads outside"):
        RunFolder(tmp_path / "run").require_own()


def test_manifests_that_are_links_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("{}")
    (tmp_path / "step").mkdir()
    (tmp_path / "step" / "manifest.json").symlink_to(tmp_path / "outside")
    assert "is a link that leads outside" in (find_damage(tmp_path / "step") or "")


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


def alter(moments: dict[str, Tensor], name: str, value: Tensor | None) -> dict[str, Tensor]:
    key = next(key for key in moments if key.startswith(name))
    return {old: kept for old, kept in moments.items() if old != key} | ({} if value is None else {key: value})


@pytest.mark.parametrize(
    ("file", "name", "value", "problem"),
    [
        (OPTIMIZER, "exp_avg/", torch.zeros(1), r"exp_avg/.* is torch.float32 of shape \(1,\), not"),
        (OPTIMIZER, "exp_avg_sq/", None, "lacks exp_avg_sq of"),
        (OPTIMIZER, "step/", torch.zeros(2), "step/.* of shape"),
        (OPTIMIZER, "step/", torch.tensor(float("nan")), "NaN or infinity"),
        (EMA, "", torch.zeros(1), "belongs to another architecture"),
        (EMA, "", None, "belongs to another architecture"),
        (MODEL, "layers.0.weight", torch.full((5, 3), float("inf")), "NaN or infinity"),
    ],
)
def test_states_of_something_else_are_refused_and_change_nothing(
    file: str, name: str, value: Tensor | None, problem: str, tmp_path: Path
) -> None:
    options = TrainingOptions(steps=2, batch_size=2, evaluate_every=0, ema_decay=0.9, precision="fp32")
    train(ToyStage(), tmp_path, options=options)
    path = RunFolder(tmp_path).checkpoint(2) / file
    write_tensors(path, alter(read_tensors(path), name, value))
    stage = ToyStage()
    optimizer = make_optimizer(stage.model, options)
    state = TrainingState(stage.model, optimizer, AveragedWeights(stage.model, 0.9), None, Progress())
    before = {key: kept.clone() for key, kept in stage.model.state_dict().items()}
    with pytest.raises(DataFormatError, match=problem):
        load_checkpoint(path.parent, state)
    assert all(torch.equal(before[key], kept) for key, kept in stage.model.state_dict().items())
