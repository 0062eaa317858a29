"""What ``nfldm3d fit`` shows of a scene beside its photographs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_fits import ball_scene, views_of
from torch import Tensor

from nfldm3d.cli import fit as command
from nfldm3d.data import PosedImages
from nfldm3d.evaluation.metrics import psnr, ssim
from nfldm3d.fitting.exposures import match_exposures
from nfldm3d.rendering import render


@pytest.mark.parametrize("sizes", [1])
def test_views_are_shown_by_number_whatever_they_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: int
) -> None:
    """Every second of twelve pictures of one name, in one size or in two by turns of three."""
    shown: list[Tensor] = []
    monkeypatch.setattr(command, "save_contact_sheet", lambda rows, path: shown.extend(rows.values()))
    images = views_of(ball_scene(), count=12, size=(12, 10))
    images = replace(images, frames=tuple(replace(frame, name="a.png") for frame in images.frames))
    if sizes == 2:
        images = replace(images, sizes=tuple((12, 10) if number % 6 < 3 else (14, 12) for number in range(12)))
    command.measure(ball_scene(), images, tmp_path / "sheet.png")
    assert sum(len(pictures) for pictures in shown) == 12, "six, beside what was rendered"
    assert list(images.group_numbers()) == [
        [number for number in range(12) if sizes == 1 or (number % 6 < 3) == first] for first in (True, False)[:sizes]
    ]
    assert isinstance(images, PosedImages)


def test_figures_are_means_over_the_views_that_masks_leave(tmp_path: Path, generator: torch.Generator) -> None:
    scene = ball_scene()
    images = views_of(scene, count=6, size=(20, 16))
    noisy = (images.load_images() + 0.05 * torch.randn(6, 3, 16, 20, generator=generator)).clamp(0, 1)
    masks = torch.rand(6, 16, 20, generator=generator) < 0.8
    masks[2] = False
    rendered = render(scene, images.camera).image
    exposed = replace(scene, metadata={"exposures": {}})
    for mask in (None, masks):
        found = command.measure(exposed, PosedImages.from_tensors(noisy, images.camera, masks=mask), tmp_path / "a.png")
        matched = match_exposures(rendered, noisy, mask)
        assert found["psnr"] == pytest.approx(float(psnr(rendered, noisy, mask)), abs=1e-3)
        assert found["ssim"] == pytest.approx(float(ssim(rendered, noisy, mask)), abs=1e-3)
        assert found["psnr_exposed"] == pytest.approx(float(psnr(matched, noisy, mask)), abs=1e-3)
        assert found["count"] == 6
