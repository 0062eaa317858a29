"""The networks that judge: pictures and fields in, maps out; both learn from scenes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_rooms import GRID, labelled, room_sample, scene_autoencoder

from nfldm3d import DataFormatError
from nfldm3d.data.bev_map import UNSEEN
from nfldm3d.data.encoded_scenes import EncodedScene, EncodedScenes, start_folder, write_encoding
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.data.scenes import Selection
from nfldm3d.models.nfldm.readers import BevReader, FrameClassifier
from nfldm3d.models.nfldm.scene_voxels import ORIENTATIONS, orient_map, tensors_from_voxels, voxels_of
from nfldm3d.models.nfldm.views import Views
from nfldm3d.training.reader_stages import BevReaderStage, FrameSource, FrameStage, MappedFieldSource, name_maps
from nfldm3d.training.stage import SampleSource, Stage


@pytest.fixture(scope="module")
def scenes() -> list[SceneSample]:
    return [labelled(number) for number in range(4)]


def test_maps_count_where_views_meet_something(scenes: list[SceneSample]) -> None:
    sample = scenes[1]
    known = sample.seen_map()
    assert known is not None and sample.bev is not None
    points = sample.camera.unproject(sample.depth)[sample.depth > 0]
    assert bool(sample.box.contains(points).float().mean() > 0.9)  # surfaces of the room
    inside = points[(points[:, 0] > 1) & (points[:, 0] < 5) & (points[:, 1].abs() < 2)]
    cells = ((inside[:, :2] - torch.tensor([1.0, -2.0])) / 0.5).long()
    assert bool((known[cells[:, 0], cells[:, 1]] == sample.bev.classes[cells[:, 0], cells[:, 1]]).all())
    assert int((known != UNSEEN).sum()) == len(cells.unique(dim=0))
    nothing = replace(sample.bev, class_names=("dark", "void", "mark"))
    assert set(replace(sample, bev=nothing).seen_map().unique().tolist()) <= {UNSEEN, 2}  # type: ignore[union-attr]
    assert replace(sample, bev=None).seen_map() is None


def write_fields(folder: Path, scenes: list[SceneSample], turn: int = 0) -> MappedFieldSource:
    start_folder(folder, {"keep": "fields", "weights": []})
    for sample in scenes:
        with torch.no_grad():
            encoding = scene_autoencoder().encode(Views(sample.images / 255, sample.camera, sample.depth), sample.box)
        voxels = voxels_of(encoding.field, encoding.background).oriented(turn)
        write_encoding(folder, EncodedScene(sample.key, turn, tensors_from_voxels(voxels)))
    return MappedFieldSource([EncodedScenes(folder)], scenes, [sample.key for sample in scenes])


def descend(stage: Stage, batch: object, steps: int) -> list[float]:
    optimizer = torch.optim.Adam(stage.model.parameters(), 3e-3)
    losses = []
    for _ in range(steps):
        loss, _ = stage.loss(batch, torch.Generator())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_pictures_are_told_apart(scenes: list[SceneSample]) -> None:
    source = FrameSource(scenes, name_maps(scenes))
    assert source.maps == ["world 0", "world 1"] and isinstance(source, SampleSource)
    model = FrameClassifier(maps=2, classes=source.classes, size=16, features=8, width=8)
    stage = FrameStage(model, source, Selection(scenes, [1, 2]))
    assert isinstance(stage, Stage)
    batch = source.collate([source.sample(number, torch.Generator().manual_seed(0)) for number in range(4)])
    assert torch.equal(batch.maps, torch.tensor([0, 1, 0, 1]).repeat_interleave(4))
    assert torch.allclose(batch.shares.sum(-1), torch.ones(16))
    losses = descend(stage, batch, 30)
    assert losses[-1] < 0.3 * losses[0]
    with torch.no_grad():
        assert stage.evaluate(torch.Generator()).scalars["map_accuracy"] == 1
        assert model.eval().embed(torch.rand(3, 3, 40, 20)).shape == (3, 8)


def test_pictures_without_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="needs scenes with labels"):
        FrameSource([room_sample(0)], ["a"])


def test_maps_are_read_from_fields(scenes: list[SceneSample], tmp_path: Path) -> None:
    source = write_fields(tmp_path, scenes)
    model = BevReader(GRID, 5, 3, (8, 8))
    stage = BevReaderStage(model, source, source)
    assert isinstance(stage, Stage) and isinstance(source, SampleSource)
    batch = source.collate([source.sample(number, torch.Generator().manual_seed(0)) for number in range(4)])
    losses = descend(stage, batch, 60)
    assert losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        assert stage.evaluate(torch.Generator()).scalars["miou"] > 0.4


def test_several_folders_are_one_after_another(scenes: list[SceneSample], tmp_path: Path) -> None:
    first, second = write_fields(tmp_path / "a", scenes[:2]), write_fields(tmp_path / "b", scenes[1:], 2)
    both = MappedFieldSource([*first.encoded, *second.encoded], scenes, [sample.key for sample in scenes])
    assert len(both) == len(first) + len(second)
    assert torch.equal(both.read(1).classes, first.read(1).classes)
    assert torch.equal(both.read(3).voxels.occupancy, second.read(1).voxels.occupancy)


@pytest.mark.parametrize("turn", [0, 3, 6])
def test_maps_turn_with_their_fields(turn: int, scenes: list[SceneSample], tmp_path: Path) -> None:
    plain, turned = write_fields(tmp_path / "a", scenes[:1]), write_fields(tmp_path / "b", scenes[:1], turn)
    for orientation in range(ORIENTATIONS):
        first, second = plain.read(0), turned.read(0, orientation)
        expected = orient_map(orient_map(first.classes, turn), orientation)
        assert torch.equal(second.classes, expected)
        occupancy = first.voxels.oriented(turn).oriented(orientation).occupancy
        assert torch.allclose(second.voxels.occupancy, occupancy, atol=1e-3)


def test_scenes_without_maps_are_named(scenes: list[SceneSample], tmp_path: Path) -> None:
    source = write_fields(tmp_path, scenes[:1])
    source.scenes = [replace(scenes[0], bev=None)]
    with pytest.raises(DataFormatError, match=r"room_0000.0: encodes a scene without a bird's-eye map"):
        source.read(0)
