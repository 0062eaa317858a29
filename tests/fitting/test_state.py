"""The state of a fit: one step moves all of it or nothing, and only its own state is put back."""

from dataclasses import replace

import pytest
import torch
from small_fits import QUICK, ball_scene, views_of

from nfldm3d.fitting import OptimisationError, Step
from nfldm3d.fitting.batches import PixelStore
from nfldm3d.fitting.photographs import _start
from nfldm3d.fitting.state import FitState


@pytest.fixture(scope="module")
def state() -> FitState:
    images = views_of(ball_scene(), count=2, size=(12, 10))
    options = replace(QUICK, background="environment", voxels=12**3)
    return _start(images, PixelStore.load(images, torch.device("cpu")), options)


def test_a_sky_that_is_not_finite_stops_the_step_before_anything_moves(state: FitState) -> None:
    assert state.sky is not None
    grid = state.grids[0]
    grid.gradient.density.fill_(1.0)
    before = grid.density.clone(), grid.log_density.clone(), state.sky.detach().clone()
    state.sky.grad = torch.full_like(state.sky, float("nan"))
    with pytest.raises(OptimisationError, match="the gradient of image is not finite"):
        state.advance(Step(rate=1.0))
    assert torch.equal(grid.density, before[0]) and torch.equal(grid.log_density, before[1])
    assert torch.equal(state.sky.detach(), before[2]) and grid.steps == 0


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("phase", None, r"it lacks phase of shape \(2,\)"),
        ("phase", torch.zeros(3), r"phase has shape \(3,\), not \(2,\)"),
        ("grid0.bricks", None, "it lacks grid0.bricks"),
        ("grid0.log_density", None, "it lacks grid0.log_density"),
        ("grid0.features", torch.zeros(2, 2), r"grid0.features has shape \(2, 2\), not"),
        ("grid0.bricks", torch.zeros(0, 3), r"grid0.bricks holds torch.float32, not torch.int32"),
        ("phase", torch.tensor((9, 0)), "phase is 9"),
        ("phase", torch.tensor((1, 0)), r"grid0.shape is \[2, 2, 1\]"),
        ("grid0.shape", torch.tensor((9, 9, 9, 0)), r"grid0.shape is \[9, 9, 9\]"),
        ("sky.adam.image.exp_avg", torch.zeros(64, 128, 3), "moments of image are not whole"),
        ("sky.image", torch.zeros(2, 2, 3), r"image has shape \(2, 2, 3\), not"),
    ],
)
def test_the_state_of_another_fit_is_refused(
    state: FitState, name: str, value: torch.Tensor | None, problem: str
) -> None:
    other = state.state() | ({} if value is None else {name: value})
    if value is None:
        del other[name]
    with pytest.raises(ValueError, match=problem):
        state.restore(other)
    state.restore(state.state())
