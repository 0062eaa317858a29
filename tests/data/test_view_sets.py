"""Views of objects are read from every layout: the chosen ones, square, before white, with their cameras."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_co3d import write_category
from small_srn import write_object
from small_views import ball_sample, cameras, look, write_balls

from nfldm3d import Camera, PosedImages
from nfldm3d.data.co3d import Co3dCategory
from nfldm3d.data.point_files import write_points
from nfldm3d.data.scene_shards import ShardIndex, write_index, write_shard
from nfldm3d.data.view_sets import (
    SIDES,
    ShardViews,
    ViewSets,
    center_cameras,
    find_given,
    hold_out,
    make_square,
    open_view_sets,
)
from nfldm3d.files import DataFormatError


def all_of(camera: Camera) -> torch.Tensor:
    return torch.arange(len(camera))


def test_shards_give_chosen_views(tmp_path: Path) -> None:
    folder = write_balls(tmp_path / "shards")
    sets = open_view_sets(folder, "train")
    assert isinstance(sets, ShardViews) and isinstance(sets, ViewSets) and len(sets) == 2
    views = sets.read(1, lambda camera: torch.tensor([len(camera) - 1, 0]))
    number = int(views.key.removeprefix("balls_"))
    assert views.caption == "a ball" and views.camera.shape == (2,)
    assert torch.allclose(views.images, look(number, cameras(6))[[5, 0]], atol=1 / 255)
    assert torch.allclose(views.camera.centers, cameras(6).centers[[5, 0]], atol=1e-5)
    small = open_view_sets(folder, "test", size=8).read(0, all_of)
    assert small.images.shape == (6, 3, 8, 8) and small.camera.width == 8
    assert torch.allclose(
        small.images, look(3, cameras(6)).unflatten(-1, (8, 2)).unflatten(-3, (8, 2)).mean((-1, -3)), atol=0.01
    )


def test_shapes_are_held_out_to_choose_by(tmp_path: Path) -> None:
    folder = write_balls(tmp_path / "shards")
    keys = {side: {s.key for s in ShardViews(folder, side).entries} for side in SIDES}
    assert [len(keys[side]) for side in SIDES] == [2, 1, 1] and len(set().union(*keys.values())) == 4
    shapes = [f"shape {number // 3}" for number in range(120)]  # three liveries of each
    held = hold_out(shapes, "val", tmp_path)
    assert len(held) == 6 and {shapes[number] for number in held} == {shapes[held[0]], shapes[held[-1]]}
    assert sorted(held + hold_out(shapes, "train", tmp_path)) == list(range(120))
    assert hold_out(["one"] * 2, "train", tmp_path) == [0, 1]
    with pytest.raises(DataFormatError, match="a single shape to learn from"):
        hold_out(["one"] * 2, "val", tmp_path)


def test_liveries_stay_together(tmp_path: Path) -> None:
    samples = [ball_sample(number, 2, 8) for number in range(12)]
    samples = [
        replace(s, metadata=s.metadata | {"triangles": 9 + n // 6, "object_box": [[0, 0, 0], [1, 1, 1]]})
        for n, s in enumerate(samples)
    ]
    shard, scenes = write_shard(tmp_path / "train-000000.tar", samples)
    write_index(tmp_path, ShardIndex((shard,), scenes))
    held = [scene.key for scene in ShardViews(tmp_path, "val").entries]
    assert held in ([f"balls_{n:04d}" for n in range(6)], [f"balls_{n:04d}" for n in range(6, 12)])


def test_the_view_from_twenty_degrees_is_the_given_one() -> None:
    heights = torch.deg2rad(torch.tensor([-8.0, 70.0, 26.0, 17.0, 45.0]))
    eyes = 1.3 * torch.stack((heights.cos(), torch.zeros(5), heights.sin()), dim=-1)
    assert find_given(Camera.look_at(eyes, (0.0, 0.0, 0.0), width=4, height=4)) == 3


def test_srn_and_captures_are_objects(tmp_path: Path) -> None:
    for side in ("train", "test"):
        write_object(tmp_path / f"cars_{side}" / "c1")
    assert len(open_view_sets(tmp_path, "train")) == 1
    with pytest.raises(DataFormatError, match="a single shape"):
        open_view_sets(tmp_path, "val")
    for number in range(2, 4):
        write_object(tmp_path / "cars_val" / f"c{number}")  # its own side to choose by
    for place in (tmp_path, tmp_path / "cars_train", tmp_path / "cars_val"):
        assert [len(open_view_sets(place, side)) for side in SIDES] == [1, 2, 1]
    for place in (tmp_path, tmp_path / "cars_train", tmp_path / "cars_test"):
        sets = open_view_sets(place, "test")
        assert isinstance(sets, ViewSets) and len(sets) == 1
        views = sets.read(0, lambda _: torch.tensor([2, 2, 1]))
        assert [round(float(image.mean()) * 255) for image in views.images] == [20, 20, 10] and views.key == "c1"
    wide = PosedImages.from_tensors(
        torch.rand(4, 3, 6, 10), Camera.orbit((0.0, 0.0, 0.0), 2.0, views=4, width=10, height=6)
    )
    for number in range(12):
        wide.save(tmp_path / "captures" / f"thing{number}")
    sides = [len(open_view_sets(tmp_path / "captures", side)) for side in SIDES]
    assert sum(sides) == 12 and min(sides) > 0
    views = open_view_sets(tmp_path / "captures", "train").read(0, all_of)
    assert views.images.shape == (4, 3, 6, 6) and views.camera.principal[0].tolist() == [3, 3]


def test_sequences_of_co3d_lie_in_the_middle(tmp_path: Path) -> None:
    folder = write_category(tmp_path, names=("1_2_3", "2_2_3"))  # one of them alone to learn from
    views = open_view_sets(folder, "train", size=4).read(0, all_of)
    assert views.key == "2_2_3" and views.caption == "bear" and views.images.shape == (6, 3, 4, 4)
    assert torch.allclose(views.camera.centers.norm(dim=-1), torch.tensor(1.3), atol=1e-4)
    assert (views.images[1, :, 0] == 1).all() and float(views.images[1, 0, 2, 2]) == pytest.approx(40 / 255, abs=0.02)
    assert len(open_view_sets(folder, "test")) == 1


def test_objects_of_co3d_have_a_diagonal_of_1(tmp_path: Path, generator: torch.Generator) -> None:
    """Their points, strays aside, fill a box off the middle; cameras keep their places beside it."""
    folder = write_category(tmp_path)
    points = torch.rand(2000, 3, generator=generator) * torch.tensor([2.0, 1.0, 2.0]) + torch.tensor([0.5, 0.0, -1.0])
    points[0] = torch.tensor([90.0, -90.0, 90.0])
    write_points(folder / "1_2_3" / "pointcloud.ply", points)
    plain = Co3dCategory(folder).read("1_2_3")
    assert plain.points is not None and plain.points.shape == (2000, 3)
    views = open_view_sets(folder, "test", size=4).read(0, all_of)
    low, high = (plain.points[1:].quantile(share, dim=0) for share in (0.005, 0.995))
    diagonal = (high - low).norm()
    assert float(diagonal) == pytest.approx(3.0, abs=0.05)
    expected = (plain.camera.centers - (low + high) / 2) / diagonal
    assert torch.allclose(views.camera.centers, expected, atol=0.01)
    write_points(folder / "1_2_3" / "pointcloud.ply", torch.ones(200, 3))
    with pytest.raises(DataFormatError, match="pointcloud.ply: holds points that lie in one place"):
        open_view_sets(folder, "test", size=4).read(0, all_of)


def test_what_is_around_objects_can_be_seen(tmp_path: Path) -> None:
    folder = write_category(tmp_path)
    views = open_view_sets(folder, "test", size=4, surroundings=True).read(0, all_of)
    assert float(views.images[1].amax()) == pytest.approx(40 / 255, abs=0.02)


def test_cameras_are_centered_on_what_they_look_at(generator: torch.Generator) -> None:
    target = torch.tensor((3.0, -2.0, 5.0))
    eyes = target + 4 * torch.nn.functional.normalize(torch.randn(8, 3, generator=generator), dim=-1)
    moved = center_cameras(Camera.look_at(eyes, (3.0, -2.0, 5.0), width=4, height=4), 1.5)
    assert torch.allclose(moved.centers, (eyes - target) * 1.5 / 4, atol=1e-4)


def test_square_pictures_keep_their_rays() -> None:
    camera = Camera.orbit((0.0, 0.0, 0.0), 2.0, views=2, width=10, height=6)
    images, square = make_square(torch.rand(2, 3, 6, 10), camera, None)
    assert images.shape == (2, 3, 6, 6)
    assert torch.allclose(square.rays().directions, camera.rays().directions[:, :, 2:8], atol=1e-6)


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match="no folder with a capture"):
        open_view_sets(tmp_path, "train")
    with pytest.raises(ValueError, match="at least 1 pixel"):
        open_view_sets(tmp_path, "train", size=0)
