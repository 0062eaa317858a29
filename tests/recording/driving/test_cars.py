"""Cars: their wheels, their size and their paint."""

from pathlib import Path

import numpy as np
import pytest
import small_tracks
from small_tracks import CAR_SIZE, CLEARANCE

from nfldm3d.files import DataFormatError
from nfldm3d.recording.driving.cars import Car, draw_paint, paint_over, read_car, read_wheels
from nfldm3d.recording.driving.surfaces import CAR
from nfldm3d.recording.driving.torcs import TorcsData


def read(root: Path, body: str = "p406") -> Car:
    data = TorcsData(root)
    model = data.car_model(body)
    return read_car(body, model, data.car_description(body), data.texture_folders(model))


def test_a_car_stands_on_its_wheels(tmp_path: Path):
    small_tracks.write_car(tmp_path, "p406")
    car = read(tmp_path)
    assert car.size == pytest.approx((CAR_SIZE[0], CAR_SIZE[1], CAR_SIZE[2] + CLEARANCE))
    body, *wheels = car.surfaces
    assert body.positions[:, 2].min() == pytest.approx(CLEARANCE) and len(wheels) == 8  # a tyre and a rim each
    radius, lows = 0.2032 + 0.1, []
    for tyre in wheels[::2]:
        assert tyre.positions[:, 2].max() == pytest.approx(2 * radius, abs=0.02)
        lows.append(tyre.positions[:, 2].min())
    assert np.allclose(lows, 0, atol=0.01)
    places = sorted(
        (round(float(t.positions[:, 0].mean()), 2), round(float(t.positions[:, 1].mean()), 2)) for t in wheels[::2]
    )
    assert places == [(-1.2, -0.75), (-1.2, 0.75), (1.3, -0.75), (1.3, 0.75)]
    assert all(surface.kind == CAR for surface in car.surfaces)
    for tyre, rim in zip(wheels[::2], wheels[1::2], strict=True):
        assert np.abs(rim.positions[:, 1]).min() > np.abs(tyre.positions[:, 1]).max()  # the rim faces outwards
        assert np.isclose(np.linalg.norm(rim.normals, axis=1), 1).all()


def test_paint_takes_the_place_of_colour_alone():
    pixels = np.zeros((2, 5, 4), np.uint8)
    pixels[..., 3] = 255
    pixels[0] = ((220, 20, 20, 255), (110, 10, 10, 255), (250, 250, 250, 255), (30, 30, 30, 255), (150, 150, 155, 255))
    blue = paint_over(pixels, (0.1, 0.2, 0.9))
    assert (blue[0, :3, 2] > blue[0, :3, 0]).tolist() == [True, False, True]  # too dark to be paint: left
    assert np.array_equal(blue[0, 3:], pixels[0, 3:]) and np.array_equal(blue[..., 3], pixels[..., 3])
    assert np.array_equal(paint_over(pixels[1:], (1.0, 1.0, 1.0)), pixels[1:])


def test_paints_have_all_hues_and_none():
    generator = np.random.default_rng(0)
    paints = np.array([draw_paint(generator) for _ in range(300)])
    grey = np.ptp(paints, axis=1) == 0
    assert 0.2 < grey.mean() < 0.47 and paints.min() >= 0 and paints.max() <= 1
    assert all((paints[~grey].argmax(1) == channel).any() for channel in range(3))


def test_damaged_cars_are_refused(tmp_path: Path):
    small_tracks.write_car(tmp_path, "p406")
    data = TorcsData(tmp_path)
    description = data.car_description("p406")
    text = description.read_text()
    description.write_text(text.replace("rim diameter", "rim"))
    with pytest.raises(DataFormatError, match="has no 'rim diameter' in section 'Front Right Wheel'"):
        read_wheels(description)
    description.write_text(text[:-9])
    with pytest.raises(DataFormatError, match="is no XML"):
        read_wheels(description)
    description.write_text(text)
    skin = data.car_model("p406").with_suffix(".png")
    skin.rename(skin.with_name("other.png"))
    with pytest.raises(DataFormatError, match="names the texture p406.png, which is missing"):
        read(tmp_path)
