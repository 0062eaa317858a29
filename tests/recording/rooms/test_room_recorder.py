"""Furnished rooms of small boxes: what stands where, what is seen, and that map, pictures and words agree."""

from pathlib import Path

import numpy as np
import pytest
import small_furniture
import torch

from nfldm3d.data.sample_files import decode_scene, encode_scene
from nfldm3d.data.scene_folder import SceneFolder
from nfldm3d.files import DataFormatError
from nfldm3d.recording.furniture import Furniture, list_furniture
from nfldm3d.recording.rooms import recorder
from nfldm3d.recording.rooms.finishes import read_finishes
from nfldm3d.recording.rooms.pieces import CLASS_NAMES, FLOOR, OPENING, VOID, WALL, sort_pieces
from nfldm3d.recording.rooms.recorder import RoomOptions, plan_rooms
from nfldm3d.recording.rooms.room_recorder import RoomShape
from nfldm3d.recording.shards import ShardPlan

pytest.importorskip("panda3d.core")
pytest.importorskip("trimesh")

SHAPE = RoomShape(size=16, box=(4.8, 4.8, 3.0), walk=3, free=5, supersampling=1)
OPTIONS = RoomOptions(scenes=2, test_scenes=1, layout="captures", shape=SHAPE)
SIZES = {
    "Door": ("Doors and windows", (90.0, 10.0, 200.0)),
    "Bed": ("Bedroom", (100.0, 190.0, 50.0)),
    "Sofa": ("Living room", (160.0, 80.0, 80.0)),
    "Table": ("Kitchen", (90.0, 70.0, 75.0)),
    "Chair": ("Kitchen", (40.0, 40.0, 90.0)),
    "Desk": ("Office", (120.0, 60.0, 75.0)),
    "Fridge": ("Kitchen", (60.0, 60.0, 160.0)),
    "Bath": ("Bathroom", (150.0, 70.0, 60.0)),
    "Washbasin": ("Bathroom", (50.0, 40.0, 80.0)),
    "Plant": ("Living room", (30.0, 30.0, 100.0)),
    "Bookcase": ("Living room", (80.0, 30.0, 180.0)),
    "Sink": ("Kitchen", (60.0, 60.0, 85.0)),
    "Truck": ("Vehicles", (100.0, 100.0, 100.0)),
}


@pytest.fixture(scope="module")
def furniture(tmp_path_factory: pytest.TempPathFactory) -> list[Furniture]:
    colors = np.random.default_rng(0).uniform(0.2, 0.9, (2 * len(SIZES), 3)).tolist()
    pieces = [(name, kind, size, colors.pop()) for name, (kind, size) in SIZES.items() for _ in range(2)]
    folder = tmp_path_factory.mktemp("furniture")
    small_furniture.write_library(folder / "Small.sh3f", pieces)
    return list_furniture(folder)


@pytest.fixture(scope="module")
def scenes(furniture: list[Furniture]):
    plan = ShardPlan("train-000000.tar", "rooms", 2, tuple(range(12)))
    try:
        return recorder._record_shard(OPTIONS, furniture, None, plan)
    except OSError as error:
        pytest.skip(str(error))


def test_a_scene_holds_all_that_was_asked_for(scenes):
    assert len(scenes) == 2
    for scene in scenes:
        assert scene.find_problem() is None and scene.split == "train" and scene.images.shape == (8, 3, 16, 16)
        assert scene.kinds.count("walk") == 3 and scene.kinds.count("scattered") == 5 and (scene.depth > 0).all()
        assert scene.metadata["caption"].startswith(("a ", "an ")) and " with " in scene.metadata["caption"]
        stops = [stop for stop in scene.metadata["trajectory_index"] if stop is not None]
        walk = [view for view, kind in enumerate(scene.kinds) if kind == "walk"]
        assert stops == sorted(stops) and stops[0] == 0 and stops[-1] == 15
        assert torch.allclose(scene.trajectory[stops, :3], scene.camera[walk].centers, atol=1e-5)
        assert torch.allclose(scene.trajectory[stops, 3:], scene.camera[walk].forward[:, :2], atol=1e-5)


def test_pictures_and_map_tell_of_the_same_room(scenes):
    for scene in scenes:
        x, y, height = scene.metadata["size"]
        points, labels = scene.camera.unproject(scene.depth).reshape(-1, 3), scene.labels.reshape(-1).long()
        assert (points[labels == FLOOR][:, 2].abs() < 5e-3).all() and (points[:, 2] < height + 1e-2).all()
        walls = points[labels == WALL][:, :2].abs()
        assert (torch.minimum((walls[:, 0] - x / 2).abs(), (walls[:, 1] - y / 2).abs()) < 1e-2).all()
        inside = points - 0.05 * (scene.normals.reshape(-1, 3).float() / 127.5 - 1)  # off the edges of cells
        cells = ((inside[:, :2] - torch.tensor(scene.bev.lower)) / scene.bev.cell_size).long().clamp(0, 47)
        low = (points[:, 2] < 1.9) & (labels != OPENING) & (labels != WALL)
        mapped, seen = scene.bev.classes[cells[low, 0], cells[low, 1]].long(), labels[low]
        assert (mapped[seen == FLOOR] == FLOOR).float().mean() > 0.85
        assert (mapped[seen > OPENING] == seen[seen > OPENING]).float().mean() > 0.85
        top = points[:, 2] - scene.bev.height[cells[:, 0], cells[:, 1]]
        assert top[(labels == FLOOR)].abs().quantile(0.8) < 0.02
        assert scene.bev.class_names == CLASS_NAMES and scene.bev.classes.shape == (48, 48)
        assert (scene.bev.classes[0] == VOID).all() or x > 4.6


def test_things_stand_apart_and_in_the_room(scenes):
    for scene in scenes:
        x, y, _ = scene.metadata["size"]
        things = [thing for thing in scene.metadata["things"] if thing["class"] != "opening"]
        assert things and all(thing["licence"] == "CC0 for tests" for thing in things)
        centers = np.array([thing["position"][:2] for thing in things])
        assert (np.abs(centers) < (x / 2, y / 2)).all()
        apart = np.linalg.norm(centers[:, None] - centers[None], axis=-1) + 9 * np.eye(len(things))
        assert apart.min() > 0.25
        names = scene.metadata["caption"].split(" with ")[1]
        assert all(thing["name"].lower() in names for thing in things)


def test_a_room_does_not_depend_on_those_before_it(scenes, furniture: list[Furniture]):
    numbers = [int(scene.key.rpartition("_")[2]) for scene in scenes]
    plan = ShardPlan("train-000000.tar", "rooms", 1, (numbers[1],))
    (again,) = recorder._record_shard(OPTIONS, furniture, None, plan)
    assert encode_scene(again) == encode_scene(scenes[1]) != encode_scene(scenes[0])
    read = decode_scene(again.key, encode_scene(again), "shard")
    assert read.images.equal(again.images) and read.normals.equal(again.normals)


def test_rooms_for_tests_have_furniture_of_their_own(furniture: list[Furniture]):
    train, test = (sort_pieces(furniture, split) for split in ("train", "test"))
    assert not {piece.model for pieces in train for piece in pieces} & {
        piece.model for pieces in test for piece in pieces
    }
    assert sum(map(len, train)) > 0 < sum(map(len, test))
    assert not any(piece.name == "Truck" for pieces in (*train, *test) for piece in pieces)


def test_captures_are_read_and_not_recorded_again(tmp_path: Path, furniture: list[Furniture], scenes):
    plan = ShardPlan("train-000000.tar", "rooms", 1, tuple(range(12)))
    keys, new = recorder._record_folders(OPTIONS, furniture, None, tmp_path, plan)
    assert new == 8 and recorder._record_folders(OPTIONS, furniture, None, tmp_path, plan) == (keys, 0)
    (sample,) = SceneFolder(tmp_path, split="all", views=None)
    assert sample.images.equal(scenes[0].images) and sample.metadata["caption"] == scenes[0].metadata["caption"]
    assert sample.bev is not None and sample.trajectory is not None and sample.box == SHAPE.room


def test_plans_split_the_scenes():
    plans = plan_rooms(RoomOptions(scenes=100, test_scenes=10))
    assert [(plan.name, plan.map, plan.quota) for plan in plans] == [
        ("train-000000.tar", "rooms", 45),
        ("train-000001.tar", "rooms", 45),
        ("test-000000.tar", "test_rooms", 10),
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RoomOptions(scenes=3, test_scenes=4), "test_scenes some of the scenes"),
        (lambda: RoomShape(box=(6.4, 4.8, 3.2)), "box must be as long as wide"),
        (lambda: RoomShape(walk=17), "walk must lie between 1 and 16"),
        (lambda: RoomShape(size=4), "size must lie between"),
    ],
)
def test_what_cannot_be_is_refused(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_missing_textures_are_painted_and_a_wrong_folder_is_named(tmp_path: Path):
    with pytest.raises(DataFormatError, match="unpack the package sweethome3d"):
        read_finishes(tmp_path)
