"""Drawn views are compared with true ones, and a field tells whether they could be of one thing."""

import pytest
import torch
from small_views import Balls, cameras, look

from nfldm3d.data.view_sets import ViewSet
from nfldm3d.evaluation.drawn_objects import DrawViews, choose_views, one_by_one, together
from nfldm3d.evaluation.published_views import published_views
from nfldm3d.evaluation.view_consistency import measure_consistency
from nfldm3d.evaluation.view_scores import ViewBudget, measure_views
from nfldm3d.models.views.sampling import ViewSampling
from nfldm3d.models.views.xunet import XUNet
from nfldm3d.pipelines.views.multiview import KnownViews, MultiViewGenerator, MultiViewSampling

QUICK = ViewBudget(objects=3, views=4, consistency=0, progress=False)


def small_drawer() -> DrawViews:
    return one_by_one(XUNet(size=16, channels=8, multiples=(1,), heads=1, memory=8), ViewSampling(steps=2))


def test_view_64_of_a_spiral_is_given_and_others_are_spread() -> None:
    assert choose_views(cameras(251), 250).tolist() == [64, *range(64), *range(65, 251)]
    assert choose_views(cameras(6), 3).tolist() == [3, 0, 2, 5] and choose_views(cameras(3), 10).tolist() == [1, 0, 2]


def test_true_views_have_the_best_figures() -> None:
    def draw_truth(objects: list[ViewSet], _: torch.Generator) -> torch.Tensor:
        return torch.stack([look(number, views.camera) for number, views in enumerate(objects)])

    def embed(images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))

    worse = measure_views(small_drawer(), Balls(3), QUICK, embed=embed)
    best = measure_views(draw_truth, Balls(3), QUICK, embed=embed)
    assert best.figures["psnr"] == float("inf") and best.figures["ssim"] == pytest.approx(1)
    assert best.figures["frechet_efficientnet"] == pytest.approx(0, abs=1e-6)
    for name in ("psnr_copied", "ssim_copied"):
        assert best.figures[name] == worse.figures[name] and best.figures[name] < best.figures[name[:4]]
    assert worse.figures["psnr"] < best.figures["psnr_copied"]
    assert worse.figures["frechet_efficientnet"] > 0.01
    assert best.page.shape == (3, 3 * 2 * 16, 5 * 16)


class Together(MultiViewGenerator):
    """Notes what it is asked, and draws grey."""

    asked: list[tuple[str, int, KnownViews | None]]

    def __init__(self) -> None:
        object.__setattr__(self, "asked", [])

    def draw_along(self, text, wanted, sampling=None, *, known=None, generator=None, tell=None):
        self.asked.append((text, len(wanted), known))
        return torch.full((len(wanted), 3, 16, 16), 0.5)


@pytest.mark.parametrize("given", [True, False])
def test_models_that_draw_all_views_together_are_judged_alike(given: bool) -> None:
    model = Together()
    report = measure_views(together(model, MultiViewSampling(), given=given), Balls(2), QUICK)
    text, count, known = model.asked[1]
    assert text == "a ball" and count == (4 if given else 5) and len(model.asked) == 2
    if given:
        assert isinstance(known, KnownViews) and torch.equal(known.images[0], look(1, cameras(6))[3])
    else:
        assert known is None and report.figures["psnr_copied"] == report.figures["psnr"]  # the first is drawn, too


def test_consistency_falls_where_views_disagree() -> None:
    camera = cameras(16, 16)
    true = look(1, camera)
    other = torch.stack([look(number % 3, camera[number : number + 1])[0] for number in range(16)])
    scores = [measure_consistency(images, camera, steps=60).psnr for images in (true, other)]
    assert scores[0] > scores[1] + 0.5
    with pytest.raises(ValueError, match="at least 6 views, got 5"):
        measure_consistency(true[:5], camera[:5])


def test_published_rows_are_marked() -> None:
    table = published_views()
    assert table["confirmed"]["SRN cars"]["3DiM"]["PSNR"] == 21.01  # type: ignore[index]
    assert "published" in str(table["note"]) and "unconfirmed" in table


def test_nothing_to_judge_is_refused() -> None:
    with pytest.raises(ValueError, match="no objects to judge by"):
        measure_views(small_drawer(), Balls(0), QUICK)
    with pytest.raises(ValueError, match="has a single view"):
        measure_views(small_drawer(), Balls(2, views=1), QUICK)
