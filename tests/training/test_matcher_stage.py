"""The judge of dreams learns which caption belongs to a picture."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_objects import make_subject
from torch import Tensor

from nfldm3d.models.priors.matcher import PictureTextMatcher
from nfldm3d.training import TrainingOptions, train
from nfldm3d.training.matcher_stage import MatcherStage, make_held_out, make_matcher, make_source
from nfldm3d.training.stage import Stage

THINGS = {"a chair": (250, 20, 20), "a sky": (20, 20, 250), "a leaf": (20, 250, 20)}
SUBJECTS = [make_subject(name, color) for name, color in THINGS.items()]


def embed(texts: Sequence[str]) -> Tensor:
    """One token, of the thing."""
    return torch.stack([torch.tensor([[float(name.split()[1] in text) for name in THINGS]]) for text in texts])


def test_it_learns_captions(tmp_path: Path) -> None:
    source = make_source([make_subject(name, color, sides=False) for name, color in THINGS.items()])
    model = PictureTextMatcher(size=8, patch=2, widths=(8, 8), sentence=3, features=4)
    held_out = {"color": make_held_out(SUBJECTS)["color"]}
    held_out["color"].drawing = source.drawing.__class__(views=4, recolored=0.0)
    stage = MatcherStage(model, source, held_out, embed=embed)
    assert isinstance(stage, Stage)
    options = TrainingOptions(
        steps=60, batch_size=6, learning_rate=1e-2, warmup_steps=5, ema_decay=0.5, evaluate_every=0, precision="fp32"
    )
    result = train(stage, tmp_path / "run", options=options)
    assert result.evaluation is not None and result.evaluation.scalars == {"precision_color": 1.0}


def test_equal_captions_are_all_right() -> None:
    stage = MatcherStage(
        make_matcher(16), make_source(SUBJECTS), {}, embed=lambda texts: torch.ones(len(texts), 1, 384)
    )
    batch = stage.source.collate([stage.source.sample(0, torch.Generator().manual_seed(n)) for n in range(3)])
    batch = replace(batch, texts=("a chair",) * 3)
    loss, figures = stage.loss(batch, torch.Generator())
    assert abs(float(loss.detach())) < 1e-5 and float(figures["right"]) == 1


def test_bare_shapes_are_judged_as_well() -> None:
    held_out = make_held_out(SUBJECTS)
    assert set(held_out) == {"color", "shape"}
    sample = held_out["shape"].sample(0, torch.Generator().manual_seed(0))
    assert len(sample.texts) == 4 and len(set(sample.texts)) == 1
    middle = sample.images[:, :, 4, 4]
    assert torch.allclose(middle, middle[:, :1].expand(-1, 3), atol=1e-4)


def test_pictures_of_any_size_are_looked_at(generator: torch.Generator) -> None:
    model = make_matcher(16)
    seen = model.look(torch.rand(2, 3, 20, 28, generator=generator))
    assert torch.allclose(seen.norm(dim=-1), torch.ones(2), atol=1e-5)
    assert model(torch.rand(2, 3, 16, 16), torch.rand(5, 384)).shape == (2, 5)


@pytest.mark.parametrize("size", [0, 9, 2, 10**6])
def test_pictures_that_cannot_be_looked_at_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="pixels"):
        PictureTextMatcher(size=size, patch=2, widths=(8, 8), sentence=3)
