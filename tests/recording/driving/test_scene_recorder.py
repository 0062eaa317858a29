"""The driving world as it is drawn and recorded, on a small track of our own."""

from pathlib import Path

import numpy as np
import pytest
import small_tracks
import torch
from jaxtyping import Float
from small_tracks import GRADE, TRACK

from nfldm3d.data.sample_files import decode_scene, encode_scene
from nfldm3d.data.scene_folder import SceneFolder
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.recording import engine
from nfldm3d.recording.driving.capture_recorder import _fill_folders
from nfldm3d.recording.driving.drawing import Stage
from nfldm3d.recording.driving.models import Model, Textures
from nfldm3d.recording.driving.poses import look_along
from nfldm3d.recording.driving.scene_recorder import record_scene
from nfldm3d.recording.driving.shard_recorder import DrivingOptions, plan_shards, record_samples, share_out
from nfldm3d.recording.driving.surfaces import BUILDING, CAR, KERB, MARKING, ROAD, TERRAIN, TREE, VOID
from nfldm3d.recording.driving.torcs import TEST_BODIES, TEST_TRACKS, TRACKS, TorcsData
from nfldm3d.recording.driving.track import Surface
from nfldm3d.recording.driving.world import SceneShape, World
from nfldm3d.recording.shards import ShardPlan

pytest.importorskip("panda3d.core")

SHAPE = SceneShape(size=24, box=(24.0, 24.0, 8.0), stops=3, free=4, supersampling=2)
NUMBERS = (1, 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TorcsData:
    return TorcsData(small_tracks.write_data(tmp_path_factory.mktemp("torcs")))


@pytest.fixture(scope="module")
def world(data: TorcsData) -> World:
    try:
        return World.open(data, TRACK, SHAPE, 0)
    except OSError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def scenes(world: World) -> list[SceneSample]:
    taken = [record_scene(world, number) for number in NUMBERS]
    assert taken[0] is not None and taken[1] is not None
    return [taken[0], taken[1]]


def square(
    texture: Path | None, kind: int, height: float = 0.0, color: tuple[float, float, float] = (0.5, 0.5, 0.5)
) -> Surface:
    corners = np.array(((-9, -9, height), (9, -9, height), (9, 9, height), (-9, 9, height)), float)
    uv = np.array(((0, 0), (1, 0), (1, 1), (0, 1)), float)
    up = np.tile((0.0, 0.0, 1.0), (4, 1))
    return Surface(texture, kind, corners, up, uv, np.array(((0, 1, 2), (0, 2, 3))), color)


def stage_of(*surfaces: Surface, size: int = 16) -> Stage:
    try:
        stage = Stage(size, supersampling=2, map_size=32)
    except OSError as error:
        pytest.skip(str(error))
    model, textures = Model("plane"), Textures()
    for surface in surfaces:
        model.add(surface, textures)
    stage.build(model)
    return stage


def light(stage: Stage, elevation: float, sun: float, ambient: float) -> None:
    towards = np.array((np.cos(elevation), 0.0, np.sin(elevation)))
    stage.light(towards, np.full(3, sun), np.full(3, ambient))


def test_depth_is_that_of_the_plane_and_light_that_of_lambert():
    stage = stage_of(square(None, TERRAIN))
    pose = look_along(np.array((0.5, -1.0, 3.0)), 0.4, -0.6)
    light(stage, 0.5, 0.8, 0.3)
    drawn = stage.draw(pose)
    across = (np.arange(16) + 0.5) / 16 * 2 - 1
    grid: Float[np.ndarray, "height width 3"] = np.stack(np.broadcast_arrays(across[None], -across[:, None], -1.0), -1)
    slope = (grid @ pose[:3, :3].T)[..., 2]
    with np.errstate(divide="ignore"):
        expected = np.where(slope < 0, -3.0 / slope, np.inf)
    points = pose[:3, 3] + expected[..., None] * (grid @ pose[:3, :3].T)
    hit = (np.abs(points[..., :2]) < 8.9).all(-1)
    missed = ~(np.abs(points[..., :2]) < 9.1).all(-1)
    assert hit.sum() > 40 and np.abs(drawn.depth - expected)[hit].max() < 0.003
    assert (drawn.depth[missed] == 0).all() and (drawn.classes[missed] == VOID).all()
    assert (drawn.classes[hit] == TERRAIN).all()
    assert abs(int(drawn.image[-1, 16, 0]) - 255 * 0.5 * (0.3 + 0.8 * np.sin(0.5))) < 2
    assert drawn.fine_depth.shape == (32, 32) and drawn.image.shape == (32, 32, 3)


def test_textures_have_their_colours_their_holes_and_their_classes(tmp_path: Path):
    path = tmp_path / "tree_n.png"
    small_tracks.paint(path, (200, 100, 50), hole=True)
    stage = stage_of(square(path, TREE), square(None, ROAD, height=-1.0))
    light(stage, np.pi / 2, 0.0, 1.0)
    drawn = stage.draw(look_along(np.array((0.0, 0.0, 4.0)), np.pi / 2, -np.pi / 2 + 1e-6))  # y is up in the picture
    assert (drawn.classes[1:7] == ROAD).all() and (drawn.classes[9:15] == TREE).all()
    assert np.allclose(drawn.depth[1:7], 5, atol=1e-3) and np.allclose(drawn.depth[9:15], 4, atol=1e-3)
    assert np.abs(drawn.image[20:30].astype(int) - (200, 100, 50)).max() <= 2


def test_pictures_that_were_drawn_do_not_change_with_the_next():
    stage = stage_of(square(None, ROAD))
    light(stage, 0.7, 0.5, 0.5)
    first = stage.draw(look_along(np.array((0.0, 0.0, 2.0)), 0.0, -1.0))
    kept = [values.copy() for values in vars(first).values()]
    stage.draw(look_along(np.array((0.0, 0.0, 5.0)), 1.0, 0.4))
    assert all(np.array_equal(a, b) for a, b in zip(kept, vars(first).values(), strict=True))


def test_the_view_from_above_has_the_axes_of_the_scene():
    stage = stage_of(square(None, TERRAIN), square(None, ROAD, height=1.0))
    frame = np.eye(4)
    frame[:3, 3] = (9.0, 0.0, 0.5)  # the squares end at x = 0 of this frame, and at y = 9
    classes, height = stage.draw_above(frame, (16.0, 16.0), -2.0, 6.0)
    assert (classes[10:22, 1:15] == ROAD).all() and (classes[:, 17:] == VOID).all() and (classes[:6] == VOID).all()
    assert np.allclose(height[10:22, 1:15], 0.5, atol=1e-3) and np.isnan(height[:, 17:]).all()
    below, depths = stage.draw_above(frame, (16.0, 16.0), -2.0, 0.0)
    assert (below[10:22, 1:15] == TERRAIN).all() and np.allclose(depths[10:22, 1:15], -0.5, atol=1e-3)


def test_things_are_drawn_but_not_from_above():
    stage = stage_of(square(None, ROAD))
    thing, pose = Model("thing"), np.eye(4)
    thing.add(square(None, CAR), Textures())
    pose[2, 3] = 1.0
    stage.put(thing, pose)
    down = look_along(np.array((0.0, 0.0, 4.0)), 0.0, -np.pi / 2 + 1e-6)
    assert (stage.draw(down).classes == CAR).all() and np.allclose(stage.draw(down).depth, 3.0, atol=1e-3)
    assert (stage.draw_above(np.eye(4), (4.0, 4.0), -1.0, 5.0)[0] == ROAD).all()
    stage.clear()
    assert (stage.draw(down).classes == ROAD).all()


def test_a_machine_without_egl_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch):
    from panda3d.core import GraphicsPipeSelection

    class Nothing:
        def make_module_pipe(self, name: str) -> None:
            assert name == "p3headlessgl"

    class Selection:
        get_global_ptr = staticmethod(Nothing)

    assert GraphicsPipeSelection is not None
    monkeypatch.setattr("panda3d.core.GraphicsPipeSelection", Selection)
    with pytest.raises(OSError, match="no EGL .*sudo apt install libegl1 libgl1-mesa-dri"):
        engine.open_engine.__wrapped__()


def test_stages_do_not_disturb_each_other():
    here, there = stage_of(square(None, ROAD)), stage_of(square(None, TERRAIN, height=1.0), size=24)
    pose = look_along(np.array((0.0, 0.0, 4.0)), 0.0, -np.pi / 2 + 1e-6)
    for _ in range(2):
        assert (here.draw(pose).classes == ROAD).all() and np.allclose(here.draw(pose).depth, 4, atol=1e-3)
        drawn = there.draw(pose)
        assert drawn.classes.shape == (24, 24) and (drawn.classes == TERRAIN).all()
    del here
    assert np.allclose(there.draw(pose).depth, 3, atol=1e-3)


def test_a_scene_holds_all_that_was_asked_for(scenes: list[SceneSample], world: World):
    for scene, number in zip(scenes, NUMBERS, strict=True):
        assert scene.key == f"{TRACK}_{number:04d}" and scene.find_problem() is None and scene.split == "test"
        assert scene.images.shape == (22, 3, 24, 24) and scene.box == SHAPE.room
        assert scene.box.lower == (-12, -12, -2) and scene.box.upper == (12, 12, 6)
        assert [scene.kinds.count(kind) for kind in ("walk", "rig", "scattered")] == [3, 15, 4]
        index, cameras = scene.metadata["trajectory_index"], scene.metadata["cameras"]
        assert isinstance(index, list) and isinstance(cameras, list) and scene.trajectory is not None
        walk = [view for view, kind in enumerate(scene.kinds) if kind == "walk"]
        assert walk == sorted(walk, key=lambda view: index[view]) and {cameras[view] for view in walk} == {"front"}
        assert torch.allclose(scene.trajectory[[index[v] for v in walk], :3], scene.camera[walk].centers, atol=1.01)
        assert torch.allclose(scene.trajectory[:, 3:].norm(dim=1), torch.ones(16))
        assert torch.allclose(scene.camera[walk].forward, torch.tensor((1.0, 0.0, 0.0)).expand(3, 3), atol=1e-3)
        free = [view for view, kind in enumerate(scene.kinds) if kind == "scattered"]
        assert free != list(range(18, 22)) and (scene.camera[free].forward[:, 2] < 0).all()
        assert scene.kinds[::2].count("rig") > 4  # no alias: every second view is of several cameras
        assert len({cameras[view] for view in range(0, 22, 2)}) > 3


def test_cars_are_of_the_bodies_for_tests_and_in_the_map(scenes: list[SceneSample]):
    for scene in scenes:
        cars = scene.metadata["cars"]
        assert isinstance(cars, list) and cars and scene.bev is not None and scene.labels is not None
        assert {car["body"] for car in cars} <= set(TEST_BODIES)
        area = sum(car["size"][0] * car["size"][1] for car in cars if max(map(abs, car["position"][:2])) < 9)
        assert (scene.bev.classes == CAR).sum() * 0.25 > 0.8 * area
        points = scene.camera.unproject(scene.depth)[scene.labels == CAR]
        at = torch.tensor([car["position"] for car in cars])
        assert len(points) and torch.cdist(points[:, :2], at[:, :2].float()).amin(1).quantile(0.9) < 2.6


def test_pictures_and_map_tell_of_the_same_ground(scenes: list[SceneSample]):
    for scene in scenes:
        assert scene.labels is not None and scene.bev is not None and scene.bev.height is not None
        points = scene.camera.unproject(scene.depth)
        inside = scene.box.contains(points) & (scene.depth > 0)
        where, labels = points[inside], scene.labels[inside].long()
        cells = ((where[:, :2] + 12) / 0.5).long().clamp(0, 47)
        mapped = scene.bev.classes[cells[:, 0], cells[:, 1]].long()
        for kind, least in ((ROAD, 0.9), (TERRAIN, 0.9), (MARKING, 0.8), (KERB, 0.7), (BUILDING, 0.9)):
            seen = labels == kind
            assert seen.sum() > 10 and (mapped[seen] == kind).float().mean() > least
        level = (labels == ROAD) | (labels == TERRAIN)
        rise = (where[:, 2] - scene.bev.height[cells[:, 0], cells[:, 1]])[level]
        assert rise.abs().median() < 0.01 and rise.abs().quantile(0.95) < 0.05
        slope = torch.linalg.lstsq(torch.cat((where[level, :2], torch.ones(int(level.sum()), 1)), 1), where[level, 2:])
        assert torch.allclose(slope.solution[0].abs(), torch.tensor([GRADE]), atol=1e-3)
        assert abs(float(slope.solution[1])) < 1e-3 and abs(float(slope.solution[2])) < 0.02


def test_the_sky_is_known_and_has_no_depth(scenes: list[SceneSample]):
    for scene in scenes:
        sky = scene.find_sky()
        assert scene.labels is not None and sky.any() and torch.equal(sky, scene.labels == 0)
        assert (scene.depth[sky] == 0).all() and (scene.depth[~sky] > 0).all()
        up = scene.camera.rays().directions[..., 2]
        assert sky[up > 0.5].float().mean() > 0.95 and sky[up < -0.3].float().mean() < 0.05
    weather = scenes[0].metadata["weather"]
    assert isinstance(weather, dict) and weather["time_of_day"] in ("day", "overcast", "dusk", "night")


def test_a_scene_does_not_depend_on_what_was_recorded_before(scenes: list[SceneSample], data: TorcsData, world: World):
    fresh = record_scene(world, NUMBERS[1])
    assert fresh is not None and encode_scene(fresh) == encode_scene(scenes[1]) != encode_scene(scenes[0])
    other = World(world.track, world.cars, SHAPE, 7)
    different = record_scene(other, NUMBERS[1])
    assert different is None or encode_scene(different) != encode_scene(scenes[1])


def test_a_scene_is_read_as_it_was_recorded(scenes: list[SceneSample]):
    again = decode_scene(scenes[0].key, encode_scene(scenes[0]), "shard")
    assert torch.equal(again.images, scenes[0].images) and again.kinds == scenes[0].kinds
    assert (again.depth - scenes[0].depth).abs().max() <= 0.0026 and again.metadata == scenes[0].metadata
    assert torch.equal(again.find_sky(), scenes[0].find_sky())


def test_a_box_without_an_end_of_the_road_is_asked_for(world: World):
    assert any(world.plan(number) is None for number in range(40))  # the road begins and ends somewhere
    hollow = World(world.track, world.cars, SceneShape(size=8, box=(200.0, 200.0, 6.0), stops=1, free=0), 0)
    assert all(record_scene(hollow, number) is None for number in range(3))  # it rises out of so flat a box


def test_samples_of_a_shard_fill_its_quota(data: TorcsData, world: World):
    options = DrivingOptions(scenes=4, tracks=(TRACK,), shape=SceneShape(size=8, stops=1, free=1, supersampling=1))
    plan = ShardPlan("test-000000.tar", TRACK, 2, (0, 1, 2, 3, 4, 5))
    samples = record_samples(options, data, plan)
    assert [len(sample.images) for sample in samples] == [7, 7]
    assert [sample.key for sample in samples] == sorted(sample.key for sample in samples)


@pytest.mark.parametrize("layout", ["captures", "rig"])
def test_folders_hold_what_the_readers_expect(tmp_path: Path, data: TorcsData, world: World, layout: str):
    shape = SceneShape(size=12, box=(24.0, 24.0, 8.0), stops=4, free=2, supersampling=1)
    options = DrivingOptions(scenes=1, tracks=(TRACK,), shape=shape)
    plan = ShardPlan("test-000000.tar", TRACK, 1, tuple(range(8)))
    views = 26 if layout == "captures" else 24
    keys, fresh = _fill_folders(data, options, layout, tmp_path, plan)  # type: ignore[arg-type]
    assert len(keys) == 1 and fresh == views
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert _fill_folders(data, options, layout, tmp_path, plan) == (keys, 0)  # type: ignore[arg-type]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    (sample,) = SceneFolder(tmp_path, split="all", views=None)
    assert sample.find_problem() is None and sample.map == TRACK and sample.box.size == (24.0, 24.0, 8.0)
    assert sample.bev is not None and sample.bev.height is not None and sample.trajectory is not None
    assert len(sample.images) == views
    points = sample.camera.unproject(sample.depth)
    low = (sample.depth > 0) & sample.box.contains(points)
    cells = ((points[low][:, :2] + 12) / 0.5).long().clamp(0, 47)
    rise = points[low][:, 2] - sample.bev.height[cells[:, 0], cells[:, 1]]
    assert rise.abs().median() < 0.02 and (sample.bev.classes == ROAD).float().mean() > 0.2
    if layout == "captures":
        assert sample.find_sky().any() and len(sample.trajectory) == 16


def test_scenes_are_shared_out_evenly():
    assert share_out(DrivingOptions(scenes=44)) == {name: 2 + (name < "alpine-2") for name in TRACKS}
    uneven = share_out(DrivingOptions(scenes=38, test_scenes=4))
    assert uneven == {name: 1 if name in TEST_TRACKS else 2 for name in sorted(uneven, key=list(uneven).index)}
    plans = plan_shards(DrivingOptions(scenes=130, tracks=("street-1", "wheel-1"), test_scenes=2))
    assert [(plan.name, plan.map, plan.quota) for plan in plans] == [
        ("test-000000.tar", "wheel-1", 2),
        ("train-000000.tar", "street-1", 64),
        ("train-000001.tar", "street-1", 64),
    ]
    assert not set(plans[1].places) & set(plans[2].places) and len(plans[1].places) == 256
    assert set(DrivingOptions(split="test").chosen_tracks) == set(TEST_TRACKS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scenes": 0}, "scenes must be at least 1"),
        ({"tracks": ("street-1", "monaco")}, "no track is called monaco; choose of aalborg"),
        ({"tracks": ("wheel-1",), "split": "train"}, "none of wheel-1 belongs to split 'train'"),
        ({"scenes": 4, "test_scenes": 5}, "test_scenes are some of all 4 scenes"),
        ({"split": "train", "test_scenes": 0}, "only where both splits are recorded"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        DrivingOptions(**options)
    with pytest.raises(ValueError, match="there is no track for 3 of the scenes"):
        share_out(DrivingOptions(scenes=5, test_scenes=3, tracks=("street-1",)))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"size": 4}, "size must lie between 8 and 1024"),
        ({"box": (32.0, 16.0, 8.0)}, "box must be as long as wide"),
        ({"box": (32.2, 32.2, 8.0)}, "in steps of 0.5"),
        ({"stops": 17}, "stops must lie between 1 and 16"),
    ],
)
def test_shapes_that_cannot_be_are_refused(shape: dict, message: str):
    with pytest.raises(ValueError, match=message):
        SceneShape(**shape)
