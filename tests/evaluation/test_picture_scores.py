"""Sets of pictures and clips are told apart, whatever network looks at them; chance is as wide as it should be."""

import pytest
import torch
from torch import Tensor

from nfldm3d.evaluation.chance import bootstrap, rows_of
from nfldm3d.evaluation.picture_scores import (
    AXES,
    EFFICIENTNET,
    ClipSets,
    FeatureSets,
    PictureSets,
    embedding_by,
    frechet_chance,
    judge_clips,
    judge_pictures,
)
from nfldm3d.evaluation.published import PUBLISHED, published_table
from nfldm3d.evaluation.scene_pictures import CLIP_FRAMES, NumberedPictures


def colours(images: Tensor) -> Tensor:
    """A network that knows four numbers of a picture."""
    return torch.cat((images.mean((-2, -1)), images.std((-2, -1)).mean(1, keepdim=True)), dim=1)


def pictures(scenes: int, shade: float, seed: int, views: int = 4) -> NumberedPictures:
    draws = torch.Generator().manual_seed(seed)
    base = shade + 0.2 * torch.rand(scenes, 1, 3, 1, 1, generator=draws)
    images = base + 0.05 * torch.rand(scenes, views, 3, 6, 5, generator=draws)
    return NumberedPictures(images.flatten(0, 1), torch.arange(scenes).repeat_interleave(views))


EMBED = embedding_by(colours, torch.device("cpu"), 7)
SETS = FeatureSets.of(
    PictureSets(pictures(12, 0.5, 0), pictures(12, 0.1, 1), pictures(24, 0.0, 2), pictures(12, 0.02, 3)), EMBED
)


def test_sets_nearer_to_recorded_ones_score_better() -> None:
    figures = judge_pictures(SETS, generator=torch.Generator().manual_seed(0))
    assert figures["frechet"] > figures["frechet_rebuilt"] > figures["frechet_floor"] > 0
    assert figures["frechet_ratio"] == pytest.approx(figures["frechet"] / figures["frechet_floor"])
    assert figures["kernel_distance"] > figures["kernel_distance_floor"] and figures["precision"] == 0
    named = judge_pictures(SETS, EFFICIENTNET, generator=torch.Generator().manual_seed(0))
    assert {f"{name}_efficientnet" for name in ("frechet", "precision", "recall", "kernel_distance")} <= set(named)
    assert not any("fid" in name for name in named) and sorted(named.values()) == sorted(figures.values())


def test_distances_that_need_more_pictures_are_left_out() -> None:
    wide = FeatureSets.of(
        PictureSets(*(pictures(12, 0.1, seed) for seed in range(4))), lambda images: images.flatten(1)
    )
    figures = judge_pictures(wide)
    assert "frechet" not in figures and "kernel_distance" in figures and "precision" in figures


def test_other_scenes_would_have_given_distances_between_the_bounds() -> None:
    low, high = frechet_chance(SETS.made, SETS.held_out, generator=torch.Generator().manual_seed(0))
    figure = judge_pictures(SETS)["frechet"]
    assert low < figure < high


def test_intervals_cover_the_truth() -> None:
    """Of 60 samples of a normal distribution, nine tenths of the intervals of the mean hold it, about."""
    draws, hits = torch.Generator().manual_seed(0), 0
    for _ in range(60):
        values = torch.randn(40, generator=draws) + 3
        low, high = bootstrap(lambda chosen, v=values: float(v[chosen].mean()), 40, generator=draws)
        hits += low < 3 < high
    assert 46 <= hits <= 60
    numbers = torch.tensor([0, 0, 1, 2, 2])
    assert rows_of(torch.tensor([2, 0, 2]), numbers).tolist() == [3, 4, 0, 1, 3, 4]


def clips(count: int, seed: int, order: tuple[int, ...] = (0, 1, 2, 3)) -> list[Tensor]:
    """Shades that rise by a pace of their own."""
    draws = torch.Generator().manual_seed(seed)
    start, pace = (
        0.3 * torch.rand(count, 1, 1, 1, 1, generator=draws),
        0.1 + 0.1 * torch.rand(count, 1, 1, 1, 1, generator=draws),
    )
    steps = torch.arange(4.0).view(1, 4, 1, 1, 1)
    moving = start + pace * steps + 0.02 * torch.rand(count, 4, 3, 4, 4, generator=draws)
    return list(moving[:, list(order)])


def test_clips_are_told_apart_by_their_motion_alone() -> None:
    """The same frames in another order are farther away than other clips in the right one."""
    count = AXES * CLIP_FRAMES + 8
    right, wrong = clips(count, 0), clips(count, 0, (2, 0, 3, 1))
    sets = [ClipSets(made, clips(count, 1), clips(count, 2)) for made in (right, wrong)]
    good, bad = (judge_clips(some, EMBED) for some in sets)
    assert bad["frechet_video"] > 10 * good["frechet_video"] and good["frechet_video_ratio"] < 3
    named = judge_clips(sets[0], EMBED, EFFICIENTNET)
    assert named["frechet_video_efficientnet"] == pytest.approx(good["frechet_video"])
    assert judge_clips(ClipSets([], right, right), EMBED) == {}
    assert judge_clips(ClipSets(right[:3], right, right), EMBED) == {}


def test_published_figures_are_marked() -> None:
    table = published_table()
    assert "printed in NF-LDM" in str(table["note"]) and table["FVD, AVD"] == {
        "EG3D": 1232.38,
        "GSN": 1659.81,
        "NF-LDM": 242.5,
    }
    assert {row.method for row in PUBLISHED} >= {"GRAF", "pi-GAN", "GSN", "GAUDI", "EG3D", "NF-LDM"}
    best = {(row.world, row.figure): min(r.value for r in PUBLISHED if r[1:3] == row[1:3]) for row in PUBLISHED}
    assert all(row.value == best[row.world, row.figure] for row in PUBLISHED if row.method == "NF-LDM")
