"""Sparse fields against the dense ones that they stand for: queries, pictures, files, and finer grids."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nfldm3d import Box, Camera, Rgb, Scene, VoxelField, memory, render
from nfldm3d.fields import Field, FusedField, GridField, SparseField, StoredField, occupied_cells, voxelize
from nfldm3d.fields.packing import check_bricks
from nfldm3d.files import DataFormatError

BOX = Box((-1.0, 0.5, 2.0), (1.2, 3.0, 3.1))
RESOLUTION = (29, 35, 18)


def make_dense(generator: torch.Generator, *, signed: bool = False, channels: int = 3) -> VoxelField:
    """A thin, wavy sheet through a box of no symmetry."""
    centers = BOX.voxel_centers(RESOLUTION, torch.zeros(1))
    x, y, z = ((centers - torch.tensor(BOX.lower)) / torch.tensor(BOX.size)).unbind(-1)
    depth = (0.55 + 0.2 * torch.sin(5 * x) * torch.cos(3 * y) - z) * 18
    density = 40 * (1.2 - depth.abs())
    density = torch.where(density > -60, density, 0.0) if signed else density.relu()
    features = torch.rand(*RESOLUTION, channels, generator=generator) * (density != 0)[..., None]
    return VoxelField(density, features, BOX, signed)


def look() -> Camera:
    return Camera.look_at((3.0, -1.0, 4.0), BOX.center, width=23, height=17)


def pixels(scene: Scene) -> list[Tensor]:
    seen = render(scene, look(), with_normals=True)
    return [value for value in (seen.image, seen.opacity, seen.depth, seen.normals) if value is not None]


def assert_same_pictures(a: Field, b: Field, tolerance: float = 1e-5) -> None:
    views = [pixels(Scene(field, Rgb())) for field in (a, b)]
    assert float(views[0][1].max()) > 0.5
    for one, other in zip(*views, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_it_is_a_field(generator: torch.Generator) -> None:
    sparse = SparseField.from_dense(make_dense(generator))
    assert all(isinstance(sparse, kind) for kind in (Field, FusedField, GridField, StoredField))


@pytest.mark.parametrize("signed", [False, True])
def test_nothing_is_lost_on_the_way_through_bricks(signed: bool, generator: torch.Generator) -> None:
    dense = make_dense(generator, signed=signed)
    sparse = SparseField.from_dense(dense)
    assert 0 < len(sparse.places) < sparse.map.numbers.numel()
    for again in (sparse.to_dense(), voxelize(sparse)):
        assert torch.equal(again.density, dense.density) and torch.equal(again.features, dense.features)
        assert again.signed == signed and again.box == BOX
    assert sparse.occupied_fraction == pytest.approx(dense.occupied_fraction)
    assert "29x35x18" in str(sparse) and sparse.nbytes < 1.1 * dense.nbytes


@pytest.mark.parametrize("signed", [False, True])
def test_queries_are_those_of_the_dense_field(signed: bool, generator: torch.Generator) -> None:
    dense = make_dense(generator, signed=signed)
    sparse = SparseField.from_dense(dense)
    points = torch.tensor(BOX.lower) + (torch.rand(4, 200, 3, generator=generator) * 1.2 - 0.1) * torch.tensor(BOX.size)
    for ours, theirs in zip(
        (*sparse.query(points), sparse.query_density(points), sparse.normals(points), *sparse.interpolate(points)),
        (*dense.query(points), dense.query_density(points), dense.normals(points), *dense.interpolate(points)),
        strict=True,
    ):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("signed", [False, True])
def test_pictures_are_those_of_the_dense_field(signed: bool, generator: torch.Generator) -> None:
    dense = make_dense(generator, signed=signed)
    sparse = SparseField.from_dense(dense)
    assert_same_pictures(sparse, dense)
    assert_same_pictures(sparse.pruned(), dense)
    if signed:
        assert len(sparse.pruned().places) < len(sparse.places)


def test_gradients_reach_the_pool(generator: torch.Generator) -> None:
    sparse = SparseField.from_dense(make_dense(generator))
    leaves = [part.clone().requires_grad_() for part in (sparse.density, sparse.features)]
    trained = replace(sparse, density=leaves[0], features=leaves[1])
    render(Scene(trained, Rgb()), look()).image.sum().backward()
    assert all(leaf.grad is not None and bool(leaf.grad.any()) for leaf in leaves)
    assert not trained.detach().density.requires_grad


def test_pruning_drops_what_is_thinner_than_the_threshold(generator: torch.Generator) -> None:
    sparse = SparseField.from_dense(make_dense(generator))
    haze = replace(sparse, density=sparse.density * 1e-3)
    assert len(haze.pruned(1.0).places) == 0
    assert len(sparse.pruned(1.0).places) == len(sparse.pruned().places)


@pytest.mark.parametrize("signed", [False, True])
def test_subdividing_is_resampling_where_there_is_matter(signed: bool, generator: torch.Generator) -> None:
    dense = make_dense(generator, signed=signed)
    fine = SparseField.from_dense(dense).subdivided()
    assert fine.resolution == (58, 70, 36) and fine.box == BOX and fine.signed == signed
    whole = dense.resampled(fine.resolution)
    read = fine.to_dense()
    matter = whole.density > 0
    assert torch.equal(read.density > 0, matter)
    torch.testing.assert_close(read.density[matter], whole.density[matter], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(read.features[matter], whole.features[matter], rtol=1e-5, atol=1e-5)
    assert_same_pictures(fine, whole)


def test_points_make_the_bricks_that_hold_them(generator: torch.Generator) -> None:
    points = torch.tensor(BOX.lower) + torch.rand(300, 3, generator=generator) * torch.tensor(BOX.size) * 0.4
    points[:5] += 90  # outside
    colors = torch.rand(300, 3, generator=generator)
    ours, theirs = (kind.from_points(points, colors, BOX, RESOLUTION) for kind in (SparseField, VoxelField))
    assert len(ours.places) < ours.map.numbers.numel()
    dense = ours.to_dense()
    assert torch.equal(dense.density, theirs.density)
    torch.testing.assert_close(dense.features, theirs.features)
    assert float(SparseField.from_points(points, colors, BOX, RESOLUTION, density=3.0).density.max()) == 3


def test_a_mask_of_even_cells_covers_all_matter(generator: torch.Generator) -> None:
    dense = make_dense(generator)
    sparse = SparseField.from_dense(dense)
    mask = occupied_cells(sparse)
    points = torch.tensor(BOX.lower) + torch.rand(5000, 3, generator=generator) * torch.tensor(BOX.size)
    cell = ((points - torch.tensor(BOX.lower)) / torch.tensor(BOX.size) * torch.tensor(mask.shape)).long()
    assert bool(mask[cell.unbind(-1)][dense.query_density(points) > 0].all())
    assert 0 < float(mask.float().mean()) < 0.8


def test_an_empty_field_is_a_field() -> None:
    empty = SparseField(
        torch.zeros(0, 8, 8, 8), torch.zeros(0, 8, 8, 8, 3), torch.zeros(0, 3, dtype=torch.int32), RESOLUTION, BOX
    )
    assert not bool(empty.query_density(torch.tensor(BOX.center)[None]).any())
    assert not bool(render(Scene(empty, Rgb()), look()).opacity.any())
    for other in (empty.pruned(), empty.subdivided(), SparseField.from_dense(empty.to_dense())):
        assert len(other.places) == 0
    assert list(empty.bricks()) == [] and not bool(occupied_cells(empty).any())


def test_files_hold_the_bricks_alone(tmp_path: Path, generator: torch.Generator) -> None:
    sparse = SparseField.from_dense(make_dense(generator, signed=True)).pruned()
    Scene(sparse, Rgb()).save(tmp_path / "scene.nfld")
    again = Scene.load(tmp_path / "scene.nfld").field
    assert isinstance(again, SparseField) and again.signed and again.resolution == RESOLUTION
    for name in ("density", "features", "places"):
        assert torch.equal(getattr(again, name), getattr(sparse, name))
    assert (tmp_path / "scene.nfld").stat().st_size < sparse.density.nbytes + sparse.features.nbytes + 2**14


def test_files_of_large_grids_ask_for_no_more_than_their_bricks(tmp_path: Path) -> None:
    points = torch.tensor(BOX.center)[None]
    huge = SparseField.from_points(points, torch.ones(1, 3), BOX, (1024, 1024, 1024))
    Scene(huge, Rgb()).save(tmp_path / "scene.nfld")
    again = Scene.load(tmp_path / "scene.nfld").field
    assert again.query_density(points).item() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bricks": torch.tensor([[0, 0, 0], [0, 0, 9]]).int()}, "bricks outside its 29x35x18 voxels"),
        ({"bricks": torch.tensor([[0, 0, -1], [0, 0, 1]]).int()}, "bricks outside"),
        ({"bricks": torch.tensor([[0, 0, 0], [0, 0, 2**29]]).int()}, "bricks outside"),  # 8 times that is 0 in 32 bits
        ({"bricks": torch.tensor([[0, 0, 0], [2**61, 0, 0]])}, "bricks outside"),
        ({"bricks": torch.tensor([[0, 0, 1], [0, 0, 1]]).int()}, "1 bricks are there more than once"),
        ({"bricks": torch.zeros(2, 3)}, "not whole numbers"),
        ({"density": torch.zeros(1, 8, 8, 8)}, "there are 2 bricks but densities of shape"),
        ({"features": torch.zeros(2, 8, 8, 7, 3)}, "there are 2 bricks but densities of shape"),
        ({"density": torch.full((2, 8, 8, 8), torch.nan)}, "densities must be finite"),
        ({"count": 3}, "there are 2 of 3 bricks, the others are missing"),
        ({"resolution": (2880, 2880, 3200)}, r"2880x2880x3200 voxels takes 1\.2 GiB, of which only 16 KiB are there"),
        ({"resolution": (2**70, 1, 1)}, "GiB, of which only 16 KiB are there; crop the scene or save it on a coarser"),
        ({"resolution": (29, 0, 18)}, "at least one voxel along each axis"),
    ],
)
def test_files_with_wrong_bricks_are_refused(change: dict, message: str) -> None:
    whole = {
        "bricks": torch.tensor([[0, 0, 0], [0, 0, 1]]).int(),
        "density": torch.zeros(2, 8, 8, 8),
        "features": torch.zeros(2, 8, 8, 8, 3),
        "count": 2,
        "resolution": RESOLUTION,
    }
    held = whole | change
    config = {"lower": BOX.lower, "upper": BOX.upper, "resolution": held.pop("resolution"), "bricks": held.pop("count")}
    with pytest.raises(ValueError, match=message):
        SparseField.from_state(
            SparseField.from_points(torch.tensor(BOX.center)[None], torch.ones(1, 3), BOX, RESOLUTION)
            .state()
            ._replace(config=config, tensors=held)
        )


def test_damaged_files_name_themselves(tmp_path: Path, generator: torch.Generator) -> None:
    Scene(SparseField.from_dense(make_dense(generator)), Rgb()).save(tmp_path / "whole.nfld")
    with zipfile.ZipFile(tmp_path / "whole.nfld") as archive:
        config, data = json.loads(archive.read("config.json")), archive.read("scene.safetensors")
    config["levels"][0]["bricks"] += 1
    with zipfile.ZipFile(tmp_path / "short.nfld", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("scene.safetensors", data)
    with pytest.raises(DataFormatError, match=r"short\.nfld.*missing"):
        Scene.load(tmp_path / "short.nfld")


def test_a_pool_that_does_not_fit_says_what_would(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    sparse = SparseField.from_dense(make_dense(generator))
    monkeypatch.setattr(memory, "free_memory", lambda device: sparse.density.nbytes)
    with pytest.raises(ValueError, match=r"need 0\.0 GiB .* a grid of \d+x\d+x\d+ would fit"):
        sparse.subdivided()
    with pytest.raises(ValueError, match=r"the map of a grid of 99999x999x9 voxels needs 0\.1 GiB .* lower the"):
        SparseField.from_points(torch.zeros(1, 3), torch.ones(1, 3), BOX, (99999, 999, 9))
    monkeypatch.setattr(memory, "free_memory", lambda device: 100)
    with pytest.raises(ValueError, match="the map of a grid of 29x35x18 voxels needs"):
        SparseField.from_state(sparse.state())


def test_halves_and_devices_keep_the_places(generator: torch.Generator) -> None:
    sparse = SparseField.from_dense(make_dense(generator))
    half = sparse.to(torch.float16)
    assert half.density.dtype == torch.float16 and half.places.dtype == torch.int32
    check_bricks(half.places, half.density, half.features, half.resolution)
    assert torch.equal(sparse.unsigned().density, sparse.density)
    with pytest.raises(ValueError, match="a sparse field holds one scene"):
        SparseField.from_dense(VoxelField(torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 4, 5, 1), BOX))
