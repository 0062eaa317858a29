"""3DiM learns balls: what it is given lowers its error, and drawn views come nearer than the given ones."""

from pathlib import Path

import pytest
import torch
from small_views import Balls

from nfldm3d.models.views.xunet import XUNet
from nfldm3d.training import TrainingOptions, train
from nfldm3d.training.stage import SampleSource, Stage
from nfldm3d.training.view_stage import ViewDiffusionStage, ViewPairSource, draw_pairs

TINY: dict = {"size": 8, "channels": 16, "multiples": (1,), "attention": (4,), "heads": 2, "memory": 32}


def test_pairs_are_of_different_views_of_one_object(generator: torch.Generator) -> None:
    numbers = draw_pairs(3, 40, generator).reshape(-1, 2)
    assert (numbers[:, 0] != numbers[:, 1]).all() and set(numbers.flatten().tolist()) == {0, 1, 2}
    with pytest.raises(ValueError, match="needs two views"):
        draw_pairs(1, 1, generator)
    with pytest.raises(ValueError, match="pairs must be at least 1"):
        ViewPairSource(Balls(), 0)
    source = ViewPairSource(Balls(), 3)
    assert isinstance(source, SampleSource)
    batch = source.collate([source.sample(number, generator) for number in (0, 2)])
    assert batch.given.shape == (6, 3, 16, 16) and batch.camera.shape == (6, 2)
    colors = batch.given.amin((2, 3))  # of the shaded side, or the lit one
    assert not torch.allclose(colors[0], colors[3], atol=0.02)
    spread = source.spread(9)
    assert len(spread.given) == 4 and not torch.equal(spread.given, spread.wanted)


@pytest.mark.parametrize("kind", ["xunet", "concat"])
def test_losses_can_be_descended(kind, generator: torch.Generator) -> None:
    for objective in ("diffusion", "regression"):
        source = ViewPairSource(Balls(size=8))
        stage = ViewDiffusionStage(XUNet(**TINY, kind=kind, objective=objective), source, source)
        assert isinstance(stage, Stage) and stage.config()["kind"] == kind
        loss, figures = stage.loss(source.sample(0, generator), generator)
        loss.backward()
        assert torch.isfinite(loss) and float(figures["error"]) == pytest.approx(loss.item())
        assert stage.model.head.weight.grad is not None and stage.model.head.weight.grad.any()
    with pytest.raises(ValueError, match="untold must be"):
        ViewDiffusionStage(XUNet(**TINY), source, source, untold=1.0)


def test_it_learns_what_the_given_view_tells(tmp_path: Path) -> None:
    source = ViewPairSource(Balls(count=6, size=8), 4)
    model = XUNet(**TINY, objective="regression")  # noise takes more steps than a test has
    options = TrainingOptions(
        steps=150, batch_size=4, learning_rate=6e-3, warmup_steps=5, ema_decay=0.9, evaluate_every=0, precision="fp32"
    )
    result = train(ViewDiffusionStage(model, source, source, judged=6), tmp_path / "run", options=options)
    assert result.evaluation is not None
    figures = result.evaluation.scalars
    assert figures["error"] < 0.8 * figures["error_untold"] and figures["psnr"] > 15
    assert result.evaluation.images["given_drawn_true"].shape == (3, 3 * 8, 6 * 8)
