"""3DiM learns from pairs of views: what it is given lowers its error, and the regression always is given it."""

from pathlib import Path

import pytest
import torch
from small_views import Balls, cameras

from nfldm3d import Camera
from nfldm3d.data.view_sets import Choose, ViewSet
from nfldm3d.models.views.xunet import XUNet
from nfldm3d.training import TrainingOptions, train
from nfldm3d.training.stage import SampleSource, Stage
from nfldm3d.training.view_stage import ViewDiffusionStage, ViewPairSource, draw_pairs

TINY: dict = {"size": 8, "channels": 16, "multiples": (1,), "attention": (4,), "heads": 2, "memory": 32}


def test_pairs_may_be_of_views_that_are_near(generator: torch.Generator) -> None:
    around = Camera.orbit((0.0, 0.0, 0.0), 2.0, views=12, width=4, height=4)

    def apart(nearby: float) -> torch.Tensor:
        first, second = draw_pairs(around, 600, generator, nearby).reshape(-1, 2).unbind(1)
        assert (first != second).all() and set(first.tolist()) == set(range(12))
        return (first - second).remainder(12).minimum((second - first).remainder(12)).float().mean() * 30

    assert abs(apart(0.0) - 98) < 6 and 30 <= apart(10.0) < 35 and 40 < apart(30.0) < 65
    with pytest.raises(ValueError, match="nearby is an angle"):
        ViewPairSource(Balls(), 3, -1.0)


def test_pairs_are_of_different_views_of_one_object(generator: torch.Generator) -> None:
    around = Camera.orbit((0.0, 0.0, 0.0), 2.0, views=12, width=4, height=4)
    numbers = draw_pairs(around[:3], 40, generator).reshape(-1, 2)
    assert (numbers[:, 0] != numbers[:, 1]).all() and set(numbers.flatten().tolist()) == {0, 1, 2}
    with pytest.raises(ValueError, match="needs two views"):
        draw_pairs(around[:1], 1, generator)
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
        assert ("error_untold" in stage.evaluate(generator).scalars) == (objective == "diffusion")
    with pytest.raises(ValueError, match="untold must be"):
        ViewDiffusionStage(XUNet(**TINY), source, source, untold=1.0)


def test_the_regression_is_always_told_its_view(generator: torch.Generator, monkeypatch) -> None:
    source, told = ViewPairSource(Balls(size=8), 20), []
    for objective in ("diffusion", "regression"):
        model = XUNet(**TINY, objective=objective)
        stage = ViewDiffusionStage(model, source, source, untold=0.5)
        before = model.forward

        def forward(clean, noisy, log_snr, camera, known, before=before):
            told.append(float(known.float().mean()))
            return before(clean, noisy, log_snr, camera, known)

        monkeypatch.setattr(model, "forward", forward)
        stage.loss(source.sample(0, generator), generator)
    assert 0.1 < told[0] < 0.9 and told[1] == 1


class Sheets:
    """``ViewSets`` of things that have one colour on all sides: all there is to know is in the given view."""

    def __init__(self, count: int):
        self.count, self.camera = count, cameras(6, 4)

    def __len__(self) -> int:
        return self.count

    def read(self, index: int, choose: Choose) -> ViewSet:
        camera = self.camera[choose(self.camera)]
        color = torch.rand(3, generator=torch.Generator().manual_seed(index))
        return ViewSet(color[:, None, None].expand(len(camera), 3, 4, 4).contiguous(), camera)


def test_the_diffusion_learns_what_the_given_view_tells(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    small: dict = {"size": 4, "channels": 16, "multiples": (1,), "attention": (2,), "heads": 2, "memory": 16}
    source = ViewPairSource(Sheets(64), 4)
    stage = ViewDiffusionStage(XUNet(**small), source, source, judged=16)
    optimizer = torch.optim.Adam(stage.model.parameters(), 1e-2)
    before = stage.evaluate(torch.Generator().manual_seed(1)).scalars
    for _ in range(160):
        chosen = torch.randint(64, (8,), generator=generator).tolist()
        loss, _ = stage.loss(source.collate([source.sample(number, generator) for number in chosen]), generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    figures = stage.evaluate(torch.Generator().manual_seed(1)).scalars
    assert figures["error"] < 0.8 * figures["error_untold"] < 0.8 * before["error_untold"]
    assert figures["psnr"] > before["psnr"] + 3


def test_it_is_trained(tmp_path: Path) -> None:
    source = ViewPairSource(Balls(count=6, size=8), 4)
    options = TrainingOptions(steps=3, batch_size=2, evaluate_every=0, precision="fp32")
    stage = ViewDiffusionStage(XUNet(**TINY, objective="regression"), source, source, judged=6)
    result = train(stage, tmp_path / "run", options=options)
    assert result.evaluation is not None and set(result.evaluation.scalars) == {"psnr", "psnr_copied", "error"}
    assert result.evaluation.images["given_drawn_true"].shape == (3, 3 * 8, 6 * 8)
