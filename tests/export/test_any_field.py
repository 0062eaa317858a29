"""A field without a grid exports as what it is: a closed mesh of the right size, points, volumes, in its colours."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from balls import BOX, make_ball
from vdb_reader import VdbReader

from nfldm3d import Box, Camera, MeshOptions, Rgb, Scene, export_mesh, export_points, export_volume, extract_mesh
from nfldm3d.export.surface_samples import read_surface_features
from nfldm3d.fields import surface_density, voxelize

trimesh = pytest.importorskip("trimesh")

DENSITY = 40.0
LEVEL = surface_density((0.1, 0.1, 0.1))
RADIUS = 0.8 * math.sqrt(1 - LEVEL / DENSITY)
"""Where the density is that of a surface."""


def make_scene(cameras: bool = False) -> Scene:
    orbit = Camera.orbit(BOX.center, 3.0, views=6, width=24, height=18) if cameras else None
    return Scene(make_ball(density=DENSITY), Rgb(), cameras=orbit)


@pytest.mark.parametrize("cameras", [False, True])
def test_a_ball_becomes_a_closed_mesh(tmp_path: Path, cameras: bool) -> None:
    options = None if not cameras else MeshOptions(level=LEVEL)
    mesh = export_mesh(make_scene(cameras), tmp_path / "ball.ply", options=options)
    solid = trimesh.load(tmp_path / "ball.ply")
    assert solid.is_watertight and solid.volume == pytest.approx(4 / 3 * math.pi * RADIUS**3, rel=0.02)
    offset = mesh.vertices - torch.tensor(BOX.center)
    torch.testing.assert_close(offset.norm(dim=-1), torch.full((len(offset),), RADIUS), atol=0.01, rtol=0)
    torch.testing.assert_close(mesh.normals, offset / offset.norm(dim=-1, keepdim=True), atol=1e-4, rtol=0)
    assert mesh.colors is not None
    torch.testing.assert_close(mesh.colors, 0.5 + 0.4 * offset, atol=0.06, rtol=0)


def test_a_part_of_a_ball_is_walled() -> None:
    center = torch.tensor(BOX.center)
    half = Box(BOX.lower, (BOX.center[0] + 0.03, *BOX.upper[1:]))
    mesh = extract_mesh(make_scene(), options=MeshOptions(box=half))
    assert float((mesh.vertices - center)[:, 0].max()) == pytest.approx(0.03, abs=1e-5)
    assert trimesh.Trimesh(mesh.vertices, mesh.faces).is_watertight


def test_surroundings_are_meshed_on_request() -> None:
    around = replace(make_ball(2.2, DENSITY), box=BOX.scaled(2.0), voxel_size=(0.2, 0.2, 0.2))
    scene = replace(make_scene(), surroundings=(around,))
    both = extract_mesh(scene, options=MeshOptions(surroundings=True))
    assert (both.vertices - torch.tensor(BOX.center)).norm(dim=-1).max() > 1.9


def test_a_ball_becomes_points(tmp_path: Path) -> None:
    cloud = export_points(make_scene(), tmp_path / "ball.ply", count=500)
    distance = (cloud.points - torch.tensor(BOX.center)).norm(dim=-1)
    assert cloud.points.shape == (500, 3) and (distance - RADIUS).abs().max() < 0.02
    assert len(trimesh.load(tmp_path / "ball.ply").vertices) == 500


def test_a_ball_becomes_a_volume(tmp_path: Path) -> None:
    export_volume(make_scene(), tmp_path / "ball.vdb")
    export_volume(Scene(voxelize(make_ball(density=DENSITY)), Rgb()), tmp_path / "grid.vdb")
    assert (tmp_path / "ball.vdb").read_bytes() == (tmp_path / "grid.vdb").read_bytes()
    grids = VdbReader(tmp_path / "ball.vdb").grids()
    assert set(grids) == {"density", "color"}
    part = Box((0.0, 1.5, -0.5), (0.7, 2.6, 0.8))
    export_volume(make_scene(), tmp_path / "part.vdb", box=part)
    with pytest.raises(ValueError, match="the field is empty from"):
        export_volume(make_scene(), tmp_path / "none.vdb", box=Box((9.0, 9.0, 9.0), (10.0, 10.0, 10.0)))


def test_usd_files_hold_a_ball(tmp_path: Path) -> None:
    pytest.importorskip("pxr")
    mesh = export_mesh(make_scene(), tmp_path / "ball.usdc")
    from pxr import Usd, UsdGeom

    stage = Usd.Stage.Open(str(tmp_path / "ball.usdc"))
    assert len(UsdGeom.Mesh(stage.GetPrimAtPath("/scene/mesh")).GetPointsAttr().Get()) == len(mesh.vertices)


def test_features_at_a_surface_are_those_just_below_it(generator: torch.Generator) -> None:
    ball = make_ball(density=400.0)
    normals = torch.nn.functional.normalize(torch.randn(50, 3, generator=generator), dim=-1)
    points = torch.tensor(BOX.center) + 0.78 * normals
    found = read_surface_features(ball, points, normals)
    torch.testing.assert_close(found, 0.5 + 0.4 * 0.76 * normals, atol=0.03, rtol=0)
    empty = read_surface_features(ball, points + 3 * normals, normals)
    assert torch.isfinite(empty).all()


@pytest.mark.cuda
def test_a_gpu_exports_the_same() -> None:
    scene = make_scene()
    here, there = (extract_mesh(scene.to(device)) for device in ("cpu", "cuda"))
    torch.testing.assert_close(there.vertices.cpu(), here.vertices, atol=1e-4, rtol=0)
    assert here.colors is not None and there.colors is not None
    torch.testing.assert_close(there.colors.cpu(), here.colors, atol=1e-3, rtol=0)
