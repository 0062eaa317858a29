"""Folders of captures in several layouts, written by the test: walks through box-shaped rooms, 8x6 pixels a view."""

import copy
import hashlib
import json
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from small_replicas import write_room
from small_rigs import alter, write_rig
from torch import Tensor

from nfldm3d import Box, Camera, placement
from nfldm3d.cli.scene_sets import open_scenes
from nfldm3d.data import PosedImages, SceneFolder, read_posed_images
from nfldm3d.data.sample_files import decode_scene, encode_scene
from nfldm3d.data.scene_box import find_box
from nfldm3d.files import DataFormatError

ROOM = Box((-2.0, -3.0, 0.25), (4.5, 3.0, 2.75))


def walk(views: int = 6) -> Camera:
    """Cameras along a line through the room that look round."""
    share = torch.linspace(0, 1, views)
    eye = torch.stack((-1 + 4 * share, -1 + share, 1.5 + 0.1 * share), dim=-1)
    turn = 6.0 * share
    target = eye + torch.stack((turn.cos(), turn.sin(), -0.2 * torch.ones(views)), dim=-1)
    return Camera.look_at(eye, target, width=8, height=6, horizontal_fov_degrees=100.0)


def measure(camera: Camera) -> Float[Tensor, "views 6 8"]:
    """Depth of the walls, by intersecting rays with the room."""
    rays = camera.rays()
    return ROOM.clip(rays)[1] * (rays.directions * camera.forward[:, None, None]).sum(-1)


def write_capture(
    folder: Path, *, depth: bool = True, scale: float = 1.0, views: int = 6, metric: bool = True, **metadata: object
) -> Path:
    camera = walk(views)
    images = torch.arange(views, dtype=torch.uint8)[:, None, None, None].expand(views, 3, 6, 8).contiguous() * 20
    capture = PosedImages.from_tensors(images, camera, depth=scale * measure(camera) if depth else None)
    replace(capture, metadata=dict(metadata), metric=metric).save(folder)
    return folder


def test_every_layout_is_a_scene(tmp_path: Path):
    write_capture(tmp_path / "kitchen10")
    write_capture(tmp_path / "kitchen9")
    write_room(tmp_path / "office0")
    (tmp_path / "drive").mkdir()
    write_rig(tmp_path / "drive", frames=5)
    (tmp_path / "notes").mkdir()
    folder = SceneFolder(tmp_path, split="all", window=2, stride=2)
    assert folder.keys == ("drive_000000", "drive_000002", "kitchen9", "kitchen10", "office0")
    samples = [folder[index] for index in range(len(folder))]
    assert [sample.map for sample in samples] == ["drive", "drive", "kitchen9", "kitchen10", "office0"]
    assert [len(sample.images) for sample in samples] == [12, 12, 6, 6, 4]
    for sample in samples:
        assert sample.images.dtype == torch.uint8 and sample.images.shape[1:] == (3, 6, 8)
        assert sample.depth.shape == (len(sample.camera), 6, 8)
        assert bool(sample.box.contains(sample.camera.centers).all())
        assert sample.find_problem() is None
    assert samples[0].trajectory is not None and samples[0].trajectory[1].tolist() == pytest.approx([0, 0, 0, 1, 0])
    assert samples[2].trajectory is None and samples[2].images[3].unique().tolist() == [60]


def test_a_room_without_box_gets_one_that_fits_its_walls():
    camera = walk(40)
    seen = PosedImages.from_tensors(torch.zeros(len(camera), 3, 6, 8), camera)
    box = find_box(seen, measure(camera), Path("room"))
    for found, wall in zip(box.lower + box.upper, ROOM.lower + ROOM.upper, strict=True):
        assert float(found) == pytest.approx(float(wall), abs=0.25)
    assert bool(box.contains(camera.centers).all())


def test_accents_are_one_name_however_they_are_spelled(tmp_path: Path):
    composed, decomposed = "K\u00fcche", "Ku\u0308che"
    write_capture(tmp_path / decomposed)
    write_capture(tmp_path / "bath")
    (tmp_path / "splits.json").write_text(json.dumps({"train": ["bath"], "test": [composed]}))
    assert SceneFolder(tmp_path, split="test").keys == (composed,)
    (tmp_path / "splits.json").write_text(json.dumps({"train": ["bath"], "test": [decomposed]}))
    assert SceneFolder(tmp_path, split="test")[0].key == composed


def test_what_is_masked_out_shapes_no_box(tmp_path: Path):
    camera = walk()
    depth, masks = measure(camera), torch.ones(6, 6, 8, dtype=torch.bool)
    masks[:, 4:] = False
    hand = torch.where(masks, depth, 20.0)
    boxes = []
    for name, seen in (("clean", depth), ("hand", hand)):
        images = torch.zeros(6, 3, 6, 8, dtype=torch.uint8)
        PosedImages.from_tensors(images, camera, depth=seen, masks=masks).save(tmp_path / name / "room")
        sample = SceneFolder(tmp_path / name, split="all")[0]
        assert sample.masks is not None and torch.equal(sample.masks, masks) and not sample.depth[~masks].any()
        boxes.append(sample.box)
    assert boxes[0] == boxes[1]


def test_a_point_of_a_wall_keeps_its_pixel_and_depth(tmp_path: Path):
    write_capture(tmp_path / "room")
    sample = SceneFolder(tmp_path, split="all", size=(4, 3))[0]
    assert (sample.camera.width, sample.camera.height) == (4, 3) and sample.depth.shape == (6, 3, 4)
    rays = walk().rays()
    wall = rays.at(ROOM.clip(rays)[1])[2, 3, 5]  # the pixel that the nearest one of the smaller picture takes
    pixels, depths = sample.camera[2].project(wall[None])
    column, row = (int(value) for value in pixels[0].floor())
    assert (column, row) == (2, 1)
    assert float(sample.depth[2, row, column]) == pytest.approx(float(depths), abs=2e-3)


def test_metadata_names_box_and_map(tmp_path: Path):
    box = {"lower": [-3, -4, 0], "upper": [5, 4, 3]}
    write_capture(tmp_path / "room", box=box, map="MAP07", source="a test")
    sample = SceneFolder(tmp_path, split="all")[0]
    assert sample.box == Box((-3, -4, 0), (5, 4, 3)) and sample.map == "MAP07"
    assert sample.metadata == {"source": "a test"}


def test_at_most_so_many_views_spread_over_the_capture(tmp_path: Path):
    write_capture(tmp_path / "room", views=9)
    chosen = SceneFolder(tmp_path, split="all", views=3)[0].images[:, 0, 0, 0]
    assert (chosen // 60).tolist() == [0, 1, 2]  # one of each third
    assert torch.equal(SceneFolder(tmp_path, split="all", views=3)[0].images[:, 0, 0, 0], chosen)
    assert len(SceneFolder(tmp_path, split="all", views=None)[0].images) == 9
    assert len(SceneFolder(tmp_path / "room", split="all")) == 1  # one capture is a folder of scenes too
    with pytest.raises(ValueError, match="at least 2 views"):
        SceneFolder(tmp_path, views=1)


def test_splits_by_file_and_by_hash(tmp_path: Path):
    names = [f"room{number}" for number in range(12)]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "transforms.json").write_text("{}")
    train, test, both = (SceneFolder(tmp_path, split=split).keys for split in ("train", "test", "all"))
    hashed = [name for name in names if int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10 == 0]
    assert list(test) == hashed and sorted(train + test) == sorted(both) == sorted(names)
    (tmp_path / "splits.json").write_text(json.dumps({"train": ["room3", "room1"], "test": ["room2"]}))
    assert SceneFolder(tmp_path).keys == ("room1", "room3")
    assert SceneFolder(tmp_path, split="test").keys == ("room2",)
    assert SceneFolder(tmp_path, split="all").keys == ("room1", "room2", "room3")


@pytest.mark.parametrize(
    "splits", [{"train": ["room"], "test": ["room"]}, {"val": ["room"]}, {"test": ["hall"]}, {"train": [3]}]
)
def test_splits_that_do_not_fit_are_refused(tmp_path: Path, splits: dict[str, list[object]]):
    write_capture(tmp_path / "room")
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    with pytest.raises(DataFormatError, match=r"splits\.json: .* each on one side; .* does not fit"):
        SceneFolder(tmp_path)


def test_an_empty_split_and_an_empty_folder_are_refused(tmp_path: Path):
    with pytest.raises(DataFormatError, match="holds no folder with a capture"):
        SceneFolder(tmp_path)
    with pytest.raises(DataFormatError, match="does not exist or holds no folder"):
        SceneFolder(tmp_path / "nowhere")
    write_capture(tmp_path / "room")
    (tmp_path / "splits.json").write_text('{"train": ["room"], "test": []}')
    with pytest.raises(DataFormatError, match="has no capture on the test side of 1; name some in splits.json"):
        SceneFolder(tmp_path, split="test")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"views": 1}, "has one view"),
        ({"scale": 1000.0}, "but its cameras span 4.12 m; check depth's unit"),
        ({"scale": 1000.0, "box": {"lower": [-2, -3, 0], "upper": [5, 3, 3]}}, "they are not metres"),
        ({"box": {"lower": [0, -3, 0], "upper": [5, 3, 3]}}, "view 0 at (-1, -1, 1.5) is outside the box"),
        ({"box": {"lower": [0, 0, 0], "upper": [0, 3, 3]}}, "has no volume"),
        ({"box": [1, 2]}, "box is [1, 2]; write a JSON object"),
        ({"trajectory": [[1, 2]]}, "trajectory is [[1, 2]]; write poses"),
    ],
)
def test_a_useless_scene_is_one_clear_error(tmp_path: Path, fault: dict[str, object], message: str):
    write_capture(tmp_path / "room", **fault)  # type: ignore[arg-type]
    folder = SceneFolder(tmp_path, split="all")
    with pytest.raises(DataFormatError, match=re.escape(message)):
        folder[0]
    with pytest.raises(DataFormatError, match="1 of 1 scenes cannot be used"):
        list(folder)


def test_few_bad_scenes_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_capture(tmp_path / "room00", views=2)
    for number in range(1, 20):
        shutil.copytree(tmp_path / "room00", tmp_path / f"room{number:02d}")
    (tmp_path / "room01/images/00001.png").write_bytes(b"no picture")
    folder = SceneFolder(tmp_path, split="all")
    assert [sample.key for sample in folder] == [key for key in folder.keys if key != "room01"]
    assert re.search("a scene is left out: .*room01/images/00001.png", caplog.text)
    assert list(folder.problems) == ["room01"]
    (tmp_path / "room02/transforms.json").write_text("{")
    with pytest.raises(DataFormatError, match="2 of 20 scenes cannot be used, above 5 % it stops"):
        list(SceneFolder(tmp_path, split="all"))


def test_a_bad_rig_counts_when_the_folder_is_listed(tmp_path: Path):
    (tmp_path / "drive").mkdir()
    alter(write_rig(tmp_path / "drive", frames=2), lambda content: content.pop("axes"))
    with pytest.raises(DataFormatError, match="1 of 1 scenes cannot be used.*the first: .*axes is missing"):
        SceneFolder(tmp_path, split="all")


def test_workers_get_the_folder_by_copy(tmp_path: Path):
    (tmp_path / "drive").mkdir()
    write_rig(tmp_path / "drive", frames=4)
    folder = SceneFolder(tmp_path, split="all")
    again = copy.deepcopy(folder)
    assert again.keys == folder.keys and torch.equal(again[0].images, folder[0].images)


def test_photographs_without_depth_can_be_encoded_but_not_trained_on(tmp_path: Path):
    write_capture(tmp_path / "room", depth=False)
    sample = SceneFolder(tmp_path, split="all")[0]
    assert sample.depth is None and sample.find_problem() is None and sample.seen_map() is None
    assert bool(sample.box.contains(sample.camera.centers).all())
    with pytest.raises(ValueError, match=r"scene room has no depth, which scenes to train on need; record it with"):
        sample.known_depth()
    with pytest.raises(ValueError, match="scene room has no depth"):
        encode_scene(sample)


def test_without_depth_points_or_cameras_tell_where_the_scene_is():
    inwards = Camera.orbit((1.0, -2.0, 0.5), 3.0, views=12, width=8, height=6)
    around = PosedImages.from_tensors(torch.zeros(12, 3, 6, 8), inwards)
    box = find_box(around, None, Path("room"))
    assert bool(box.contains(inwards.centers).all()) and bool(box.contains(torch.tensor((1.0, -2.0, 0.5))))
    points = torch.rand(200, 3) * 2 + torch.tensor((4.0, 5.0, 6.0))
    known = find_box(replace(around, points=points), None, Path("room"))
    assert bool(known.contains(points[20:180]).float().mean() > 0.8) and known.upper[2] > 7
    assert find_box(replace(around, points=points[:50]), None, Path("room")) == box, "too few"
    through = PosedImages.from_tensors(torch.zeros(6, 3, 6, 8), walk())
    assert bool(find_box(through, None, Path("room")).contains(walk().centers).all())


@pytest.mark.parametrize("metric", [True, False])
def test_scale_stays_known_or_unknown(tmp_path: Path, metric: bool):
    write_capture(tmp_path / "room", metric=metric)
    sample = SceneFolder(tmp_path, split="all")[0]
    assert sample.metric == metric and sample.posed_images().metric == metric
    assert decode_scene("room", encode_scene(sample), "shard").metric == metric


def test_one_capture_is_taken_whole_unless_it_is_trained_on(tmp_path: Path):
    for name in ("room", "d16", "house", "hall"):
        write_capture(tmp_path / name)
        for split in ("train", "test"):
            assert open_scenes(tmp_path / name, split, whole=True).keys == (name,)
    several = open_scenes(tmp_path, "train", whole=True)
    assert several.keys == open_scenes(tmp_path, "train").keys and len(several) < 4, "a folder of captures has sides"


def test_captures_are_read_as_told(tmp_path: Path):
    write_capture(tmp_path / "room", depth=False)
    folder = SceneFolder(tmp_path, split="all", read=partial(read_posed_images, up="-z"))
    assert placement.KEY in folder[0].metadata
