"""Grids that are fitted keep the bricks in use, and do with them what whole grids would."""

import math
from dataclasses import replace

import pytest
import torch
from small_fits import QUICK, ball_scene, views_of
from torch.nn import functional

from nfldm3d import Box
from nfldm3d.fields import SparseField, VoxelField
from nfldm3d.fitting import fit
from nfldm3d.fitting.grids import LOG_FLOOR, RIM_ABSORPTION, SKIP_ABSORPTION, StepSizes, TrainableGrid
from nfldm3d.fitting.hulls import Hull
from nfldm3d.fitting.neighbours import grow, shift, sum_around
from nfldm3d.ops import PoolMap
from nfldm3d.ops.pool_reference import gather, spread

BOX = Box((-1.0, 0.5, 0.0), (2.0, 2.5, 3.5))
SHAPE = (21, 17, 30)


def make_field(generator: torch.Generator, shape: tuple[int, int, int] = SHAPE) -> SparseField:
    """Some blobs in an otherwise empty grid."""
    whole = torch.zeros([-(-count // 8) for count in shape])
    whole[0, 0, 0], whole[1, 1, 2], whole[-1, -1, -1] = 1, 1, 1
    places = whole.nonzero().int()
    density = 40 * torch.rand(len(places), 8, 8, 8, generator=generator) - 25
    features = torch.rand(len(places), 8, 8, 8, 3, generator=generator)
    field = SparseField(density.relu(), features, places, shape, BOX)
    return SparseField(density.relu() * field.inside, features, places, shape, BOX)


def dense_of(grid: TrainableGrid) -> tuple[torch.Tensor, torch.Tensor]:
    places = grid.level.map
    return spread(grid.density, places), spread(grid.features, places)


def test_neighbours_are_found_across_bricks(generator: torch.Generator) -> None:
    bricks = (torch.rand(3, 3, 4, generator=generator) < 0.6).nonzero().int()
    bricks = bricks[torch.randperm(len(bricks), generator=generator)]
    places = PoolMap.of(bricks, (24, 24, 32))
    pool = gather(torch.rand(24, 24, 32, 2, generator=generator), places)
    whole, held = spread(pool, places), spread(torch.ones_like(pool[..., 0]), places)
    for axis in range(3):
        for way in (1, -1):
            expected = whole.roll(-way, axis)
            expected.select(axis, -1 if way > 0 else 0).zero_()
            moved = spread(shift(pool, bricks, places, axis, way), places)
            assert torch.equal(moved, expected * held[..., None])
    everything = PoolMap.of(torch.ones(3, 3, 4).nonzero().int(), (24, 24, 32))
    bricks, pool = torch.ones(3, 3, 4).nonzero().int(), gather(whole, everything)
    mask = gather((whole[..., 0] > 0.97).float(), everything) > 0
    grown = functional.max_pool3d((whole[..., 0] > 0.97).float()[None], 3, 1, 1)[0] > 0
    assert torch.equal(spread(grow(mask, bricks, everything).float(), everything) > 0, grown)
    sums = functional.conv3d(whole.permute(3, 0, 1, 2)[:, None], torch.ones(1, 1, 5, 5, 5), padding=2)[:, 0]
    torch.testing.assert_close(spread(sum_around(pool, bricks, everything), everything), sums.permute(1, 2, 3, 0))


@pytest.mark.parametrize("resolution", [(42, 34, 60), (41, 35, 59), (24, 19, 33)])
def test_a_finer_grid_is_the_dense_one_where_rays_look(
    resolution: tuple[int, int, int], generator: torch.Generator
) -> None:
    grid = TrainableGrid(make_field(generator))
    density, features = dense_of(grid)
    fine = grid.refined(resolution)
    unit = min(BOX.voxel_size(resolution))
    stacked = torch.cat((density[..., None], features), dim=-1).permute(3, 0, 1, 2)[None]
    whole = functional.interpolate(stacked, size=resolution, mode="trilinear", align_corners=False)[0]
    expected = whole[0] * (grid.unit / unit)
    rim = functional.max_pool3d((expected > SKIP_ABSORPTION / unit).float()[None], 5, 1, 2)[0] > 0
    expected = torch.where(rim, expected.clamp(min=RIM_ABSORPTION / unit), expected)
    looked = expected > SKIP_ABSORPTION / unit
    made, colors = dense_of(fine)
    torch.testing.assert_close(made[looked], expected[looked], atol=1e-4, rtol=1e-4)
    assert not bool((made > SKIP_ABSORPTION / unit)[~looked & (expected < 0.9 * SKIP_ABSORPTION / unit)].any())
    torch.testing.assert_close(colors[looked], whole[1:].permute(1, 2, 3, 0)[looked], atol=1e-5, rtol=1e-4)
    assert len(fine.level.places) < 0.8 * fine.level.map.numbers.numel()


def test_bricks_come_when_samples_read_them_and_go_when_nothing_is_near(generator: torch.Generator) -> None:
    places = torch.tensor([[1, 1, 1]]).int()
    field = SparseField(torch.zeros(1, 8, 8, 8), torch.zeros(1, 8, 8, 8, 3), places, (64, 24, 24), BOX)
    field.density[0, :4] = 30.0
    grid = TrainableGrid(field)  # its lower face touches the bricks below
    assert len(grid.level.places) == 18 and grid.level.places[0].tolist() == [1, 1, 1]
    grid.gradient.density.fill_(1e-3)
    grid.gradient.features.copy_(torch.rand(grid.features.shape, generator=generator))
    before = grid.features.clone()
    grid.step(StepSizes(0.1, 0.1, smoothness=1.0, decay=1e-9))
    assert bool((grid.features != before).all()) and not bool(grid.gradient.features.any())
    assert float(grid.parts["feature_variance"][1:].max()) > 0
    parts = {name: part[0].clone() for name, part in grid.parts.items()}
    grid.density.zero_()
    grid.density[0, 4, 4, 4] = 30.0
    grid.refresh()
    assert len(grid.level.places) == 18 and grid.numbers.tolist() == [0]
    grid.level.places[1:, 0] += 5  # far away
    grid.hold(grid.level.places, grid.parts)
    grid.look_into(grid.occupancy)
    grid.forget()
    assert grid.level.places.tolist() == [[1, 1, 1]] and grid.gradient.features.shape == (1, 8, 8, 8, 3)
    assert all(torch.equal(grid.parts[name][0], part) for name, part in parts.items() if name != "density")


def test_balls_around_cameras_and_what_lies_outside_a_hull_are_emptied(generator: torch.Generator) -> None:
    grid = TrainableGrid.fog(BOX, SHAPE, 3, torch.device("cpu"))
    fog = -math.log(1 - 0.03) / min(BOX.voxel_size(SHAPE))
    whole, _ = dense_of(grid)
    torch.testing.assert_close(whole, torch.full(SHAPE, fog))
    centers, points = torch.tensor([[0.0, 1.0, 1.0], [2.2, 2.4, 3.5], [9.0, 9.0, 9.0]]), BOX.voxel_centers(SHAPE, whole)
    grid.carve(centers, 0.4)
    emptied = (torch.cdist(points.view(-1, 3).double(), centers.double()) < 0.4).any(1).view(SHAPE)
    assert bool(emptied.any()) and torch.equal(dense_of(grid)[0] == 0, emptied)
    assert bool((spread(grid.log_density - LOG_FLOOR, grid.level.map)[emptied] == 0).all())
    cells = torch.zeros(4, 5, 6, dtype=torch.bool)
    cells[1, 2, 3] = True
    grid.keep_within(Hull(Box((-1.0, 0.5, 0.0), (1.0, 3.0, 3.0)), cells))
    near = (points > torch.tensor([-1.0, 1.0, 1.0])).all(-1) & (points < torch.tensor([0.5, 2.5, 2.5])).all(-1)
    assert torch.equal(dense_of(grid)[0] > 0, near & ~emptied)


def test_known_surfaces_become_matter_with_fog_around(generator: torch.Generator) -> None:
    points = torch.rand(40, 3, generator=generator) * torch.tensor([0.3, 2.0, 3.5]) + torch.tensor([0.0, 0.5, 0.0])
    colors = torch.rand(40, 3, generator=generator)
    grid = TrainableGrid.around(points, colors, BOX, (48, 17, 30), 12)
    density, features = dense_of(grid)
    dense = SparseField.from_points(points, colors, BOX, (48, 17, 30)).to_dense().density > 0
    rim = functional.max_pool3d(dense.float()[None], 5, 1, 2)[0] > 0
    torch.testing.assert_close(density[dense] * grid.unit, torch.full((int(dense.sum()),), 0.7))
    assert torch.equal(density > 0, rim) and not bool(features[..., 3:].any())
    assert bool((features[..., :3].abs().sum(-1) > 0)[rim].all()) and not bool(features[~rim].any())
    assert len(grid.level.places) < grid.level.map.numbers.numel()


def test_a_sparse_scene_holds_what_the_dense_one_does() -> None:
    images = views_of(ball_scene(), count=4, size=(20, 16))
    options = replace(QUICK, steps=10)
    dense, sparse = (fit(images, options=replace(options, sparse=kept), progress=False) for kept in (False, True))
    assert isinstance(dense.field, VoxelField) and isinstance(sparse.field, SparseField)
    again = sparse.field.to_dense()
    assert torch.equal(again.density, dense.field.density) and torch.equal(again.features, dense.field.features)
