"""Scenes of Freedoom maps: where they lie, how they are shared out, and how they are recorded into shards."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import tyro

from nfldm3d.cli.capture import CaptureVizdoom
from nfldm3d.data.sample_files import encode_scene
from nfldm3d.data.scene_dataset import SceneDataset
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.recording.vizdoom import shard_recorder
from nfldm3d.recording.vizdoom.doom_grid import WalkGrid
from nfldm3d.recording.vizdoom.doom_places import BOX_UNITS, list_places, open_place
from nfldm3d.recording.vizdoom.game import choose_screen, open_game
from nfldm3d.recording.vizdoom.scene_recorder import ALL_MAPS, TEST_MAPS, World, measure_exposure, record_scene
from nfldm3d.recording.vizdoom.shard_recorder import RecordingReport, SceneOptions, plan_shards, record_scenes

pytest.importorskip("vizdoom")


@pytest.fixture(scope="module")
def world() -> World:
    return World.open("E1M4", 0)


@pytest.fixture(scope="module")
def scenes(world: World) -> list[SceneSample]:
    """Scenes 4 and 2 of the map, recorded in this order."""
    with open_game("E1M4", screen=choose_screen(64)) as game:
        exposure = measure_exposure(world, game)
        taken = [record_scene(world, game, n, views=12, size=64, exposure=exposure) for n in (4, 2)]
    assert taken[0] is not None and taken[1] is not None
    return [taken[0], taken[1]]


def test_the_first_places_are_one_per_square_and_finer_ones_keep_apart(world: World):
    points = (world.places + 0.5) * 16 + np.array(world.grid.lower)
    coarse = int(world.levels[0])
    squares = np.floor(points[:coarse] / 512)
    assert len(np.unique(squares, axis=0)) == coarse > 60 and len(points) == world.levels.sum()
    finer = points[coarse : world.levels[:2].sum()]
    assert np.linalg.norm(finer[:, None] - points[:coarse], axis=-1).min() >= 128
    assert world.grid.standable[tuple(world.places.T)].all()
    again, _ = list_places(world.grid, np.random.default_rng(1))
    assert {tuple(cell) for cell in again[:coarse].tolist()} == {tuple(cell) for cell in world.places[:coarse].tolist()}
    assert again[:coarse].tolist() != world.places[:coarse].tolist()


def test_cameras_of_a_place_stay_within_reach(world: World):
    for i, j in world.places[:20].tolist():
        room, part = open_place(world.doom_map, world.grid, (i, j))
        offset = np.abs(room.points - np.array(room.center[:2]))
        assert offset.max() <= 384 and isinstance(part, WalkGrid)
        eyes = world.doom_map.floor[part.sector[part.standable]] + 41 - room.center[2]
        assert np.abs(eyes).max() < BOX_UNITS[2] / 2
        assert part.standable.sum() == len(room.points)
        assert np.array_equal(room.points[0], world.grid.center((i, j)))


def test_scenes_are_shared_out_evenly():
    evenly = plan_shards(SceneOptions(scenes=60, maps=("MAP02", "MAP05", "E2M2")))
    assert [(plan.name, plan.map, plan.quota) for plan in evenly] == [
        ("train-000000.tar", "E2M2", 16),
        ("train-000001.tar", "MAP02", 22),
        ("test-000000.tar", "MAP05", 22),
    ]
    finer = plan_shards(SceneOptions(scenes=90, maps=("MAP02", "MAP05", "E2M2")))  # the first level holds 63
    assert [plan.quota for plan in finer] == [25, 33, 32] and sum(plan.quota for plan in finer) == 90
    parts = plan_shards(SceneOptions(scenes=150, maps=("E4M2",)))
    assert [plan.quota for plan in parts] == [50, 50, 50]
    assert sorted(number for plan in parts for number in plan.places) == list(range(sum(len(p.places) for p in parts)))
    with pytest.raises(ValueError, match=r"1 maps have places for \d+ scenes, not 9000; ask for fewer"):
        plan_shards(SceneOptions(scenes=9000, maps=("MAP01",)))


def test_maps_for_tests_are_apart():
    assert len(ALL_MAPS) == 68 and set(SceneOptions(split="test").chosen_maps) == set(TEST_MAPS)
    assert not set(SceneOptions(split="train").chosen_maps) & set(TEST_MAPS)
    bad_options: list[tuple[dict, str]] = [
        ({"maps": ("MAP05",), "split": "train"}, "none of the maps MAP05 belongs to split 'train'"),
        ({"maps": ("MAP99",)}, "no Freedoom map is called 'MAP99'"),
        ({"views": 1}, "2 to 48 views"),
        ({"scenes": 0}, "scenes must be at least 1"),
        ({"size": 4}, "size must lie between"),
    ]
    for bad, message in bad_options:
        with pytest.raises(ValueError, match=message):
            SceneOptions(**bad)


def test_a_scene_holds_all_that_was_asked_for(scenes: list[SceneSample], world: World):
    for scene, number in zip(scenes, (4, 2), strict=True):
        assert scene.key == f"E1M4_{number:04d}" and scene.find_problem() is None and scene.split == "train"
        assert scene.images.shape == (12, 3, 64, 64) and scene.kinds == ("scattered",) * 8 + ("walk",) * 4
        assert scene.box.size == (32.0, 32.0, 8.0) and scene.box.center == (0.0, 0.0, 0.0)
        assert np.allclose(np.array(scene.metadata["origin_units"])[:2] % 64, 0)
        assert scene.trajectory is not None and scene.trajectory.shape == (16, 5)
        assert torch.allclose(scene.trajectory[:, 3:].norm(dim=1), torch.ones(16))
        steps = scene.trajectory[:, :2].diff(dim=0).norm(dim=1)
        assert steps.max() < 0.85 and steps.min() > 0.4
        index = scene.metadata["trajectory_index"]
        assert isinstance(index, list) and index[:8] == [None] * 8 and sorted(index[8:]) == index[8:]
        walk = scene.camera[8:]
        assert torch.allclose(scene.trajectory[index[8:], :3], walk.centers, atol=1e-5)
        assert torch.allclose(scene.trajectory[index[8:], 3:], walk.forward[:, :2], atol=1e-4)
        assert scene.bev is not None and scene.bev.classes.shape == (64, 64) and scene.bev.lower == (-16.0, -16.0)
        cells = ((scene.camera.centers[:, :2] + 16) * 2).long()
        assert (scene.bev.classes[cells[:, 0], cells[:, 1]] != 0).all()
        assert scene.bev.height is not None
        level = (scene.bev.height + 2.0).abs() < 0.5  # the floor at the centre is 2 m below the box's middle
        assert set(scene.bev.classes[level].unique().tolist()) & {1} and not (scene.bev.classes[level] == 2).any()
        saturated = (scene.images.amax(1) == 255).float().mean()
        assert 0.1 < scene.images.float().mean() / 255 < 0.5 and saturated < 0.1


def test_a_scene_does_not_depend_on_what_was_recorded_before(scenes: list[SceneSample], world: World):
    with open_game("E1M4", screen=choose_screen(64)) as game:
        alone = record_scene(world, game, 2, views=12, size=64, exposure=float(str(scenes[1].metadata["exposure"])))
    assert alone is not None and encode_scene(alone) == encode_scene(scenes[1])


@pytest.mark.slow
def test_processes_kills_and_reruns_do_not_change_the_shards(tmp_path: Path):
    options = SceneOptions(scenes=9, views=4, size=16, maps=("MAP01", "MAP02", "MAP05"))
    report = record_scenes(tmp_path / "one", options=options, workers=1)
    assert (report.scenes, report.missing, report.recorded_views) == (9, 0, 36)
    code = (
        "from nfldm3d.recording.vizdoom.shard_recorder import *\n"
        "if __name__ == '__main__':\n"
        "    o = SceneOptions(scenes=9, views=4, size=16, maps=('MAP01', 'MAP02', 'MAP05'))\n"
        f"    record_scenes({str(tmp_path / 'two')!r}, options=o, workers=2)\n"
    )
    script = tmp_path / "record.py"
    script.write_text(code)
    run = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL)
    while run.poll() is None and not list((tmp_path / "two").glob("*.tar")):
        time.sleep(0.01)
    workers = psutil.Process(run.pid).children(recursive=True)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    assert not psutil.wait_procs(workers, timeout=600)[1]  # nothing goes on unseen
    done = {path.name for path in (tmp_path / "two").glob("*.tar")}
    assert done
    again = record_scenes(tmp_path / "two", options=options, workers=2)
    assert again.scenes == 9
    for path in (tmp_path / "one").iterdir():
        assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes(), path.name
    # the kill may have come while a file was being written: its temporary name begins with a dot
    one, two = ({path.name for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == {name for name in two if not name.startswith(".")}
    dataset = SceneDataset(tmp_path / "one")
    assert len(dataset) == 6 and dataset[0].images.shape == (4, 3, 16, 16)
    other = SceneOptions(scenes=9, views=6, size=16, maps=options.maps)
    with pytest.raises(ValueError, match="holds a recording with views 4, not 6; repeat its options"):
        record_scenes(tmp_path / "one", options=other)


def test_the_command_refuses_options_that_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for options, message in (
        (["--map", "MAP01,MAP02"], "one capture shows one map, got MAP01, MAP02; name one, or give --scenes"),
        (["--split", "test"], "--split and --workers are for many scenes"),
        (["--scenes", "4", "--walk"], "--walk and --overwrite are for one place"),
        (["--scenes", "4", "--map", "MAP01", "--map", "E9M9"], "no Freedoom map is called 'E9M9'"),
    ):
        command = tyro.cli(CaptureVizdoom, args=["--out", str(tmp_path), *options])
        with pytest.raises(ValueError, match=message):
            command.run()
    asked: list[SceneOptions] = []
    report = RecordingReport(4, 1, 0, 96, 2.0)
    monkeypatch.setattr(
        shard_recorder, "record_scenes", lambda folder, options, workers, share: asked.append(options) or report
    )
    tyro.cli(CaptureVizdoom, args=["--out", "x", "--scenes", "4", "--map", "MAP01, E1M1", "--map", "MAP05"]).run()
    assert asked == [SceneOptions(scenes=4, maps=("MAP01", "E1M1", "MAP05"))]
