"""COLMAP's models against their published layout, against COLMAP's own library, and damaged."""

import shutil
import struct
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from small_colmaps import HEIGHT, IMAGES, MODELS, POINTS, WIDTH, write_binary, write_pictures, write_text

from nfldm3d.data import colmap_model, read_colmap, read_posed_images, read_transforms_json
from nfldm3d.files import DataFormatError


@pytest.mark.parametrize("write", [write_binary, write_text])
def test_poses_follow_the_published_formula(tmp_path, write):
    posed = read_colmap(write(tmp_path), up="z")
    assert posed.names == ("a_1.png", "b/9.png", "b/10.png")
    assert posed.load_images()[:, 0, 0, 0].mul(255).round().tolist() == [40, 20, 0]
    assert (posed.metric, posed.background, len(posed)) == (False, None, 3)
    torch.testing.assert_close(posed.points, torch.tensor(POINTS))
    # the second picture's camera is turned by 90 degrees about x: x' = x + 1, y' = -z + 2, z' = y + 3
    x, y, z = POINTS[0]
    depth = y + 3
    plane = torch.tensor([(x + 1) / depth, (-z + 2) / depth])
    k1, k2, p1, p2 = MODELS["OPENCV"][4:]
    u, v = plane.tolist()
    r2 = u * u + v * v
    radial = 1 + k1 * r2 + k2 * r2 * r2
    moved = torch.tensor(
        [u * radial + 2 * p1 * u * v + p2 * (r2 + 2 * u * u), v * radial + p1 * (r2 + 2 * v * v) + 2 * p2 * u * v]
    )
    pixels, depths = posed.camera[1].project(posed.points[:1])
    torch.testing.assert_close(depths, torch.tensor([depth]))
    torch.testing.assert_close(pixels[0], moved * torch.tensor([9.0, 9.5]) + torch.tensor([4.25, 2.75]))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("write", [write_binary, write_text])
def test_every_lens_projects_as_colmaps_own_library_does(tmp_path, write, model):
    posed = read_colmap(write(tmp_path, model), up="z")
    theirs = pycolmap.Reconstruction(tmp_path / "sparse" / "0")
    points = torch.tensor([[0.3, -0.2, 1.0], [1.0, 0.5, 0.4], *POINTS], dtype=torch.float64)
    camera = posed.camera.to(torch.float64)
    pixels, depths = camera.project(points.expand(len(posed), -1, 3))
    images = {image.name: image for image in theirs.images.values()}
    for number, name in enumerate(posed.names):
        camera_from_world = images[name].cam_from_world()
        local = np.array([camera_from_world * point for point in points.numpy()])
        torch.testing.assert_close(depths[number], torch.from_numpy(local[:, 2]), atol=1e-6, rtol=1e-6)
        ahead = local[:, 2] > 0.1
        expected = np.array([images[name].camera.img_from_cam(point) for point in local[ahead]])
        torch.testing.assert_close(pixels[number][ahead], torch.from_numpy(expected), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("write", ["write_binary", "write_text"])
def test_models_that_colmaps_own_library_wrote(tmp_path, write):
    written = pycolmap.Reconstruction(write_text(tmp_path / "first") / "sparse" / "0")
    sparse = tmp_path / "second" / "sparse" / "0"
    sparse.mkdir(parents=True)
    getattr(written, write)(sparse)
    write_pictures(tmp_path / "second")
    first, second = read_colmap(tmp_path / "first"), read_colmap(tmp_path / "second")
    assert first.names == second.names
    torch.testing.assert_close(second.camera.world_from_camera, first.camera.world_from_camera)
    torch.testing.assert_close(second.camera.distortion, first.camera.distortion)
    assert {tuple(p) for p in second.points.tolist()} == {tuple(p) for p in first.points.tolist()}


@pytest.mark.parametrize("write", [write_binary, write_text])
def test_names_may_hold_spaces(tmp_path, write, monkeypatch):
    monkeypatch.setitem(IMAGES, "c d.png", ((1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 2.0)))
    assert read_colmap(write(tmp_path)).names[-1] == "c d.png"


def test_models_are_found_from_any_folder(tmp_path):
    write_binary(tmp_path)
    expected = read_colmap(tmp_path)
    for posed in (
        read_colmap(tmp_path / "sparse" / "0"),
        read_colmap(tmp_path / "sparse" / "0", images=tmp_path / "images"),
        read_posed_images(tmp_path),
    ):
        assert posed.names == expected.names
        assert torch.equal(posed.load_images(), expected.load_images())
    with pytest.raises(ValueError, match=r"is a COLMAP model, which has no split 'test'; .*split\(holdout_every=8\)"):
        read_posed_images(tmp_path, split="test")
    with pytest.raises(DataFormatError, match=r"holds no COLMAP model in \., sparse/0, .*cameras\.bin"):
        read_colmap(tmp_path / "images")


def test_a_model_becomes_a_transforms_json_capture(tmp_path):
    posed = read_colmap(write_binary(tmp_path / "a", "FULL_OPENCV"))
    posed.save(tmp_path / "b")
    again = read_transforms_json(tmp_path / "b")
    torch.testing.assert_close(again.camera.world_from_camera, posed.camera.world_from_camera)
    torch.testing.assert_close(again.camera.distortion, posed.camera.distortion)
    assert torch.equal(again.points, posed.points) and torch.equal(again.load_images(), posed.load_images())


def test_cameras_of_one_size_may_differ_in_all_else(tmp_path):
    write_text(tmp_path)
    sparse = tmp_path / "sparse" / "0"
    cameras = f"1 PINHOLE {WIDTH} {HEIGHT} 9 9.5 4 3\n7 SIMPLE_RADIAL {WIDTH} {HEIGHT} 11 4 3 0.1\n"
    (sparse / "cameras.txt").write_text(cameras)
    images = (sparse / "images.txt").read_text().replace(" 1 b/9.png", " 7 b/9.png")
    (sparse / "images.txt").write_text(images)
    camera = read_colmap(tmp_path).camera
    assert camera.focal.tolist() == [[9, 9.5], [11, 11], [9, 9.5]]
    torch.testing.assert_close(camera.distortion[:, 0], torch.tensor([0, 0.1, 0]))
    (sparse / "cameras.txt").write_text(cameras.replace("7 SIMPLE_RADIAL 8 6", "7 OPENCV_FISHEYE 8 6 9 9 4 3"))
    with pytest.raises(DataFormatError, match=r"b/9\.png has a fisheye lens, but a_1\.png a perspective"):
        read_colmap(tmp_path)


def test_missing_pictures_are_left_out_with_one_warning(tmp_path):
    write_binary(tmp_path)
    (tmp_path / "images" / "a_1.png").unlink()
    with pytest.warns(UserWarning, match=r"1 of 3 pictures are missing, the first is .*a_1\.png"):
        assert read_colmap(tmp_path).names == ("b/9.png", "b/10.png")


def test_bad_models_are_named(tmp_path):
    write_text(tmp_path)
    sparse = tmp_path / "sparse" / "0"
    cameras, images = (sparse / "cameras.txt").read_text(), (sparse / "images.txt").read_text()
    for file, old, new, message in (
        ("cameras", "OPENCV", "FOV", r"cameras\.txt: .*camera model FOV is not among SIMPLE_PINHOLE, .*; undistort"),
        ("cameras", "OPENCV", "PINHOLE", r"camera 1 has 8 parameters, PINHOLE has 4"),
        ("cameras", "9.0", "nine", r"cameras\.txt: is damaged.*'nine'"),
        ("cameras", " 9.0", " 0", r"the camera of a_1\.png has focal length 0 along x"),
        ("cameras", " 8 6", " 0 6", r"has 0x6 pixels; give the size"),
        ("cameras", " 8 6", " 9 6", r"a_1\.png: is 8x6 pixels but the intrinsics are for 9x6"),
        ("cameras", "\n1 ", "\n2 ", r"a_1\.png has camera 1, which is not in the model"),
        ("images", " 1 a_1.png", " 1 ../a.png", r"path '\.\./a\.png' leads outside"),
        ("images", "0.8 0.36 -0.48 0.0", "0 0 0 0", r"a_1\.png has quaternion \(0\.0, 0\.0, 0\.0, 0\.0\)"),
        ("images", "0.8 0.36", "1.6 0.72", r"a_1\.png has quaternion \(1\.6, 0\.72, .* not of length 1; export"),
        ("images", "0.8 0.36 -0.48 0.0", "nan 0 0 0", r"a_1\.png has quaternion \(nan"),
        ("images", "-0.5 0.25 5.0", "inf 0 0", r"the pose of a_1\.png holds NaN or infinity"),
        ("images", "-0.5 0.25 5.0", "", r"images\.txt: is damaged"),
    ):
        (sparse / "cameras.txt").write_text(cameras.replace(old, new) if file == "cameras" else cameras)
        (sparse / "images.txt").write_text(images.replace(old, new) if file == "images" else images)
        with pytest.raises(DataFormatError, match=message):
            read_colmap(tmp_path)
    (sparse / "cameras.txt").write_text(cameras)
    (sparse / "images.txt").write_text("# nothing\n")
    with pytest.raises(DataFormatError, match=r"has no registered picture; run COLMAP's mapper again"):
        read_colmap(tmp_path)
    (sparse / "images.txt").unlink()
    with pytest.raises(DataFormatError, match=r"images\.txt: cannot be read .*; a model needs cameras and images"):
        read_colmap(tmp_path)


def test_an_unknown_binary_lens_is_named(tmp_path):
    write_binary(tmp_path)
    path = tmp_path / "sparse" / "0" / "cameras.bin"
    content = bytearray(path.read_bytes())
    content[12] = 7  # FOV
    path.write_bytes(content)
    with pytest.raises(DataFormatError, match=r"cameras\.bin: .*camera model number 7 is not among"):
        read_colmap(tmp_path)


@pytest.mark.parametrize("file", ["cameras", "images", "points3D"])
def test_truncated_files_are_refused_wherever_they_end(tmp_path, file):
    write_binary(tmp_path)
    path = tmp_path / "sparse" / "0" / f"{file}.bin"
    content = path.read_bytes()
    read = {
        "cameras": colmap_model.read_cameras,
        "images": colmap_model.read_images,
        "points3D": colmap_model.read_points,
    }
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(DataFormatError, match=rf"{file}\.bin: (is truncated at byte {length}|has no name at byte)"):
            read[file](path.parent)
    path.write_bytes(struct.pack("<Q", 2**63) + content[8:])
    with pytest.raises(DataFormatError, match=rf"{file}\.bin: is truncated"):
        read_colmap(tmp_path)


def test_damaged_files_fail_in_one_way_only(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    write_binary(folder)
    whole = {path: path.read_bytes() for path in (folder / "sparse" / "0").iterdir()}
    positions = [(path, position) for path, content in whole.items() for position in range(len(content))]

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from(positions), st.integers(0, 255))
    def damage(place: tuple[Path, int], value: int) -> None:
        for path, content in whole.items():
            path.write_bytes(content)
        path, position = place
        path.write_bytes(whole[path][:position] + bytes([value]) + whole[path][position + 1 :])
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("warnings.warn", lambda *_, **__: None)
                posed = read_colmap(folder)
        except ValueError as error:
            assert str(folder) in str(error)
        else:
            assert bool(torch.isfinite(posed.camera.rays().directions).all())

    damage()


@pytest.mark.parametrize("write", [write_binary, write_text])
def test_the_largest_model_is_read(tmp_path, write):
    write(tmp_path)
    shutil.copytree(tmp_path / "sparse" / "0", tmp_path / "sparse" / "10")
    (tmp_path / "sparse" / "0").rename(tmp_path / "sparse" / "2")
    for end in ("bin", "txt"):
        (tmp_path / "sparse" / "2" / f"images.{end}").unlink(missing_ok=True)
    pose = "1 0.8 0.36 -0.48 0.0 -0.5 0.25 5.0 1 a_1.png\n"
    (tmp_path / "sparse" / "2" / "images.txt").write_text(pose)
    with pytest.warns(UserWarning, match=r"sparse/10 with 3 pictures is read, not sparse/2 with 1 pictures; to read"):
        assert len(read_colmap(tmp_path)) == 3
    assert read_colmap(tmp_path / "sparse" / "2", images=tmp_path / "images").names == ("a_1.png",)


def test_lines_of_keypoints_may_be_missing(tmp_path):
    write_text(tmp_path)
    path = tmp_path / "sparse" / "0" / "images.txt"
    expected, whole = read_colmap(tmp_path), path.read_text()
    bare = "\n".join(line for line in whole.splitlines() if line.endswith("png"))
    some = whole.replace("1.5 2.5 -1 \n", "1.5 2.5 -1 4 5 17\n", 1)
    for text in (bare, f"{bare}\n\n", bare.replace("\n", "\n\n"), some, whole.replace("\n", "\r\n")):
        path.write_text(text)
        again = read_colmap(tmp_path)
        assert again.names == expected.names
        assert torch.equal(again.camera.world_from_camera, expected.camera.world_from_camera)
    path.write_text(f"{bare}\n1.5 2.5 -1 7\n")
    with pytest.raises(DataFormatError, match=r"images\.txt: .*'1\.5 2\.5 -1 7' is neither a pose .* nor a list of"):
        read_colmap(tmp_path)


def test_whole_numbers_at_the_places_of_point_ids_make_no_keypoints(tmp_path):
    """Axis-aligned poses written by hand, and a name that is a number."""
    write_text(tmp_path)
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)).save(tmp_path / "images" / "7.png")
    path = tmp_path / "sparse" / "0" / "images.txt"
    path.write_text("1 1 0 0 0 2 0 1 1 7.png\n2 0 -0 0.6 0.8 2 0 1 1 a_1.png\n3 1 0 0 0 2 0 1 1 b/9.png\n")
    assert read_colmap(tmp_path).names == ("7.png", "a_1.png", "b/9.png")


def test_pictures_in_another_folder_and_size(tmp_path):
    write_text(tmp_path)
    expected = read_colmap(tmp_path).camera
    (tmp_path / "images").rename(tmp_path / "images_2")
    with pytest.raises(DataFormatError, match=r"no folder 'images'; give .* --images .*images_2 holds 3 of 3 of them"):
        read_colmap(tmp_path)
    for path in (tmp_path / "images_2").rglob("*.png"):
        Image.fromarray(np.zeros((3, 4, 3), dtype=np.uint8)).save(path)
    for images in ("images_2", tmp_path / "images_2"):
        posed = read_posed_images(tmp_path, images=images)
        assert (posed.camera.width, posed.camera.height) == (4, 3) and posed.sizes is None
        torch.testing.assert_close(posed.camera.focal, expected.focal / 2)
        torch.testing.assert_close(posed.camera.principal, expected.principal / 2)
    with pytest.raises(DataFormatError, match=r"nowhere: is no folder, here or in .*; give the folder of the pictures"):
        read_colmap(tmp_path, images="nowhere")
