"""Tests of training: the loop, and what it does when something goes wrong."""

import errno
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from toy_stage import Points, ToyStage

from nfldm3d.files import DataFormatError
from nfldm3d.signals import Interruption
from nfldm3d.training import DivergenceError, Evaluation, TrainingOptions, export_weights, read_weights, train
from nfldm3d.training.reports import Reports
from nfldm3d.training.run_folder import RunFolder

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")

OPTIONS = TrainingOptions(
    steps=20,
    save_every=5,
    evaluate_every=5,
    warmup_steps=3,
    ema_decay=0.9,
    learning_rate=0.01,
    log_every=4,
    precision="fp32",
)
TESTS = Path(__file__).parents[1]
FORK_WARNING = "ignore:This process .* is multi-threaded:DeprecationWarning"  # Python 3.12 on; torch forks workers


class CrashError(Exception):
    """The plug is pulled."""


def crash_at(call: int):
    def strike(now: int) -> None:
        if now == call:
            raise CrashError

    return strike


def signal_at(call: int, number: int):
    def strike(now: int) -> None:
        if now == call:
            os.kill(os.getpid(), number)

    return strike


def checkpoint_bytes(folder: Path, step: int) -> dict[str, bytes]:
    """Weights, averages and moments of a checkpoint."""
    return {path.name: path.read_bytes() for path in RunFolder(folder).checkpoint(step).glob("*.safetensors")}


def assert_same_run(first: Path, second: Path, step: int = 20) -> None:
    one, two = checkpoint_bytes(first, step), checkpoint_bytes(second, step)
    assert set(one) == {"model.safetensors", "ema.safetensors", "optimizer.safetensors"}
    assert one == two


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps that nothing disturbs."""
    folder = tmp_path_factory.mktemp("straight")
    result = train(ToyStage(), folder, options=OPTIONS)
    assert result.step == 20 and result.skipped == 0 and result.evaluation is not None
    return folder


def test_training_learns(tmp_path: Path) -> None:
    stage = ToyStage(plain=True)
    train(stage, tmp_path, options=replace(OPTIONS, steps=100, learning_rate=0.05, save_every=100, evaluate_every=0))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["group"] == "train"]
    assert len(losses) == 25 and losses[-1] < 0.05 * losses[0]


@pytest.mark.cuda
def test_a_run_on_the_cpu_may_follow_one_on_the_gpu(tmp_path: Path) -> None:
    devices = []
    for device in ("auto", "cpu"):
        stage = ToyStage(plain=True)
        train(stage, tmp_path / device, options=replace(OPTIONS, steps=2, device=device, evaluate_every=0))
        devices += {parameter.device.type for parameter in stage.model.parameters()}
    assert devices == ["cuda", "cpu"]


def test_crashed_run_goes_on_bit_for_bit(straight: Path, tmp_path: Path) -> None:
    with pytest.raises(CrashError):
        train(ToyStage(before_loss=crash_at(14)), tmp_path, options=OPTIONS)
    assert RunFolder(tmp_path).steps()[-1] == 10
    train(ToyStage(), tmp_path, options=OPTIONS, resume=True)
    assert_same_run(straight, tmp_path)


def test_evaluating_more_often_changes_nothing(straight: Path, tmp_path: Path) -> None:
    train(ToyStage(), tmp_path, options=replace(OPTIONS, evaluate_every=2, save_every=20, log_every=1))
    assert_same_run(straight, tmp_path)


@pytest.mark.filterwarnings(FORK_WARNING)
def test_workers_change_nothing(straight: Path, tmp_path: Path) -> None:
    train(ToyStage(), tmp_path, options=replace(OPTIONS, workers=2))
    assert_same_run(straight, tmp_path)


def test_seed_changes_everything(straight: Path, tmp_path: Path) -> None:
    train(ToyStage(), tmp_path, options=replace(OPTIONS, seed=1))
    assert checkpoint_bytes(tmp_path, 20) != checkpoint_bytes(straight, 20)


def test_global_generators_are_left_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    train(ToyStage(), tmp_path, options=replace(OPTIONS, steps=2))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_signal_finishes_the_step_and_saves(
    straight: Path, tmp_path: Path, number: signal.Signals, error: type, caplog: pytest.LogCaptureFixture
) -> None:
    handler = signal.getsignal(number)
    with pytest.raises(error) as caught:
        train(ToyStage(before_loss=signal_at(13, number)), tmp_path, options=OPTIONS)
    if error is SystemExit:
        assert caught.value.code == 143
    assert signal.getsignal(number) is handler
    assert RunFolder(tmp_path).steps()[-1] == 13
    assert "after step 13; go on with --resume" in caplog.text
    train(ToyStage(), tmp_path, options=OPTIONS, resume=True)
    assert_same_run(straight, tmp_path)


def test_signal_during_the_last_evaluation_is_not_forgotten(tmp_path: Path) -> None:
    stage = ToyStage()
    judge = stage.evaluate

    def evaluate(generator: torch.Generator) -> Evaluation:
        os.kill(os.getpid(), signal.SIGTERM)
        return judge(generator)

    stage.evaluate = evaluate
    with pytest.raises(SystemExit):
        train(stage, tmp_path, options=replace(OPTIONS, steps=2))
    assert RunFolder(tmp_path).steps() == [2]


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_second_signal_ends_at_once(number: signal.Signals, error: type, monkeypatch: pytest.MonkeyPatch) -> None:
    with Interruption() as interruption:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # a launcher repeats what the terminal sent
        assert interruption.wanted == number
        monkeypatch.setattr(interruption, "since", interruption.since - 2)
        with pytest.raises(error):
            os.kill(os.getpid(), number)


def test_accumulated_parts_equal_one_large_batch(tmp_path: Path) -> None:
    options = replace(OPTIONS, batch_size=2, accumulate=3)
    train(ToyStage(plain=True), tmp_path / "parts", options=options)
    train(ToyStage(plain=True), tmp_path / "whole", options=replace(options, batch_size=6, accumulate=1))
    parts, whole = (read_weights(tmp_path / name, which="newest")[1] for name in ("parts", "whole"))
    torch.testing.assert_close(parts["layers.0.weight"], whole["layers.0.weight"], rtol=0, atol=1e-6)


def test_every_epoch_is_another_permutation(tmp_path: Path) -> None:
    stage = ToyStage(plain=True)
    train(stage, tmp_path, options=replace(OPTIONS, steps=23, batch_size=2))
    seen = torch.cat(stage.seen)
    assert seen.shape == (46, 3)
    for epoch in seen.split(23):
        assert torch.equal(epoch.sort(0).values, stage.source.points.sort(0).values)
    assert not torch.equal(seen[:23], seen[23:])


def test_step_that_is_not_finite_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stage = ToyStage(plain=True)
    stage.before_loss = lambda call: setattr(stage, "factor", float("nan") if call in (3, 4) else 1.0)
    result = train(stage, tmp_path, options=replace(OPTIONS, max_bad_steps=3))
    assert result.skipped == 2 and "step 3 is skipped" in caplog.text
    tensors = load_file(RunFolder(tmp_path).checkpoint(20) / "model.safetensors")
    assert all(bool(value.isfinite().all()) for value in tensors.values())
    assert float(tensors["calls"]) == 18  # buffers too are as before


def test_diverged_run_stops(tmp_path: Path) -> None:
    stage = ToyStage()
    stage.before_loss = lambda call: setattr(stage, "factor", float("inf") if call > 6 else 1.0)
    with pytest.raises(DivergenceError, match="of 3 steps in a row, up to step 9"):
        train(stage, tmp_path, options=replace(OPTIONS, max_bad_steps=3))
    assert RunFolder(tmp_path).steps() == [5]


def test_time_budget_ends_the_run_and_the_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: 0.01 * next(ticks))  # each look at it takes a hundredth
    monkeypatch.setattr("nfldm3d.training.trainer.time", clock)
    result = train(ToyStage(), tmp_path, options=replace(OPTIONS, steps=10**6, time_budget=0.3, evaluate_every=0))
    assert 0 < result.step < 10**6 and 0.3 <= result.seconds < 0.32


def test_best_and_last_checkpoints_stay(tmp_path: Path) -> None:
    stage = ToyStage()
    judge = stage.evaluate
    scores = iter([1.0, 4.0, 3.0, float("nan")])
    stage.evaluate = lambda generator: replace(judge(generator), score=next(scores))
    result = train(stage, tmp_path, options=replace(OPTIONS, keep_last=1))
    assert (result.best_step, result.best_score) == (10, 4.0)
    folder = RunFolder(tmp_path)
    assert folder.steps() == [10, 20]
    assert folder.find("best") == folder.checkpoint(10) and folder.find("newest") == folder.checkpoint(20)


def test_logs_hold_every_step_once(tmp_path: Path) -> None:
    with pytest.raises(CrashError):
        train(ToyStage(before_loss=crash_at(10)), tmp_path, options=OPTIONS)
    with open(tmp_path / "log.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 9, "cut o')
    train(ToyStage(), tmp_path, options=OPTIONS, resume=True)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["group"] == "train"] == [4, 8, 12, 16, 20]
    assert [line["step"] for line in lines if line["group"] == "evaluation"] == [5, 10, 15, 20]
    assert list((tmp_path / "logs").glob("events*")) and (tmp_path / "images" / "noise.png").stat().st_size


def test_old_run_is_not_overwritten(straight: Path) -> None:
    with pytest.raises(ValueError, match=r"holds a run \(step 20\); add --resume"):
        train(ToyStage(), straight, options=OPTIONS)


def test_other_options_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(ToyStage(), tmp_path, options=replace(OPTIONS, steps=5))
    train(ToyStage(), tmp_path, options=replace(OPTIONS, steps=5, save_every=3), resume=True)
    assert "other options" not in caplog.text
    train(ToyStage(), tmp_path, options=replace(OPTIONS, steps=7, batch_size=2), resume=True)
    assert "batch_size 4 -> 2, steps 5 -> 7" in caplog.text


def test_options_that_strangers_wrote_are_told_in_a_line(straight: Path, tmp_path: Path, caplog) -> None:
    shutil.copytree(straight, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["options"]["betas"] = [0.9, [0] * 100_000]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    train(ToyStage(), tmp_path / "run", options=replace(OPTIONS, steps=21), resume=True)
    assert "betas [0.9, [0, 0" in caplog.text and all(len(record.getMessage()) < 700 for record in caplog.records)


def test_another_network_is_refused(straight: Path) -> None:
    with pytest.raises(DataFormatError, match="trains another network: width 5, not 6"):
        train(ToyStage(width=6), straight, options=OPTIONS, resume=True)
    stage = ToyStage(width=6)
    stage.config = lambda: {"width": 5}
    with pytest.raises(DataFormatError, match=r"3 of 5 weights differ \(layers.0.bias \(5,\), not \(6,\)"):
        train(stage, straight, options=OPTIONS, resume=True)
    stage = ToyStage()
    stage.model.layers[0].weight.requires_grad_(False)
    with pytest.raises(DataFormatError, match="has moments of layers.0.weight, which this run does not train"):
        train(stage, straight, options=OPTIONS, resume=True)
    stage.name = "other"
    with pytest.raises(DataFormatError, match="is a run of toy, not other"):
        train(stage, straight, options=OPTIONS, resume=True)


def damage_by_cutting(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def damage_by_flipping(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", [damage_by_cutting, damage_by_flipping, Path.unlink])
def test_damaged_checkpoint_falls_back(
    straight: Path, tmp_path: Path, name: str, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    folder = RunFolder(Path(shutil.copytree(straight, tmp_path / "copy")))
    damage(folder.checkpoint(20) / name)
    train(ToyStage(), folder.path, options=OPTIONS, resume=True)
    assert "falling back to the checkpoint before" in caplog.text and "step-00000020 is damaged" in caplog.text
    assert_same_run(straight, folder.path)
    assert (folder.checkpoints / "step-00000020.damaged").is_dir()


def test_only_damaged_checkpoints_are_an_error(straight: Path, tmp_path: Path) -> None:
    folder = RunFolder(Path(shutil.copytree(straight, tmp_path / "copy")))
    for step in folder.steps():
        damage_by_cutting(folder.checkpoint(step) / "model.safetensors")
    with pytest.raises(DataFormatError, match="holds damaged checkpoints only"):
        train(ToyStage(), folder.path, options=OPTIONS, resume=True)


def test_full_disk_keeps_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nfldm3d.training import run_folder

    usage = shutil._ntuple_diskusage(10**9, 10**9, 1000)

    def fill(call: int) -> None:
        if call == 8:
            monkeypatch.setattr(run_folder.shutil, "disk_usage", lambda path: usage)

    with pytest.raises(OSError, match=r"cannot save step 10 .*1 MiB are needed.*the checkpoint of step 5 is whole"):
        train(ToyStage(before_loss=fill), tmp_path, options=OPTIONS)
    assert [path.name for path in RunFolder(tmp_path).checkpoints.iterdir()] == ["step-00000005"]


def test_disk_that_fills_while_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    from nfldm3d.training import saved_state

    write = saved_state.write_tensors

    def write_half(path: Path, tensors: dict[str, Tensor]) -> None:
        write(path, tensors)
        if path.name == "ema.safetensors":
            raise SafetensorError("I/O error: No space left on device (os error 28)")

    def fill(call: int) -> None:
        if call == 8:
            monkeypatch.setattr(saved_state, "write_tensors", write_half)

    with pytest.raises(OSError, match=r"cannot save step 10 .*No space left.*the checkpoint of step 5 is whole"):
        train(ToyStage(before_loss=fill), tmp_path, options=OPTIONS)
    assert [path.name for path in RunFolder(tmp_path).checkpoints.iterdir()] == ["step-00000005"]


class BrokenPoints(Points):
    """Points of which some cannot be read."""

    broken: tuple[int, ...] = (3,)

    def sample(self, index: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if index in self.broken:
            raise DataFormatError(f"point{index}.png", "is no image; record it again")
        return super().sample(index, generator)


@pytest.mark.filterwarnings(FORK_WARNING)
@pytest.mark.parametrize("workers", [0, 1])
def test_broken_sample_is_replaced_and_told(tmp_path: Path, workers: int, caplog: pytest.LogCaptureFixture) -> None:
    stage = ToyStage()
    stage.source = BrokenPoints()
    train(stage, tmp_path, options=replace(OPTIONS, steps=6, workers=workers))
    assert len(stage.seen) == 6 and "point3.png: is no image" in caplog.text


@pytest.mark.parametrize("broken", [(3, 5, 7, 8, 9), tuple(range(23))])
def test_too_many_broken_samples_stop_the_run(tmp_path: Path, broken: tuple[int, ...]) -> None:
    stage = ToyStage()
    stage.source = BrokenPoints()
    stage.source.broken = broken
    with pytest.raises(ValueError, match=r"samples read are broken, .*point\d+.png: is no image"):
        train(stage, tmp_path, options=OPTIONS)


def test_no_samples(tmp_path: Path) -> None:
    stage = ToyStage()
    stage.source = Points(0)
    with pytest.raises(ValueError, match="toy has no samples to train on"):
        train(stage, tmp_path, options=OPTIONS)


def test_folder_in_use_is_refused(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom nfldm3d.training.run_folder import RunFolder\n"
        f"with RunFolder(Path({str(tmp_path)!r})).locked():\n    print('locked', flush=True)\n    time.sleep(3600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        with pytest.raises(ValueError, match=f"is in use by process {other.pid} on {socket.gethostname()}"):
            train(ToyStage(), tmp_path, options=OPTIONS)
        other.kill()
    train(ToyStage(), tmp_path, options=replace(OPTIONS, steps=1))  # a dead process holds nothing


def test_remains_of_a_killed_save_are_removed(tmp_path: Path) -> None:
    train(ToyStage(), tmp_path, options=replace(OPTIONS, steps=1))
    left = RunFolder(tmp_path).checkpoints / ".nfldm3d-step-00000005.0"
    left.mkdir()
    train(ToyStage(), tmp_path, options=replace(OPTIONS, steps=1), resume=True)
    assert not left.exists()


@pytest.mark.parametrize("name", ["lock.txt", "log.jsonl", "config.json"])
def test_a_folder_of_something_else_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=f"holds {name}, but no training run; choose another folder"):
        train(ToyStage(), tmp_path, options=replace(OPTIONS, steps=1))
    assert (tmp_path / name).read_text() == "{}" and len(list(tmp_path.iterdir())) == 1


def test_notes_in_an_old_checkpoint_are_kept(tmp_path: Path) -> None:
    train(ToyStage(), tmp_path, options=replace(OPTIONS, steps=1, save_every=1, keep_last=1))
    note = RunFolder(tmp_path).checkpoint(1) / "note.txt"
    note.write_text("mine")
    options = replace(OPTIONS, steps=3, save_every=1, keep_last=1, evaluate_every=0)
    train(ToyStage(), tmp_path, options=options, resume=True)
    assert note.read_text() == "mine"


@pytest.mark.parametrize("half", [False, True])
def test_exported_weights(straight: Path, tmp_path: Path, half: bool) -> None:
    export_weights(straight, tmp_path, which="newest", half=half)
    tensors = load_file(tmp_path / "model.safetensors")
    assert json.loads((tmp_path / "config.json").read_text()) == {"width": 5}
    averaged = load_file(RunFolder(straight).checkpoint(20) / "ema.safetensors")
    assert tensors["layers.0.weight"].dtype == (torch.float16 if half else torch.float32)
    torch.testing.assert_close(tensors["layers.0.weight"].float(), averaged["layers.0.weight"], rtol=1e-3, atol=1e-4)
    ToyStage().model.load_state_dict(tensors)


def test_weights_of_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match="has no whole checkpoint"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0}, {"learning_rate": -1.0}, {"learning_rate": float("nan")}, {"time_budget": 0.0},
        {"ema_decay": 1.0}, {"warmup_steps": -1}, {"betas": (0.9, 1.0)}, {"weight_decay": float("inf")},
    ],
)  # fmt: skip
def test_wrong_options(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainingOptions(**wrong)


def test_half_precision_goes_on_bit_for_bit(tmp_path: Path) -> None:
    options = replace(OPTIONS, precision="bf16", device="cpu", steps=8)
    train(ToyStage(), tmp_path / "straight", options=options)
    with pytest.raises(CrashError):
        train(ToyStage(before_loss=crash_at(7)), tmp_path / "crashed", options=options)
    train(ToyStage(), tmp_path / "crashed", options=options, resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "crashed", 8)
    weights = read_weights(tmp_path / "crashed")[1]
    assert all(value.dtype == torch.float32 for value in weights.values())


def test_strides_of_weights_survive(tmp_path: Path) -> None:
    """Moments of channels-last weights are channels-last again, or the fused optimiser would mix them up."""
    from nfldm3d.training.processes import make_optimizer
    from nfldm3d.training.saved_state import Progress, TrainingState, load_checkpoint, save_checkpoint

    states = []
    for _ in range(2):
        torch.manual_seed(0)
        model = torch.nn.Conv2d(4, 5, 3).to(memory_format=torch.channels_last)
        states.append(TrainingState(model, make_optimizer(model, OPTIONS), None, None, Progress()))
    images = torch.randn(2, 4, 6, 7)

    def descend(state: TrainingState) -> None:
        state.optimizer.zero_grad()
        state.model(images).square().mean().backward()
        state.optimizer.step()

    descend(states[0])
    save_checkpoint(tmp_path / "step", states[0])
    load_checkpoint(tmp_path / "step", states[1])
    for state in states:
        descend(state)
    assert torch.equal(states[0].model.weight, states[1].model.weight)


def test_precision_needs_its_device(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="precision fp16 needs a CUDA device"):
        train(ToyStage(), tmp_path, options=replace(OPTIONS, precision="fp16", device="cpu"))


def test_schedule() -> None:
    options = TrainingOptions(steps=100, warmup_steps=9, learning_rate=2.0, time_budget=50.0)
    assert options.rate(0, 0.0) == pytest.approx(0.2)
    assert options.rate(9, 0.0) == pytest.approx(2.0)
    assert options.rate(99, 1.0) == pytest.approx(0.04)
    assert options.rate(50, 0.5) == pytest.approx(1.02)
    assert replace(options, schedule="constant").rate(99, 1.0) == 2.0
    assert options.share(20, 5.0) == pytest.approx(0.2) and options.share(20, 40.0) == pytest.approx(0.8)
    assert asdict(options)["steps"] == 100


def start_program(arguments: list[str], environment: dict[str, str]) -> subprocess.Popen:
    command = [sys.executable, str(TESTS / "toy_stage.py"), *arguments]
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | environment)


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_gpu(tmp_path: Path, precision: str) -> None:
    options = replace(OPTIONS, precision=precision, steps=40)
    train(ToyStage(), tmp_path, options=replace(options, steps=20))
    result = train(ToyStage(), tmp_path, options=options, resume=True)
    assert result.step == 40 and result.skipped == 0
    assert all(value.isfinite().all() for value in read_weights(tmp_path)[1].values())


@pytest.mark.slow
def test_killed_process_goes_on_bit_for_bit(tmp_path: Path) -> None:
    straight, killed = str(tmp_path / "straight"), str(tmp_path / "killed")
    assert start_program([straight, "20", "4"], {}).wait(600) == 0
    assert start_program([killed, "20", "4", "--kill-at", "13"], {}).wait(600) == -signal.SIGKILL
    assert RunFolder(Path(killed)).steps()[-1] == 10
    assert start_program([killed, "20", "4", "--resume"], {}).wait(600) == 0
    assert_same_run(Path(straight), Path(killed))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_two_processes_equal_one_with_a_double_batch(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}

    def run_both(*arguments: str, stop: int = -1) -> list[int]:
        orders = [[], ["--kill-at", str(stop), "--signal", str(int(number))]]
        both = [
            start_program(
                [str(tmp_path / "two"), "20", "4", "--plain", *arguments, *(orders[rank] if stop >= 0 else [])],
                address | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(2)
        ]
        return [process.wait(600) for process in both]

    assert start_program([str(tmp_path / "one"), "20", "8", "--plain"], {}).wait(600) == 0
    assert run_both(stop=13) == [code, code]  # one of them was asked to stop: both do, after the same step
    assert RunFolder(tmp_path / "two").steps()[-1] == 13
    assert run_both("--resume") == [0, 0]
    for file in ("model", "ema", "optimizer"):
        one, two = (
            load_file(RunFolder(tmp_path / name).checkpoint(20) / f"{file}.safetensors") for name in ("one", "two")
        )
        for name in one:
            torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-5)


def test_a_full_disk_is_told_once_and_not_by_threads(tmp_path, monkeypatch, capsys):
    def write(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", write)
    before = threading.excepthook
    with (
        pytest.raises(OSError, match=r"cannot write .*logs: No space left.*make room"),
        Reports(tmp_path, "toy", -1, 9) as reports,
    ):
        for step in range(1000):
            reports.scalars(step, {"loss": 1.0}, "training")
    assert threading.excepthook is before
    assert "Traceback" not in capsys.readouterr().err
