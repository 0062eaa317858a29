"""Every way a transforms.json capture can be wrong: each message names file, field or frame, value, and a remedy."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from small_captures import HEIGHT, NGP, POSES, WIDTH, alter, frames, numbers, picture, write, write_instant_ngp

from nfldm3d.data import read_posed_images, read_transforms_json
from nfldm3d.files import DataFormatError
from nfldm3d.geometry import transform_points


@pytest.fixture
def capture(tmp_path) -> Path:
    return write_instant_ngp(tmp_path)


TURNED = POSES[1].clone()
TURNED[:3, 0] *= -1
STRETCHED = POSES[1].clone()
STRETCHED[:3, :3] *= 1.01

BAD_TOP = {
    "no frames": ({"frames": []}, r"frames is \[\]; a capture needs at least one frame"),
    "frames absent": ({"frames": None}, r"frames is missing; write a list"),
    "frames of another kind": ({"frames": [3]}, r"frames\[0\] is 3; write a JSON object"),
    "zero focal length": ({"fl_x": 0}, r"images/0000\.png has focal length 0 along x for 8 pixels; give it in pixels"),
    "negative focal length": ({"fl_y": -9}, r"focal length -9 along y for 6 pixels"),
    "focal length in metres": ({"fl_x": 0.004}, r"focal length 0\.004 along x"),
    "word for a number": ({"fl_x": "wide"}, r"fl_x is 'wide'; write a number"),
    "truth for a number": ({"cx": True}, r"cx is True; write a number"),
    "huge number": ({"cx": 10**40}, r"cx is 1e\+40; write a number"),
    "principal point": ({"cx": 1e6}, r"principal point at \(1000000\.0, 2\.75\)"),
    "broken width": ({"w": 8.5}, r"w is 8\.5; write a whole number of pixels"),
    "no focal length": (
        {"fl_x": None, "fl_y": None},
        r"fl_x is missing; give the focal length in pixels, or camera_angle",
    ),
    "angle in degrees": ({"fl_x": None, "fl_y": None, "camera_angle_x": 60}, r"camera_angle_x is 60; .*radians"),
    "wild distortion": ({"k1": 1e9}, r"distortion \(1000000000\.0, .*OpenCV"),
    "lens unknown": ({"camera_model": "EQUIRECTANGULAR"}, r"camera_model is 'EQUIRECTANGULAR'; known are .*OPENCV"),
    "fourth radial term": ({"k4": 0.1}, r"k4 is 0\.1; a perspective lens has no such term"),
    "tangential fisheye": ({"is_fisheye": True, "p1": 0.1}, r"p1 is 0\.1; a fisheye lens has no such term"),
    "foreign axes": ({"from_na": True}, r"from_na is True; these cameras are not pinholes"),
    "metric": ({"metric": "yes"}, r"metric is 'yes'; write true or false"),
    "applied_transform": ({"applied_transform": [[1, 0, 0, 0]] * 3}, r"applied_transform is .*; it is not rigid"),
    "applied_scale": ({"applied_scale": -1}, r"applied_scale is -1; write a positive number"),
    "background": ({"background": [1, 2, 3]}, r"background is \[1, 2, 3\]; write three numbers between 0 and 1"),
    "size of the pictures": ({"w": 16, "h": 12}, r"0000\.png: is 8x6 pixels but the intrinsics are for 16x12; scale"),
    "pictures on their side": ({"w": 6, "h": 8}, r"0000\.png: is 8x6 pixels .* for 6x8; it lies on its side: .*EXIF"),
    "ground map": ({"bev": 3}, r"bev is 3; write a JSON object"),
    "ground map without picture": ({"bev": {}}, r"bev\.classes_path is missing; write a file name"),
}


@pytest.mark.parametrize("name", BAD_TOP)
def test_bad_fields_are_named(capture, name):
    change, message = BAD_TOP[name]
    with pytest.raises(DataFormatError, match=rf"(transforms\.json|images/).*{message}"):
        read_transforms_json(alter(capture, change))


BAD_FRAME = {
    "outside by dots": (
        {"file_path": "../secret.png"},
        r"path '\.\./secret\.png' leads outside .*; use a path relative",
    ),
    "outside by root": ({"file_path": "/etc/passwd"}, r"path '/etc/passwd' leads outside"),
    "outside by drive": ({"file_path": "C:\\secret.png"}, r"leads outside"),
    "outside for depth": ({"depth_file_path": "../d.png"}, r"depth_file_path"),
    "no name": ({"file_path": ""}, r"frames\[1\]\.file_path is ''; write a file name"),
    "name absent": ({"file_path": None}, r"frames\[1\]\.file_path is missing; write a file name"),
    "pose absent": ({"transform_matrix": None}, r"frames\[1\]\.transform_matrix is missing; write a list"),
    "pose of another shape": (
        {"transform_matrix": [[1, 0], [0, 1]]},
        r"frames\[1\]\.transform_matrix is .*; write four rows",
    ),
    "pose of words": (
        {"transform_matrix": [["a"] * 4] * 4},
        r"frames\[1\]\.transform_matrix\[0\]\.0 is 'a'; write a number",
    ),
    "mirrored pose": (
        {"transform_matrix": TURNED.tolist()},
        r"pose of images/0001\.png is mirrored: .*; write a rotation",
    ),
    "stretched pose": ({"transform_matrix": STRETCHED.tolist()}, r"pose of images/0001\.png is not rigid: .* by 0\.02"),
    "last row": ({"transform_matrix": [*POSES[1, :3].tolist(), [0, 0, 1, 1]]}, r"0001\.png has the last row"),
    "mixed intrinsics": (
        {"k3": 0.1},
        r"frames\[0\]\.k3 is missing; other frames have it; give k3 at top level or in every",
    ),
    "twofold intrinsics": ({"fl_x": 9.75}, r"frames\[1\]\.fl_x is 9\.75; the top level says 9\.5; give fl_x once"),
    "time for some": ({"timestamp": 0.5}, r"frames\[0\]\.timestamp is missing; write a number"),
    "masks for some": (
        {"mask_path": "images/0001.png"},
        r"frames\[0\]\.mask_path is missing; .*for all frames or for none",
    ),
}


@pytest.mark.parametrize("name", BAD_FRAME)
def test_bad_frames_are_named(capture, name):
    change, message = BAD_FRAME[name]
    with pytest.raises(DataFormatError, match=rf"transforms\.json: .*{message}"):
        read_transforms_json(alter(capture, {}, change))


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-1e999"])
def test_numbers_that_are_none_are_refused(capture, literal):
    text = (capture / "transforms.json").read_text()
    (capture / "transforms.json").write_text(text.replace("9.5", literal, 1))
    with pytest.raises(DataFormatError, match=rf"transforms\.json: fl_x is {literal}; write a finite number"):
        read_transforms_json(capture)
    alter_text = text.replace(str(POSES[1, 0, 3].item()), literal, 1)
    (capture / "transforms.json").write_text(alter_text)
    with pytest.raises(DataFormatError, match=rf"frames\[1\]\.transform_matrix\[0\]\[3\] is {literal}; write a finite"):
        read_transforms_json(capture)


def test_a_truncated_file_is_refused(capture):
    text = (capture / "transforms.json").read_text()
    (capture / "transforms.json").write_text(text[: len(text) // 2])
    with pytest.raises(DataFormatError, match=r"transforms\.json: is not valid JSON"):
        read_transforms_json(capture)


def test_a_link_that_leads_outside_is_refused(capture, tmp_path_factory):
    elsewhere = picture(tmp_path_factory.mktemp("elsewhere") / "secret.png")
    (capture / "images/0001.png").unlink()
    (capture / "images/0001.png").symlink_to(elsewhere)
    with pytest.raises(DataFormatError, match=r"'images/0001\.png' is a link that leads outside"):
        read_transforms_json(capture)


def test_unreadable_pictures_are_refused_before_anything_is_fitted(capture):
    (capture / "images/0001.png").write_bytes(b"")
    with pytest.raises(DataFormatError, match=r"0001\.png: is not a PNG, JPEG or WebP picture; convert it"):
        read_transforms_json(capture)


def test_pictures_of_another_size_than_their_lens_are_refused(capture):
    picture(capture / "images/0001.png", size=(7, 6))
    with pytest.raises(DataFormatError, match=r"0001\.png: is 7x6 pixels but the intrinsics are for 8x6; scale the"):
        read_transforms_json(capture)
    content = json.loads((capture / "transforms.json").read_text())
    for frame, fisheye in zip(content["frames"], (False, True, False), strict=True):
        frame["is_fisheye"] = fisheye
    with pytest.raises(DataFormatError, match=r"0001\.png has a fisheye lens, but images/0000\.png a perspective"):
        read_transforms_json(write(capture, content))


def test_depth_and_masks_of_another_shape_are_refused(capture):
    for number in range(3):
        numbers(capture / f"depth/{number}.png", np.ones((HEIGHT, WIDTH - (number == 2)), dtype=np.uint16))
        picture(capture / f"masks/{number}.png", size=(8, 6 + (number == 1)))
    write(capture, {**NGP, "frames": frames(depth_file_path="depth/{}.png")})
    with pytest.raises(DataFormatError, match=r"depth/2\.png: is 7x6 .* are for 8x6; it does not show the whole"):
        read_transforms_json(capture)
    write(capture, {**NGP, "frames": frames(mask_path="masks/{}.png")})
    with pytest.raises(DataFormatError, match=r"masks/1\.png: is 8x7 pixels but the intrinsics are for 8x6"):
        read_transforms_json(capture)
    write(capture, {**NGP, "frames": frames(mask_path="nowhere/{}.png")})
    with pytest.raises(DataFormatError, match=r"nowhere/0\.png: is missing; restore the file"):
        read_transforms_json(capture)


def test_bad_ground_maps_are_named(capture):
    numbers(capture / "bev.png", np.array([[0, 1], [1, 2], [0, 0]], dtype=np.uint8))
    np.save(capture / "height.npy", np.zeros((2, 3), dtype=np.float32))
    good = {
        "classes_path": "bev.png",
        "height_path": "height.npy",
        "lower": [-1, 2],
        "cell_size": 0.5,
        "class_names": ["a", "b", "c"],
        "palette": [[0, 0, 0], [9, 9, 9], [255, 0, 0]],
    }
    bev = read_transforms_json(alter(capture, {"bev": good})).bev
    assert bev.classes.tolist() == [[0, 1, 0], [0, 2, 1]]  # bev[x, y], from a picture with north up
    for change, message in (
        ({"classes_path": "../bev.png"}, "leads outside"),
        ({"classes_path": "images/0000.png"}, r"0000\.png: has pixel mode RGB; labels need"),
        ({"class_names": ["a", "b"]}, r"bev: a BEV map needs one colour per class, got 3 for 2"),
        ({"class_names": ["a", "b"], "palette": good["palette"][:2]}, r"must hold classes below 2"),
        ({"palette": [[0, 0, 300]] * 3}, r"bev\.palette is .* from 0 to 255"),
        ({"lower": [0]}, r"write lower as \[x, y\]"),
        ({"cell_size": 0}, r"positive cell_size"),
    ):
        with pytest.raises(DataFormatError, match=message):
            read_transforms_json(alter(capture, {"bev": {**good, **change}}))
    np.save(capture / "height.npy", np.full((2, 3), np.nan))
    with pytest.raises(DataFormatError, match=r"height\.npy: holds NaN or infinity"):
        read_transforms_json(alter(capture, {"bev": good}))
    np.save(capture / "height.npy", np.zeros((3, 2)))
    with pytest.raises(DataFormatError, match=r"height\.npy: has shape \(3, 2\) but the classes have \(2, 3\)"):
        read_transforms_json(capture)
    with pytest.raises(DataFormatError, match=r"does not follow undo_applied_transform"):
        read_transforms_json(alter(capture, {"applied_scale": 2}), undo_applied_transform=True)


def test_folders_without_a_capture_say_what_was_looked_for(tmp_path):
    with pytest.raises(DataFormatError, match=r"holds no transforms_train\.json or transforms\.json; give the folder"):
        read_transforms_json(tmp_path)
    with pytest.raises(DataFormatError, match=r"holds no capture; looked for transforms\.json, .*COLMAP.*sparse/0"):
        read_posed_images(tmp_path)
    with pytest.raises(DataFormatError, match=r"does not exist or holds no capture"):
        read_posed_images(tmp_path / "absent")
    with pytest.raises(DataFormatError, match=r"absent\.json: cannot be read .*check the name"):
        read_transforms_json(tmp_path / "absent.json")


def test_damaged_files_fail_in_one_way_only(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    for number in range(3):
        picture(folder / f"images/{number:04d}.png")
        numbers(folder / f"depth/{number}.png", np.ones((HEIGHT, WIDTH), dtype=np.uint16))
    whole = {**NGP, "k1": 0.1, "applied_scale": 2.0, "camera_model": "OPENCV", "metric": True}
    whole["frames"] = frames(depth_file_path="depth/{}.png")
    text = json.dumps(whole)
    junk = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(max_size=12),
        st.sampled_from(["images", "images/0001.png", "a" * 300, "\ud800", "\0", ".", "../x"]),
        st.lists(st.integers(0, 1), max_size=4),
        st.just([[1, 0, 0, 0]] * 4),
        st.just({"a": 1}),
    )
    places = [(key,) for key in whole] + [("frames", 1, key) for key in whole["frames"][1]] + [("frames", 0)]

    def read() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            try:
                posed = read_transforms_json(folder)
            except ValueError as error:
                assert str(folder) in str(error)
                return
        assert bool(torch.isfinite(posed.camera.rays().directions).all())
        points = transform_points(posed.camera.world_from_camera, torch.zeros(len(posed), 1, 3))
        assert bool(torch.isfinite(points).all())
        posed.load_depth()

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from(places), junk, st.booleans())
    def replace_a_value(place: tuple, value: object, remove: bool) -> None:
        content = json.loads(text)
        target = content
        for step in place[:-1]:
            target = target[step]
        if remove:
            del target[place[-1]]
        else:
            target[place[-1]] = value
        write(folder, content)
        read()

    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(st.integers(0, len(text) - 1), st.characters(codec="latin-1"))
    def replace_a_character(position: int, character: str) -> None:
        content = text[:position] + character + text[position + 1 :]
        (folder / "transforms.json").write_bytes(content.encode("latin-1"))
        read()

    replace_a_value()
    replace_a_character()
