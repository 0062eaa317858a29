"""Objects in transparent pictures: their box is the visual hull, nothing lies around, and opacity is learned."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_fits import ball_scene, views_of

from nfldm3d import Box, Camera, PosedImages, render
from nfldm3d.data import read_transforms_json
from nfldm3d.fitting import FitOptions, estimate_boxes, fit, hulls
from nfldm3d.fitting.batches import PixelStore, SizedPixels
from nfldm3d.fitting.hulls import CELLS, carve, find_hull

CENTER = torch.tensor(ball_scene().box.center)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> PosedImages:
    return make_capture(tmp_path_factory.mktemp("ball"))


def make_capture(folder: Path, *, white: bool = False) -> PosedImages:
    """A ball of 0.8 m in pictures with alpha, from a circle of 4 m, without a box or depth."""
    from PIL import Image

    opaque = replace(views_of(ball_scene(), count=12, size=(40, 30)), metadata={})
    opaque = PosedImages.from_tensors(opaque.load_images(), opaque.camera)
    opaque.save(folder / "capture")
    seen = render(ball_scene(), opaque.camera)
    color = torch.ones_like(seen.image) if white else seen.image / seen.opacity[:, None].clamp(min=1e-6)
    pixels = torch.cat((color, seen.opacity[:, None]), dim=1).clamp(0, 1).mul(255).round().byte()
    for frame, rgba in zip(read_transforms_json(folder / "capture").frames, pixels, strict=True):
        assert isinstance(frame.image, Path)
        Image.fromarray(rgba.permute(1, 2, 0).contiguous().numpy()).save(frame.image)
    return read_transforms_json(folder / "capture")


def test_alpha_is_read_and_none_where_pictures_are_opaque(capture: PosedImages) -> None:
    alpha, seen = capture.load_alpha(), render(ball_scene(), capture.camera)
    assert alpha is not None
    torch.testing.assert_close(alpha, seen.opacity, atol=0.005, rtol=0)
    assert views_of(ball_scene()).load_alpha() is None
    batch = PixelStore.load(capture, torch.device("cpu")).draw(500, torch.Generator().manual_seed(0))
    assert batch.opacities is not None and 0 < float(batch.opacities.mean()) < 0.6


def test_pictures_are_read_one_by_one(capture: PosedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    images, alpha = capture.load_images(), capture.load_alpha()
    assert alpha is not None
    opaque = PosedImages.from_tensors(images, capture.camera)
    mixed = replace(capture, frames=(*capture.frames[:5], *opaque.frames[5:]))
    load = PosedImages.load_images

    def load_one(views: PosedImages) -> torch.Tensor:
        assert len(views) == 1
        return load(views)

    monkeypatch.setattr(PosedImages, "load_images", load_one)
    for views, shown in ((capture, 12), (mixed, 5)):
        pixels = SizedPixels.load(views, torch.device("cpu"))
        assert torch.equal(pixels.colors.view(12, 30, 40, 3), (images * 255).round().byte().movedim(1, -1))
        assert pixels.alpha is not None
        seen = pixels.alpha.view(12, 30, 40)
        assert torch.equal(seen[:shown], (alpha[:shown] * 255).round().byte()) and bool((seen[shown:] == 255).all())
    assert SizedPixels.load(opaque, torch.device("cpu")).alpha is None


def test_the_box_is_that_of_the_hull_and_nothing_lies_around(capture: PosedImages) -> None:
    box, surroundings = estimate_boxes(capture)
    assert surroundings == 0
    lower, upper = torch.tensor(box.lower), torch.tensor(box.upper)
    assert bool((lower <= CENTER - 0.8).all()) and bool((upper >= CENTER + 0.8).all())
    # the ball's diameter is 1.6 and a pixel 0.1 where it stands; the box around the cameras' focus is 4.8
    assert max(box.size) < 2.3
    recorded = replace(capture, metadata={"box": {"lower": [-1, 0, 1], "upper": [2, 2.5, 3]}})
    assert estimate_boxes(recorded) == (Box((-1, 0, 1), (2, 2.5, 3)), 0)
    assert find_hull(views_of(ball_scene())) is None


def test_large_pictures_carve_as_small_ones(capture: PosedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, sizes = find_hull(capture), []
    monkeypatch.setattr(hulls, "LONGEST", 20)
    looked = hulls._find_silhouettes

    def look(images: PosedImages, plain: bool):
        sizes.append((images.camera.width, images.camera.height))
        return looked(images, plain)

    monkeypatch.setattr(hulls, "_find_silhouettes", look)
    coarse = find_hull(capture)
    assert whole is not None and coarse is not None and sizes == [(20, 15)]
    torch.testing.assert_close(torch.tensor(coarse.box.lower), torch.tensor(whole.box.lower), atol=0.25, rtol=0)
    torch.testing.assert_close(torch.tensor(coarse.box.upper), torch.tensor(whole.box.upper), atol=0.25, rtol=0)


def test_masks_that_contradict_alpha_are_refused(capture: PosedImages) -> None:
    alpha = capture.load_alpha()
    assert alpha is not None
    frames = tuple(replace(frame, mask=seen == 0) for frame, seen in zip(capture.frames, alpha, strict=True))
    with pytest.raises(ValueError, match="all pixels that the masks leave are transparent"):
        estimate_boxes(replace(capture, frames=frames))


def test_what_is_masked_out_carves_nothing(capture: PosedImages) -> None:
    hidden = torch.ones(30, 40, dtype=torch.bool)
    hidden[:8] = False
    frames = tuple(replace(frame, mask=hidden) for frame in capture.frames)
    some, whole = find_hull(replace(capture, frames=frames)), find_hull(capture)
    assert whole is not None and float(whole.cells.float().mean()) < 0.9
    corners = torch.tensor([whole.box.lower, whole.box.upper])
    assert some is None or bool(some.box.contains(corners).all())


def test_what_one_view_alone_pictures_is_not_known() -> None:
    eyes = torch.tensor([[6.0, 0.0, 0.0], [0.0, 6.0, 0.0]])
    whole = Camera.look_at(eyes[:1], torch.zeros(1, 3), width=64, height=64, horizontal_fov_degrees=60.0)
    part = Camera.look_at(eyes[1:], torch.tensor([[2.0, 0.0, 0.0]]), width=64, height=64, horizontal_fov_degrees=20.0)
    shown = torch.zeros(2, 64, 64, dtype=torch.bool)
    shown[0, 24:40, 24:40], shown[1] = True, True  # the second one shows nothing else, from border to border
    box = Box((-3.0, -3.0, -3.0), (3.0, 3.0, 3.0))
    kept = carve(Camera.cat([whole, part]), shown, box)
    assert bool(kept.any())
    centers = box.voxel_centers((CELLS, CELLS, CELLS), torch.zeros(1))[kept]
    assert float(centers[:, 0].min()) > 0.0  # though the first one sees a cone through all of the box


def test_views_without_alpha_or_depth_count_as_opaque_and_unmeasured(capture: PosedImages) -> None:
    seen = SizedPixels.load(capture, torch.device("cpu"))
    seen = replace(seen, depth=torch.full((len(seen),), 2.0))
    batch = PixelStore((seen, replace(seen, alpha=None, depth=None))).draw(600, torch.Generator().manual_seed(0))
    assert batch.opacities is not None and batch.distances is not None
    assert len(batch.opacities) == len(batch.distances) == 600
    unmeasured = batch.distances == 0
    assert 250 < int(unmeasured.sum()) < 350
    assert bool((batch.opacities[unmeasured] == 1).all()) and float(batch.opacities[~unmeasured].mean()) < 0.6


def test_opacity_is_learned_and_the_background_stays_empty(tmp_path: Path) -> None:
    capture = make_capture(tmp_path, white=True)  # over white: without alpha there would be nothing to see
    options = FitOptions(steps=300, rays_per_step=1024, voxels=20**3, degree=0)
    scene = fit(capture, options=options, progress=False)
    assert not scene.surroundings
    alpha, seen = capture.load_alpha(), render(scene, capture.camera)
    assert alpha is not None
    assert float((seen.opacity - alpha).abs().mean()) < 0.03
    assert float(seen.opacity[alpha == 1].mean()) > 0.95
    assert float(seen.opacity[alpha == 0].mean()) < 0.02
