"""PosedImages: picking views, scaling, holding out, loading, saving."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nfldm3d import Camera
from nfldm3d.data import BevMap, PosedImages, image_files, posed_images, read_transforms_json
from nfldm3d.files import DataFormatError

VIEWS, HEIGHT, WIDTH = 5, 6, 8


def make_camera(views: int = VIEWS) -> Camera:
    """Off-centre, with a focal length and principal point of its own in every view."""
    camera = Camera.orbit((1.0, -2.0, 0.5), 3.0, views=views, width=WIDTH, height=HEIGHT)
    offset = torch.arange(views)[:, None] * torch.tensor((0.25, -0.125))
    return replace(camera, focal=camera.focal + offset, principal=camera.principal - offset)


def make_bev(generator: torch.Generator) -> BevMap:
    classes = torch.randint(0, 3, (7, 4), dtype=torch.uint8, generator=generator)
    height = torch.rand(7, 4, generator=generator) - 0.5
    colors = ((0, 0, 0), (200, 100, 0), (0, 0, 255))
    return BevMap(classes, height, (-3.5, 1.25), 0.5, ("void", "floor", "water"), colors)


@pytest.fixture
def complete(generator) -> PosedImages:
    """Views with everything that can be recorded."""
    posed = PosedImages.from_tensors(
        torch.randint(0, 256, (VIEWS, 3, HEIGHT, WIDTH), dtype=torch.uint8, generator=generator),
        make_camera(),
        depth=torch.rand(VIEWS, HEIGHT, WIDTH, generator=generator) * 20,
        masks=torch.rand(VIEWS, HEIGHT, WIDTH, generator=generator) > 0.3,
        labels=torch.randint(0, 5, (VIEWS, HEIGHT, WIDTH), dtype=torch.uint8, generator=generator),
    )
    return replace(
        posed,
        timestamps=torch.arange(VIEWS, dtype=torch.float64) / 35,
        bev=make_bev(generator),
        points=torch.randn(11, 3, generator=generator),
        background=(0.25, 0.5, 0.75),
        metadata={"map": "MAP01", "box": {"lower": [-1, -2, 0.5], "upper": [3, 4, 5]}},
    )


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (3, [3]),
        (-1, [4]),
        (slice(None, None, 2), [0, 2, 4]),
        ([4, 1, 1], [4, 1, 1]),
        ((2, 0), [2, 0]),
        (torch.tensor([3, 0]), [3, 0]),
        (torch.tensor([True, False, False, True, False]), [0, 3]),
    ],
)
def test_any_index_picks_the_same_views_of_everything(complete, index, expected):
    picked = complete[index]
    assert len(picked) == len(expected)
    assert picked.names == tuple(complete.names[number] for number in expected)
    assert torch.equal(picked.camera.world_from_camera, complete.camera.world_from_camera[expected])
    assert torch.equal(picked.camera.focal, complete.camera.focal[expected])
    assert torch.equal(picked.timestamps, complete.timestamps[expected])
    for load in (PosedImages.load_images, PosedImages.load_depth, PosedImages.load_masks, PosedImages.load_labels):
        assert torch.equal(load(picked), load(complete)[expected])
    assert picked.bev is complete.bev and picked.metadata is complete.metadata


def test_views_can_be_walked_through(complete):
    assert [view.names for view in complete] == [(name,) for name in complete.names]
    with pytest.raises(IndexError):
        complete[VIEWS]


def test_loaded_pictures_are_what_was_given(complete, generator):
    images = torch.rand(VIEWS, 3, HEIGHT, WIDTH, generator=generator)
    posed = PosedImages.from_tensors(images, make_camera())
    assert torch.equal(posed.load_images(), images)
    assert posed.load_depth() is None and posed.load_masks() is None and posed.load_labels() is None
    bytes_ = (images * 255).round().to(torch.uint8)
    assert torch.equal(PosedImages.from_tensors(bytes_, make_camera()).load_images(), bytes_.float() / 255)


def test_downscaling_averages_colour_and_picks_everything_else(complete):
    small = complete.downscaled(2)
    assert (small.camera.width, small.camera.height) == (4, 3)
    blocks = complete.load_images().reshape(VIEWS, 3, 3, 2, 4, 2)
    torch.testing.assert_close(small.load_images(), blocks.mean((3, 5)))
    assert torch.equal(small.load_depth(), complete.load_depth()[:, 1::2, 1::2])
    assert torch.equal(small.load_masks(), complete.load_masks()[:, 1::2, 1::2])
    assert torch.equal(small.load_labels(), complete.load_labels()[:, 1::2, 1::2])


def test_depth_is_unknown_where_a_mask_says_not_to_look(complete):
    raw, masks = complete.load_depth(keep_masked=True), complete.load_masks()
    assert (raw > 0).all() and 0 < int(masks.sum()) < masks.numel()
    assert torch.equal(complete.load_depth(), torch.where(masks, raw, 0))


@pytest.mark.parametrize("size", [(4, 3), (16, 12), (5, 7)])
def test_points_keep_their_relative_place_in_a_scaled_picture(complete, size):
    points = torch.tensor([[1.0, -2.0, 0.5], [1.5, -1.5, 0.25]]).expand(VIEWS, 2, 3)
    before, depth_before = complete.camera.project(points)
    after, depth_after = complete.resized(*size).camera.project(points)
    torch.testing.assert_close(after / torch.tensor(size), before / torch.tensor((WIDTH, HEIGHT)))
    torch.testing.assert_close(depth_after, depth_before)


def test_scaling_twice_resamples_once(complete):
    assert torch.equal(complete.resized(5, 5).resized(4, 3).load_images(), complete.resized(4, 3).load_images())
    assert torch.equal(complete.downscaled(3).resized(WIDTH, HEIGHT).load_images(), complete.load_images())


@pytest.mark.parametrize("factor", [0.5, 0, -2, float("nan"), float("inf")])
def test_downscaling_refuses_to_grow(complete, factor):
    with pytest.raises(ValueError, match="factor of at least 1"):
        complete.downscaled(factor)


def test_split_holds_out_every_eighth_view(generator):
    posed = PosedImages.from_tensors(torch.rand(18, 3, HEIGHT, WIDTH, generator=generator), make_camera(18))
    train, held_out = posed.split()
    assert held_out.names == tuple(posed.names[number] for number in (0, 8, 16))
    assert sorted((*train.names, *held_out.names)) == list(posed.names)
    assert len(posed.split(3)[1]) == 6 and posed.split(2**70)[1].names == posed.names[:1]
    for views, every in ((posed, 1), (posed[0], 8)):
        with pytest.raises(ValueError, match="at least two views and holdout_every of at least 2"):
            views.split(every)


def test_the_description_says_what_is_there(complete):
    text = str(replace(complete.downscaled(2), metric=False))
    assert text.startswith("PosedImages: 5 views of 4x3 pixels (files 8x6), perspective lens, with depth, mask, labels")
    assert "timestamps, bev, points" in text and text.endswith("units of unknown size")
    plain = PosedImages.from_tensors(complete.load_images(), complete.camera)
    assert "with nothing but colour; camera centres span 4.92 x 5.17 x 0 metres" in str(plain)


def test_what_does_not_fit_together_is_refused(complete):
    images, camera = complete.load_images(), complete.camera
    with pytest.raises(ValueError, match=r"images must fit the camera, .*\(5, 6, 8\), got .*5, 8, 6"):
        PosedImages.from_tensors(images.transpose(-1, -2), camera)
    with pytest.raises(ValueError, match=r"images must fit the camera"):
        PosedImages.from_tensors(images[:4], camera)
    with pytest.raises(ValueError, match="5 images need as many names, got 1"):
        PosedImages.from_tensors(images, camera, names=["a.png"])
    with pytest.raises(ValueError, match="5 images need as many timestamps, got 2"):
        replace(complete, timestamps=torch.zeros(2))
    with pytest.raises(ValueError, match="4 of 5 views have depth; give it for all views or for none"):
        replace(complete, frames=(*complete.frames[:4], replace(complete.frames[4], depth=None)))
    with pytest.raises(ValueError, match="at least one view"):
        complete[[]]
    with pytest.raises(ValueError, match="5 images need as many cameras"):
        replace(complete, camera=camera[:3])


def test_too_many_pixels_for_the_memory_are_refused(complete, monkeypatch):
    monkeypatch.setattr(posed_images, "free_memory", lambda device: 2000)
    with pytest.raises(ValueError, match=r"5 views of 8x6 need 0\.0 GiB, .* free; .*downscaled"):
        complete.load_images()
    assert complete.load_masks() is not None


@pytest.mark.parametrize("image_format", ["png", "jpg", "webp"])
def test_saving_and_reading_gives_the_same_views(complete, tmp_path, image_format):
    complete.save(tmp_path / "capture", image_format=image_format)
    again = read_transforms_json(tmp_path / "capture")
    for name in ("world_from_camera", "focal", "principal"):
        torch.testing.assert_close(getattr(again.camera, name), getattr(complete.camera, name), atol=1e-6, rtol=1e-6)
    assert (again.camera.width, again.camera.height, again.camera.distortion) == (WIDTH, HEIGHT, None)
    if image_format == "png":
        assert torch.equal(again.load_images(), complete.load_images())
    torch.testing.assert_close(again.load_depth(), complete.load_depth(), atol=0.501e-3, rtol=0)
    assert torch.equal(again.load_masks(), complete.load_masks())
    assert torch.equal(again.load_labels(), complete.load_labels())
    assert torch.equal(again.timestamps, complete.timestamps)
    torch.testing.assert_close(again.points, complete.points)
    assert torch.equal(again.bev.classes, complete.bev.classes)
    assert torch.equal(again.bev.height, complete.bev.height)
    assert replace(again.bev, classes=complete.bev.classes, height=None) == replace(complete.bev, height=None)
    assert (again.metric, again.background, again.metadata) == (True, complete.background, complete.metadata)


@pytest.mark.parametrize(("lens", "terms"), [("perspective", 5), ("perspective", 8), ("fisheye", 6)])
def test_distortion_survives_a_round_trip(complete, tmp_path, lens, terms, generator):
    distortion = torch.zeros(VIEWS, 8)
    distortion[:, :terms] = torch.randn(VIEWS, terms, generator=generator) * 0.01
    if lens == "fisheye":
        distortion[:, 2:4] = 0
    posed = replace(complete, camera=replace(complete.camera, distortion=distortion, lens=lens))
    posed.save(tmp_path / "capture")
    again = read_transforms_json(tmp_path / "capture").camera
    assert again.lens == lens
    torch.testing.assert_close(again.distortion, distortion, atol=0, rtol=0)


def test_far_depth_is_saved_without_loss_of_range(complete, tmp_path):
    depth = complete.load_depth() * 100
    PosedImages.from_tensors(complete.load_images(), complete.camera, depth=depth).save(tmp_path / "far")
    torch.testing.assert_close(read_transforms_json(tmp_path / "far").load_depth(), depth, atol=0.501e-3, rtol=1e-6)


def test_saving_scales_and_picks(complete, tmp_path):
    complete[[4, 1]].downscaled(2).save(tmp_path / "small")
    again = read_transforms_json(tmp_path / "small")
    assert again.names == ("images/00000.png", "images/00001.png")  # the order of the views, not of their names
    torch.testing.assert_close(
        again.load_images(), complete[[4, 1]].downscaled(2).load_images(), atol=0.501 / 255, rtol=0
    )
    torch.testing.assert_close(again.camera.focal, complete.camera.focal[[4, 1]] / 2)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["r_2.png", "r_10.JPG"], ["r_2", "r_10"]),
        (["./train/r_0.5", "./train/r_0"], ["r_0.5", "r_0"]),
        (["./train/r_0", "./train/r_0.5"], ["00000", "00001"]),  # with their suffix these would sort the other way
        (["left/1.png", "right/1.png"], ["00000", "00001"]),
        (["b.png", "a.png"], ["00000", "00001"]),
        (["a b:c.png", "ä.png"], ["00000", "00001"]),
        (["a.png", "A.png"], ["00000", "00001"]),
    ],
)
def test_saved_files_keep_names_that_keep_the_order(complete, tmp_path, names, expected):
    PosedImages.from_tensors(complete[:2].load_images(), complete.camera[:2], names=names).save(tmp_path / "named")
    again = read_transforms_json(tmp_path / "named")
    assert [Path(name).stem for name in again.names] == expected
    assert torch.equal(again.load_images(), complete[:2].load_images())


def test_saving_protects_what_is_there(complete, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").write_text("dear")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"letters(: it is there already|.mine.txt was not written by)"):
            complete.save(tmp_path / "letters", overwrite=overwrite)
    with pytest.raises(ValueError, match=r"mine\.txt: it is there already"):
        complete.save(tmp_path / "letters" / "mine.txt")
    complete.save(tmp_path / "capture")
    with pytest.raises(ValueError, match=r"capture: it is there already; choose another name, or set overwrite"):
        complete.save(tmp_path / "capture")
    with pytest.raises(ValueError, match=r"metadata has \['frames', 'w'\], which mean cameras here; rename them"):
        replace(complete, metadata={"frames": 1, "w": 2}).save(tmp_path / "other")
    with pytest.raises(ValueError, match="cannot write pictures as 'bmp'; choose one of png, jpg, webp"):
        complete.save(tmp_path / "other", image_format="bmp")
    assert not (tmp_path / "other").exists()


def test_a_capture_can_be_scaled_in_place(complete, tmp_path):
    complete.save(tmp_path / "capture")
    read_transforms_json(tmp_path / "capture").downscaled(2).save(tmp_path / "capture", overwrite=True)
    again = read_transforms_json(tmp_path / "capture")
    assert (again.camera.width, again.frames[0].size) == (4, (4, 3))


def test_a_failed_save_leaves_nothing(complete, tmp_path, monkeypatch):
    def fail(*_) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(image_files, "write_depth", fail)
    with pytest.raises(KeyboardInterrupt):
        complete.save(tmp_path / "capture")
    assert list(tmp_path.iterdir()) == []


def test_files_that_change_after_reading_are_noticed(complete, tmp_path):
    complete.save(tmp_path / "capture")
    posed = read_transforms_json(tmp_path / "capture")
    Image.fromarray(np.zeros((3, 3, 3), dtype=np.uint8)).save(tmp_path / "capture" / "images" / "00002.png")
    assert posed[:2].load_images().shape == (2, 3, HEIGHT, WIDTH)
    with pytest.raises(DataFormatError, match=r"00002\.png: is 3x3 pixels but the intrinsics are for 8x6"):
        posed.load_images()


def test_bev_pictures_have_north_up(generator):
    classes = torch.zeros(3, 2, dtype=torch.uint8)
    classes[2, 1] = 1  # largest x, largest y: the upper right corner
    classes[0, 0] = 2
    bev = BevMap(classes, None, (0.0, 0.0), 1.0, ("a", "b", "c"), ((0, 0, 0), (255, 0, 0), (0, 255, 0)))
    picture = bev.picture()
    assert picture.shape == (3, 2, 3)
    assert picture[:, 0, 2].tolist() == [255, 0, 0] and picture[:, 1, 0].tolist() == [0, 255, 0]


def test_bev_maps_that_contradict_themselves_are_refused(generator):
    bev = make_bev(generator)
    for change, message in (
        ({"class_names": ("void",)}, "one colour per class, got 3 for 1"),
        ({"classes": bev.classes + 3}, r"must hold classes below 3"),
        ({"cell_size": 0.0}, "positive cell_size"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(bev, **change)
