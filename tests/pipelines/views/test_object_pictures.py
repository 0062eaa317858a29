"""Objects are cut out of pictures and set before white, where the assumed camera sees them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nfldm3d.data.srn import CARS_RADIUS, SRN_FOCAL
from nfldm3d.files import DataFormatError
from nfldm3d.pipelines.views.object_pictures import FILLED, assume_camera, read_object, read_object_camera
from nfldm3d.pipelines.views.paths import make_view_path


def write(path: Path, *, alpha: bool = True, box: tuple[int, int, int, int] = (10, 20, 50, 30)) -> Path:
    """A red rectangle (left, top, right, bottom) in 80x60 pixels of green."""
    pixels = np.zeros((60, 80, 4), np.uint8)
    pixels[..., 1] = 200
    left, top, right, bottom = box
    pixels[top:bottom, left:right] = (255, 0, 0, 255)
    Image.fromarray(pixels if alpha else pixels[..., :3].copy()).save(path)
    return path


def write_mask(path: Path, size: tuple[int, int] = (80, 60)) -> Path:
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[20:30, 10:50] = 255
    Image.fromarray(mask).save(path)
    return path


def test_the_object_fills_the_middle(tmp_path: Path) -> None:
    by_alpha = read_object(write(tmp_path / "a.png"), 32)
    by_mask = read_object(write(tmp_path / "b.png", alpha=False), 32, mask=write_mask(tmp_path / "m.png"))
    assert torch.allclose(by_alpha.image, by_mask.image, atol=1e-5)
    red = by_alpha.image[1] < 0.5
    rows, columns = red.any(1).nonzero().flatten(), red.any(0).nonzero().flatten()
    assert len(columns) == pytest.approx(FILLED * 32, abs=1.5) and len(rows) == pytest.approx(FILLED * 8, abs=1.5)
    for found in (rows, columns):
        assert float(found.float().mean()) == pytest.approx(15.5, abs=1)
    assert (by_alpha.image[:, 0] > 0.999).all() and float(by_alpha.image[0].amin()) > 0.99  # no green is left


def test_a_known_camera_keeps_the_picture(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([np.full((40, 40, 3), 90, np.uint8), np.eye(40, dtype=np.uint8) * 255])).save(
        tmp_path / "a.png"
    )
    camera = assume_camera(40, azimuth_degrees=90.0, elevation_degrees=0.0)
    found = read_object(tmp_path / "a.png", 20, camera=camera)
    assert found.camera.width == 20 and torch.allclose(
        found.camera.centers[0], torch.tensor([0.0, CARS_RADIUS, 0.0]), atol=1e-6
    )
    assert float(found.image[0, 0, 0]) < 0.9 < float(found.image[0, 0, 19])
    with pytest.raises(DataFormatError, match="shows the object beyond its middle square"):
        read_object(write(tmp_path / "b.png", box=(2, 5, 70, 30)), 20, camera=camera)


def test_pictures_can_be_taken_with_what_is_around(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", alpha=False)  # 80x60, of which the middle 60 are left
    found = read_object(path, 30, surroundings=True)
    assert torch.equal(found.camera.world_from_camera, assume_camera(30).world_from_camera) and found.camera.width == 30
    assert float(found.image[1, 0, 0]) == pytest.approx(200 / 255, abs=0.02)  # green around
    assert float(found.image[0, 12, 10]) > 0.9
    camera = assume_camera(80).resized(80, 60)
    seen = read_object(path, 30, camera=camera, surroundings=True).camera
    assert torch.allclose(seen.focal, camera.focal / 2)
    cut = read_object(write(tmp_path / "b.png"), 30, surroundings=True)  # what is cut out already stays so
    assert torch.equal(cut.image, read_object(tmp_path / "b.png", 30).image)


def test_a_pictures_camera_has_its_lens(tmp_path: Path) -> None:
    """Of a picture twice as wide as high, whose lens is off its middle; it is the second of two that a file names."""
    picture = write(tmp_path / "b.png")
    width, height = 80, 60
    pose = assume_camera(8).world_from_camera[0]
    lens = {"fl_x": 60.0, "fl_y": 62.0, "cx": 24.0, "cy": 11.0, "w": width // 2, "h": height // 2}
    frames = [
        {"file_path": "a.png", "transform_matrix": torch.eye(4).tolist()},
        {"file_path": "images/b.png", "transform_matrix": pose.tolist()},
    ]
    path = tmp_path / "transforms.json"
    path.write_text(json.dumps(lens | {"frames": frames}))
    found = read_object_camera(path, picture)
    assert torch.allclose(found.world_from_camera[0], pose)
    seen = read_object(picture, 16, camera=found).camera
    scale = 16 / height
    assert torch.allclose(seen.focal[0], torch.tensor([120.0, 124.0]) * scale)
    assert torch.allclose(seen.principal[0], torch.tensor([48.0 - (width - height) / 2, 22.0]) * scale)
    assert torch.equal(read_object_camera(path, "other.png").world_from_camera[0], torch.eye(4))
    for changes, message in (({"frames": []}, "give the camera of the picture"), ({"k1": 0.1}, "this lens is bent")):
        path.write_text(json.dumps(lens | {"frames": frames} | changes))
        with pytest.raises(DataFormatError, match=message):
            read_object_camera(path, picture)


def test_the_assumed_camera_is_srns() -> None:
    camera = assume_camera(64, azimuth_degrees=30.0, elevation_degrees=10.0)
    assert torch.allclose(camera.centers.norm(dim=-1), torch.tensor(CARS_RADIUS))
    assert float(camera.focal[0, 0]) == pytest.approx(SRN_FOCAL * 64)
    assert float(camera.centers[0, 2]) == pytest.approx(CARS_RADIUS * np.sin(np.radians(10)), abs=1e-6)
    pixel, _ = camera.project(torch.zeros(1, 1, 3))
    assert torch.allclose(pixel, torch.tensor(32.0))
    with pytest.raises(ValueError, match="an elevation lies between"):
        assume_camera(64, elevation_degrees=91.0)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: (write(folder / "a.png", alpha=False), None), "has no transparency that tells the object"),
        (
            lambda folder: (write(folder / "a.png", box=(0, 0, 80, 60)), None),
            "has no transparency that tells the object",
        ),
        (lambda folder: (write(folder / "a.png", box=(5, 5, 5, 5)), None), "shows no object"),
        (
            lambda folder: (write(folder / "a.png"), write_mask(folder / "m.png", (70, 60))),
            "is 70x60 pixels, not those",
        ),
        (lambda folder: (folder / "none.png", None), "is missing"),
    ],
)
def test_pictures_without_an_object_are_refused(tmp_path: Path, prepare, message: str) -> None:
    path, mask = prepare(tmp_path)
    with pytest.raises(DataFormatError, match=re.escape(message)):
        read_object(path, 16, mask=mask)


def test_paths_go_round_at_the_distance_of_the_picture(tmp_path: Path) -> None:
    seen = assume_camera(16, azimuth_degrees=40.0, elevation_degrees=25.0)
    for path in ("orbit", "sphere"):
        camera = make_view_path(path, seen, 9)
        assert camera.shape == (9,) and torch.allclose(
            camera.centers.norm(dim=-1), torch.tensor(CARS_RADIUS), atol=1e-5
        )
        assert torch.allclose(camera.forward, -camera.centers / CARS_RADIUS, atol=1e-5)
        assert torch.equal(camera.focal, seen.focal.expand(9, 2))
    orbit = make_view_path("orbit", seen, 9)
    assert torch.allclose(orbit.centers[:, 2], seen.centers[0, 2].expand(9), atol=1e-5)
    steps = (orbit.centers - seen.centers).norm(dim=-1)
    assert torch.allclose(steps, steps.flip(0), atol=1e-4) and float(steps[0]) < float(steps[4])
    whole = make_view_path("orbit", seen, 10, given=False).centers  # the front, too
    assert torch.allclose(whole[0], seen.centers[0], atol=1e-5) and torch.allclose(whole[1:], orbit.centers, atol=1e-5)
    sphere = (make_view_path("sphere", seen, 9).centers - seen.centers).norm(dim=-1)
    assert (sphere.diff() >= 0).all()
    (tmp_path / "way.json").write_text(
        '{"camera_angle_x": 0.8, "frames": [{"transform_matrix": [[1,0,0,0],[0,1,0,0],[0,0,1,2],[0,0,0,1]]}]}'
    )
    assert make_view_path(str(tmp_path / "way.json"), seen, 5).shape == (1,)
    for path, views, message in (
        ("spiral", 3, "unknown path 'spiral'"),
        ("orbit", 0, "needs at least one view"),
        ("orbit", 10**9, "draw fewer"),
    ):
        with pytest.raises(ValueError, match=message):
            make_view_path(path, seen, views)
