"""Pictures of several sizes in one capture: every reader takes them, and no view loses its own size."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_captures import frames, numbers, picture, write
from small_colmaps import write_text

from nfldm3d import Camera
from nfldm3d.data import PosedImages, read_colmap, read_posed_images
from nfldm3d.data.frame import is_scaled
from nfldm3d.fitting.batches import PixelStore
from nfldm3d.geometry import transform_points

SIZES = ((8, 6), (6, 8), (8, 6))
"""Of the three views: one was taken with the camera on its side."""


def write_mixed(folder: Path, **fields: float) -> Path:
    """Three grey views whose sizes the pictures tell, with focal lengths and centres of their own."""
    content = {"frames": frames(depth_file_path="depth/{}.npy")}
    for number, (frame, (width, height)) in enumerate(zip(content["frames"], SIZES, strict=True)):
        picture(folder / frame["file_path"], 50 * number, size=(width, height))
        numbers(folder / f"depth/{number}.npy", np.full((height, width), 1000.0 * (number + 1), dtype=np.float32))
        frame.update(fl_x=9.0 + number, cx=width / 2 + 0.25, cy=height / 2, **fields)
    return write(folder, content)


def test_every_view_keeps_its_size_and_its_rays(tmp_path: Path):
    posed = read_posed_images(write_mixed(tmp_path))
    assert posed.load_images().shape == (3, 3, 6, 6) and posed.sizes == SIZES
    assert "3 views of 6x6 pixels (files 8x6, 6x8)" in str(posed)
    wide, tall = posed.groups()
    assert wide.names == ("images/0000.png", "images/0002.png") and tall.names == ("images/0001.png",)
    assert wide.load_images().shape == (2, 3, 6, 8) and tall.load_images().shape == (1, 3, 8, 6)
    assert wide.camera.focal.tolist() == [[9, 9], [11, 11]] and tall.camera.principal.tolist() == [[3.25, 4]]
    assert wide.groups()[0] is wide and posed[[0, 2]].groups()[0].names == wide.names
    point = torch.tensor([[[1.0, -2.0, 0.5]]])
    for number, group in ((0, wide[0]), (1, tall)):
        own, _ = group.camera.project(point)
        common, _ = posed[number].camera.project(point)
        size = torch.tensor(SIZES[number])
        torch.testing.assert_close(own / size, common / 6, atol=1e-6, rtol=1e-6)


def test_scaling_keeps_sizes_apart_and_resizing_does_not(tmp_path: Path):
    posed = read_posed_images(write_mixed(tmp_path))
    small = posed.downscaled(2)
    assert [(group.camera.width, group.camera.height) for group in small.groups()] == [(4, 3), (3, 4)]
    assert len(posed.resized(5, 4).groups()) == 1 and posed.resized(5, 4).load_images().shape == (3, 3, 4, 5)
    train, held_out = posed.split(2)
    assert train.sizes == ((6, 8),) and held_out.sizes == ((8, 6), (8, 6))
    with pytest.raises(ValueError, match="3 images need as many sizes, got 1"):
        replace(posed, sizes=((8, 6),))


def test_a_saved_capture_keeps_all_sizes(tmp_path: Path):
    posed = read_posed_images(write_mixed(tmp_path / "first"))
    posed.save(tmp_path / "second")
    again = read_posed_images(tmp_path / "second")
    assert again.sizes == SIZES
    for one, other in zip(posed.groups(), again.groups(), strict=True):
        assert torch.equal(one.load_images(), other.load_images())
        assert torch.equal(one.load_depth(), other.load_depth())
        torch.testing.assert_close(one.camera.focal, other.camera.focal)
        torch.testing.assert_close(one.camera.principal, other.camera.principal)
    top = json.loads((tmp_path / "second" / "transforms.json").read_text())
    assert "w" not in top and [(frame["w"], frame["h"]) for frame in top["frames"]] == list(SIZES)


def test_colmap_models_of_several_cameras(tmp_path: Path):
    write_text(tmp_path)
    sparse = tmp_path / "sparse" / "0"
    (sparse / "cameras.txt").write_text("1 PINHOLE 8 6 9 9.5 4 3\n7 PINHOLE 16 9 11 12 8 4\n")
    (sparse / "images.txt").write_text((sparse / "images.txt").read_text().replace(" 1 b/9.png", " 7 b/9.png"))
    Image.fromarray(np.zeros((9, 16, 3), dtype=np.uint8)).save(tmp_path / "images" / "b" / "9.png")
    posed = read_colmap(tmp_path)
    assert posed.sizes == ((8, 6), (16, 9), (8, 6)) and posed.load_images().shape == (3, 3, 6, 8)
    assert posed.groups()[1].camera.focal.tolist() == [[11, 12]]


def test_every_pixel_of_every_size_is_drawn_with_its_own_ray(tmp_path: Path, generator: torch.Generator):
    posed = read_posed_images(write_mixed(tmp_path))
    store = PixelStore.load(posed, torch.device("cpu"))
    batch = store.draw(3000, generator)
    assert len(batch.rays) == 3000 and len(store.centers) == 3
    views = (batch.colors[:, 0] * 255 / 50).round().long()
    assert views.bincount().tolist() == pytest.approx([1000, 1000, 1000], abs=120)
    assert torch.equal(batch.rays.origins, posed.camera.centers[views])
    points = batch.rays.at(batch.distances)
    for number in range(3):
        own = posed[number].groups()[0].camera
        pixels, depth = own.project(points[views == number][None])
        torch.testing.assert_close(depth, torch.full_like(depth, number + 1.0))
        drawn = (pixels[0] - 0.5).round().long().unique(dim=0)
        assert len(drawn) == 48 and drawn.amax(0).tolist() == [SIZES[number][0] - 1, SIZES[number][1] - 1]


def test_one_size_is_drawn_as_ever(generator: torch.Generator):
    camera = Camera.orbit((1.0, -2.0, 0.5), 3.0, views=4, width=8, height=6)
    posed = PosedImages.from_tensors(torch.rand(4, 3, 6, 8, generator=generator), camera)
    store = PixelStore.load(posed, torch.device("cpu"))
    index = torch.randint(4 * 48, (50,), generator=torch.Generator().manual_seed(3))
    batch = store.draw(50, torch.Generator().manual_seed(3))
    assert torch.equal(batch.rays.origins, camera.centers[index // 48])


@pytest.mark.parametrize("size", [(4, 3), (16, 12), (2, 2)])
def test_depth_masks_and_labels_may_have_another_size(tmp_path: Path, size: tuple[int, int]):
    """As phones record them: the depth of the pixel in the same place."""
    width, height = size
    values = 500.0 + np.arange(width * height, dtype=np.float32).reshape(height, width)
    for number in range(2):
        picture(tmp_path / f"images/{number:04d}.png")
        numbers(tmp_path / f"depth/{number}.npy", values)
        numbers(tmp_path / f"masks/{number}.png", np.full((height, width), 255 * number, dtype=np.uint8))
        numbers(tmp_path / f"labels/{number}.png", np.full((height, width), 3, dtype=np.uint8))
    files = {"depth_file_path": "depth/{}.npy", "mask_path": "masks/{}.png", "label_path": "labels/{}.png"}
    posed = read_posed_images(write(tmp_path, {"fl_x": 9, "w": 8, "h": 6, "frames": frames(2, **files)}))
    rows, columns = (((torch.arange(n) + 0.5) * (m / n)).long() for n, m in ((6, height), (8, width)))
    expected = torch.from_numpy(values)[rows[:, None], columns] / 1000
    torch.testing.assert_close(posed.load_depth(keep_masked=True), expected.expand(2, 6, 8))
    assert posed.load_masks()[:, 0, 0].tolist() == [False, True] and int(posed.load_labels().min()) == 3
    assert not posed.load_depth()[0].any() and torch.equal(posed.load_depth()[1], expected)
    points = posed.camera.unproject(posed.load_depth(keep_masked=True))
    local = transform_points(torch.linalg.inv(posed.camera.world_from_camera), points.flatten(1, 2))
    torch.testing.assert_close(-local[..., 2].reshape(2, 6, 8), posed.load_depth(keep_masked=True))


def test_what_a_scaled_picture_is():
    assert is_scaled((256, 192), (1920, 1440)) and is_scaled((250, 166), (1001, 667)) and is_scaled((8, 6), (4, 3))
    assert not is_scaled((192, 256), (1920, 1440)) and not is_scaled((256, 180), (1920, 1440))
    assert not is_scaled((7, 6), (8, 6))
