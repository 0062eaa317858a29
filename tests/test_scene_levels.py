"""Scenes of fields of one's own: their files name the classes, and hold none."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from balls import BOX, Network, StoredBall, make_ball
from jaxtyping import TypeCheckError

from nfldm3d import Rgb, Scene, SphericalHarmonics, VoxelField
from nfldm3d.fields import FieldState, find_missing, voxelize
from nfldm3d.files import DataFormatError
from nfldm3d.scene_file import CONFIG


@pytest.mark.parametrize("name", ["scene.nfld", "scene"], ids=["file", "folder"])
@pytest.mark.parametrize("inner", [True, False])
def test_fields_of_ones_own_come_back_by_name(tmp_path: Path, name: str, inner: bool) -> None:
    ball = make_ball(kind=StoredBall)
    around = replace(make_ball(2.0, 0.5, StoredBall), box=ball.box.scaled(2.0))
    levels = (ball, voxelize(around)) if inner else (voxelize(ball), around)
    scene = Scene(levels[0], Rgb(), surroundings=(levels[1],))
    scene.save(tmp_path / name)
    with pytest.raises(
        DataFormatError, match=r"level\d is a StoredBall.*Scene.load\(path, field_types=\[StoredBall\]\)"
    ):
        Scene.load(tmp_path / name)
    again = Scene.load(tmp_path / name, field_types=[StoredBall])
    points = torch.tensor(ball.box.center) + torch.linspace(-0.95, 0.95, 30)[:, None]
    for level, other in zip(scene.levels, again.levels, strict=True):
        assert type(other) is type(level) and other.box == level.box
        assert torch.equal(other.query(points)[0], level.query(points)[0])


def test_a_file_names_the_type_of_each_level(tmp_path: Path) -> None:
    """Readers of before know no types, and read voxel fields as they did."""
    grid = voxelize(make_ball())
    Scene(grid, Rgb()).save(tmp_path / "grid")
    config = json.loads((tmp_path / "grid" / CONFIG).read_text())
    assert config["version"] == 1 and {level.pop("type") for level in config["levels"]} == {"VoxelField"}
    (tmp_path / "grid" / CONFIG).write_text(json.dumps(config))
    field = Scene.load(tmp_path / "grid").field
    assert isinstance(field, VoxelField) and torch.equal(field.density, grid.density)
    Scene(make_ball(kind=StoredBall), Rgb()).save(tmp_path / "ball")
    assert json.loads((tmp_path / "ball" / CONFIG).read_text())["version"] == 2


def test_fields_that_cannot_be_kept_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a Ball does not say what .* keep of it.*state.*editing.resample"):
        Scene(make_ball(), Rgb()).save(tmp_path / "ball.nfld")

    class Misnamed(StoredBall):
        def state(self):
            return FieldState({"type": "round"}, {})

    with pytest.raises(ValueError, match="the state of a Misnamed has a value named 'type'"):
        Scene(make_ball(kind=Misnamed), Rgb()).save(tmp_path / "ball.nfld")
    assert list(tmp_path.iterdir()) == []


def test_scenes_of_other_fields_move_and_print() -> None:
    ball = make_ball()
    scene = Scene(ball, Rgb(), surroundings=(voxelize(replace(ball, box=ball.box.scaled(2.0))),))
    assert scene.to(torch.float64).field.radius.dtype == torch.float64 and scene.box == ball.box
    assert "Ball(" in str(scene) and "memory" not in str(scene)
    with pytest.raises(ValueError, match="field has 3 channels but SphericalHarmonics needs 12"):
        Scene(ball, SphericalHarmonics(1))


def test_a_field_that_is_a_module_stays_where_it_is() -> None:
    scene = Scene(Network(), Rgb(4))
    moved = scene.to(torch.float64)
    assert moved.field.layers[0].weight.dtype == torch.float64 and scene.field.layers[0].weight.dtype == torch.float32


def test_what_a_class_lacks_to_be_a_field_is_named() -> None:
    class Half:
        box, channels, voxel_size = BOX, 3, (0.1, 0.1, 0.1)

        def query(self, points):
            return points[..., 0], points

    assert find_missing(Half()) == ["device", "to", "query_density", "normals", "occupancy"]
    with pytest.raises((ValueError, TypeCheckError), match="without device, to|'field'"):
        Scene(Half(), Rgb())
