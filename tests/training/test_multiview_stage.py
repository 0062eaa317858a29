"""Views of an object are learned together: clean ones do not count, and renderers learn faster."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from small_priors import WIDTH, small_unet, write_latent_texts, write_pixel_texts
from small_views import Balls, cameras

from nfldm3d.data.view_sets import find_given
from nfldm3d.guidance import load_prior
from nfldm3d.guidance.folders import load_prior as load
from nfldm3d.guidance.noise_schedule import NoiseSchedule
from nfldm3d.guidance.pixel_prior import PixelPrior
from nfldm3d.models.views.multiview.network import MultiViewNetwork
from nfldm3d.models.views.multiview.view_layers import ViewLayers
from nfldm3d.pipelines.views.multiview import KnownViews, MultiViewGenerator, MultiViewSampling
from nfldm3d.training import TrainingOptions, train
from nfldm3d.training.multiview_stage import (
    MultiViewSource,
    MultiViewStage,
    PreservedPictures,
    draw_clean,
    draw_views_of,
    plain_camera,
)
from nfldm3d.training.processes import make_optimizer
from nfldm3d.training.stage import Paced, SampleSource, Stage

pytest.importorskip("transformers")
SMALL: dict = {"rank": 2, "width": 8, "grid": 8}


def make_stage(folder: Path, *, preserved: bool = False) -> MultiViewStage:
    prior = load_prior(folder)
    source = MultiViewSource(Balls(count=3), 3)
    kept = PreservedPictures(torch.rand(2, 3, 16, 16), ("a ball", "a red car")) if preserved else None
    network = MultiViewNetwork(prior.unet, ViewLayers.of(prior.unet, **SMALL))
    return MultiViewStage(network, prior, source, source, preserved=kept, judged=2)


def test_views_are_any_or_a_stretch(generator: torch.Generator) -> None:
    camera = cameras(20)
    places = torch.atan2(*camera.centers[:, :2].unbind(-1)[::-1]).argsort().argsort()
    drawn = [draw_views_of(camera, 4, generator) for _ in range(60)]
    steps = [set((places[views].diff() % 20).tolist()) for views in drawn]  # in the order of azimuths, which closes
    assert {next(iter(each)) for each in steps if len(each) == 1} >= {1, 2, 3, 4}
    assert any(len(each) > 1 for each in steps) and all(len(set(views.tolist())) == 4 for views in drawn)
    assert sorted(set(draw_views_of(cameras(2), 5, generator).tolist())) == [0, 1]
    seen = MultiViewSource(Balls(views=12), 4).spread(1).camera[0]
    azimuths = torch.atan2(*seen.centers[:, :2].unbind(-1)[::-1])
    assert int((cameras(12).centers - seen.centers[0]).norm(dim=-1).argmin()) == find_given(cameras(12))
    assert (azimuths.diff() % (2 * torch.pi) - torch.pi / 2).abs().max() < 0.6
    with pytest.raises(ValueError, match="views must be at least 2"):
        MultiViewSource(Balls(), 1)
    source = MultiViewSource(Balls(count=3), 4)
    assert isinstance(source, SampleSource)
    batch = source.collate([source.sample(number, generator) for number in (0, 2)])
    assert (
        batch.images.shape == (2, 4, 3, 16, 16) and batch.camera.shape == (2, 4) and batch.captions == ("a ball",) * 2
    )


def test_first_views_are_clean_by_chance(generator: torch.Generator) -> None:
    clean = torch.cat([draw_clean(50, 4, generator) for _ in range(20)])
    assert not clean[:, 2:].any() and torch.allclose(clean[:, :2].float().mean(0), torch.tensor(0.25), atol=0.05)
    assert not draw_clean(50, 2, generator)[:, 1].any() and not draw_clean(9, 1, generator).any()
    camera = plain_camera(16, generator)
    assert camera.shape == (1, 1) and float(camera.forward[0, 0] @ -camera.centers[0, 0]) > 0


@pytest.mark.parametrize("write", [write_latent_texts, write_pixel_texts])
def test_losses_reach_all_that_is_new(write, tmp_path: Path, generator: torch.Generator) -> None:
    stage = make_stage(write(tmp_path / "prior"), preserved=True)
    assert isinstance(stage, Stage) and isinstance(stage, Paced)
    batch = stage.source.collate([stage.source.sample(number, generator) for number in (0, 1)])
    loss, figures = stage.loss(batch, generator)
    loss.backward()
    assert torch.isfinite(loss) and set(figures) == {"error", "preserved"}
    fresh = [each.grad for name, each in stage.model.layers.named_parameters() if name.endswith("up.weight")]
    assert all(grad is not None and torch.isfinite(grad).all() for grad in fresh) and any(grad.any() for grad in fresh)


def test_what_decodes_volumes_learns_faster_and_does_not_decay(tmp_path: Path) -> None:
    stage = make_stage(write_latent_texts(tmp_path / "prior"))
    optimizer = make_optimizer(stage.model, TrainingOptions(), stage.paces())
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    decoding = {name for name, _ in stage.model.named_parameters() if ".decoder." in name and "renderers" in name}
    assert decoding
    for name, parameter in stage.model.named_parameters():
        group = groups[id(parameter)]
        assert group["rate_factor"] == (100.0 if name in decoding else 1.0)
        assert (group["weight_decay"] == 0) == (name in decoding or parameter.ndim <= 1)


def test_it_is_trained(tmp_path: Path) -> None:
    stage = make_stage(write_latent_texts(tmp_path / "prior"))
    options = TrainingOptions(steps=3, batch_size=1, learning_rate=1e-3, evaluate_every=0, precision="fp32")
    result = train(stage, tmp_path / "run", options=options)
    assert result.evaluation is not None and set(result.evaluation.scalars) == {"error", "error_given"}
    other = load(tmp_path / "prior")
    with pytest.raises(ValueError, match="must have one U-Net"):
        MultiViewStage(stage.model, other, stage.source, stage.source)


class Words:
    """Texts as tokens that tell nothing apart, on one device."""

    numbers = WIDTH

    def embed(self, described: Sequence[str]) -> torch.Tensor:
        return torch.ones(len(described), 3, WIDTH, device="cuda")

    def embed_nothing(self, views: int) -> torch.Tensor:
        return torch.zeros(views, 3, WIDTH, device="cuda")


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of diffusers' solver, from numpy
def test_it_learns_and_draws_on_the_gpu(generator: torch.Generator) -> None:
    unet = small_unet(channels=3, outputs=3)
    prior = PixelPrior(unet, NoiseSchedule.from_scheduler(DDPMScheduler()), Words())
    network, source = MultiViewNetwork(unet, ViewLayers.of(unet, **SMALL)), MultiViewSource(Balls(count=2, size=8), 3)
    stage = MultiViewStage(network, prior, source, source)
    stage.to(torch.device("cuda"))
    stage.to(torch.device("cuda"))  # what is there already stays
    batch = source.collate([source.sample(0, generator)]).to(torch.device("cuda"))
    loss, _ = stage.loss(batch, generator)
    loss.backward()
    assert loss.is_cuda and all(parameter.is_cuda for parameter in network.parameters())
    assert unet.conv_in.weight.grad is not None and unet.conv_in.weight.grad.is_cuda
    with torch.no_grad():
        assert stage.evaluate(generator).scalars["error_given"] > 0
    model = MultiViewGenerator(network.eval(), stage.prior)  # type: ignore[arg-type]
    known = KnownViews(batch.images[0, :1], batch.camera[0, :1])
    few = MultiViewSampling(steps=1, guidance_given=2.0, window=3, remembered=1)
    assert model.draw_along("", cameras(4, 8), few, known=known, generator=generator).shape == (4, 3, 8, 8)
