"""Views of objects are read from every layout: the chosen ones, square, before white, with their cameras."""

from pathlib import Path

import pytest
import torch
from small_co3d import write_category
from small_srn import write_object
from small_views import cameras, look, write_balls

from nfldm3d import Camera, PosedImages
from nfldm3d.data.view_sets import ShardViews, ViewSets, center_cameras, make_square, open_view_sets
from nfldm3d.files import DataFormatError


def all_of(count: int) -> torch.Tensor:
    return torch.arange(count)


def test_shards_give_chosen_views(tmp_path: Path) -> None:
    folder = write_balls(tmp_path / "shards")
    sets = open_view_sets(folder, "train")
    assert isinstance(sets, ShardViews) and isinstance(sets, ViewSets) and len(sets) == 3
    views = sets.read(1, lambda count: torch.tensor([count - 1, 0]))
    assert views.key == "balls_0001" and views.caption == "a ball" and views.camera.shape == (2,)
    assert torch.allclose(views.images, look(1, cameras(6))[[5, 0]], atol=1 / 255)
    assert torch.allclose(views.camera.centers, cameras(6).centers[[5, 0]], atol=1e-5)
    small = open_view_sets(folder, "test", size=8).read(0, all_of)
    assert small.images.shape == (6, 3, 8, 8) and small.camera.width == 8
    assert torch.allclose(
        small.images, look(3, cameras(6)).unflatten(-1, (8, 2)).unflatten(-3, (8, 2)).mean((-1, -3)), atol=0.01
    )


def test_srn_and_captures_are_objects(tmp_path: Path) -> None:
    for side in ("train", "test"):
        write_object(tmp_path / f"cars_{side}" / "c1")
    for place in (tmp_path, tmp_path / "cars_train", tmp_path / "cars_test"):
        sets = open_view_sets(place, "test")
        assert isinstance(sets, ViewSets) and len(sets) == 1
        views = sets.read(0, lambda count: torch.tensor([2, 2, 1]))
        assert [round(float(image.mean()) * 255) for image in views.images] == [20, 20, 10] and views.key == "c1"
    wide = PosedImages.from_tensors(
        torch.rand(4, 3, 6, 10), Camera.orbit((0.0, 0.0, 0.0), 2.0, views=4, width=10, height=6)
    )
    for number in range(12):
        wide.save(tmp_path / "captures" / f"thing{number}")
    sides = [len(open_view_sets(tmp_path / "captures", side)) for side in ("train", "test")]
    assert sum(sides) == 12 and min(sides) > 0
    views = open_view_sets(tmp_path / "captures", "train").read(0, all_of)
    assert views.images.shape == (4, 3, 6, 6) and views.camera.principal[0].tolist() == [3, 3]


def test_sequences_of_co3d_lie_in_the_middle(tmp_path: Path) -> None:
    folder = write_category(tmp_path, names=("1_2_3", "2_2_3"))
    views = open_view_sets(folder, "train", size=4).read(0, all_of)
    assert views.key == "2_2_3" and views.caption == "bear" and views.images.shape == (6, 3, 4, 4)
    assert torch.allclose(views.camera.centers.norm(dim=-1), torch.tensor(1.3), atol=1e-4)
    assert (views.images[1, :, 0] == 1).all() and float(views.images[1, 0, 2, 2]) == pytest.approx(40 / 255, abs=0.02)
    assert len(open_view_sets(folder, "test")) == 1


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
