"""Mesh and point files, re-read by other libraries: places, counts, colours; and what happens when writing fails."""

import io
import json
import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nfldm3d.appearance import Rgb
from nfldm3d.camera import Camera
from nfldm3d.export import (
    Mesh,
    MeshOptions,
    PointCloud,
    export_cameras,
    export_mesh,
    export_points,
    extract_points,
    meshes,
)
from nfldm3d.export.coloring import color_points
from nfldm3d.export.mesh import linear_from_srgb
from nfldm3d.fields import VoxelField
from nfldm3d.geometry import Box, look_at
from nfldm3d.scene import Scene
from nfldm3d.written_files import NOTE

BOX = Box((-1.0, 2.0, 0.5), (1.5, 5.0, 2.5))
MESH_SUFFIXES = (".glb", ".obj", ".ply", ".usd", ".usda", ".usdc", ".usdz")


@pytest.fixture
def scene() -> Scene:
    """A ball off centre whose colour says where in the box it is."""
    blank = VoxelField.zeros(BOX, (20, 24, 15), 3)
    centers = blank.voxel_centers()
    density = 40 * (0.75 - (centers - torch.tensor((0.3, 3.4, 1.4))).norm(dim=-1)).clamp(min=0) / 0.2
    return Scene(VoxelField(density, (centers - torch.tensor(BOX.lower)) / torch.tensor(BOX.size), BOX), Rgb())


@pytest.fixture
def patch() -> Mesh:
    """Two coloured triangles of no symmetry at all."""
    vertices = torch.tensor([[-1.0, 2.0, 0.5], [3.0, 2.5, 0.25], [0.0, 7.0, 1.0], [4.0, 8.0, 5.0]])
    normals = torch.nn.functional.normalize(
        torch.tensor([[0.1, 0.2, 1.0], [0, 0, 1.0], [1.0, 0, 0], [0, 1.0, 0]]), dim=-1
    )
    colors = torch.tensor([[188, 64, 32], [0, 255, 3], [17, 128, 250], [1, 2, 90]]) / 255
    return Mesh(vertices, torch.tensor([[0, 1, 2], [2, 1, 3]]), normals, colors)


@pytest.fixture
def textured() -> Mesh:
    """A unit square: red, green, blue and white from the upper left to the lower right of its picture."""
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]])
    normals = torch.tensor([[0.0, -1, 0]]).expand(4, 3)
    uv = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    corners = torch.tensor([[[1.0, 0], [0, 1]], [[0, 1], [0, 1]], [[0, 0], [1, 1]]])  # (3 2 2)
    texture = corners.repeat_interleave(8, 1).repeat_interleave(16, 2)
    return Mesh(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]), normals, None, uv, texture)


def read_glb(path: Path) -> tuple[dict, bytes]:
    data = path.read_bytes()
    magic, version, length, json_length, json_kind = struct.unpack("<4sIII4s", data[:20])
    assert (magic, version, length, json_kind) == (b"glTF", 2, len(data), b"JSON")
    size, kind = struct.unpack("<I4s", data[20 + json_length : 28 + json_length])
    assert kind == b"BIN\0" and 28 + json_length + size == len(data) and len(data) % 4 == 0
    return json.loads(data[20 : 20 + json_length]), data[28 + json_length :]


def read_accessor(document: dict, binary: bytes, number: int) -> np.ndarray:
    accessor = document["accessors"][number]
    view = document["bufferViews"][accessor["bufferView"]]
    assert view["byteOffset"] % 4 == 0
    kind = {5126: "<f4", 5123: "<u2", 5125: "<u4"}[accessor["componentType"]]
    width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}[accessor["type"]]
    chunk = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
    values = np.frombuffer(chunk, kind).reshape(-1, width)
    assert len(values) == accessor["count"]
    return values


def test_glb_is_y_up_with_linear_colours_that_give_back_the_bytes(patch: Mesh, tmp_path: Path) -> None:
    export_mesh(patch, tmp_path / "a.glb")
    document, binary = read_glb(tmp_path / "a.glb")
    (primitive,) = document["meshes"][0]["primitives"]
    found = {name: read_accessor(document, binary, n) for name, n in primitive["attributes"].items()}
    x, y, z = patch.vertices.numpy().T
    assert np.array_equal(found["POSITION"], np.stack((x, z, -y), axis=-1))
    position = document["accessors"][primitive["attributes"]["POSITION"]]
    assert position["min"] == [-1, 0.25, -8] and position["max"] == [4, 5, -2]
    assert np.array_equal(read_accessor(document, binary, primitive["indices"]).reshape(-1, 3), patch.faces.numpy())
    linear = found["COLOR_0"][:, :3] / 65535
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert patch.colors is not None
    assert np.array_equal(np.rint(srgb * 255), np.rint(patch.colors.numpy() * 255))
    assert (found["COLOR_0"][:, 3] == 65535).all()
    (material,) = document["materials"]
    assert material["pbrMetallicRoughness"] == {"metallicFactor": 0, "roughnessFactor": 1}
    assert material["doubleSided"] and "KHR_materials_unlit" in material["extensions"]
    assert document["extensionsUsed"] == ["KHR_materials_unlit"]


def test_glb_can_be_lit(patch: Mesh, tmp_path: Path) -> None:
    export_mesh(patch, tmp_path / "a.glb", lit=True)
    document, _ = read_glb(tmp_path / "a.glb")
    assert "extensions" not in document["materials"][0] and "extensionsUsed" not in document


def test_trimesh_reads_the_geometry_of_each_format(scene: Scene, tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    for suffix in (".glb", ".obj", ".ply"):
        mesh = export_mesh(scene, tmp_path / f"a{suffix}")
        found = trimesh.load_mesh(tmp_path / f"a{suffix}", process=False)
        if suffix != ".ply":
            found.apply_transform(np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]))
        assert found.bounds == pytest.approx(np.stack([mesh.vertices.amin(0), mesh.vertices.amax(0)]), abs=1e-5)
        assert len(found.faces) == len(mesh.faces)
        assert found.volume > 0  # still turned inside in
        if suffix != ".glb":  # trimesh takes linear colours for sRGB
            assert mesh.colors is not None
            order, expected = np.lexsort(found.vertices.round(4).T), np.lexsort(mesh.vertices.numpy().round(4).T)
            colors = found.visual.vertex_colors[order, :3].astype(int)
            assert np.abs(colors - mesh.colors.numpy()[expected] * 255).max() <= 1.01


def test_open3d_reads_our_ply(scene: Scene, tmp_path: Path) -> None:
    open3d = pytest.importorskip("open3d", exc_type=ImportError)  # it needs libusb-1.0 of the system, says the reason
    mesh = export_mesh(scene, tmp_path / "a.ply")
    found = open3d.io.read_triangle_mesh(str(tmp_path / "a.ply"))
    assert np.asarray(found.vertices) == pytest.approx(mesh.vertices.numpy(), abs=1e-6)
    assert np.array_equal(np.asarray(found.triangles), mesh.faces.numpy())
    assert np.asarray(found.vertex_normals) == pytest.approx(mesh.normals.numpy(), abs=1e-6)
    assert mesh.colors is not None
    assert np.asarray(found.vertex_colors) == pytest.approx(mesh.colors.numpy(), abs=0.51 / 255)
    cloud = export_points(scene, tmp_path / "p.ply", count=500)
    points = open3d.io.read_point_cloud(str(tmp_path / "p.ply"))
    assert np.asarray(points.points) == pytest.approx(cloud.points.numpy(), abs=1e-6)
    assert np.asarray(points.colors) == pytest.approx(cloud.colors.numpy(), abs=0.51 / 255)
    assert np.asarray(points.normals) == pytest.approx(cloud.normals.numpy(), abs=1e-6)


@pytest.mark.parametrize("suffix", [".usd", ".usda", ".usdc", ".usdz"])
def test_usd_stages_are_z_up_in_metres_with_linear_display_colour(patch: Mesh, tmp_path: Path, suffix: str) -> None:
    usd, geometry = pytest.importorskip("pxr.Usd"), pytest.importorskip("pxr.UsdGeom")
    export_mesh(patch, tmp_path / f"a{suffix}")
    stage = usd.Stage.Open(str(tmp_path / f"a{suffix}"))
    assert geometry.GetStageUpAxis(stage) == "Z" and geometry.GetStageMetersPerUnit(stage) == 1
    mesh = geometry.Mesh(stage.GetDefaultPrim().GetChild("mesh"))
    assert np.array_equal(np.array(mesh.GetPointsAttr().Get()), patch.vertices.numpy())
    assert np.array_equal(np.array(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3), patch.faces.numpy())
    assert np.array_equal(np.array(mesh.GetExtentAttr().Get()), [[-1, 2, 0.25], [4, 8, 5]])
    assert mesh.GetNormalsInterpolation() == "vertex"
    color = mesh.GetDisplayColorPrimvar()
    assert color.GetInterpolation() == "vertex" and patch.colors is not None
    assert np.array(color.Get()) == pytest.approx(linear_from_srgb(patch.colors).numpy(), abs=1e-6)


def test_usd_cameras_project_as_ours_do(tmp_path: Path) -> None:
    usd, geometry = pytest.importorskip("pxr.Usd"), pytest.importorskip("pxr.UsdGeom")
    eyes, target = torch.tensor([[6.0, 0.5, 4.0], [-3.0, 4.0, 1.0]]), torch.tensor((0.3, 3.4, 1.4))
    focal, principal = torch.tensor([[300.0, 280.0]] * 2), torch.tensor([[150.0, 120.0], [170.0, 90.0]])
    cameras = Camera(look_at(eyes, target.expand(2, 3)), focal, principal, 320, 200)
    export_cameras(cameras, tmp_path / "cameras.usda")
    points = target + torch.tensor([[0.0, 0.0, 0.0], [0.5, -0.25, 0.125], [-0.3, 0.6, 0.4]])
    pixels, depth = cameras.project(points.expand(2, 3, 3))
    stage = usd.Stage.Open(str(tmp_path / "cameras.usda"))
    for view in range(2):
        prim = geometry.Camera(stage.GetPrimAtPath(f"/scene/cameras/view_{view:04d}"))
        assert prim.GetHorizontalApertureAttr().Get() == pytest.approx(0.36)  # 36 mm in tenths of a metre
        frustum = prim.GetCamera(usd.TimeCode.Default()).frustum
        matrix = np.array(frustum.ComputeViewMatrix() * frustum.ComputeProjectionMatrix())
        clip = np.hstack((points.numpy(), np.ones((3, 1)))) @ matrix
        device = clip[:, :2] / clip[:, 3:]
        found = np.stack(((device[:, 0] + 1) / 2 * 320, (1 - device[:, 1]) / 2 * 200), axis=-1)
        assert found == pytest.approx(pixels[view].numpy(), abs=2e-3)
        assert clip[:, 3] == pytest.approx(depth[view].numpy(), abs=1e-4)


def test_cameras_stand_beside_the_mesh_in_usd_and_nowhere_else(patch: Mesh, tmp_path: Path) -> None:
    usd = pytest.importorskip("pxr.Usd")
    cameras = Camera.orbit((0.0, 0.0, 0.0), 2.0, views=3)
    export_mesh(patch, tmp_path / "a.usdc", cameras=cameras)
    stage = usd.Stage.Open(str(tmp_path / "a.usdc"))
    names = [str(prim.GetPath()) for prim in stage.Traverse()]
    assert "/scene/mesh" in names and "/scene/cameras/view_0002" in names
    with pytest.raises(ValueError, match="cameras go into USD files only"):
        export_mesh(patch, tmp_path / "a.glb", cameras=cameras)
    with pytest.raises(ValueError, match=r"cameras are written as USD; use one of \.usd"):
        export_cameras(cameras, tmp_path / "cameras.json")


def test_textures_arrive_the_right_way_up(textured: Mesh, tmp_path: Path) -> None:
    """Looks up the colour at the corner x=0, z=1, the upper left of the picture: red everywhere."""
    pil = pytest.importorskip("PIL.Image")
    export_mesh(textured, tmp_path / "a.glb")
    document, binary = read_glb(tmp_path / "a.glb")
    (primitive,) = document["meshes"][0]["primitives"]
    position, uv = (read_accessor(document, binary, primitive["attributes"][n]) for n in ("POSITION", "TEXCOORD_0"))
    view = document["bufferViews"][document["images"][0]["bufferView"]]
    picture = np.array(pil.open(io.BytesIO(binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]])))
    assert picture.shape == (16, 32, 3)
    (corner,) = np.flatnonzero((position == [0, 1, 0]).all(1))  # (0, 0, 1) in our axes
    column, row = np.minimum(uv[corner] * [32, 16], [31, 15]).astype(int)  # glTF: v counts down from the top
    assert picture[row, column].tolist() == [255, 0, 0]

    export_mesh(textured, tmp_path / "my square.obj")
    lines = (tmp_path / "my square.obj").read_text().splitlines()
    assert "mtllib my_square.mtl" in lines and "usemtl my_square" in lines
    assert "v 0 1 0" in lines
    assert lines[[line.startswith("vt") for line in lines].index(True) + 3] == "vt 0.000000 1.000000"  # v counts up
    assert "map_Kd my_square.png" in (tmp_path / "my_square.mtl").read_text()
    assert np.array_equal(np.array(pil.open(tmp_path / "my_square.png")), picture)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e5])
def test_obj_keeps_the_vertices_of_scenes_of_any_size(patch: Mesh, tmp_path: Path, scale: float) -> None:
    shrunk = replace(patch, vertices=patch.vertices * scale)
    export_mesh(shrunk, tmp_path / "a.obj")
    lines = [line.split() for line in (tmp_path / "a.obj").read_text().splitlines() if line.startswith("v ")]
    x, z, back = (torch.tensor([float(line[axis]) for line in lines]) for axis in (1, 2, 3))
    assert torch.equal(torch.stack((x, -back, z), dim=-1), shrunk.vertices)  # y up


@pytest.mark.parametrize("suffix", [".usda", ".usdz"])
def test_usd_textures_are_found_beside_or_inside(textured: Mesh, tmp_path: Path, suffix: str) -> None:
    usd, shade = pytest.importorskip("pxr.Usd"), pytest.importorskip("pxr.UsdShade")
    export_mesh(textured, tmp_path / f"a{suffix}")
    stage = usd.Stage.Open(str(tmp_path / f"a{suffix}"))
    file = shade.Shader(stage.GetPrimAtPath("/scene/material/texture")).GetInput("file").Get()
    assert file.path.endswith("a.png") and file.resolvedPath
    assert (tmp_path / "a.png").exists() == (suffix == ".usda")
    values = np.array(stage.GetPrimAtPath("/scene/mesh").GetAttribute("primvars:st").Get())
    assert textured.uv is not None and np.array_equal(values, textured.uv.numpy())


def test_a_scene_with_a_texture_ends_up_in_a_glb(scene: Scene, tmp_path: Path) -> None:
    mesh = export_mesh(scene, tmp_path / "a.glb", options=MeshOptions(texture_size=64, max_faces=300))
    document, _ = read_glb(tmp_path / "a.glb")
    assert mesh.colors is None and document["images"][0]["mimeType"] == "image/png"
    with pytest.raises(ValueError, match="PLY holds no texture"):
        export_mesh(scene, tmp_path / "a.ply", options=MeshOptions(texture_size=64))


def test_points_lie_on_the_surface_and_spread_evenly(scene: Scene, generator: torch.Generator) -> None:
    center = torch.tensor((0.3, 3.4, 1.4))
    everything = extract_points(scene)
    cloud = extract_points(scene, count=20000, generator=generator)
    assert len(cloud.points) == 20000 and str(cloud) == "PointCloud of 20000 points"
    radius = (everything.points - center).norm(dim=-1).mean()
    offset = cloud.points - center
    assert float((offset.norm(dim=-1) / radius - 1).abs().max()) < 0.05
    height = offset[:, 2] / radius  # Archimedes: uniform on a sphere means uniform in height
    shares = torch.histc(height, bins=8, min=-1, max=1) / 20000
    assert float((shares - 1 / 8).abs().max()) < 0.015
    expected = (cloud.points - torch.tensor(BOX.lower)) / torch.tensor(BOX.size)
    assert float((cloud.colors - expected).abs().max()) < 0.1
    with pytest.raises(ValueError, match="at least one point"):
        extract_points(scene, count=0)


def test_points_come_as_they_were_drawn_each_with_its_colour(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meshes, "color_points", None)  # nobody colours the vertices
    clouds = [extract_points(scene, count=count, generator=torch.Generator().manual_seed(3)) for count in (300, 300)]
    assert torch.equal(clouds[0].points, clouds[1].points)
    colors = color_points(scene, clouds[0].points, clouds[0].normals)
    torch.testing.assert_close(clouds[0].colors, colors, atol=1e-5, rtol=0)
    steps = (clouds[0].points[1:] - clouds[0].points[:-1]).norm(dim=-1)
    apart = (clouds[0].points.roll(150, 0) - clouds[0].points).norm(dim=-1)
    assert float(steps.mean()) > 0.7 * float(apart.mean()), "any first points are spread over the surface"


def test_unknown_suffixes_are_refused_before_any_work(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown mesh format '.stl'; use one of \.glb \.obj \.ply \.usd"):
        export_mesh(scene, tmp_path / "a.stl")
    with pytest.raises(ValueError, match=r"point clouds are written as \.ply"):
        export_points(scene, tmp_path / "a.las")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
def test_nothing_is_left_when_the_scene_is_empty(tmp_path: Path, suffix: str) -> None:
    empty = Scene(VoxelField.zeros(BOX, (4, 5, 6), 3), Rgb())
    with pytest.raises(ValueError, match="the field is empty"):
        export_mesh(empty, tmp_path / f"a{suffix}")
    assert not list(tmp_path.iterdir())


def test_a_path_that_cannot_be_written_is_named(patch: Mesh, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match=r"cannot write .*file/a\.glb"):
        export_mesh(patch, tmp_path / "file" / "a.glb")


def test_a_failure_in_the_middle_keeps_the_old_files(textured: Mesh, tmp_path: Path, monkeypatch) -> None:
    export_mesh(textured, tmp_path / "a.obj")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {NOTE, "a.obj", "a.mtl", "a.png"}
    write, count = Path.write_bytes, []

    def fail_later(self: Path, data: bytes) -> int:
        count.append(self)
        if len(count) == 3:
            raise OSError("disk full")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", fail_later)
    other = Mesh(textured.vertices + 1, textured.faces, textured.normals, None, textured.uv, 1 - textured.texture)
    with pytest.raises(OSError, match="disk full"):
        export_mesh(other, tmp_path / "a.obj")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_photograph_beside_a_mesh_is_kept(textured: Mesh, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"photograph")
    with pytest.raises(ValueError, match=r"a\.png was not written by nfldm3d"):
        export_mesh(textured, tmp_path / "a.obj")
    assert (tmp_path / "a.png").read_bytes() == b"photograph" and not (tmp_path / "a.obj").exists()
    export_mesh(textured, tmp_path / "b.obj")
    export_mesh(textured, tmp_path / "b.obj")


def test_point_clouds_are_checked() -> None:
    with pytest.raises(ValueError, match="points hold NaN"):
        PointCloud(torch.full((2, 3), torch.nan), torch.zeros(2, 3), torch.zeros(2, 3))


def test_files_beside_a_name_with_blanks_are_kept(textured: Mesh, tmp_path: Path) -> None:
    (tmp_path / "my_scene.png").write_bytes(b"precious")
    with pytest.raises(ValueError, match=r"my_scene\.png was not written by nfldm3d"):
        export_mesh(textured, tmp_path / "my scene.obj")
    assert [path.name for path in tmp_path.iterdir()] == ["my_scene.png"]


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps names as text")
def test_names_that_are_no_text(textured: Mesh, tmp_path: Path) -> None:
    export_mesh(textured, tmp_path / "\udcff.obj")
    assert b"mtllib \xff.mtl" in (tmp_path / "\udcff.obj").read_bytes() and (tmp_path / "\udcff.mtl").is_file()
    with pytest.raises(ValueError, match="OpenUSD takes names in UTF-8 alone"):
        export_mesh(textured, tmp_path / "\udcff.usda")
