"""Pixels in and out of files: every kind of picture, every way one can be broken."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image

from nfldm3d.data import image_files
from nfldm3d.files import DataFormatError

WHITE = (1.0, 1.0, 1.0)
GREY = np.linspace(0, 255, 48).astype(np.uint8).reshape(6, 8)
RGB = np.stack((GREY, GREY[::-1], GREY[:, ::-1]), axis=-1)


def write(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)
    return path


def chunk(name: bytes, content: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of_size(path: Path, width: int, height: int) -> Path:
    """A PNG that announces a size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_rgb_is_read_as_it_was_written(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RGB).save(path, lossless=True)
    image = image_files.read_image(path, WHITE)
    assert image.shape == (3, 6, 8)
    torch.testing.assert_close(image, torch.from_numpy(RGB).permute(2, 0, 1) / 255)
    assert image_files.probe(path) == (8, 6, False)


def test_jpeg_is_read(tmp_path):
    flat = np.full((6, 8, 3), (200, 100, 50), dtype=np.uint8)
    image = image_files.read_image(write(tmp_path / "a.jpg", flat), WHITE)
    torch.testing.assert_close(image[:, 3, 4] * 255, torch.tensor([200.0, 100.0, 50.0]), atol=3, rtol=0)


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_grey_and_palette_pictures_become_colour(tmp_path, mode):
    path = write(tmp_path / "a.png", GREY, mode)
    expected = np.asarray(Image.open(path).convert("RGB"))
    torch.testing.assert_close(
        image_files.read_image(path, WHITE), torch.from_numpy(expected.copy()).permute(2, 0, 1) / 255
    )


def test_sixteen_bit_grey_keeps_its_depth(tmp_path):
    deep = np.array([[0, 1, 65535]], dtype=np.uint16)
    image = image_files.read_image(write(tmp_path / "a.png", deep), WHITE)
    torch.testing.assert_close(image, torch.tensor([0.0, 1 / 65535, 1.0]).expand(3, 1, 3))


@pytest.mark.parametrize("background", [(1.0, 1.0, 1.0), (0.2, 0.4, 0.6)])
def test_transparency_is_laid_over_the_background(tmp_path, background):
    alpha = np.array([[0, 51, 255]], dtype=np.uint8)
    rgba = np.dstack((np.full((1, 3, 3), 255, dtype=np.uint8) * np.array([1, 0, 0], dtype=np.uint8), alpha))
    path = write(tmp_path / "a.png", rgba)
    share, back = torch.tensor([0, 0.2, 1.0]), torch.tensor(background)[:, None]
    expected = torch.tensor([1.0, 0.0, 0.0])[:, None] * share + back * (1 - share)
    torch.testing.assert_close(image_files.read_image(path, background)[:, 0], expected)
    assert image_files.probe(path) == (3, 1, True)


def test_a_transparent_palette_colour_shows_the_background(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), mode=None)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.save(tmp_path / "a.png", transparency=0)
    pixels = image_files.read_image(tmp_path / "a.png", (0.0, 0.0, 1.0))
    torch.testing.assert_close(pixels[:, 0].T, torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))


def test_exif_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # "turn by 90 degrees"
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    assert image_files.read_image(tmp_path / "a.png", WHITE).shape == (3, 6, 8)


def test_depth_png_and_npy_are_scaled_to_metres(tmp_path):
    millimetres = np.array([[0, 1, 1500, 65535]], dtype=np.uint16)
    expected = torch.tensor([[0, 0.001, 1.5, 65.535]])
    torch.testing.assert_close(image_files.read_depth(write(tmp_path / "d.png", millimetres), 1e-3), expected)
    np.save(tmp_path / "d.npy", millimetres.astype(np.float32)[..., None])
    torch.testing.assert_close(image_files.read_depth(tmp_path / "d.npy", 1e-3), expected)
    assert image_files.probe(tmp_path / "d.npy") == (4, 1, False)


def test_impossible_depth_is_unknown(tmp_path):
    np.save(tmp_path / "d.npy", np.array([[np.nan, np.inf, -1, 2]], dtype=np.float32))
    assert image_files.read_depth(tmp_path / "d.npy", 1.0).tolist() == [[0, 0, 0, 2]]


@pytest.mark.parametrize("farthest", [65.5, 70.0, 1e4])
def test_depth_survives_a_round_trip(tmp_path, farthest, generator):
    depth = torch.rand(6, 8, generator=generator) * farthest
    depth[0, 0], depth[-1, -1] = 0, farthest
    path = image_files.write_depth(tmp_path / "r_0.5", depth, 1e-3)
    assert path.name == ("r_0.5.png" if farthest < 65.5355 else "r_0.5.npy")
    tolerance = 0.5001e-3 if path.suffix == ".png" else 1e-6 * farthest
    torch.testing.assert_close(image_files.read_depth(path, 1e-3), depth, atol=tolerance, rtol=0)


def test_masks_are_false_where_black(tmp_path):
    expected = torch.from_numpy(GREY > 0)
    assert torch.equal(image_files.read_mask(write(tmp_path / "m.png", GREY)), expected)
    assert torch.equal(image_files.read_mask(write(tmp_path / "m16.png", GREY.astype(np.uint16))), expected)
    blue = np.zeros((6, 8, 3), dtype=np.uint8)
    blue[..., 2] = GREY
    assert torch.equal(image_files.read_mask(write(tmp_path / "mb.png", blue)), expected)


def test_labels_survive_a_round_trip_with_and_without_palette(tmp_path, generator):
    labels = torch.randint(0, 3, (6, 8), dtype=torch.uint8, generator=generator)
    colors = ((0, 0, 0), (255, 0, 0), (0, 0, 255))
    for name, palette in (("grey.png", ()), ("palette.png", colors)):
        image_files.write_labels(tmp_path / name, labels, palette)
        assert torch.equal(image_files.read_labels(tmp_path / name), labels)
    shown = np.asarray(Image.open(tmp_path / "palette.png").convert("RGB"))
    assert np.array_equal(shown, np.array(colors, dtype=np.uint8)[labels.numpy()])


def test_images_survive_a_round_trip_to_half_a_step(tmp_path, generator):
    image = torch.rand(3, 6, 8, generator=generator)
    image_files.write_image(tmp_path / "a.png", image)
    torch.testing.assert_close(image_files.read_image(tmp_path / "a.png", WHITE), image, atol=0.5001 / 255, rtol=0)


def test_shrinking_by_whole_factors_takes_the_mean(generator):
    image = torch.rand(3, 6, 8, generator=generator)
    expected = image.reshape(3, 2, 3, 4, 2).mean((2, 4))  # 3 rows and 2 columns each
    torch.testing.assert_close(image_files.resize_image(image, 4, 2), expected)
    assert image_files.resize_image(image, 8, 6) is image


@pytest.mark.parametrize("size", [(5, 4), (3, 5), (13, 11)])
def test_resizing_keeps_ramps_where_they_are(size):
    width, height = size
    ramp = ((torch.arange(40) + 0.5) / 40).expand(30, 40)
    resized = image_files.resize_image(torch.stack((ramp, ramp * 0.5, 1 - ramp)), width, height)
    inside = slice(2, -2) if width > 6 else slice(1, -1)
    expected = (torch.arange(width) + 0.5) / width
    torch.testing.assert_close(resized[0, height // 2, inside], expected[inside], atol=1e-3, rtol=0)


def test_nearest_takes_the_pixel_under_the_centre():
    numbers = torch.arange(48).reshape(6, 8)
    assert image_files.resize_nearest(numbers, 8, 6) is numbers
    assert image_files.resize_nearest(numbers, 2, 1).tolist() == [[3 * 8 + 2, 3 * 8 + 6]]
    assert image_files.resize_nearest(numbers, 16, 12)[::2, ::2].tolist() == numbers.tolist()


def test_missing_and_unreadable_pictures_are_named(tmp_path):
    with pytest.raises(DataFormatError, match=r"a\.png: is missing; restore"):
        image_files.read_image(tmp_path / "a.png", WHITE)
    (tmp_path / "b.png").write_text("not a picture")
    with pytest.raises(DataFormatError, match=r"b\.png: is not a PNG, JPEG or WebP picture; convert"):
        image_files.probe(tmp_path / "b.png")
    Image.fromarray(RGB).save(tmp_path / "c.png", "BMP")
    with pytest.raises(DataFormatError, match=r"c\.png: is not a PNG, JPEG or WebP"):
        image_files.read_image(tmp_path / "c.png", WHITE)
    content = write(tmp_path / "d.png", RGB).read_bytes()
    (tmp_path / "d.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataFormatError, match=r"d\.png: cannot be decoded .*; write the picture again"):
        image_files.read_image(tmp_path / "d.png", WHITE)
    with pytest.raises(DataFormatError, match=r"cannot be decoded"):
        image_files.probe(tmp_path)


@pytest.mark.parametrize("size", [(8192, 8193), (10000, 10000), (60000, 60000)])
def test_decompression_bombs_are_refused_before_they_are_decoded(tmp_path, size):
    path = png_of_size(tmp_path / "bomb.png", *size)
    for read in (image_files.probe, lambda bomb: image_files.read_image(bomb, WHITE)):
        with pytest.raises(DataFormatError, match=r"bomb\.png: holds .* pixels, at most 64 Mi .*; scale"):
            read(path)


def test_pictures_that_ask_for_too_much_memory_are_refused(tmp_path):
    path = png_of_size(tmp_path / "a.png", 60, 40)
    refused = pytest.raises(DataFormatError, match=r"a\.png: asks for more memory than there is; write")
    with refused, image_files.open_picture(path):
        raise MemoryError


@pytest.mark.filterwarnings("default")
def test_warnings_of_pillow_become_part_of_the_message(tmp_path, recwarn):
    path = png_of_size(tmp_path / "a.png", 60, 40)
    content = path.read_bytes()
    path.write_bytes(content[:33] + chunk(b"acTL", bytes(8)) + content[33:])  # an animation of no pictures
    with pytest.raises(DataFormatError, match=r"a\.png: cannot be decoded .*Invalid APNG.*; write the picture again"):
        image_files.read_image(path, WHITE)
    with pytest.raises(DataFormatError, match="holds 10000x10000 pixels"):
        image_files.probe(png_of_size(tmp_path / "bomb.png", 10000, 10000))
    assert not recwarn.list


def test_wrong_kinds_of_pixels_are_refused(tmp_path):
    colour = write(tmp_path / "rgb.png", RGB)
    with pytest.raises(DataFormatError, match=r"rgb\.png: has pixel mode RGB; depth needs a 16-bit grey PNG or \.npy"):
        image_files.read_depth(colour, 1e-3)
    with pytest.raises(DataFormatError, match=r"rgb\.png: has pixel mode RGB; labels need"):
        image_files.read_labels(colour)
    with pytest.raises(DataFormatError, match=r"has pixel mode L; depth"):
        image_files.read_depth(write(tmp_path / "l.png", GREY), 1e-3)
    with pytest.raises(DataFormatError, match=r"has colour mode CMYK; save it as RGB"):
        image_files.read_image(write(tmp_path / "cmyk.jpg", RGB, "CMYK"), WHITE)


def test_arrays_that_promise_too_much_are_refused(tmp_path):
    np.save(tmp_path / "d.npy", np.ones((6, 8), dtype=np.float32))
    content = (tmp_path / "d.npy").read_bytes()
    huge = content.replace(b"(6, 8), }                ", b"(600000, 800000), }      ")
    assert huge != content
    (tmp_path / "huge.npy").write_bytes(huge)
    np.save(tmp_path / "object.npy", np.array([[{}]], dtype=object))
    np.save(tmp_path / "cube.npy", np.ones((2, 3, 4)))
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    (tmp_path / "empty.npy").write_bytes(b"")
    for name in ("huge", "object", "cube", "words", "empty", "absent"):
        with pytest.raises(DataFormatError, match=rf"{name}\.npy: (is no readable \.npy array|holds .* not numbers)"):
            image_files.read_depth(tmp_path / f"{name}.npy", 1.0)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_damaged_pictures_fail_in_one_way_only(tmp_path_factory, suffix):
    folder = tmp_path_factory.mktemp("damage")
    whole = write(folder / f"whole.{suffix}", RGB).read_bytes()
    path = folder / f"damaged.{suffix}"

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(
        st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=6), st.booleans()
    )
    def damage(edits: list[tuple[int, int]], cut: bool) -> None:
        content = bytearray(whole)
        for position, value in edits:
            content[position] = value
        path.write_bytes(content[: edits[0][0]] if cut else content)
        try:
            image = image_files.read_image(path, WHITE)
        except DataFormatError:
            return
        assert float(image.min()) >= 0 and float(image.max()) <= 1

    damage()


def test_parallel_results_keep_their_order():
    assert image_files.map_parallel(lambda number: number * number, range(100)) == [n * n for n in range(100)]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_that_is_opaque_everywhere_is_none(tmp_path: Path, mode: str):
    """As Blender and Unity write it."""
    picture = Image.new("RGBA", (3, 2), (10, 20, 30, 255))
    for name, alpha in (("opaque", 255), ("veiled", 254)):
        picture.putpixel((2, 1), (10, 20, 30, alpha))
        if mode == "P":
            palette = Image.new("P", (3, 2))
            palette.putpalette([10, 20, 30])
            palette.save(tmp_path / f"{name}.png", transparency=bytes([alpha]))
        else:
            picture.convert(mode).save(tmp_path / f"{name}.png")
        assert image_files.is_transparent(tmp_path / f"{name}.png") == (alpha < 255)
    Image.new("RGB", (3, 2)).save(tmp_path / "plain.png")
    assert not image_files.is_transparent(tmp_path / "plain.png")
