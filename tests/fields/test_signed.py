"""Signed fields: surfaces lie between voxels, through rendering, editing, files and other programs' formats."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from vdb_reader import VdbReader

from nfldm3d.appearance import Rgb
from nfldm3d.editing import compose, crop, paste, resample, transform
from nfldm3d.export import export_volume, extract_mesh
from nfldm3d.fields import VoxelField
from nfldm3d.geometry import Box, Rays
from nfldm3d.interop.kaolin import to_kaolin_voxelgrid
from nfldm3d.rendering import composite, mean_distance
from nfldm3d.scene import Scene

BOX = Box((0.0, 0.0, 0.0), (4.0, 4.0, 4.0))  # 0.5 m voxels
STEEP = 40.0
"""1/m per metre."""


def floor(height: float, *, signed: bool = True) -> VoxelField:
    """Matter below a height, as dense as deep."""
    field = VoxelField.zeros(BOX, (8, 8, 8), 3)
    density = STEEP * (height - field.voxel_centers()[..., 2])
    features = torch.linspace(0, 1, 3).expand(8, 8, 8, 3)
    return VoxelField(density if signed else density.relu(), features.contiguous(), BOX, signed)


def scene(field: VoxelField) -> Scene:
    return Scene(field, Rgb())


def look_down(field: VoxelField, count: int = 9) -> torch.Tensor:
    """Heights at which rays from above end."""
    place = torch.linspace(1.0, 3.0, count)
    origins = torch.stack((place, place.flip(0), torch.full_like(place, 3.9)), dim=-1)
    rays = Rays(origins, torch.tensor((0.0, 0.0, -1.0)).expand_as(origins))
    return 3.9 - mean_distance(composite([field], rays, step_in_voxels=0.02))


@pytest.mark.parametrize("height", [1.3, 1.5, 1.62, 1.8])
def test_surfaces_lie_between_voxels(height: float) -> None:
    """A ray enters slab by slab: it ends where 20 d² = 1, whatever the voxels; cut densities lose that."""
    mean_depth = 0.5 * (torch.pi / (STEEP / 2)) ** 0.5  # of the distribution 1 - exp(-STEEP/2 d²)
    assert torch.allclose(look_down(floor(height)), torch.tensor(height - mean_depth), atol=0.02)


def test_queries_are_cut_after_interpolation() -> None:
    field, points = floor(1.5), torch.tensor([[2.0, 2.0, 1.6], [2.0, 2.0, 1.45], [2.0, 2.0, 3.0]])
    assert torch.allclose(field.query(points)[0], torch.tensor([0.0, 2.0, 0.0]), atol=1e-4)
    assert torch.allclose(field.interpolate(points)[0], torch.tensor([-4.0, 2.0, -60.0]), atol=1e-4)
    assert torch.allclose(field.normals(points[:2]), torch.tensor((0.0, 0.0, 1.0)).expand(2, 3), atol=1e-5)


def test_negative_densities_need_the_sign() -> None:
    field = floor(1.5)
    with pytest.raises(ValueError, match="finite and not negative"):
        replace(field, signed=False)
    field.density[1, 2, 3] = torch.nan
    with pytest.raises(ValueError, match=r"density\[1, 2, 3\] is nan.*must be finite: clamp"):
        field.check()
    plain = floor(1.5, signed=False)
    assert floor(1.5).unsigned().density.equal(plain.density) and plain.unsigned() is plain


@pytest.mark.parametrize("name", ["scene.nfld", "scene"])
def test_files_keep_the_sign(name: str, tmp_path: Path) -> None:
    for field in (floor(1.5), floor(1.5, signed=False)):
        scene(field).save(tmp_path / name)
        back = Scene.load(tmp_path / name).field
        assert back.signed == field.signed and torch.equal(back.density, field.density)


def test_surfaces_stay_where_they_are_through_edits() -> None:
    low, high, whole = floor(1.62), floor(2.1), Box((1.0, 1.0, 0.0), (3.0, 3.0, 4.0))
    here, there = look_down(low), look_down(high)
    for edited in (crop(scene(low), whole), resample(scene(low), 0.25), resample(scene(low), 0.4)):
        assert edited.field.signed
        assert torch.allclose(look_down(edited.field)[1:-1], here[1:-1], atol=0.03)
    shift = torch.eye(4)
    shift[2, 3] = 0.3
    assert torch.allclose(look_down(transform(scene(low), shift).field), here + 0.3, atol=0.03)
    patch = crop(scene(high), Box((2.0, 0.0, 0.0), (4.0, 4.0, 4.0)))
    for host in (low, low.unsigned()):
        pasted = look_down(paste(scene(host), patch).field)
        assert torch.allclose(pasted[-3:], there[-3:], atol=0.03)
        assert (pasted[:3] - here[:3]).abs().max() < (0.03 if host.signed else 0.3)


def test_joined_media_add_up() -> None:
    joined = compose(scene(floor(1.5)), scene(floor(2.5))).field
    assert not joined.signed and float(joined.density.min()) == 0
    assert torch.allclose(look_down(joined), look_down(floor(2.5).unsigned()), atol=0.02)


def test_other_formats_hold_no_negative_densities(tmp_path: Path) -> None:
    field = floor(1.5)
    assert float(to_kaolin_voxelgrid(field, "density").min()) == 0
    assert set(to_kaolin_voxelgrid(field, "occupancy").unique().tolist()) == {0.0, 1.0}
    export_volume(scene(field), tmp_path / "floor.vdb", color=False)
    voxels = VdbReader(tmp_path / "floor.vdb").grids()["density"]["voxels"]
    assert set(voxels) == {tuple(index) for index in (field.density > 0).nonzero().tolist()}
    assert min(value[0] for value in voxels.values()) > 0


def test_meshes_follow_the_surface() -> None:
    """The level is passed a little below the height where density begins; no steps from voxel to voxel."""
    for height in (1.3, 1.62):
        vertices = extract_mesh(scene(floor(height))).vertices
        top = vertices[(vertices[:, :2] - 2).abs().amax(-1) < 1.5][:, 2]
        level = 0.6931 / 0.5
        assert torch.allclose(top[top > 0.5], torch.tensor(height - level / STEEP), atol=1e-3)
