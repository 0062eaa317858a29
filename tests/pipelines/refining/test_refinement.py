"""Scenes are refined as restorers and priors say, keep what they must keep, and stop where numbers end."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from small_priors import GaussianPrior
from small_refining import BOX, SIZE, make_restorer, make_scene
from torch import Tensor

from nfldm3d import EnvironmentMap, Scene, VoxelField, render
from nfldm3d.evaluation.metrics import psnr
from nfldm3d.files import DataFormatError
from nfldm3d.fitting import Step
from nfldm3d.models.priors.image_denoiser import ImageDenoiser
from nfldm3d.models.priors.restorer import RawViews, Restorer
from nfldm3d.pipelines.refining import RefinementStopped, RefineOptions, refine, refinement
from nfldm3d.pipelines.refining.cameras import AREA, choose_cameras, is_free, square
from nfldm3d.pipelines.refining.grid import RefinedGrid
from nfldm3d.pipelines.refining.refinement import make_conditions

QUICK = RefineOptions(views=6, views_per_step=3, steps=30, frozen=0.5, restoring_steps=1)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene()


def seen(scene: Scene) -> Tensor:
    assert scene.cameras is not None
    with torch.no_grad():
        return render(scene, square(scene.cameras, SIZE)).image


def test_an_untrained_restorer_repeats_what_the_decoder_draws(scene: Scene) -> None:
    raw = make_restorer().restore(RawViews(seen(scene), torch.ones(5, SIZE, SIZE), torch.ones(5, SIZE, SIZE)))
    assert torch.allclose(raw, seen(scene), atol=1e-3)
    refined = refine(scene, make_restorer(), options=replace(QUICK, steps=40), progress=False)
    assert refined.field.resolution == (32, 24, 8) and refined.field.channels == 3  # type: ignore[attr-defined]
    assert float(psnr(seen(refined), seen(scene))) > 20
    assert refined.cameras is scene.cameras and "refined" in refined.metadata


def test_pictures_follow_the_restorer(scene: Scene) -> None:
    refined = refine(scene, make_restorer(0.2), options=QUICK, progress=False)
    gain = (seen(refined) - seen(scene)).mean()
    assert 0.1 < float(gain) < 0.25
    field = refined.field
    assert isinstance(field, VoxelField) and float(field.features.min()) >= 0 and float(field.features.max()) <= 1
    brightest = refine(scene, make_restorer(3.0), options=replace(QUICK, rate=0.5, steady=0.0), progress=False)
    shares = [made.metadata["refined"]["saturated"] for made in (refined, brightest)]  # type: ignore[index]
    assert shares[0] < 0.5 < shares[1]


def test_densities_rest_at_first_and_stay_near(scene: Scene) -> None:
    still = refine(scene, make_restorer(0.2), options=replace(QUICK, frozen=1.0), progress=False)
    moved = refine(scene, make_restorer(0.2), options=replace(QUICK, frozen=0.1), progress=False)
    start = scene.field.resampled((32, 24, 8)).density  # type: ignore[attr-defined]
    assert torch.allclose(still.field.density, start, atol=1e-4)  # type: ignore[attr-defined]
    change = (moved.field.density - start).abs().max()  # type: ignore[attr-defined]
    assert 0 < float(change) < 2.0


def test_what_hardly_shows_of_the_sky_stays(scene: Scene) -> None:
    first = RefinedGrid(scene, QUICK).first_sky
    assert first is not None
    moved = []
    for steady in (0.0, RefineOptions().steady):
        refined = refine(scene, make_restorer(0.2), options=replace(QUICK, steady=steady), progress=False)
        assert isinstance(refined.background, EnvironmentMap)
        moved.append((refined.background.image - first).abs().mean((1, 2)))
    behind_the_ground, above = slice(len(first) * 3 // 4, None), slice(len(first) // 2)
    assert float(moved[1][behind_the_ground].mean()) < 0.2 * float(moved[0][behind_the_ground].mean())
    assert float(moved[1][above].mean()) > 0.3 * float(moved[0][above].mean())


def test_a_prior_pulls_towards_a_look(scene: Scene) -> None:
    dark = torch.full((4, 3, 8, 8), 0.1)
    options = replace(QUICK, steps=40, keep_coarse=0.0, copied=0.2, guidance_scale=1.0)
    refined = refine(scene, GaussianPrior(image_size=SIZE), options=options, like=dark, progress=False)
    assert float(seen(refined).mean()) < float(seen(scene).mean()) - 0.05


def test_conditions_are_moved_by_the_difference_of_means(scene: Scene) -> None:
    camera = choose_cameras(scene, 6, SIZE, torch.Generator().manual_seed(0))
    like, prior = torch.rand(5, 3, 8, 8), GaussianPrior()
    wanted, avoided = make_conditions(scene, prior, camera, like, RefineOptions())
    assert avoided is not None and wanted.shape == avoided.shape == (6, 1, 1)
    assert torch.allclose(wanted.mean(0), prior.embed(like).mean(0), atol=1e-5)
    assert torch.allclose(wanted - avoided, (wanted - avoided)[:1].expand(6, -1, -1), atol=1e-5)
    assert make_conditions(scene, prior, camera, like, RefineOptions(plain_guidance=True))[1] is None


def test_the_same_seed_gives_the_same_scene_and_a_stopped_run_goes_on(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refinement, "CHECKPOINT_SECONDS", 0.0)
    options, told, path = replace(QUICK, steps=8), [], tmp_path / "run.safetensors"

    def stop(step: Step, shown: Scene) -> None:
        told.append((step.number, type(shown)))
        if len(told) == 6:  # of eight: the state of the fifth step is kept
            raise KeyboardInterrupt

    once = refine(scene, make_restorer(0.2), options=options, progress=False)
    with pytest.raises(KeyboardInterrupt):
        refine(scene, make_restorer(0.2), options=options, checkpoint=path, preview=stop, progress=False)
    assert told == [(number, Scene) for number in range(1, 7)]
    again = refine(scene, make_restorer(0.2), options=options, checkpoint=path, progress=False)
    assert torch.equal(once.field.features, again.field.features)  # type: ignore[attr-defined]
    assert torch.equal(once.field.density, again.field.density)  # type: ignore[attr-defined]
    with pytest.raises(DataFormatError, match="rate"):
        other = replace(options, rate=0.01)
        refine(scene, make_restorer(0.2), options=other, checkpoint=path, progress=False)


@dataclass(frozen=True)
class Broken(GaussianPrior):
    """Answers NaN."""

    def predict_noise(self, latents: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return super().predict_noise(latents, t, condition) * float("nan")


def test_guidance_that_is_no_number_stops_and_keeps_the_last_good_scene(scene: Scene) -> None:
    like = torch.rand(4, 3, 8, 8)
    with pytest.raises(RefinementStopped, match="step 9: pull is nan") as stop:
        refine(scene, Broken(image_size=SIZE), options=QUICK, like=like, progress=False)
    assert bool(torch.isfinite(seen(stop.value.scene)).all())
    assert float(psnr(seen(stop.value.scene), seen(scene))) > 12


def test_cameras_stand_in_free_space_on_the_right_places(scene: Scene, generator: torch.Generator) -> None:
    camera = choose_cameras(scene, 30, SIZE, generator)
    assert len(camera) == 30 and camera.width == camera.height == SIZE
    assert bool(is_free(scene, camera.centers).all())
    own = {tuple(center) for center in scene.cameras.centers.tolist()}  # type: ignore[union-attr]
    there = [tuple(center) in own for center in camera.centers.tolist()]
    assert all(there[:20]) and not all(there[20:])
    middle = camera.centers[20:, :2] - torch.tensor(BOX.center[:2])
    assert float(middle.norm(dim=-1).max()) < (AREA / torch.pi) ** 0.5 + 0.35
    assert not is_free(scene, torch.tensor([[4.9, 1.0, 0.6], [0.0, 0.0, 5.0]])).any()


def test_what_cannot_be_refined_is_refused(scene: Scene) -> None:
    like = torch.rand(4, 3, 8, 8)
    cases = (
        (replace(scene, cameras=None), make_restorer(), None, "has no cameras"),
        (scene, make_restorer(), like, "a restorer knows one look"),
        (scene, GaussianPrior(image_size=SIZE), None, "must be told what pictures should be like"),
        (scene, GaussianPrior(image_size=SIZE), like[:2], "at least 4 pictures, got 2"),
        (scene, GaussianPrior(image_size=SIZE), like * float("nan"), "NaN or infinity"),
    )
    for given, model, look, message in cases:
        with pytest.raises(ValueError, match=message):
            refine(given, model, like=look, progress=False)


def test_weights_of_a_prior_are_no_restorer(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match="holds no folder restorer"):
        Restorer.from_pretrained(tmp_path)
    ImageDenoiser(size=SIZE, widths=(8, 16), blocks=1, embedding=4).save_pretrained(tmp_path / "restorer")
    with pytest.raises(DataFormatError, match="is a prior and restores nothing"):
        Restorer.from_pretrained(tmp_path)
    make_restorer().network.save_pretrained(tmp_path / "restorer")
    assert Restorer.from_pretrained(tmp_path).image_size == SIZE


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"rate": -1.0}, {"frozen": 1.5}, {"finer": 0}])
def test_options_that_cannot_be_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RefineOptions(**wrong)
