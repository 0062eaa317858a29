"""Our own text prior learns pictures by their captions."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_objects import ANGLES, make_subject
from torch import Tensor

from nfldm3d.data.captioned_pictures import COLORS, Subject, is_unseen
from nfldm3d.guidance.sentences import MINILM, NUMBERS, RememberedTexts
from nfldm3d.models.priors.image_denoiser import ImageDenoiser
from nfldm3d.models.priors.told import VIEWPOINT, tell_viewpoint
from nfldm3d.training import TrainingOptions, text_prior_stage, train
from nfldm3d.training.stage import SampleSource, Stage
from nfldm3d.training.text_prior_stage import (
    CaptionDrawing,
    CaptionSource,
    TextPriorStage,
    known_tokens,
    make_text_prior,
    sample_texts,
)

SUBJECTS = [make_subject(f"a {name}", color) for name, color in (("chair", (250, 20, 20)), ("sky", (20, 20, 250)))]
STILL = CaptionDrawing(recolored=0.0, zoom=(1.0, 1.0), shift=0.0)


def embed(texts: Sequence[str]) -> Tensor:
    """A token for the thing, one that says nothing new, and an empty one."""
    tokens = torch.zeros(len(texts), 3, VIEWPOINT)
    for row, text in zip(tokens, texts, strict=True):
        row[0, 0 if "chair" in text else 1] = 1.0
        row[1, 2] = 1.0
    return tokens


def draw(source: CaptionSource, index: int = 0, seed: int = 0):
    return source.sample(index, torch.Generator().manual_seed(seed))


def test_viewpoints_are_told_where_they_are_known() -> None:
    source = CaptionSource([*SUBJECTS, make_subject("a cat", (9, 9, 9), sides=False)], STILL)
    assert isinstance(source, SampleSource) and len(source) == 3
    assert draw(source, 2).texts == ("a cat",) and draw(source, 2).images.shape == (1, 3, 8, 8)
    assert not draw(source, 2).viewpoints.any()
    assert draw(source).texts == ("a chair",) * STILL.views
    angles = ANGLES * torch.tensor((-1.0, 1.0))  # those of mirrored pictures
    known = torch.cat((tell_viewpoint(*ANGLES.unbind(-1)), tell_viewpoint(*angles.unbind(-1)), torch.zeros(1, 8)))
    drawn = torch.cat([draw(source, seed=seed).viewpoints for seed in range(40)])
    distances = torch.cdist(drawn, known)
    assert float(distances.min(-1).values.max()) < 1e-3
    assert set(distances.argmin(-1).tolist()) >= {0, 1, 2, 3, 5, 8}


def test_a_mirrored_picture_is_seen_from_the_other_side() -> None:
    pixels = torch.zeros(1, 4, 8, 8, dtype=torch.uint8)
    pixels[:, :3] = 255
    pixels[:, :, :, :3] = torch.tensor((0, 0, 0, 255))[:, None, None]  # something black on the left
    lopsided = Subject("a thing", pixels, ("side",), torch.tensor(((90.0, 0.0),)))
    source = CaptionSource([lopsided], replace(STILL, placed=1.0))
    for seed in range(8):
        sample = draw(source, seed=seed)
        left = bool((sample.images[0, :, 4, 0] < 0.01).all())
        assert left == (float(sample.viewpoints[0, 2]) > 0)  # sin(azimuth)


def test_colors_that_are_kept_aside_are_never_drawn() -> None:
    source = CaptionSource(SUBJECTS, CaptionDrawing(recolored=1.0))
    seen = {text for seed in range(300) for text in draw(source, seed=seed).texts}
    allowed = {color for color in COLORS if not is_unseen(color, "a chair")}
    assert {text.split()[1] for text in seen} == allowed
    black = CaptionSource([make_subject("a black chair", (0, 0, 0))], CaptionDrawing(recolored=1.0))
    assert draw(black).texts == ("a black chair",) * 3


def test_pictures_are_moved_and_stand_before_plain_colors() -> None:
    source = CaptionSource(SUBJECTS, CaptionDrawing(recolored=0.0))
    images = torch.cat([draw(source, seed=seed).images for seed in range(20)])
    assert float(images.min()) >= 0 and float(images.max()) <= 1
    corners = images[:, :, 0, 0]
    assert torch.allclose(images[:, :, 0, -1], corners, atol=1e-5) and len(corners.unique(dim=0)) > 8
    areas = ((images - corners[..., None, None]).abs().amax(1) > 0.02).flatten(1).sum(-1)
    assert len(areas.unique()) > 4


def test_bare_shapes_are_grey() -> None:
    source = CaptionSource(SUBJECTS, CaptionDrawing(recolored=1.0, bare=1.0, zoom=(1.0, 1.0), shift=0.0))
    sample = draw(source)
    assert torch.allclose(sample.images[:, :, 4, 4], torch.full((3, 3), 200 / 255), atol=1e-4)
    assert any(color in sample.texts[0] for color in COLORS)


def test_it_learns_what_captions_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_prior_stage, "SHOWN_THINGS", ("chair", "sky"))
    model = ImageDenoiser(
        size=8, widths=(8, 16), blocks=1, embedding=VIEWPOINT, embedder="test", memory=16, questions=2, viewpoint=True
    )
    source = CaptionSource(SUBJECTS, STILL)
    stage = TextPriorStage(model, source, source, embed=embed, judged=2)
    assert isinstance(stage, Stage)
    options = TrainingOptions(
        steps=300, batch_size=4, learning_rate=1e-2, warmup_steps=5, ema_decay=0.9, evaluate_every=0, precision="fp32"
    )
    result = train(stage, tmp_path / "run", options=options)
    assert result.evaluation is not None
    figures = result.evaluation.scalars
    assert figures["error"] < figures["error_untold"] and figures["error"] < figures["error_other"]
    assert result.evaluation.images["drawn"].shape == (3, 4 * 8, 2 * 8)


def test_it_sketches_what_captions_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_prior_stage, "SHOWN_THINGS", ("chair", "sky"))
    told = {"embedding": VIEWPOINT, "embedder": "test", "memory": 16, "questions": 2, "viewpoint": True}
    model = ImageDenoiser(size=8, widths=(8, 16), blocks=1, sketch=16, **told)  # type: ignore[arg-type]
    source = CaptionSource(SUBJECTS, STILL)
    options = TrainingOptions(
        steps=200, batch_size=4, learning_rate=1e-2, warmup_steps=5, ema_decay=0.9, evaluate_every=0, precision="fp32"
    )
    before = {name: weights.clone() for name, weights in model.network.state_dict().items()}
    stage = TextPriorStage(model, source, source, embed=embed, judged=2, sketch_only=True)
    evaluation = train(stage, tmp_path / "run", options=options).evaluation
    assert evaluation is not None and evaluation.scalars["sketch_error"] < 0.01
    assert evaluation.images["sketched"].shape == (3, 4 * 8, 2 * 8)
    assert all(torch.equal(before[name], weights) for name, weights in model.network.state_dict().items())
    with torch.no_grad():
        chair = model.draw_sketch(stage._tell(draw(source))).pixels[0]
    assert float((chair - draw(source).cutouts[0]).abs().mean()) < 0.1
    loss, figures = TextPriorStage(model, source, source, embed=embed).loss(draw(source), torch.Generator())
    assert torch.allclose(loss.detach(), figures["error"] + figures["sketch_error"])
    with pytest.raises(ValueError, match="no sketcher to be taught"):
        TextPriorStage(
            ImageDenoiser(size=8, widths=(8, 16), **told),  # type: ignore[arg-type]
            source,
            source,
            embed=embed,
            sketch_only=True,
        )


def test_a_cutout_before_a_colour_is_the_picture() -> None:
    sample = draw(CaptionSource(SUBJECTS))
    color, opacity = sample.cutouts.split((3, 1), dim=1)
    behind = sample.images[:, :, :1, :1]  # a corner, where nothing is
    torch.testing.assert_close(color + (1 - opacity) * behind, sample.images, atol=1e-4, rtol=0)


def test_texts_are_embedded_once() -> None:
    asked: list[str] = []

    def listen(texts: Sequence[str]) -> Tensor:
        asked.extend(texts)
        return embed(texts)

    source = CaptionSource(SUBJECTS, STILL)
    stage = TextPriorStage(make_text_prior(8, widths=(8, 8)), source, source, embed=listen)
    first = stage.tell(["a chair", "a sky", "a chair"])
    assert torch.equal(first, embed(["a chair", "a sky", "a chair"])) and asked == ["a chair", "a sky"]
    stage.tell(["a chair"])
    assert len(asked) == 2
    few = RememberedTexts(embed, most=2)
    few(["a sky", "a chair"])
    assert torch.equal(few(["a dog", "a chair"]), embed(["a dog", "a chair"])) and len(few) == 2


def test_tokens_of_captions_are_sampled() -> None:
    tokens = known_tokens(embed(sample_texts(CaptionSource(SUBJECTS, STILL), count=20)))
    assert tokens.shape[1] == VIEWPOINT
    assert {tuple(token[:2]) for token in tokens.tolist()} == {(1, 0), (0, 1), (0, 0)}


def test_a_new_prior_reads_sentences() -> None:
    config = make_text_prior(16, widths=(8, 8)).config
    assert (config["embedding"], config["embedder"], config["size"]) == (NUMBERS, MINILM, 16)
    assert config["questions"] > 0 and config["viewpoint"]
