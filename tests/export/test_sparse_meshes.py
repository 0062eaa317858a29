"""Meshes of sparse fields, made a block of bricks after the other, are those of the dense fields."""

import math
from dataclasses import replace

import pytest
import torch

from nfldm3d import Box, Camera, MeshOptions, Rgb, Scene, VoxelField, extract_mesh
from nfldm3d.export import Mesh, level_sets, meshes, occluders
from nfldm3d.export.occluders import Occluder
from nfldm3d.fields import SparseField, surface_density

BOX = Box((-1.0, 2.0, 0.5), (1.5, 5.0, 2.5))
RESOLUTION = (40, 48, 31)
CENTER = torch.tensor((0.3, 3.4, 1.4))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(level_sets, "BLOCK", 16)
    monkeypatch.setattr(meshes, "voxelize", None)  # nobody asks for all voxels


def make_scene(generator: torch.Generator, *, cameras: bool, cut: bool = False) -> Scene:
    """A ball, or one that the box cuts through, in many colours."""
    level = surface_density(BOX.voxel_size(RESOLUTION))
    center = CENTER - torch.tensor((1.0, 0.0, 0.0)) if cut else CENTER
    distance = (BOX.voxel_centers(RESOLUTION, torch.zeros(1)) - center).norm(dim=-1)
    density = level * (1 + (0.7 - distance) / 0.2).clamp(0, 3)
    views = Camera.orbit(BOX.center, 4.0, views=5, width=24, height=18) if cameras else None
    features = torch.rand(*RESOLUTION, 3, generator=generator)
    return Scene(VoxelField(density, features, BOX), Rgb(), cameras=views)


def sort_rows(mesh: Mesh) -> torch.Tensor:
    assert mesh.colors is not None
    rows = torch.cat((mesh.vertices, mesh.normals, mesh.colors), dim=1)
    order = mesh.vertices.mul(1e4).round().unique(dim=0, return_inverse=True)[1].argsort()
    return rows[order]


@pytest.mark.parametrize("cameras", [False, True])
@pytest.mark.parametrize("cut", [False, True])
def test_the_mesh_is_that_of_the_dense_field(cameras: bool, cut: bool, generator: torch.Generator) -> None:
    scene = make_scene(generator, cameras=cameras, cut=cut)
    dense = extract_mesh(scene)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(level_sets, "BLOCK", 16)
        patch.setattr(meshes, "voxelize", None)
        sparse = extract_mesh(replace(scene, field=SparseField.from_dense(scene.field)))
    assert len(sparse.vertices) == len(dense.vertices) and len(sparse.faces) == len(dense.faces)
    torch.testing.assert_close(sort_rows(sparse), sort_rows(dense), rtol=1e-4, atol=1e-4)


def test_a_crop_cuts_exactly_at_the_box(small_blocks: None, generator: torch.Generator) -> None:
    scene = make_scene(generator, cameras=False)
    scene = replace(scene, field=SparseField.from_dense(scene.field))
    crop = Box((-9.0, 2.0, 0.5), (float(CENTER[0]) + 0.013, 9.0, 2.5))
    mesh = extract_mesh(scene, options=MeshOptions(box=crop))
    a, b, c = mesh.vertices.double()[mesh.faces].unbind(1)
    volume = float((a * torch.linalg.cross(b, c)).sum() / 6)
    assert float(mesh.vertices[:, 0].max()) == pytest.approx(crop.upper[0], abs=1e-6)
    assert volume == pytest.approx(4 / 3 * math.pi * 0.7**3 * (0.5 + 0.75 * 0.013 / 0.7), rel=1e-2)
    with pytest.raises(ValueError, match="the density goes from 0 to"):
        extract_mesh(scene, options=MeshOptions(level=1e4))


def test_what_is_solid_is_known_in_coarser_cells_where_there_are_many(
    monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    field = make_scene(generator, cameras=False).field
    fine, exact = Occluder.inside(SparseField.from_dense(field), 3.0, None), Occluder.inside(field, 3.0, None)
    assert torch.equal(fine.solid, exact.solid) and bool(exact.solid.any())
    points = torch.tensor(BOX.lower) + torch.rand(50, 3, generator=generator) * torch.tensor(BOX.size)
    assert torch.equal(fine.locate(points), exact.locate(points))
    monkeypatch.setattr(occluders, "MOST_CELLS", 10000)
    coarse = Occluder.inside(SparseField.from_dense(field), 3.0, None)
    assert coarse.solid.shape == (20, 24, 16) and coarse.cell_size[0] == 2 * exact.voxel_size[0]
    assert bool(coarse.solid[tuple(coarse.locate(field.voxel_centers()[exact.solid]).unbind(-1))].all())
    assert torch.equal(coarse.holds(points), exact.holds(points))
