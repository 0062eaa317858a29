"""The ViZDoom recorder: captures of real maps."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from nfldm3d.data.posed_images import PosedImages
from nfldm3d.data.transforms_json import read_transforms_json
from nfldm3d.recording.vizdoom import doom_bev, doom_rays
from nfldm3d.recording.vizdoom.doom_map import DoomMap
from nfldm3d.recording.vizdoom.doom_rays import CEILING, FLOOR, SKY, WALL, cast_rays
from nfldm3d.recording.vizdoom.engine_views import measure_view
from nfldm3d.recording.vizdoom.game import SCREENS, Game, Screen, Shot, choose_screen, find_wad, open_game
from nfldm3d.recording.vizdoom.poses import Pose
from nfldm3d.recording.vizdoom.recorder import CaptureOptions, record_views, record_vizdoom


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> PosedImages:
    """Twelve views of MAP01, recorded from an empty working folder."""
    folder = tmp_path_factory.mktemp("elsewhere")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        recorded = record_vizdoom("MAP01", options=CaptureOptions(views=12, size=96, seed=2))
    assert not list(folder.iterdir())  # the engine leaves files where it is started
    return recorded


def unproject(views: PosedImages) -> torch.Tensor:
    """World points of all pixels (those without depth at the camera)."""
    depth, rays = views.load_depth(), views.camera.rays()
    assert depth is not None
    return rays.at(depth / (rays.directions * views.camera.forward[:, None, None]).sum(-1))


def test_a_capture_holds_all_that_was_asked_for(capture: PosedImages):
    assert len(capture) == 12 and capture.metric and capture.timestamps is None
    images, labels = capture.load_images(), capture.load_labels()
    assert images.shape == (12, 3, 96, 96) and labels is not None and labels.max() <= SKY
    assert 0.2 < images.mean() < 0.5 and images.std((0, 2, 3)).min() > 0.05
    metadata = json.loads(json.dumps(capture.metadata, allow_nan=False))
    assert metadata["map"] == "MAP01" and "BSD-3-Clause" in metadata["licence"]
    assert metadata["label_names"][WALL] == "wall" and len(metadata["label_palette"]) == len(metadata["label_names"])
    lower, upper = (torch.tensor(metadata["box"][corner]) for corner in ("lower", "upper"))
    assert ((capture.camera.centers > lower) & (capture.camera.centers < upper)).all()
    points, depth = unproject(capture), capture.load_depth()
    inside = ((points >= lower) & (points <= upper)).all(-1)[depth > 0]
    assert inside.float().mean() > 0.85
    assert capture.bev is not None and capture.bev.lower == tuple(metadata["box"]["lower"][:2])
    assert capture.bev.classes.shape == tuple(round(float(v) * 2) for v in (upper - lower)[:2])


def test_intrinsics_follow_the_measured_formula(capture: PosedImages):
    """At 640x480 and a field of view of 116 degrees the focal length is 200.35 and the centre (320.35, 239.5)."""
    small = record_vizdoom("MAP01", options=CaptureOptions(views=1, size=80)).camera
    assert torch.allclose(small.focal, torch.tensor(200.35 / 400 * 80))
    assert torch.allclose(small.principal, torch.tensor(((320.35 - 120) / 400 * 80, 239.5 / 480 * 80)), atol=1e-4)
    assert torch.allclose(capture.camera.focal, torch.tensor(200.35 / 400 * 96))
    assert torch.allclose(
        capture.camera.principal, torch.tensor(((640.35 - 240) / 800 * 96, 479.5 / 960 * 96)), atol=1e-4
    )
    assert torch.allclose(capture.camera.world_from_camera[:, 2, :3], torch.tensor((0.0, 1.0, 0.0)))


def test_points_lie_on_the_maps_own_planes(capture: PosedImages):
    doom_map = DoomMap.read(find_wad("MAP01"), "MAP01")
    origin = torch.tensor(capture.metadata["origin_units"])
    points, labels = unproject(capture) * 32 + origin, capture.load_labels()
    for label, heights in ((FLOOR, doom_map.floor), (CEILING, doom_map.ceiling)):
        z = points[labels == label][::7, 2]
        known = torch.from_numpy(np.unique(heights)).float()
        assert (z[:, None] - known).abs().amin(1).max() < 0.02
    walls = points[labels == WALL][::97, None, :2].double().numpy()
    start, end = (doom_map.vertices[index] for index in doom_map.line_vertices.T)
    along = ((walls - start) * (end - start)).sum(-1) / ((end - start) ** 2).sum(-1)
    nearest = start + np.clip(along, 0, 1)[..., None] * (end - start)
    assert np.linalg.norm(walls - nearest, axis=-1).min(1).max() < 0.02


def test_cameras_stand_on_the_ground_of_the_ground_map(capture: PosedImages):
    bev = capture.bev
    assert bev is not None and bev.height is not None
    cells = ((capture.camera.centers[:, :2] - torch.tensor(bev.lower)) / bev.cell_size).long()
    eye_above_ground = capture.camera.centers[:, 2] - bev.height[cells[:, 0], cells[:, 1]]
    assert (eye_above_ground == 41 / 32).float().mean() > 0.7  # elsewhere a player stands with one foot on a step
    assert (bev.classes[cells[:, 0], cells[:, 1]] != doom_bev.VOID).all()


def pixel_rays(shot: Shot, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Directions and slopes of every second of the engine's own rows and columns, ``shift`` rows lower."""
    cosine, sine = np.cos(np.radians(shot.yaw_degrees)), np.sin(np.radians(shot.yaw_degrees))
    height, width = shot.labels.shape
    across = ((np.arange(0, width, 2) + 0.5) / width - shot.screen.center_x) / shot.screen.focal
    down = ((np.arange(0, height, 2) + 0.5 + shift) / height - shot.screen.center_y) / shot.screen.focal
    return np.array((cosine, sine)) + across[:, None] * np.array((sine, -cosine)), -down


def edge_mismatch(doom_map: DoomMap, shot: Shot, shift: float) -> float:
    """Share of the engine's pixels that we call a wall and it calls floor or ceiling, or the other way round."""
    hits, marks = cast_rays(doom_map, shot.eye, *pixel_rays(shot, shift)), shot.labels[::2, ::2]
    clear = np.isinf(hits.screens).all(0) & (marks < 2) & (hits.labels != SKY)
    return float(((hits.labels == WALL) != (marks == 0))[clear].mean())


@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: screen.name)
def test_the_engines_own_picture_confirms_the_camera(screen: Screen):
    doom_map = DoomMap.read(find_wad("MAP01"), "MAP01")
    with open_game("MAP01", screen=screen) as game:
        for x, y, yaw in ((408, 8, 30.0), (436, -8, 205.5)):
            shot = game.shoot(x, y, yaw)
            assert shot is not None and abs((shot.yaw_degrees - yaw + 180) % 360 - 180) < 0.01
            assert shot.image.shape == (screen.height, screen.width, 3) and shot.eye[:2] == (x, y)
            assert measure_view(doom_map, shot, 128).disagreement < 0.02
            shift = screen.height / 240
            off_walls = [edge_mismatch(doom_map, shot, rows) for rows in (-shift, 0.0, shift)]
            assert off_walls[1] < 0.005 and min(off_walls) == off_walls[1]


def test_colours_agree_between_views():
    """A pixel, lifted by its exact depth and dropped into another view, meets its own colour there."""
    doom_map = DoomMap.read(find_wad("MAP01"), "MAP01")
    with open_game("MAP01") as game:
        first, second = game.shoot(408, 8, 30.0), game.shoot(436, -8, 41.0)
    assert first is not None and second is not None
    directions, slopes = pixel_rays(first)
    depth = cast_rays(doom_map, first.eye, directions, slopes).depth
    points = np.array(first.eye) + depth[..., None] * np.dstack(np.broadcast_arrays(*directions.T, slopes[:, None]))
    offset, (height, width) = points - np.array(second.eye), second.labels.shape
    cosine, sine = np.cos(np.radians(second.yaw_degrees)), np.sin(np.radians(second.yaw_degrees))
    forward = offset[..., 0] * cosine + offset[..., 1] * sine
    right = offset[..., 0] * sine - offset[..., 1] * cosine
    column = np.floor(width * (second.screen.center_x + second.screen.focal * right / forward)).astype(int)
    row = np.floor(height * (second.screen.center_y - second.screen.focal * offset[..., 2] / forward)).astype(int)
    visible = (forward > 8) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column, row = np.where(visible, column, 0), np.where(visible, row, 0)
    other = cast_rays(doom_map, second.eye, *pixel_rays(second)).depth
    visible &= np.abs(other[row // 2, column // 2] - forward) < 0.02 * forward
    colors, seen = first.image[::2, ::2][visible].astype(float), second.image[row, column][visible].astype(float)
    assert visible.mean() > 0.5
    assert np.median(np.abs(colors - seen)) <= 1
    assert np.median(np.abs(colors - np.random.default_rng(0).permutation(seen))) > 10


def test_the_light_stays_on_and_the_void_is_refused():
    with open_game("MAP01") as game:
        before = game.shoot(-192, -192, 40.0)
        game.engine.advance_action(4500, False)  # the light amplifier has run out
        unaware = Game(game.engine, game.screen, [game.engine.get_episode_time()])
        dark, after = unaware.shoot(-192, -192, 40.0), game.shoot(-192, -192, 40.0)
        assert before is not None and dark is not None and after is not None
        assert dark.image.mean() < 0.8 * before.image.mean()
        assert (before.image == after.image).mean() > 0.99
        assert game.shoot(9000, 9000, 0.0) is None
        assert game.shoot(408, 8, 75.0) is not None


def test_views_that_the_map_does_not_explain_are_refused():
    doom_map = DoomMap.read(find_wad("MAP01"), "MAP01")
    poses = [Pose(408, 8, 30.0 * number) for number in range(40)]
    with open_game("MAP01") as game:
        taken = record_views(game, doom_map, iter(poses), CaptureOptions(views=2, size=16))
        assert [pose for pose, _ in taken] == poses[:2]
        other = dataclasses.replace(doom_map, floor=doom_map.floor - 48)
        with pytest.raises(ValueError, match="MAP01: the engine's depth contradicts the map.*in 22 of 22 views"):
            record_views(game, other, iter(poses), CaptureOptions(views=1, size=16))


def test_a_dead_engine_is_reported():
    with pytest.raises(ChildProcessError, match="ViZDoom stopped while drawing MAP01"), open_game("MAP01") as game:
        engine = [process for process in psutil.Process().children() if process.name() == "vizdoom"]
        engine[0].kill()
        game.shoot(408, 8, 0.0)


@pytest.mark.parametrize(("size", "width"), [(8, 320), (64, 320), (65, 400), (80, 400), (81, 800), (800, 800)])
def test_screens_are_several_times_finer_than_pictures(size: int, width: int):
    assert choose_screen(size).width == width


def test_equal_seeds_give_equal_captures():
    first, second, other = (
        record_vizdoom("E2M3", options=CaptureOptions(views=3, size=32, seed=seed, center_units=(-872.0, -200.0)))
        for seed in (5, 5, 6)
    )
    assert torch.equal(first.load_images(), second.load_images())
    assert torch.equal(first.load_depth(), second.load_depth())
    assert torch.equal(first.camera.world_from_camera, second.camera.world_from_camera)
    assert not torch.equal(first.camera.world_from_camera, other.camera.world_from_camera)


def test_a_walk_with_things_in_a_given_box():
    options = CaptureOptions(views=10, size=40, walk=True, keep_things=True, extent=(20.0, 16.0, 8.0), exposure=2.0)
    walk = record_vizdoom("MAP01", options=options)
    assert walk.timestamps is not None and (walk.timestamps.diff() > 0).all() and len(walk) == 10
    assert walk.camera.centers.diff(dim=0).norm(dim=-1).max() < 1.5
    assert walk.metadata["box"] == {"lower": [-10.0, -8.0, -4.0], "upper": [10.0, 8.0, 4.0]}
    assert walk.metadata["exposure"] == 2.0
    masks, labels = walk.load_masks(), walk.load_labels()
    assert masks is not None and labels is not None
    assert not (masks & (labels == doom_rays.SPRITE)).any()


def test_captures_survive_saving(capture: PosedImages, tmp_path: Path):
    capture[:3].save(tmp_path / "capture")
    again = read_transforms_json(tmp_path / "capture")
    assert torch.equal(again.load_images(), capture[:3].load_images())
    assert torch.allclose(again.load_depth(), capture[:3].load_depth(), atol=1e-3)
    assert torch.equal(again.load_labels(), capture[:3].load_labels())
    assert again.metadata["box"] == capture.metadata["box"]
    assert again.bev is not None and torch.equal(again.bev.classes, capture.bev.classes)


def test_unknown_maps_and_bad_options_are_refused(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match=r"'MAP33'; choose one of MAP01 to MAP32 or E1M1 to E4M9"):
        record_vizdoom("MAP33")
    with pytest.raises(ValueError, match="no camera can stand"):
        record_vizdoom("MAP01", options=CaptureOptions(center_units=(0.0, 5000.0)))
    for bad, message in (
        ({"views": 0}, "views"),
        ({"size": 801}, "size must lie between 8 and 800"),
        ({"seed": -1}, "seed"),
        ({"extent": (8.0, 0.0, 8.0)}, "extent"),
        ({"exposure": 0.0}, "exposure"),
    ):
        with pytest.raises(ValueError, match=message):
            CaptureOptions(**bad)
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    with pytest.raises(ImportError, match=r"pip install nfldm3d\[vizdoom\]"):
        record_vizdoom("MAP01")
