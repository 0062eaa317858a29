"""Any field on a grid: exact at its voxel centres, read nowhere else than where it is occupied."""

from dataclasses import replace

import pytest
import torch
from balls import BOX, Ball, make_ball
from torch import Tensor

import nfldm3d.memory
from nfldm3d import Box, VoxelField
from nfldm3d.fields import Field, FusedField, GridField, StoredField, grid_resolution, occupied_cells, voxelize


def random_field(generator: torch.Generator, resolution=(11, 5, 9), *, signed: bool = False) -> VoxelField:
    density = torch.rand(resolution, generator=generator) * (torch.rand(resolution, generator=generator) < 0.05)
    density -= 0.5 * signed
    return VoxelField(density, torch.rand(*resolution, 2, generator=generator), BOX, signed)


def test_what_fields_offer() -> None:
    grid = voxelize(make_ball())
    for offer in (Field, FusedField, GridField, StoredField):
        assert isinstance(grid, offer)
    for offer in (FusedField, GridField, StoredField):
        assert not isinstance(make_ball(), offer)


def test_a_ball_on_a_grid() -> None:
    ball = make_ball()
    grid = voxelize(ball)
    assert grid.box == ball.box and grid.resolution == (20, 22, 24) == grid_resolution(ball)
    density, features = ball.query(grid.voxel_centers())
    torch.testing.assert_close(grid.density, density, atol=1e-5, rtol=1e-5)
    solid = density > 0
    torch.testing.assert_close(grid.features[solid], features[solid])
    thin = voxelize(ball, with_features=False)
    assert torch.equal(thin.density, grid.density) and thin.channels == 1
    assert voxelize(grid) is grid


def test_only_what_is_occupied_is_asked() -> None:
    asked: list[int] = []

    class Counting(Ball):
        def query(self, points: Tensor) -> tuple[Tensor, Tensor]:
            asked.append(len(points))
            return super().query(points)

    voxelize(make_ball(radius=0.2, kind=Counting))
    assert 0 < sum(asked) < 0.1 * 20 * 22 * 24


@pytest.mark.parametrize(
    ("part", "resolution"),
    [
        (Box((0.05, 1.95, -0.05), (0.3, 9.0, 0.35)), (3, 13, 5)),
        (Box((0.31, 2.01, 0.01), (0.32, 2.02, 0.02)), (1, 1, 1)),
        (BOX.scaled(3.0), (20, 22, 24)),
    ],
)
def test_a_part_lies_on_the_grid_of_the_whole(part: Box, resolution: tuple[int, int, int]) -> None:
    ball = make_ball()
    whole, piece = voxelize(ball), voxelize(ball, part)
    assert piece.resolution == resolution and piece.voxel_size == pytest.approx(whole.voxel_size)
    start = [round((a - b) / 0.1) for a, b in zip(piece.box.lower, whole.box.lower, strict=True)]
    same = whole.density[tuple(slice(low, low + n) for low, n in zip(start, resolution, strict=True))]
    torch.testing.assert_close(piece.density, same, atol=1e-4, rtol=1e-4)


def test_a_part_outside_is_refused() -> None:
    with pytest.raises(ValueError, match="has no volume"):
        voxelize(make_ball(), Box((5.0, 5.0, 5.0), (6.0, 6.0, 6.0)))


class Bricks(Ball):
    """A sparse grid, from without."""

    resolution = (11, 5, 9)
    grid: VoxelField

    def bricks(self):
        return self.grid.bricks()


@pytest.mark.parametrize("signed", [False, True])
def test_sparse_grids_are_taken_brick_by_brick(generator: torch.Generator, signed: bool) -> None:
    grid, sparse = random_field(generator, signed=signed), replace(make_ball(kind=Bricks))
    object.__setattr__(sparse, "grid", grid)
    sparse.__class__.channels = 2
    dense = voxelize(sparse)
    assert torch.equal(dense.density, grid.density) and torch.equal(dense.features, grid.features)
    assert dense.signed == signed


@pytest.mark.parametrize("part", [Box((-0.2, 1.5, -0.7), (0.9, 2.4, 0.2)), BOX.scaled(3.0)])
def test_a_part_of_a_sparse_grid_is_that_of_the_whole(generator: torch.Generator, part: Box) -> None:
    grid, sparse = random_field(generator), replace(make_ball(kind=Bricks))
    object.__setattr__(sparse, "grid", grid)
    sparse.__class__.channels = 2
    piece, thin = voxelize(sparse, part), voxelize(sparse, part, with_features=False)
    start = [round((a - b) / size) for a, b, size in zip(piece.box.lower, BOX.lower, grid.voxel_size, strict=True)]
    place = tuple(slice(low, low + count) for low, count in zip(start, piece.resolution, strict=True))
    assert piece.voxel_size == pytest.approx(grid.voxel_size) and piece.density.max() > 0
    assert all(low <= a for low, a in zip(piece.box.lower, part.intersection(BOX).lower, strict=True))
    assert torch.equal(piece.density, grid.density[place]) and torch.equal(piece.features, grid.features[place])
    assert (piece.resolution == grid.resolution) == (part.lower < BOX.lower)
    assert torch.equal(thin.density, piece.density) and thin.channels == 1


def test_bad_numbers_are_named() -> None:
    class Wrong(Ball):
        def query(self, points: Tensor) -> tuple[Tensor, Tensor]:
            return torch.full(points.shape[:-1], torch.inf), points

    with pytest.raises(ValueError, match="is inf .* such voxels"):
        voxelize(make_ball(kind=Wrong))


def test_grids_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nfldm3d.memory, "free_memory", lambda device: 1000)
    with pytest.raises(ValueError, match="20x22x24 voxels with 3 channels needs"):
        voxelize(make_ball())


@pytest.mark.parametrize("threshold", [0.0, 0.4])
@pytest.mark.parametrize("resolution", [(11, 5, 9), (1, 4, 2), (1, 1, 1)])
def test_masks_of_grids_miss_no_sample(generator: torch.Generator, resolution, threshold: float) -> None:
    field = random_field(generator, resolution)
    field.density[-1, -1, -1] = 0.9
    mask = occupied_cells(field, threshold)
    assert mask.shape == resolution and mask.dtype == torch.bool
    share = torch.rand(20000, 3, generator=generator)
    points = torch.tensor(BOX.lower) + share * torch.tensor(BOX.size)
    cells = (share * torch.tensor(resolution)).long().unbind(-1)
    dense = field.query(points)[0] > threshold + 1e-5
    assert dense.any() and bool(mask[cells][dense].all())
    if resolution[0] == 11:
        assert not mask.all()


def test_masks_reach_one_voxel_around() -> None:
    field = VoxelField.zeros(BOX, (9, 7, 8), 1)
    field.density[4, 3, 5] = 1.0
    wanted = torch.zeros(9, 7, 8, dtype=torch.bool)
    wanted[3:6, 2:5, 4:7] = True
    assert torch.equal(occupied_cells(field), wanted)
    ball = make_ball()
    assert torch.equal(occupied_cells(ball), ball.occupancy())
