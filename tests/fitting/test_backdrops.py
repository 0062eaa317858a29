"""Objects on plain backgrounds: the colour is recognised, what it leaves is cut out, and no other borders count."""

from dataclasses import replace

import pytest
import torch
from small_fits import ball_scene, views_of

from nfldm3d import PosedImages, render
from nfldm3d.fitting import FitOptions, estimate_boxes, fit
from nfldm3d.fitting.backdrops import Backdrop, cut_out, find_backdrop, find_outside
from nfldm3d.fitting.batches import PixelStore
from nfldm3d.fitting.hulls import find_hull

COLOR = (0.9, 0.8, 0.85)
CENTER = torch.tensor(ball_scene().box.center)


def make_capture(noise: float = 0.0) -> PosedImages:
    """A ball of 0.8 m before one colour, from a circle of 4 m, without a box or depth."""
    camera = views_of(ball_scene(), count=12, size=(40, 30)).camera
    pictures = render(replace(ball_scene(), background=torch.tensor(COLOR)), camera).image
    drawn = torch.rand(pictures.shape, generator=torch.Generator().manual_seed(0))
    return PosedImages.from_tensors((pictures + noise * (2 * drawn - 1)).clamp(0, 1), camera)


@pytest.mark.parametrize("noise", [0.0, 2 / 255])
def test_a_plain_background_is_recognised(noise: float) -> None:
    capture = make_capture(noise)
    backdrop = find_backdrop(capture.load_images())
    assert backdrop is not None
    torch.testing.assert_close(torch.tensor(backdrop.color), torch.tensor(COLOR), atol=noise + 1e-3, rtol=0)
    seen = render(ball_scene(), capture.camera).opacity
    for picture, opacity in zip(capture.load_images(), seen, strict=True):
        cut = cut_out(picture, backdrop)
        assert float(opacity[cut == 0].max()) < 0.1 and float(opacity[cut == 1].min()) > 0.9
        assert float((cut < 0).float().mean()) < 0.2


def test_what_is_not_plain_or_only_a_frame_is_no_backdrop(generator: torch.Generator) -> None:
    pictures = make_capture().load_images()
    assert find_backdrop(pictures + torch.linspace(0, 0.1, 40)) is None  # light that falls off
    assert find_backdrop(torch.rand(pictures.shape, generator=generator)) is None
    framed = torch.rand(pictures.shape, generator=generator)
    framed[..., :2, :], framed[..., -2:, :], framed[..., :2], framed[..., -2:] = 0.0, 0.0, 0.0, 0.0
    assert find_backdrop(framed) is None  # black around pictures whose distortion was taken out
    pictures[:3] = torch.rand(3, *pictures.shape[1:], generator=generator)
    assert find_backdrop(pictures) is None  # a quarter of the views shows something else


def test_holes_are_not_taken_for_matter_nor_for_background() -> None:
    picture = torch.ones(3, 24, 32)
    picture[:, 4:20, 6:26] = 0.2
    picture[:, 9:15, 12:20] = 1.0  # a hole, or a white part
    cut = cut_out(picture, Backdrop((1.0, 1.0, 1.0), 0.01))
    assert (cut[0] == 0).all() and cut[6, 8] == 1 and (cut[10:14, 13:19] == -1).all() and cut[4, 10] == -1


def test_outside_follows_bends_and_stops_at_corners() -> None:
    plain = torch.zeros(9, 9, dtype=torch.bool)
    plain[0, 2] = plain[1:7, 2] = plain[6, 2:7] = plain[2:7, 6] = plain[2, 4:7] = plain[2:5, 4] = True  # a spiral
    path = plain.clone()
    plain[7, 7] = True  # touches it by a corner
    assert torch.equal(find_outside(plain), path)


def test_the_box_is_that_of_the_hull_unless_depth_or_masks_tell(generator: torch.Generator) -> None:
    capture = make_capture()
    box, surroundings = estimate_boxes(capture)
    assert surroundings == 0 and max(box.size) < 2.3
    assert bool(box.contains(torch.stack((CENTER - 0.8, CENTER + 0.8))).all())
    assert find_hull(capture, plain=False) is None
    depth = torch.full((12, 30, 40), 4.0)
    masks = torch.ones(12, 30, 40, dtype=torch.bool)
    for extra in ({"depth": depth}, {"masks": masks}):
        assert find_hull(PosedImages.from_tensors(capture.load_images(), capture.camera, **extra)) is None
    store = PixelStore.load(capture, torch.device("cpu"))
    drawn = store.draw(500, generator).opacities
    assert drawn is not None and set(drawn.unique().tolist()) <= {0.0, 1.0, float(drawn.min())} and drawn.min() < 0


def test_a_fit_keeps_the_colour_behind_an_object_and_nothing_before_it() -> None:
    capture = make_capture()
    options = FitOptions(steps=150, rays_per_step=1024, voxels=20**3, degree=0)
    scene = fit(capture, options=options, progress=False)
    assert not scene.surroundings and isinstance(scene.background, torch.Tensor)
    torch.testing.assert_close(scene.background, torch.tensor(COLOR), atol=1e-3, rtol=0)
    seen, true = render(scene, capture.camera), render(ball_scene(), capture.camera)
    assert float(seen.opacity[true.opacity < 0.01].mean()) < 0.02
    assert float(seen.opacity[true.opacity > 0.99].mean()) > 0.9
    other = fit(capture, options=replace(options, steps=2, background="environment"), progress=False)
    assert other.surroundings and not isinstance(other.background, torch.Tensor)
