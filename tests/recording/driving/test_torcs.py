"""The recorder on TORCS's own data, where they are installed, or unpacked in the folder that NFLDM3D_TORCS names."""

import os
from pathlib import Path

import pytest
import torch

from nfldm3d.data.sample_files import encode_scene
from nfldm3d.recording.driving.scene_recorder import record_scene
from nfldm3d.recording.driving.surfaces import CAR, MARKING, ROAD, TERRAIN
from nfldm3d.recording.driving.torcs import TRACKS, TorcsData
from nfldm3d.recording.driving.track import Track
from nfldm3d.recording.driving.world import SceneShape, World

pytestmark = pytest.mark.slow
pytest.importorskip("panda3d.core")


@pytest.fixture(scope="module")
def data() -> TorcsData:
    try:
        folder = os.environ.get("NFLDM3D_TORCS")
        return TorcsData.find(None if folder is None else Path(folder))
    except ValueError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", TRACKS)
def test_every_track_is_known(name: str, data: TorcsData) -> None:
    model = data.track_model(name)
    track = Track.read(name, model, data.texture_folders(model))
    widths = torch.from_numpy(track.line.half_widths)
    assert len(track.line) > 1500 and float((widths - widths.median()).abs().quantile(0.9)) < 0.1
    assert track.ground.is_road.any() and not track.ground.is_road.all()


def test_a_street_is_recorded(data: TorcsData) -> None:
    world = World.open(data, "street-1", SceneShape(size=32, stops=2, free=4), 0)
    scene = next(filter(None, (record_scene(world, number) for number in range(8))))
    assert scene.find_problem() is None and scene.bev is not None and scene.labels is not None
    assert {ROAD, MARKING, TERRAIN, CAR} <= set(scene.bev.classes.unique().tolist())
    points = scene.camera.unproject(scene.depth)
    inside = scene.box.contains(points) & (scene.depth > 0) & (scene.labels == ROAD)
    cells = ((points[inside][:, :2] + 16) / 0.5).long().clamp(0, 63)
    assert (scene.bev.classes[cells[:, 0], cells[:, 1]] == ROAD).float().mean() > 0.85


def test_surfaces_in_one_plane_look_the_same_in_every_run(data: TorcsData) -> None:
    shape = SceneShape(size=32, stops=1, free=2)
    runs = [record_scene(World.open(data, "forza", shape, 0), 7) for _ in range(2)]
    assert runs[0] is not None and runs[1] is not None and encode_scene(runs[0]) == encode_scene(runs[1])
