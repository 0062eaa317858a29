"""Voxel fields: exact at centres, clamped to the box, refused when wrong; every brick accounted for."""

import math
from dataclasses import replace

import pytest
import torch
from jaxtyping import TypeCheckError

import nfldm3d.memory
from nfldm3d import ops
from nfldm3d.fields import Field, VoxelField, surface_density
from nfldm3d.geometry import Box
from nfldm3d.ops.bricks import BRICK

BOX = Box((-1.0, 2.0, 0.5), (3.0, 2.5, 4.5))


def make_field(generator: torch.Generator, resolution=(5, 3, 8), channels=4, box=BOX) -> VoxelField:
    density = torch.rand(resolution, generator=generator)
    return VoxelField(density, torch.randn(*resolution, channels, generator=generator), box)


def points_in(box: Box, generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.tensor(box.lower) + torch.rand(*shape, 3, generator=generator) * torch.tensor(box.size)


def test_a_voxel_field_is_a_field(generator: torch.Generator) -> None:
    assert isinstance(make_field(generator), Field)


def test_voxel_centres_lie_where_they_should(generator: torch.Generator) -> None:
    field = make_field(generator)
    centers = field.voxel_centers()
    assert centers.shape == (5, 3, 8, 3)
    assert field.voxel_size == pytest.approx((0.8, 0.5 / 3, 0.5))
    for index in ((0, 0, 0), (4, 1, 6)):
        expected = [low + (i + 0.5) * size for low, i, size in zip(BOX.lower, index, field.voxel_size, strict=True)]
        assert centers[index].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("resolution", [(5, 3, 8), (1, 4, 2), (1, 1, 1)])
def test_a_query_at_a_centre_is_the_voxel(generator: torch.Generator, resolution: tuple[int, int, int]) -> None:
    field = make_field(generator, resolution)
    density, features = field.query(field.voxel_centers())
    assert torch.allclose(density, field.density, atol=1e-5)
    assert torch.allclose(features, field.features, atol=2e-5)


def test_a_query_between_two_centres_is_their_mean(generator: torch.Generator) -> None:
    field = make_field(generator)
    centers = field.voxel_centers()
    density, features = field.query((centers[1:] + centers[:-1]) / 2)
    assert torch.allclose(density, (field.density[1:] + field.density[:-1]) / 2, atol=1e-5)
    assert torch.allclose(features, (field.features[1:] + field.features[:-1]) / 2, atol=2e-5)


def test_the_outer_half_voxel_takes_the_nearest_centre(generator: torch.Generator) -> None:
    field = make_field(generator)
    for axis in range(3):
        for side, corner in ((0, BOX.lower), (-1, BOX.upper)):
            outer = field.voxel_centers().select(axis, side).clone()
            outer[..., axis] = corner[axis]
            density, features = field.query(outer)
            assert torch.allclose(density, field.density.select(axis, side), atol=1e-5)
            assert torch.allclose(features, field.features.select(axis, side), atol=2e-5)


def test_nothing_is_outside(generator: torch.Generator) -> None:
    field = make_field(generator)
    for axis in range(3):
        for corner, sign in ((BOX.lower, -1), (BOX.upper, 1)):
            outside = points_in(BOX, generator, 20)
            outside[:, axis] = corner[axis] + sign * torch.linspace(1e-5, 3, 20)
            density, features = field.query(outside)
            assert density.abs().max() == 0 and features.abs().max() == 0


def test_linear_fields_are_reproduced(generator: torch.Generator) -> None:
    field = make_field(generator)
    slope = torch.tensor([[0.3, -0.2, 0.5, 1.0], [1.0, 0.4, -0.7, 0.0], [0.1, 0.9, 0.2, -0.3]])
    centers = field.voxel_centers()
    linear = VoxelField((centers.sum(-1) + 9).abs(), centers @ slope, BOX)
    inner = Box.from_center(BOX.center, tuple(s - v for s, v in zip(BOX.size, field.voxel_size, strict=True)))
    points = points_in(inner, generator, 6, 50)
    density, features = linear.query(points)
    assert torch.allclose(density, points.sum(-1) + 9, atol=1e-4)
    assert torch.allclose(features, points @ slope, atol=1e-4)
    finer = linear.resampled((7, 9, 6), inner)
    assert finer.box == inner and finer.resolution == (7, 9, 6)
    assert torch.allclose(finer.features, finer.voxel_centers() @ slope, atol=1e-4)
    assert torch.allclose(finer.density, finer.voxel_centers().sum(-1) + 9, atol=1e-4)


def test_resampling_to_the_same_grid_changes_nothing(generator: torch.Generator) -> None:
    field = make_field(generator)
    same = field.resampled(field.resolution)
    assert same.box == field.box
    assert torch.allclose(same.density, field.density, atol=1e-5)
    assert torch.allclose(same.features, field.features, atol=2e-5)


def test_resampling_beyond_the_box_adds_emptiness(generator: torch.Generator) -> None:
    field = make_field(generator)
    larger = field.resampled((15, 9, 24), Box((-5.0, 1.5, -3.5), (7.0, 3.0, 8.5)))  # three boxes along each axis
    assert torch.allclose(larger.density[5:10, 3:6, 8:16], field.density, atol=1e-5)
    assert float(larger.density.sum()) == pytest.approx(float(field.density.sum()), rel=1e-4)


def test_gradients_reach_grid_and_points(generator: torch.Generator) -> None:
    field = make_field(generator)
    field = replace(field, density=field.density.requires_grad_(), features=field.features.requires_grad_())
    points = field.voxel_centers()[1:3, 1, 2].detach().requires_grad_()
    density, features = field.query(points)
    (density.sum() + features.sum()).backward()
    assert field.density.grad is not None and field.features.grad is not None and points.grad is not None
    assert float(field.density.grad.sum()) == pytest.approx(2, abs=1e-4)
    assert float(field.features.grad.sum()) == pytest.approx(8, abs=1e-4)
    assert points.grad.abs().max() > 0


def test_normals_of_a_slab_point_out(generator: torch.Generator) -> None:
    density = torch.zeros(6, 10, 4)
    density[:, 3:7] = 2.0
    slab = VoxelField(density, torch.zeros(6, 10, 4, 1), Box((0, 0, 0), (3, 5, 2)))
    inside = torch.tensor([[1.5, 1.6, 1.0], [1.5, 3.4, 1.0], [1.5, 2.5, 1.0]])
    normals = slab.normals(inside)
    assert torch.allclose(normals, torch.tensor([[0.0, -1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]), atol=1e-5)


def test_normals_of_a_sphere_point_away_from_its_centre(generator: torch.Generator) -> None:
    """Voxels of three different edges: the gradient is metric, not per voxel."""
    box = Box((-1.0, -1.2, -0.9), (1.2, 1.0, 1.3))
    field = VoxelField.zeros(box, (44, 30, 36), 1)
    field = replace(field, density=(8 - 10 * field.voxel_centers().norm(dim=-1)).clamp(min=0))
    directions = torch.nn.functional.normalize(torch.randn(4, 25, 3, generator=generator), dim=-1)
    normals = field.normals(0.6 * directions)
    assert normals.shape == (4, 25, 3)
    assert torch.allclose(normals.norm(dim=-1), torch.ones(4, 25), atol=1e-5)
    assert (normals * directions).sum(-1).min() > 0.995


def test_a_solid_that_fills_its_box_has_outward_normals() -> None:
    full = VoxelField(torch.ones(4, 5, 6), torch.zeros(4, 5, 6, 1), Box((0, 0, 0), (4, 5, 6)))
    faces = torch.tensor([[0.1, 2.5, 3.0], [3.9, 2.5, 3.0], [2.0, 0.1, 3.0], [2.0, 2.5, 5.9]])
    expected = torch.tensor([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]])
    assert torch.allclose(full.normals(faces), expected, atol=1e-5)


def test_points_become_voxels_with_mean_features(generator: torch.Generator) -> None:
    points, features = points_in(BOX, generator, 200), torch.randn(200, 4, generator=generator)
    points = torch.cat([points, torch.tensor([[9.0, 9.0, 9.0], [math.nan, 2.2, 1.0], BOX.upper, BOX.lower])])
    features = torch.cat([features, torch.full((4, 4), 3.0)])
    field = VoxelField.from_points(points, features, BOX, (5, 3, 8))
    size = torch.tensor(field.voxel_size)
    for i, j, k in torch.cartesian_prod(torch.arange(5), torch.arange(3), torch.arange(8)).tolist():
        lower = torch.tensor(BOX.lower) + torch.tensor([i, j, k]) * size
        held = ((points >= lower) & (points < lower + size)).all(-1)
        held[-2] = (i, j, k) == (4, 2, 7)  # the upper corner belongs to the last voxel
        assert (field.density[i, j, k] > 0) == held.any()
        if held.any():
            assert torch.allclose(field.features[i, j, k], features[held].mean(0), atol=1e-5)
    assert field.density.max() == pytest.approx(surface_density(field.voxel_size))
    assert VoxelField.from_points(points, features, BOX, (2, 2, 2), density=7.0).density.max() == 7


def test_the_surface_density_absorbs_half() -> None:
    size = (0.3, 0.1, 0.2)
    assert 1 - math.exp(-surface_density(size) * min(size)) == pytest.approx(0.5)


@pytest.mark.parametrize("resolution", [(17, 8, 3), (16, 24, 8), (1, 9, 20)])
def test_bricks_hold_everything_once(generator: torch.Generator, resolution: tuple[int, int, int]) -> None:
    density = torch.rand(resolution, generator=generator) * (torch.rand(resolution, generator=generator) < 0.01)
    features = torch.zeros(*resolution, 2)
    features[-1, -1, -1, 1] = 3.0
    field = VoxelField(density, features, BOX)
    copy, seen = VoxelField.zeros(BOX, resolution, 2), torch.zeros(resolution)
    for brick in field.bricks():
        part = tuple(slice(low, low + size) for low, size in zip(brick.start, brick.density.shape, strict=True))
        assert all(low % BRICK == 0 for low in brick.start) and max(brick.density.shape) <= BRICK
        assert brick.density.any() or brick.features.any()
        copy.density[part], copy.features[part] = brick.density, brick.features
        seen[part] += 1
    assert torch.equal(copy.density, density) and torch.equal(copy.features, features)
    assert seen.max() == 1
    assert int(field.brick_mask().sum()) == len(list(field.bricks()))
    assert tuple(field.brick_mask().shape) == tuple(-(-count // BRICK) for count in resolution)


def test_an_empty_field_has_no_bricks() -> None:
    assert not list(VoxelField.zeros(BOX, (9, 2, 3), 2).bricks())


def test_occupancy_sees_where_samples_can_be_dense(generator: torch.Generator) -> None:
    field = VoxelField.zeros(BOX, (12, 9, 10), 1)
    field.density[5, 4, 6] = 2.0
    cells = field.occupancy().cells.nonzero()
    assert {tuple(cell) for cell in cells.tolist()} >= {(5, 4, 6), (4, 3, 5), (5, 3, 6)}
    assert not field.occupancy(2.0).cells.any()
    assert isinstance(field.occupancy(), ops.Occupancy)


def test_scenes_are_indexed(generator: torch.Generator) -> None:
    density, features = (
        torch.rand(2, 3, 4, 5, 6, generator=generator),
        torch.rand(2, 3, 4, 5, 6, 2, generator=generator),
    )
    field = VoxelField(density, features, BOX)
    assert field.resolution == (4, 5, 6) and field.channels == 2 and "(2, 3) scenes of 4x5x6" in str(field)
    single = field[1, 2]
    assert torch.equal(single.features, features[1, 2]) and single.box == BOX
    assert torch.equal(field[0].density, density[0])
    for method in ("query", "normals"):
        with pytest.raises(ValueError, match=f"{method} needs a single field, got .* scenes; index one"):
            getattr(field, method)(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="needs a single field"):
        field.occupancy()
    with pytest.raises(ValueError, match="needs a single field"):
        list(field.bricks())
    with pytest.raises(ValueError, match="single field; only fields with"):
        single[0]


def test_properties_and_moves(generator: torch.Generator) -> None:
    field = make_field(generator)
    field.density[:, :, :4] = 0
    assert field.occupied_fraction == 0.5
    assert field.nbytes == 5 * 3 * 8 * 5 * 4
    for words in ("5x3x8 voxels x 4 channels", "4 x 0.5 x 4 m", "50.0 % occupied", "cpu"):
        assert words in str(field)
    half = field.to(torch.float16)
    assert half.features.dtype == torch.float16 and half.nbytes == field.nbytes / 2
    trained = replace(field, density=field.density.clone().requires_grad_())
    assert not trained.detach().density.requires_grad


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("density", math.nan, r"density\[1, 2, 3\] is nan \(1 such voxels\)"),
        ("density", math.inf, r"density\[1, 2, 3\] is inf"),
        ("density", -0.5, r"density\[1, 2, 3\] is -0.5 .*not negative"),
        ("features", math.nan, r"features\[1, 2, 3, 0\] is nan \(4 such values\)"),
        ("features", -math.inf, r"features\[1, 2, 3, 0\] is -inf"),
    ],
)
def test_bad_numbers_are_named(generator: torch.Generator, place: str, value: float, message: str) -> None:
    field = make_field(generator)
    getattr(field, place)[1, 2, 3] = value
    with pytest.raises(ValueError, match=message):
        field.check()
    with pytest.raises(ValueError, match=message):
        VoxelField(field.density, field.features, BOX)


def test_infinities_that_cancel_are_found(generator: torch.Generator) -> None:
    field = make_field(generator)
    field.features[0, 0, 0, 0], field.features[4, 2, 7, 3] = math.inf, -math.inf
    with pytest.raises(ValueError, match=r"features\[0, 0, 0, 0\] is inf \(2 such values\)"):
        field.check()


def test_huge_but_finite_features_are_fine() -> None:
    VoxelField(torch.ones(2, 2, 2), torch.full((2, 2, 2, 3), 3e38), BOX).check()


def test_what_is_being_trained_is_not_searched_for_bad_numbers(generator: torch.Generator) -> None:
    """The check reads every number; a training loop builds a field each step."""
    field = make_field(generator)
    density = torch.full_like(field.density, -1.0).requires_grad_()
    with pytest.raises(ValueError, match="is -1.0"):
        replace(field, density=density).check()


def test_shapes_and_types_are_checked() -> None:
    with pytest.raises((ValueError, TypeCheckError), match="features"):
        VoxelField(torch.ones(2, 3, 4), torch.ones(2, 3, 5, 1), BOX)
    with pytest.raises(ValueError, match="needs density"):
        VoxelField(torch.ones(2, 3, 4), torch.ones(2, 3, 4, 0), BOX)
    with pytest.raises((ValueError, TypeCheckError), match="density"):
        VoxelField(torch.ones(2, 3, 4, dtype=torch.int32), torch.ones(2, 3, 4, 1), BOX)


def test_grids_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"100000x100000x100000 voxels with 31 channels needs 119209289.6 GiB on cpu"):
        VoxelField.zeros(BOX, (100_000, 100_000, 100_000), 31)
    small = VoxelField(torch.ones(2, 2, 2), torch.ones(2, 2, 2, 1), BOX)
    monkeypatch.setattr(nfldm3d.memory, "free_memory", lambda device: 1000)
    with pytest.raises(ValueError, match="lower the resolution"):
        small.resampled((50, 50, 50))


def test_no_points_give_no_values() -> None:
    field = VoxelField(torch.ones(3, 2, 4), torch.ones(3, 2, 4, 5), Box((0, 0, 0), (3, 2, 4)))
    density, features = field.query(torch.zeros(0, 3))
    assert density.shape == (0,) and features.shape == (0, 5)
