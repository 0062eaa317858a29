"""Kaolin's voxel grids and point clouds: round trips beside a stand-in too, the rest against the real Kaolin."""

from dataclasses import replace
from types import ModuleType

import pytest
import torch
from jaxtyping import TypeCheckError
from stand_in_kaolin import import_kaolin, provide_kaolin, same, stand_in

from nfldm3d.fields import SparseField, VoxelField, surface_density
from nfldm3d.geometry import Box
from nfldm3d.interop.kaolin import (
    from_kaolin_spc,
    from_kaolin_voxelgrid,
    sparse_from_kaolin_spc,
    spc_box,
    to_kaolin_feature_grid,
    to_kaolin_spc,
    to_kaolin_voxelgrid,
)
from nfldm3d.interop.kaolin.voxel_grids import Content

BOX = Box((-1.0, 2.0, 0.5), (1.5, 5.5, 2.0))


@pytest.fixture(scope="module")
def kaolin() -> ModuleType:
    return import_kaolin()


@pytest.fixture(params=["stand-in", "kaolin"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    provide_kaolin(request.param, monkeypatch)


@pytest.fixture
def fields(generator: torch.Generator) -> VoxelField:
    """Two scenes on a grid with three different sides, a third of it occupied."""
    occupied = torch.rand(2, 5, 7, 3, generator=generator) < 1 / 3
    density = occupied * (0.1 + 3 * torch.rand(2, 5, 7, 3, generator=generator))
    return VoxelField(density, occupied[..., None] * torch.randn(2, 5, 7, 3, 4, generator=generator), BOX)


def test_fields_return_from_density_grids(fields: VoxelField) -> None:
    grid, features = to_kaolin_voxelgrid(fields, "density"), to_kaolin_feature_grid(fields)
    assert grid.shape == (2, 5, 7, 3) and features.shape == (2, 4, 5, 7, 3)
    assert same(from_kaolin_voxelgrid(grid, BOX, content="density", features=features), fields)


def test_fields_return_from_opacity(fields: VoxelField) -> None:
    back = from_kaolin_voxelgrid(to_kaolin_voxelgrid(fields[1], "opacity"), BOX, content="opacity")
    assert torch.allclose(back[0].density, fields[1].density, rtol=1e-4, atol=1e-5)
    assert back.features.unique().tolist() == [0.5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_occupancy_and_opacity_change_at_the_surface(dtype: torch.dtype) -> None:
    surface = surface_density(BOX.voxel_size((1, 1, 4)))
    density = torch.tensor([0.0, 0.98, 1.0, 1e6], dtype=dtype).view(1, 1, 4) * surface
    field = VoxelField(density, torch.ones(1, 1, 4, 1, dtype=dtype), BOX)
    opacity = to_kaolin_voxelgrid(field, "opacity").flatten()
    assert torch.allclose(opacity.double(), torch.tensor([0.0, 0.493, 0.5, 1.0]).double(), atol=4e-3)
    field = VoxelField(torch.tensor([0.0, 0.9, 1.0, 9.0]).view(1, 1, 4).to(dtype) * surface, field.features, BOX)
    assert to_kaolin_voxelgrid(field).flatten().tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
def test_binary_grids_return(dtype: torch.dtype, generator: torch.Generator) -> None:
    grid = (torch.rand(3, 2, 4, 5, generator=generator) < 0.5).to(dtype)
    assert torch.equal(to_kaolin_voxelgrid(from_kaolin_voxelgrid(grid, BOX)).to(dtype), grid)


def test_full_opacity_stays_finite() -> None:
    field = from_kaolin_voxelgrid(torch.ones(1, 1, 2, 3), BOX, content="opacity")
    assert to_kaolin_voxelgrid(field, "opacity").min() > 1 - 1e-6


@pytest.mark.parametrize("content", ["occupancy", "opacity"])
@pytest.mark.parametrize("value", [1.5, -0.1, float("nan")])
def test_values_beyond_their_range_are_refused(value: float, content: Content) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        from_kaolin_voxelgrid(torch.full((1, 2, 3, 4), value), BOX, content=content)


@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 0, 3, 4)])
def test_voxel_grids_of_bad_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises((ValueError, TypeCheckError), match="voxelgrid|none of them 0"):  # the type checker may be first
        from_kaolin_voxelgrid(torch.ones(shape), BOX)


def test_features_of_another_grid_are_refused() -> None:
    with pytest.raises((ValueError, TypeCheckError), match="features"):
        from_kaolin_voxelgrid(torch.ones(1, 2, 3, 4), BOX, features=torch.ones(1, 3, 4, 3, 2))


def test_other_contents_are_refused(fields: VoxelField) -> None:
    with pytest.raises((ValueError, TypeCheckError), match="content"):
        to_kaolin_voxelgrid(fields, "colour")  # type: ignore[arg-type]


def test_kaolins_cubes_lie_in_the_fields_voxels(kaolin: ModuleType) -> None:
    """A mesh of one voxel, put into the box voxel by voxel, surrounds that voxel's centre."""
    field = VoxelField.zeros(BOX, (5, 7, 3), 3)
    field.density[1, 5, 2] = 100
    vertices, _ = kaolin.ops.conversions.voxelgrids_to_cubic_meshes(to_kaolin_voxelgrid(field))
    corners = vertices[0] * torch.tensor(field.voxel_size) + torch.tensor(BOX.lower)
    assert len(corners) == 8
    assert torch.allclose(corners.mean(0), field.voxel_centers()[1, 5, 2])


def test_fields_return_from_structured_point_clouds(either: None, fields: VoxelField) -> None:
    spc = to_kaolin_spc(fields)
    assert spc.features.shape == (int((fields.density > 0).sum()), 5)
    assert same(from_kaolin_spc(spc, BOX, resolution=(5, 7, 3)), fields)


def test_sparse_fields_go_there_and_back_brick_by_brick(either: None, generator: torch.Generator) -> None:
    occupied = torch.rand(11, 9, 17, generator=generator) < 0.1
    occupied[:, :, 8:16] = False
    dense = VoxelField(occupied * 3.0, occupied[..., None] * torch.rand(11, 9, 17, 2, generator=generator), BOX)
    sparse = SparseField.from_dense(dense)
    ours, theirs = to_kaolin_spc(sparse), to_kaolin_spc(dense)
    assert torch.equal(ours.octrees, theirs.octrees) and torch.equal(ours.features, theirs.features)
    assert len(to_kaolin_spc(sparse, threshold=1.0).features) == int(occupied.sum())
    back = sparse_from_kaolin_spc(ours, BOX, resolution=(11, 9, 17))
    assert same(back.to_dense(), dense) and len(back.places) == len(sparse.places)
    with pytest.raises(ValueError, match="one scene, got 2 octrees"):
        sparse_from_kaolin_spc(to_kaolin_spc(VoxelField(*(torch.ones(2, 3, 2, 2, *n) for n in ((), (1,))), BOX)), BOX)


def test_a_structured_point_cloud_without_resolution_fills_the_cube(either: None, fields: VoxelField) -> None:
    cube = spc_box(fields)
    assert cube.lower == BOX.lower and cube.upper == pytest.approx((-1 + 8 * 0.5, 2 + 8 * 0.5, 0.5 + 8 * 0.5))
    whole = from_kaolin_spc(to_kaolin_spc(fields[0]), cube)[0]
    assert whole.resolution == (8, 8, 8) and whole.voxel_size == pytest.approx(fields.voxel_size)
    assert torch.equal(whole.density[:5, :7, :3], fields.density[0])
    assert float(whole.density.sum()) == pytest.approx(float(fields.density[0].sum()))


def test_voxels_are_kept_by_density_or_by_any_value(either: None) -> None:
    field = VoxelField.zeros(BOX, (3, 2, 2), 1)
    field.density[2, 1, 0], field.density[0, 1, 1], field.features[1, 0, 0, 0] = 2.0, 0.5, 7.0
    assert to_kaolin_spc(field).features.tolist() == [[0.5, 0.0], [0.0, 7.0], [2.0, 0.0]]
    assert to_kaolin_spc(field, threshold=0.0).features.tolist() == [[0.5, 0.0], [2.0, 0.0]]
    assert to_kaolin_spc(field, threshold=0.5).features.tolist() == [[2.0, 0.0]]


def test_points_and_pyramids_describe_the_octree(either: None) -> None:
    field = VoxelField.zeros(BOX, (4, 3, 1), 1)
    field.density[0, 0, 0] = field.density[3, 2, 0] = 1
    spc = to_kaolin_spc(field)
    assert spc.octrees.tolist() == [1 << 0 | 1 << 6, 1 << 0, 1 << 4]
    assert spc.max_level == 2 and spc.pyramids.tolist() == [[[1, 2, 2, 0], [0, 1, 3, 5]]]
    assert spc.point_hierarchies.tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 0], [0, 0, 0], [3, 2, 0]]


def test_gradients_reach_a_fields_voxels_through_an_octree(either: None, fields: VoxelField) -> None:
    density = fields.density.clone().requires_grad_()
    back = from_kaolin_spc(to_kaolin_spc(replace(fields, density=density)), BOX, resolution=(5, 7, 3))
    (back.density**2).sum().backward()
    assert torch.allclose(density.grad, 2 * fields.density)


def test_bad_structured_point_clouds_are_refused(monkeypatch: pytest.MonkeyPatch, fields: VoxelField) -> None:
    stand_in(monkeypatch)
    with pytest.raises(ValueError, match="scene 0 has no occupied voxel"):
        to_kaolin_spc(VoxelField.zeros(BOX, (3, 2, 2), 1))
    spc = to_kaolin_spc(fields)
    with pytest.raises(ValueError, match=r"outside a grid of \(5, 6, 3\)"):
        from_kaolin_spc(spc, BOX, resolution=(5, 6, 3))
    for features in (None, spc.features[1:], spc.features[:, :1]):
        with pytest.raises(ValueError, match="set spc.features"):
            from_kaolin_spc(replace(spc, features=features), BOX)
    with pytest.raises(ValueError, match="lengths add up"):
        from_kaolin_spc(replace(spc, lengths=spc.lengths - 1), BOX)
    small = to_kaolin_spc(from_kaolin_voxelgrid(torch.ones(1, 2, 2, 2), BOX))
    mixed = {"octrees": torch.cat((spc.octrees, small.octrees)), "lengths": torch.cat((spc.lengths, small.lengths))}
    with pytest.raises(ValueError, match=r"must have one level, got \[1, 3\]"):
        from_kaolin_spc(replace(spc, **mixed), BOX)


@pytest.mark.parametrize("resolution", [(5, 7, 3), (8, 8, 8), (1, 2, 1), (9, 1, 4)])
def test_octrees_are_kaolins(kaolin: ModuleType, resolution: tuple[int, int, int], generator: torch.Generator) -> None:
    density = torch.rand(2, *resolution, generator=generator).sub(0.4).clamp(min=0)
    density[:, 0, 0, 0] = 1
    field = VoxelField(density, torch.randn(2, *resolution, 3, generator=generator) * (density > 0)[..., None], BOX)
    grid = torch.cat((to_kaolin_voxelgrid(field, "density")[:, None], to_kaolin_feature_grid(field)), dim=1)
    octrees, lengths, features = kaolin.ops.spc.feature_grids_to_spc(grid)
    ours = to_kaolin_spc(field)
    assert torch.equal(ours.octrees, octrees) and torch.equal(ours.lengths, lengths)
    assert torch.equal(ours.features, features)
    theirs = kaolin.rep.Spc(octrees, lengths, features=features)
    assert same(from_kaolin_spc(theirs, BOX, resolution=resolution), field)


def test_kaolins_coordinates_find_the_leaves(kaolin: ModuleType, fields: VoxelField) -> None:
    """Voxel centres, put into [-1, 1]^3 by the point cloud's cube, are the leaves that Kaolin's quantisation names."""
    field, cube = fields[0], spc_box(fields)
    centers = field.voxel_centers()[field.density > 0]
    inside = 2 * (centers - torch.tensor(cube.lower)) / torch.tensor(cube.size) - 1
    spc = to_kaolin_spc(field)
    leaves = spc.point_hierarchies[spc.pyramids[0, 1, spc.max_level] :]
    named = kaolin.ops.spc.quantize_points(inside, spc.max_level)
    assert torch.equal(named.unique(dim=0), leaves.unique(dim=0))
