"""The loop that knows nothing of photographs: it finds minima, goes on where it was, and says where it went wrong."""

import math
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from balls import BOX, Ball
from safetensors.torch import save
from torch import Tensor, nn

from nfldm3d import Camera, Rgb, Scene, render
from nfldm3d.files import DataFormatError
from nfldm3d.fitting import Checkpoint, OptimisationError, Schedule, Step, TensorParameters, optimise
from nfldm3d.fitting.checkpoint import VERSION, _digest, before, remove_checkpoint
from nfldm3d.tensor_files import write_tensors

COARSE = (0.3, 0.3, 0.3)
GOAL = torch.tensor([1.0, -2.0, 0.5])


def distance_to(point: Tensor) -> Callable[[Step], Tensor]:
    return lambda step: (point - GOAL).square().sum()


def test_tensors_reach_the_minimum():
    point = torch.zeros(3)
    end = optimise({"point": point}, distance_to(point), Schedule(400, rate=0.1, final_rate=0.01), progress=False)
    torch.testing.assert_close(point.detach(), GOAL, atol=1e-3, rtol=0)
    assert end.number == 400 and end.losses["loss"] < 1e-5 and end.seconds > 0


def test_modules_and_tensors_are_moved_together(generator: torch.Generator):
    layer, shift = nn.Linear(2, 1, bias=False), torch.zeros(1)
    inputs = torch.rand(64, 2, generator=generator)
    wanted = inputs @ torch.tensor([[2.0], [-1.0]]) + 3

    def loss(step: Step) -> dict[str, Tensor]:
        return {"miss": (layer(inputs) + shift - wanted).square().mean(), "size": 0 * shift.sum()}

    end = optimise({"layer": layer, "shift": shift}, loss, Schedule(800, rate=0.2, final_rate=0.01), progress=False)
    assert layer.weight.tolist()[0] == pytest.approx([2.0, -1.0], abs=0.02)
    assert shift.tolist() == pytest.approx([3.0], abs=0.02)
    assert set(end.losses) == {"miss", "size"}


def test_adam_is_that_of_torch():
    ours, theirs = torch.zeros(3), torch.zeros(3, requires_grad=True)
    adam = torch.optim.Adam([theirs], lr=0.1, betas=(0.9, 0.99), eps=1e-15)
    for number in range(20):
        for group in adam.param_groups:
            group["lr"] = 0.1 * 0.2 ** (number / 20)
        adam.zero_grad()
        distance_to(theirs)(Step()).backward()
        adam.step()
    optimise({"ours": ours}, distance_to(ours), Schedule(20, rate=0.1, final_rate=0.2), progress=False)
    assert torch.equal(ours.detach(), theirs.detach())


def test_rates_belong_to_parts():
    fast, slow = torch.zeros(1), torch.zeros(1)
    parameters = TensorParameters({"fast": fast, "slow": slow}, rates={"slow": 0.1})
    optimise(parameters, lambda step: -(fast + slow).sum(), Schedule(1, rate=0.5), progress=False)
    assert fast.tolist() == pytest.approx([0.5]) and slow.tolist() == pytest.approx([0.05])
    with pytest.raises(ValueError, match="rates name other, but the parameters are fast"):
        TensorParameters({"fast": fast}, rates={"other": 1.0})


def test_the_step_size_warms_up_and_falls():
    schedule = Schedule(100, rate=2.0, final_rate=0.25, warm_up=9)
    assert schedule.rate_at(0, 0.0) == pytest.approx(0.2) and schedule.rate_at(9, 0.0) == pytest.approx(2.0)
    assert schedule.rate_at(100, 1.0) == pytest.approx(0.5) and schedule.rate_at(50, 0.5) == pytest.approx(1.0)


def test_a_time_budget_ends_the_run(monkeypatch: pytest.MonkeyPatch):
    clock = iter(range(1000))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    shares: list[float] = []
    point = torch.zeros(3)

    def loss(step: Step) -> Tensor:
        shares.append(step.share)
        return distance_to(point)(step)

    end = optimise({"point": point}, loss, Schedule(1000, time_budget=4.0), progress=False)
    assert end.number == 4 and shares == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"time_budget": -1.0}, {"rate": 0.0}, {"warm_up": -1}])
def test_schedules_out_of_range_are_refused(wrong: dict):
    with pytest.raises(ValueError, match="must be|at least"):
        Schedule(**wrong)


def test_a_stopped_run_goes_on_as_if_it_had_never_stopped(tmp_path: Path):
    def run(path: Path | None, steps_before_death: int = 10**9) -> tuple[Tensor, nn.Module]:
        torch.manual_seed(0)
        point, layer, draws = torch.zeros(3), nn.BatchNorm1d(3), torch.Generator().manual_seed(3)
        idle = torch.ones(2)  # without a gradient until step 20: Adam knows nothing of it

        def loss(step: Step) -> Tensor:
            if step.number == steps_before_death:
                raise KeyboardInterrupt
            noise = torch.rand(4, 3, generator=draws)
            value = (layer(point + noise) - GOAL).square().mean()
            return value + (idle.square().sum() if step.number >= 20 else 0)

        kept = None if path is None else Checkpoint(path, {"options": {"seed": 3}}, every_seconds=0.0)
        parts = {"point": point, "layer": layer, "idle": idle}
        optimise(parts, loss, Schedule(30), checkpoint=kept, generator=draws, progress=False)
        return torch.cat((point.detach(), idle.detach())), layer

    straight, layer = run(None)
    path = tmp_path / "run.safetensors"
    for death in (7, 23):
        with pytest.raises(KeyboardInterrupt):
            run(path, death)
    resumed, again = run(path)
    assert torch.equal(resumed, straight)
    for name, value in layer.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def add_up(path: Path, steps: int = 6, interrupt: int | None = None, every_seconds: float = 0.0) -> list[int]:
    """The numbers of the steps that a run takes; a signal may come during one of them."""
    taken: list[int] = []
    point = torch.zeros(1)

    def loss(step: Step) -> Tensor:
        taken.append(step.number)
        if interrupt is not None and step.number == 3:
            signal.raise_signal(interrupt)
        return (point - 1).square().sum()

    optimise({"point": point}, loss, Schedule(steps), checkpoint=Checkpoint(path, {}, every_seconds), progress=False)
    return taken


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "run.safetensors"
    add_up(path, steps=5)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    if damage == "gone":  # killed between two renames
        path.unlink()
    else:
        path.write_bytes(content if damage == "flip" else content[:-8])
    saved = Checkpoint(path).load()
    assert saved is not None and saved.number == 4
    assert damage == "gone" or "going on from the checkpoint before" in caplog.text
    assert path.is_file() and not before(path).exists(), "the whole one has taken the place of the damaged one"
    path.write_bytes(b"")
    with pytest.raises(DataFormatError, match="delete it to start anew"):
        Checkpoint(path).load()


def test_a_folder_in_the_place_of_a_checkpoint_is_named(tmp_path: Path):
    path = tmp_path / "run.safetensors"
    add_up(path, steps=5)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataFormatError, match=r"run\.safetensors: is a folder; move it away"):
        Checkpoint(path).load()
    assert before(path).is_file()


def test_a_run_that_went_on_from_the_checkpoint_before_can_be_cleaned_up(tmp_path: Path):
    path = tmp_path / "run.safetensors"
    add_up(path, steps=5)
    path.write_bytes(path.read_bytes()[:-8])
    assert add_up(path, steps=5) == [4]
    remove_checkpoint(path)
    assert not list(tmp_path.iterdir())

    remove_checkpoint(tmp_path / "none")


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_lets_the_step_finish_and_saves(number: int, error: type[BaseException], tmp_path: Path):
    path = tmp_path / "run.safetensors"
    with pytest.raises(error) as stop:
        add_up(path, interrupt=number, every_seconds=1e9)
    assert error is KeyboardInterrupt or stop.value.args == (143,)
    assert add_up(path, every_seconds=1e9) == [4, 5]


def test_a_run_goes_on_without_checkpoints_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "file").touch()
    assert add_up(tmp_path / "file" / "run.safetensors", steps=2) == [0, 1]
    assert "cannot keep the state of step 1" in caplog.text and "going on without it: make room" in caplog.text


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        ({"version": "2"}, "of this version"),
        ({"identity": "[1]"}, "of which run"),
        ({"identity": "{}}"}, "not valid JSON"),
        ({"counters": '{"number": -1, "seconds": 0}'}, "how far"),
        ({"counters": '{"number": 1, "seconds": "x"}'}, "how far"),
    ],
)
def test_heads_that_say_nothing_are_refused(head: dict[str, str], problem: str, tmp_path: Path):
    path, content = tmp_path / "run.safetensors", {"a": torch.ones(2)}
    whole = {"version": VERSION, "identity": "{}", "counters": '{"number": 1, "seconds": 0.5}'} | head
    write_tensors(path, content, whole | {"sha256": _digest(content, whole)})
    with pytest.raises(DataFormatError, match=problem):
        Checkpoint(path).load()


def test_a_checkpoint_of_another_run_is_refused_with_its_difference(tmp_path: Path):
    path = tmp_path / "run.safetensors"
    Checkpoint(path, {"options": {"seed": 1, "steps": 5}}).save({}, 1, 1.0)
    with pytest.raises(DataFormatError, match=r"run.safetensors: .*with other options: seed \(1, now 2\) changed"):
        Checkpoint(path, {"options": {"seed": 2, "steps": 5}}).load()
    with pytest.raises(DataFormatError, match=r"with other data: a \(missing, now b\) changed since; restore"):
        Checkpoint(path, {"options": {"seed": 1, "steps": 5}, "data": {"a": "b"}}).load()
    path.write_bytes(b"nonsense")
    with pytest.raises(DataFormatError, match="delete it to start anew"):
        Checkpoint(path).load()
    assert Checkpoint(tmp_path / "none").load() is None


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"point": torch.zeros(4)}, r"point has shape \(3,\), not \(4,\)"),
        ({"place": torch.zeros(3)}, r"it lacks place of shape \(3,\)"),
        ({"point": torch.zeros(3), "net": nn.Linear(2, 1)}, r"it lacks net.weight of shape \(1, 2\)"),
    ],
)
def test_a_checkpoint_of_other_tensors_is_refused_and_changes_nothing(tmp_path: Path, parts: dict, problem: str):
    point, path = torch.zeros(3), tmp_path / "run.safetensors"
    TensorParameters({"point": point})
    Checkpoint(path).save({"point": torch.ones(3)}, 3, 1.0)
    before = [value.clone() for value in parts.values() if isinstance(value, Tensor)]
    with pytest.raises(DataFormatError, match=f"run.safetensors: is the state of something else: {problem}; delete it"):
        optimise(parts, lambda step: torch.zeros((), requires_grad=True), Schedule(9), checkpoint=path, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(before, parts.values(), strict=False) if isinstance(b, Tensor))


def test_only_checkpoints_are_removed(tmp_path: Path):
    path = tmp_path / "run.safetensors"
    remove_checkpoint(path)
    Checkpoint(path).save({"point": torch.ones(3)}, 3, 1.0)
    remove_checkpoint(path)
    assert not path.exists()
    for content in (b"nonsense", save({"point": torch.ones(3)})):
        path.write_bytes(content)
        with pytest.raises(DataFormatError, match=r"run.safetensors: is .*; move it away"):
            remove_checkpoint(path)
        assert path.read_bytes() == content


def test_moments_of_another_shape_are_refused():
    moving = TensorParameters({"point": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"adam.point.exp_avg has shape \(2,\), not \(3,\)"):
        moving.restore({"point": torch.ones(3), "adam.point.exp_avg": torch.zeros(2)})


def test_numbers_that_are_not_finite_name_the_step_and_change_nothing():
    point = torch.zeros(3)

    def loss(step: Step) -> dict[str, Tensor]:
        wrong = math.nan if step.number == 4 else 0.0
        return {"distance": distance_to(point)(step), "prior": point.sum() * wrong}

    with pytest.raises(OptimisationError, match="step 5: prior is nan; lower the rate"):
        optimise({"point": point}, loss, Schedule(9), progress=False)
    assert bool(torch.isfinite(point).all())


def test_gradients_that_are_not_finite_name_the_parameter():
    point, other = torch.zeros(3), torch.ones(2)
    with pytest.raises(OptimisationError, match="step 1: the gradient of point is not finite"):
        optimise({"other": other, "point": point}, lambda step: point.sqrt().sum() + other.sum(), progress=False)
    assert torch.equal(point.detach(), torch.zeros(3)) and torch.equal(other.detach(), torch.ones(2))


def test_what_cannot_be_optimised_is_refused():
    point = torch.zeros(3)
    with pytest.raises(ValueError, match="step 1: a loss must be a scalar that depends on the parameters"):
        optimise({"point": point}, lambda step: (point.detach() - GOAL).square().sum(), progress=False)
    with pytest.raises(ValueError, match="a loss must be a scalar"):
        optimise({"point": point}, lambda step: point - GOAL, progress=False)
    with pytest.raises(ValueError, match="nothing to optimise"):
        optimise({}, lambda step: GOAL.sum(), progress=False)
    with pytest.raises(ValueError, match="computed is computed from other tensors"):
        optimise({"computed": point.requires_grad_() * 2}, lambda step: point.sum(), progress=False)


def test_callbacks_are_told_and_may_stop(capsys: pytest.CaptureFixture[str]):
    point, seen = torch.zeros(3), []

    def watch(step: Step) -> str:
        seen.append((step.number, step.losses["loss"]))
        step.stopped = step.number == 3
        return f"at {step.number}"

    end = optimise({"point": point}, distance_to(point), Schedule(50, name="walk"), callbacks=[watch])
    assert [number for number, _ in seen] == [1, 2, 3] and end.number == 3
    assert seen[0][1] > seen[2][1]
    shown = capsys.readouterr().err
    assert "walk" in shown and "at 3" in shown
    optimise({"point": point}, distance_to(point), Schedule(12, name="quiet"), progress=False)
    assert not capsys.readouterr().err
    optimise({"point": point}, distance_to(point), Schedule(12))
    assert "loss" in capsys.readouterr().err


def test_a_field_of_ones_own_is_fitted_to_pictures():
    """Through the renderer, by nothing but what a field has to answer: the ball is found again."""
    cameras = Camera.orbit(BOX.center, 4.0, views=1, width=12, height=9)
    radius, density = torch.tensor(0.7), torch.tensor(4.0)
    truth = render(Scene(Ball(torch.tensor(0.9), density, voxel_size=COARSE), Rgb()), cameras)

    def loss(step: Step) -> dict[str, Tensor]:
        picture = render(Scene(Ball(radius, density, voxel_size=COARSE), Rgb()), cameras)
        color = (picture.image - truth.image).square().mean()
        return {"color": color, "opacity": (picture.opacity - truth.opacity).square().mean()}

    moving = TensorParameters({"radius": radius}, betas=(0.5, 0.8))
    end = optimise(moving, loss, Schedule(30, rate=0.03, final_rate=0.1), progress=False)
    assert radius.tolist() == pytest.approx(0.9, abs=0.02) and end.losses["color"] < 1e-4
