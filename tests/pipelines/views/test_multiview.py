"""Views are drawn together, given pictures stay, windows cover a path, and folders are those of a pipeline."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_priors import write_latent_texts, write_own, write_pixel_texts
from small_views import cameras, look

from nfldm3d.files import DataFormatError
from nfldm3d.models.views.multiview.view_layers import ViewLayers
from nfldm3d.pipelines.views.multiview import (
    KnownViews,
    MultiViewGenerator,
    MultiViewSampling,
    open_text_model,
    plan_windows,
    preserve_pictures,
)

pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of diffusers' solver, from numpy
QUICK = MultiViewSampling(steps=2, window=3, remembered=1)


def make(folder: Path) -> MultiViewGenerator:
    prior = open_text_model(folder)
    torch.manual_seed(1)
    layers = ViewLayers.of(prior.unet, rank=2, width=8, grid=8)
    for parameter in layers.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return MultiViewGenerator.join(prior, layers)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("write", [write_latent_texts, write_pixel_texts])
def test_it_is_saved_as_a_pipeline_and_draws_the_same(write, tmp_path: Path) -> None:
    model = make(write(tmp_path / "prior"))
    heard: list[float] = []
    drawn = model.draw("a red car", cameras(4), QUICK, generator=seeded(), tell=heard.append)
    assert drawn.shape == (4, 3, model.image_size, model.image_size) and heard == [0.5, 1.0]
    assert float(drawn.min()) >= 0 and float(drawn.max()) <= 1
    model.save_pretrained(tmp_path / "saved", tmp_path / "prior")
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert {"model_index.json", "unet", "view_layers", "scheduler", "text_encoder", "tokenizer"} <= names
    again = MultiViewGenerator.from_pretrained(tmp_path / "saved")
    assert torch.allclose(again.draw("a red car", cameras(4), QUICK, generator=seeded()), drawn, atol=1e-4)
    assert not torch.allclose(model.draw("a red car", cameras(4), QUICK, generator=seeded(1)), drawn, atol=1e-3)
    open_text_model(tmp_path / "saved")  # the plain model is still there


def test_given_pictures_lead_to_others(tmp_path: Path) -> None:
    model = make(write_latent_texts(tmp_path / "prior"))
    known = [KnownViews(look(number, cameras(1)), cameras(1)) for number in (0, 1)]
    first, second = (model.draw("a car", cameras(3)[1:], QUICK, known=each, generator=seeded()) for each in known)
    assert first.shape == (2, 3, 16, 16) and not torch.allclose(first, second, atol=1e-4)
    guided = replace(QUICK, guidance_given=4.0)
    third = model.draw("a car", cameras(3)[1:], guided, known=known[0], generator=seeded())
    assert not torch.allclose(first, third, atol=1e-4)
    alone = [model.draw("a car", cameras(2), each, generator=seeded()) for each in (QUICK, guided)]
    assert torch.equal(*alone)  # it counts where views are given


def test_windows_cover_a_path(tmp_path: Path) -> None:
    windows = plan_windows(cameras(10), MultiViewSampling(window=4, remembered=2))
    assert windows[0].tolist() == [0, 3, 6, 9] and [len(each) for each in windows] == [4, 2, 2, 2]
    assert sorted(torch.cat(windows).tolist()) == list(range(10))
    assert [each.tolist() for each in plan_windows(cameras(2), QUICK)] == [[0, 1]]
    model, heard = make(write_latent_texts(tmp_path / "prior")), []
    known = KnownViews(look(0, cameras(1)), cameras(1))
    for given in (None, known):
        drawn = model.draw_along("a car", cameras(5), QUICK, known=given, generator=seeded(), tell=heard.append)
        assert drawn.shape == (5, 3, 16, 16) and torch.isfinite(drawn).all()
    assert heard[3] == pytest.approx(1) and len(heard) == 2 * 2 * 2


def test_the_model_draws_what_is_to_be_preserved(tmp_path: Path) -> None:
    prior = open_text_model(write_pixel_texts(tmp_path / "prior"))
    pictures = preserve_pictures(prior, ["a car", "a red car"], steps=2, generator=seeded())
    assert pictures.shape == (2, 3, 8, 8) and not torch.allclose(pictures[0], pictures[1])


def test_more_views_than_memory_holds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(write_pixel_texts(tmp_path / "prior"))
    monkeypatch.setattr("nfldm3d.pipelines.views.multiview.free_memory", lambda device: 2**18)
    with pytest.raises(ValueError, match=r"4 views together need some 0\.0 GiB, .* draw fewer"):
        model.draw("a car", cameras(4), QUICK)


def test_what_is_no_such_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match="has no U-Net of diffusers"):
        open_text_model(write_own(tmp_path / "own"))
    with pytest.raises(DataFormatError, match="holds no folder view_layers; give weights of nfldm3d train multiview"):
        MultiViewGenerator.from_pretrained(write_latent_texts(tmp_path / "prior"))
    for options in ({"steps": 0}, {"window": 1}, {"remembered": 8}, {"guidance": -1.0}, {"guidance_given": 100.0}):
        with pytest.raises(ValueError, match=re.escape("must")):
            MultiViewSampling(**options)
