"""Both kinds of generators are judged whole, on worlds small enough for tests."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_rooms import GRID, disturb, labelled, scene_autoencoder, scene_generator

from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.evaluation.generated_scenes import GeneratorBudget, move_cars, sample_pieces
from nfldm3d.evaluation.generator import Judges, judge_generator, measure_generator
from nfldm3d.evaluation.pieces import Pieces
from nfldm3d.jobs import Share
from nfldm3d.models.gaudi.autodecoder import SceneAutodecoder
from nfldm3d.models.nfldm.denoisers import GlobalDenoiser
from nfldm3d.models.nfldm.readers import BevReader, FrameClassifier
from nfldm3d.models.nfldm.trajectories import POSES
from nfldm3d.pipelines.global_generator import GlobalGenerator
from nfldm3d.training.denoiser_stage import make_schedule

WALK = torch.tensor([[2.0, 0.0, 1.5, 1.0, 0.0], [4.0, 1.0, 1.5, 0.0, 1.0]])
BUDGET = GeneratorBudget(scenes=3, mapped=2, edited=1, pictures=12, rebuilt=2, remembered=2, steps=1, progress=False)


def recorded(number: int, split: str) -> SceneSample:
    return replace(labelled(number), key=f"{split}_{number}", split=split, trajectory=WALK, kinds=("walk",) * 4)


TRAINING, HELD_OUT = ([recorded(number, split) for number in range(4)] for split in ("train", "test"))


def baseline() -> GlobalGenerator:
    """Untrained networks; the codes are those of the training scenes."""
    shape = {"resolution": GRID, "channels": 5, "sky_rows": 4, "width": 16, "fine_width": 8}
    keys = tuple(sample.key for sample in TRAINING)
    decoder = disturb(SceneAutodecoder(keys, global_dimensions=6, downsampling=4, **shape))  # type: ignore[arg-type]
    condition = {"map_classes": 3, "map_size": 8, "map_width": 32}
    denoiser = disturb(GlobalDenoiser(dimensions=6 + 5 * POSES, widths=(16, 16), **condition))
    names, colors = ("dark", "bright", "mark"), ((0, 0, 0), (255, 255, 255), (9, 9, 9))
    assert isinstance(decoder, SceneAutodecoder) and isinstance(denoiser, GlobalDenoiser)
    box = (4.0, 4.0, 2.0)
    pipeline = GlobalGenerator(scene_autoencoder(), decoder, denoiser, make_schedule(), box, names, colors)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def judges() -> Judges:
    return Judges(FrameClassifier(2, 2, 16, features=4, width=8).eval(), reader=BevReader(GRID, 5, 3, (8, 8)).eval())


@pytest.mark.slow
@pytest.mark.parametrize("ours", [True, False])
def test_generators_are_judged(ours: bool, tmp_path: Path) -> None:
    """Anew, and from pieces, with the same result; the baseline cannot edit, and the rest is the same."""
    pipeline = scene_generator() if ours else baseline()
    report = measure_generator(pipeline, judges(), TRAINING, HELD_OUT, budget=BUDGET)
    figures = report.figures
    wanted = {"frechet_ratio_low", "frechet_ratio", "frechet_rebuilt", "precision", "bev_miou_ceiling"}
    assert wanted | {"memorised_fraction"} <= set(figures) and ("edit_kept_psnr" in figures) == ours
    assert any(name.startswith("bev_iou_") and name.endswith("_ceiling") for name in figures)
    assert len(report.nearest) == 3 and len(report.strips) == 3
    torch.manual_seed(0)
    pieces = Pieces(tmp_path, Share())
    assert sample_pieces(pipeline, HELD_OUT, BUDGET, pieces)
    torch.manual_seed(0)
    again = measure_generator(pipeline, judges(), TRAINING, HELD_OUT, budget=BUDGET, pieces=pieces)
    assert set(again.figures) == set(figures) and again.nearest == report.nearest


def test_maps_without_cars_are_left_alone() -> None:
    pipeline, maps = baseline(), torch.zeros(2, 8, 8, dtype=torch.long)
    moves, same = move_cars(pipeline, maps, BUDGET)
    assert moves == [None, None] and torch.equal(same, maps)
    pipeline.register_to_config(map_classes=["road", "verge", "car"])
    maps = torch.zeros(2, 40, 20, dtype=torch.long)
    maps[:, 5:9, 4:6] = 2
    moves, changed = move_cars(pipeline, maps, BUDGET)
    assert all(move is not None for move in moves) and (changed == 2).sum() == 16 and not torch.equal(changed, maps)


def test_the_old_name_says_the_new_one() -> None:
    with pytest.warns(DeprecationWarning, match="is now measure_generator"), pytest.raises(ValueError, match="scenes"):
        judge_generator(scene_generator(), judges().classifier, None, [], HELD_OUT, budget=replace(BUDGET, scenes=0))
