"""Painting: strokes, corners, floods, undo, and pictures that come from strangers."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from nfldm3d.files import DataFormatError
from nfldm3d.viewer.painted_map import MAX_BYTES, UNDO, PaintedMap

NAMES, PALETTE = ("void", "floor", "wall"), ((0, 0, 0), (200, 20, 10), (10, 20, 200))
OPEN = 3


@pytest.fixture
def blank() -> PaintedMap:
    return PaintedMap.blank(8, NAMES, PALETTE)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_a_rectangle_has_both_its_corners_whichever_comes_first(blank: PaintedMap) -> None:
    wanted = torch.full((8, 8), OPEN)
    wanted[2:6, 1:4] = 1
    for start, end in (((2, 1), (5, 3)), ((5, 3), (2, 1)), ((2, 3), (5, 1))):
        assert torch.equal(blank.rectangle(start, end, 1).cells, wanted)
    assert torch.equal(blank.rectangle((-9, -9), (99, 99), 1).cells, torch.ones(8, 8, dtype=torch.long))


def test_a_brush_leaves_no_gaps_and_paints_nothing_elsewhere(blank: PaintedMap) -> None:
    cells = blank.brush((0, 1), (7, 4), 1, 2).cells
    painted = (cells == 2).nonzero()
    assert len(painted) == 8 and painted[:, 0].tolist() == list(range(8))
    assert (painted[1:, 1] - painted[:-1, 1]).max() <= 1 and painted[[0, -1], 1].tolist() == [1, 4]
    wide = blank.brush((0, 0), (0, 0), 3, 2).cells
    assert int((wide == 2).sum()) == 4 and torch.equal(blank.brush((-5, -5), (-5, -5), 3, 2).cells, blank.cells)


def test_a_flood_stops_at_other_classes_and_does_not_leak_over_corners(blank: PaintedMap) -> None:
    walls = blank.brush((0, 4), (4, 0), 1, 2)  # a diagonal
    filled = walls.fill((0, 0), 1).cells
    assert int((filled == 1).sum()) == 10 and int((filled == 2).sum()) == 5
    assert torch.equal(walls.fill((9, 0), 1).cells, walls.cells)


def test_undo_goes_back_stroke_by_stroke(blank: PaintedMap) -> None:
    first = blank.begin().rectangle((0, 0), (3, 3), 1)
    second = first.begin().fill((7, 7), 2)
    assert torch.equal(second.undo().cells, first.cells) and torch.equal(second.undo().undo().cells, blank.cells)
    assert torch.equal(blank.undo().cells, blank.cells) and torch.equal(second.clear().undo().cells, second.cells)
    many = blank
    for _ in range(UNDO + 5):
        many = many.begin().rectangle((0, 0), (0, 0), 1)
    assert len(many.past) == UNDO


def test_a_saved_map_is_read_again_north_up(blank: PaintedMap) -> None:
    painted = blank.rectangle((0, 7), (0, 7), 1).rectangle((7, 0), (7, 0), 2)
    again = blank.decode(painted.encode())
    assert torch.equal(again.cells, painted.cells) and torch.equal(again.undo().cells, blank.cells)
    with Image.open(io.BytesIO(painted.encode())) as image:
        assert image.getpixel((0, 0)) == (200, 20, 10, 255) and image.getpixel((7, 7)) == (10, 20, 200, 255)
        assert image.getpixel((3, 3))[3] == 0  # type: ignore[index]
    assert painted.picture(3).shape == (24, 24, 4)


def test_uploads_that_are_no_maps_are_refused(blank: PaintedMap) -> None:
    jpeg = io.BytesIO()
    Image.new("RGB", (8, 8)).save(jpeg, "JPEG")
    strange = np.zeros((8, 8, 3), dtype=np.uint8)
    strange[2, 3] = (1, 2, 3)
    for data, message in (
        (b"", "not a PNG picture"),
        (jpeg.getvalue(), "not a PNG picture"),
        (png(np.zeros((8, 8, 3), dtype=np.uint8))[:40], "the file: cannot be decoded|not a PNG"),
        (b"\0" * (MAX_BYTES + 1), "more than"),
        (png(np.zeros((4, 8, 3), dtype=np.uint8)), "8 x 4 pixels"),
        (png(np.zeros((1, 5000, 3), dtype=np.uint8)), "5000 x 1 pixels"),
        (png(strange), "#010203"),
    ):
        with pytest.raises((ValueError, DataFormatError), match=message):
            blank.decode(data)
