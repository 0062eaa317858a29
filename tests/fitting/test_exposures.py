"""Each photograph has an exposure of its own: known factors are found, and the scene keeps what all views share."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_fits import QUICK, ball_scene, views_of

from nfldm3d import PosedImages
from nfldm3d.cli.fit import measure
from nfldm3d.data import read_posed_images
from nfldm3d.fitting import OptimisationError, Step, fit
from nfldm3d.fitting.batches import PixelStore
from nfldm3d.fitting.exposures import are_photographs, guess_factors, match_exposures, read_factors
from nfldm3d.fitting.photographs import _start

FACTORS = (torch.linspace(-0.25, 0.25, 12)[torch.randperm(12, generator=torch.Generator().manual_seed(5))]).exp()


@pytest.fixture(scope="module")
def capture() -> PosedImages:
    """A pale ball whose views were exposed differently."""
    scene = ball_scene()
    views = views_of(replace(scene, field=replace(scene.field, features=0.5 + 0.4 * scene.field.features)))
    dimmed = (0.8 * FACTORS[:, None, None, None] * views.load_images()).clamp(0, 1)
    made = PosedImages.from_tensors(dimmed, views.camera, depth=views.load_depth())
    return replace(made, metadata=views.metadata)


def test_factors_are_found_and_the_scene_is_that_of_the_mean(capture: PosedImages) -> None:
    scene = fit(capture, options=replace(QUICK, steps=300, rays_per_step=512, exposure=True), progress=False)
    found = torch.tensor(list(scene.metadata["exposures"].values()))
    assert found.shape == (12, 3)
    torch.testing.assert_close(found.log().mean(0), torch.zeros(3), atol=1e-3, rtol=0)
    pairs = torch.stack((found.log().mean(1), FACTORS.log()))
    assert float(pairs.diff(dim=0).abs().max()) < 0.13 and float(torch.corrcoef(pairs)[0, 1]) > 0.95
    assert "exposures" not in fit(capture, options=replace(QUICK, steps=1), progress=False).metadata


def test_photographs_have_exposures_unless_the_background_is_known(tmp_path: Path, capture: PosedImages) -> None:
    assert not are_photographs(capture)
    for kind in ("jpg", "png"):
        capture.save(tmp_path / kind, image_format=kind)
        read = read_posed_images(tmp_path / kind)
        assert are_photographs(read) == (kind == "jpg")
        store = PixelStore.load(read, torch.device("cpu"))
        learned = _start(read, store, QUICK).exposures
        assert (learned is not None) == (kind == "jpg")
        assert _start(read, store, replace(QUICK, exposure=kind == "png")).exposures is None or kind == "png"
    known = replace(read_posed_images(tmp_path / "jpg"), background=(1.0, 1.0, 1.0))
    assert _start(known, store, replace(QUICK, background="auto")).exposures is None


def test_exposures_are_kept_in_checkpoints_and_move_with_all_or_nothing(capture: PosedImages) -> None:
    store = PixelStore.load(capture, torch.device("cpu"))
    state = _start(capture, store, replace(QUICK, exposure=True, background="environment"))
    assert state.exposures is not None and state.sky is not None
    state.exposures.data.copy_(torch.randn(12, 3, generator=state.generator))
    kept, names = {name: part.clone() for name, part in state.state().items()}, ("exposure.views", "sky.image")
    before = state.exposures.detach().clone()
    state.sky.grad, state.exposures.grad = torch.ones_like(state.sky), torch.full((12, 3), float("nan"))
    with pytest.raises(OptimisationError, match="the gradient of views is not finite"):
        state.advance(Step(rate=1.0))
    assert all(torch.equal(state.state()[name], kept[name]) for name in names)
    state.exposures.grad = torch.ones_like(before)
    state.advance(Step(rate=1.0))
    torch.testing.assert_close(state.exposures.mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    state.restore(kept)
    assert torch.equal(state.exposures, before)
    factors, prior = read_factors(state.exposures, torch.tensor([3, 3, 0]))
    torch.testing.assert_close(factors.log(), before[[3, 3, 0]])
    assert prior.item() == pytest.approx(1e-4 * float(before.square().mean()))


def test_pictures_are_matched_with_photographs_of_another_exposure(tmp_path: Path, capture: PosedImages) -> None:
    pictures, masks = views_of(ball_scene()).load_images(), torch.ones(12, 36, 48, dtype=torch.bool)
    factors = torch.stack((FACTORS, FACTORS.flip(0), 1 / FACTORS), dim=-1)[:, :, None, None]
    photographs = 0.7 * factors * pictures
    torch.testing.assert_close(match_exposures(pictures, photographs), photographs)
    masks[:, 10:20], photographs[..., 10:20, :] = False, 1.0
    matched = match_exposures(pictures, photographs, masks)
    torch.testing.assert_close(matched[..., :10, :], photographs[..., :10, :])
    dim, exposed = (
        PosedImages.from_tensors(0.7 * pictures, capture.camera),
        replace(ball_scene(), metadata={"exposures": {}}),
    )
    figures = [measure(scene, dim, tmp_path / "sheet.png") for scene in (exposed, ball_scene())]
    assert figures[0]["psnr_exposed"] > figures[0]["psnr"] + 10 and "psnr_exposed" not in figures[1]


def test_exposures_of_other_views_are_those_of_their_neighbours(tmp_path: Path, capture: PosedImages) -> None:
    scene = views_of(ball_scene())
    fitted = scene.camera[[0, 2, 4, 6, 8, 10]]
    factors = torch.linspace(0.5, 2.0, 6)[:, None].repeat(1, 3)
    torch.testing.assert_close(guess_factors(factors, fitted, fitted), factors, atol=1e-4, rtol=0)
    between = guess_factors(factors, fitted, scene.camera[[1, 3]])
    torch.testing.assert_close(between, (factors[:2] * factors[1:3]).sqrt(), atol=0.05, rtol=0)
    torch.testing.assert_close(guess_factors(factors[:1], fitted[:1], scene.camera[[5]]), factors[:1])
    truth = scene.load_images()
    known = dict(zip("abcdef", factors.tolist(), strict=True))
    exposed = replace(ball_scene(), cameras=fitted, metadata={"exposures": known})
    seen = PosedImages.from_tensors((truth[[0, 4]] * factors[[0, 2], :, None, None]).clamp(0, 1), fitted[[0, 2]])
    figures = measure(exposed, seen, tmp_path / "sheet.png")
    assert figures["psnr_neighbours"] > figures["psnr"] + 10  # type: ignore[operator]


def test_each_ray_knows_its_view_whatever_its_size(generator: torch.Generator) -> None:
    views = views_of(ball_scene())
    small = views[:4].resized(24, 18)
    stores = [PixelStore.load(part, torch.device("cpu")) for part in (views, small)]
    batch = PixelStore((*stores[0].groups, *stores[1].groups)).draw(500, generator)
    centers = torch.cat((views.camera.centers, small.camera.centers))
    assert torch.equal(batch.rays.origins, centers[batch.views]) and int(batch.views.max()) == 15
