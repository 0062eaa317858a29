"""Kaolin's cameras and meshes: round trips beside a stand-in too, the rest against Kaolin where it is installed."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from stand_in_kaolin import import_kaolin, provide_kaolin, same, stand_in

from nfldm3d.camera import Camera
from nfldm3d.export import Mesh
from nfldm3d.export.mesh import vertex_normals
from nfldm3d.interop.kaolin import from_kaolin_camera, from_kaolin_mesh, to_kaolin_camera, to_kaolin_mesh

TETRAHEDRON = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.5, 0.0], [0.0, 0.0, 2.0]])
FACES = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])


@pytest.fixture(scope="module")
def kaolin() -> ModuleType:
    return import_kaolin()


@pytest.fixture(params=["stand-in", "kaolin"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    provide_kaolin(request.param, monkeypatch)


@pytest.fixture
def cameras() -> Camera:
    """Non-square pictures, fx unlike fy, principal points far from the middle."""
    eyes = torch.tensor([[3.0, -2.0, 1.0], [0.5, 4.0, 2.5], [-3.0, 0.2, 0.1]])
    cameras = Camera.look_at(eyes, (0.1, 0.3, 0.2), width=37, height=23)
    focal = torch.tensor([[30.0, 41.0], [25.0, 28.0], [60.0, 55.0]])
    return replace(cameras, focal=focal, principal=torch.tensor([[11.0, 7.0], [20.3, 15.0], [40.0, -2.0]]))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (3, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cameras_return(either: None, cameras: Camera, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    camera = (cameras[: max(shape, default=1)] if shape else cameras[:1]).to(dtype).reshape(*shape)
    back = from_kaolin_camera(to_kaolin_camera(camera)).reshape(*shape)
    assert (back.width, back.height, back.focal.dtype) == (37, 23, dtype)
    for name in ("world_from_camera", "focal", "principal"):
        assert torch.allclose(getattr(back, name), getattr(camera, name), atol=1e-5, rtol=0)


def test_a_lens_without_effect_is_a_pinhole(either: None, cameras: Camera) -> None:
    assert from_kaolin_camera(to_kaolin_camera(replace(cameras, distortion=torch.zeros(3, 8)))).shape == (3,)


def test_gradients_reach_kaolins_parameters(either: None, cameras: Camera) -> None:
    theirs = to_kaolin_camera(cameras)
    theirs.intrinsics.params.requires_grad_()
    from_kaolin_camera(theirs).rays().directions.sum().backward()
    assert bool((theirs.intrinsics.params.grad != 0).any())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distortion": torch.full((3, 8), 0.01)}, "undistort"),
        ({"distortion": torch.zeros(3, 8), "lens": "fisheye"}, "undistort"),
    ],
)
def test_lenses_that_kaolin_lacks_are_refused(cameras: Camera, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_kaolin_camera(replace(cameras, **change))


@pytest.mark.parametrize(("near", "far"), [(0.0, 1.0), (2.0, 1.0), (1.0, float("inf")), (float("nan"), 1.0)])
def test_senseless_clipping_planes_are_refused(cameras: Camera, near: float, far: float) -> None:
    with pytest.raises(ValueError, match="0 < near < far"):
        to_kaolin_camera(cameras, near=near, far=far)


def test_no_camera_is_refused(cameras: Camera) -> None:
    with pytest.raises(ValueError, match="at least one camera"):
        to_kaolin_camera(cameras[:0])


def test_mirrored_cameras_are_refused(monkeypatch: pytest.MonkeyPatch, cameras: Camera) -> None:
    stand_in(monkeypatch)
    theirs = to_kaolin_camera(cameras)
    theirs.extrinsics.view_matrix[1, :3, 0] *= -1
    with pytest.raises(ValueError, match="camera 1 is mirrored"):
        from_kaolin_camera(theirs)


def test_rays_are_kaolins(kaolin: ModuleType, cameras: Camera) -> None:
    theirs = to_kaolin_camera(cameras, near=0.25, far=7.5)
    assert (theirs.near, theirs.far, theirs.width, theirs.height) == (0.25, 7.5, 37, 23)
    for number, camera in enumerate(cameras):
        origins, directions = kaolin.render.camera.generate_pinhole_rays(theirs[number])
        assert torch.allclose(camera.rays().origins.reshape(-1, 3), origins, atol=1e-5, rtol=0)
        assert torch.allclose(camera.rays().directions.reshape(-1, 3), directions, atol=1e-5, rtol=0)


def test_projections_are_kaolins(kaolin: ModuleType, cameras: Camera, generator: torch.Generator) -> None:
    points = torch.rand(20, 3, generator=generator) - 0.5
    seen = to_kaolin_camera(cameras).transform(points)  # x to the right and y up, both in [-1, 1] within the picture
    pixels, _ = cameras.project(points.expand(3, 20, 3))
    expected = (pixels / torch.tensor([37.0, 23.0]) * 2 - 1) * torch.tensor([1.0, -1.0])
    assert torch.allclose(seen[..., :2], expected, atol=1e-5)


def test_kaolins_own_cameras_arrive(kaolin: ModuleType) -> None:
    theirs = kaolin.render.camera.Camera.from_args(
        eye=torch.tensor([[2.0, 1.0, 0.5], [1.0, -3.0, 2.0]]), at=torch.zeros(2, 3),
        up=torch.tensor([[0.0, 0.0, 1.0]]).expand(2, 3), fov=0.9, width=31, height=17, x0=3.0, y0=-2.0,
    )  # fmt: skip
    ours = from_kaolin_camera(theirs)
    assert torch.allclose(ours.centers, torch.tensor([[2.0, 1.0, 0.5], [1.0, -3.0, 2.0]]), atol=1e-5)
    assert ours.principal[0].tolist() == [15.5 + 3, 8.5 + 2]
    _, directions = kaolin.render.camera.generate_pinhole_rays(theirs[1])
    assert torch.allclose(ours[1].rays().directions.reshape(-1, 3), directions, atol=1e-5)
    with pytest.raises(ValueError, match="lens_type='ortho'"):
        from_kaolin_camera(
            kaolin.render.camera.Camera.from_args(
                view_matrix=torch.eye(4), width=8, height=8, fov_distance=1.0, near=0.1, far=9.0
            )
        )


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(TETRAHEDRON, FACES, vertex_normals(TETRAHEDRON, FACES), colors=TETRAHEDRON / 2)


def test_meshes_return(either: None, mesh: Mesh) -> None:
    assert same(from_kaolin_mesh(to_kaolin_mesh(mesh)), mesh)
    texture = torch.linspace(0, 1, 3 * 4 * 6).view(3, 4, 6)
    textured = replace(mesh, colors=None, uv=TETRAHEDRON[:, :2] / 2, texture=texture, faces=FACES.int())
    assert same(from_kaolin_mesh(to_kaolin_mesh(textured)), replace(textured, faces=FACES))


def test_seams_split_vertices(either: None, mesh: Mesh) -> None:
    """Vertex 0 takes one texture coordinate in the first face and another one in the others."""
    theirs = to_kaolin_mesh(replace(mesh, uv=TETRAHEDRON[:, :2] / 2, texture=torch.rand(3, 4, 4)))
    theirs.uvs = torch.cat((theirs.uvs, torch.tensor([[0.75, 0.25]])))
    theirs.face_uvs_idx = FACES.clone()
    theirs.face_uvs_idx[0, 0] = 4
    ours = from_kaolin_mesh(theirs)
    assert len(ours.vertices) == 5
    assert ours.uv is not None and ours.colors is not None
    assert torch.equal(ours.vertices[ours.faces], TETRAHEDRON[FACES])
    assert torch.equal(ours.uv[ours.faces], theirs.uvs[theirs.face_uvs_idx])
    assert torch.equal(ours.normals[ours.faces], mesh.normals[FACES])
    assert torch.equal(ours.colors[ours.faces], TETRAHEDRON[FACES] / 2)


def test_colors_of_faces_split_vertices(either: None, mesh: Mesh) -> None:
    theirs = to_kaolin_mesh(replace(mesh, colors=None))
    theirs.face_colors = torch.eye(4)[:, None, :3].expand(4, 3, 3).contiguous()
    ours = from_kaolin_mesh(theirs)
    assert len(ours.vertices) == 12 and ours.colors is not None
    assert torch.equal(ours.colors[ours.faces], theirs.face_colors)


def test_missing_normals_are_computed(either: None, mesh: Mesh) -> None:
    theirs = to_kaolin_mesh(mesh)
    del theirs.vertex_normals
    assert same(from_kaolin_mesh(theirs), mesh)
    theirs.normals, theirs.face_normals_idx = torch.eye(3), torch.zeros_like(FACES)
    assert torch.equal(from_kaolin_mesh(theirs).normals, torch.eye(3)[:1].expand(4, 3))
    theirs.face_normals_idx[1, 1] = -1
    assert same(from_kaolin_mesh(theirs), mesh)


def test_a_transform_moves_the_mesh(either: None, mesh: Mesh) -> None:
    theirs = to_kaolin_mesh(mesh)
    theirs.transform = torch.tensor([[1.0, 0, 0, 5], [0, 1, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]])
    assert torch.allclose(from_kaolin_mesh(theirs).vertices, TETRAHEDRON + torch.tensor([5.0, 6.0, 7.0]))


def test_bad_meshes_are_refused(either: None, mesh: Mesh) -> None:
    theirs = to_kaolin_mesh(replace(mesh, uv=TETRAHEDRON[:, :2] / 2, texture=torch.rand(3, 4, 4)))
    theirs.materials = theirs.materials * 2
    with pytest.raises(ValueError, match="one material, got 2"):
        from_kaolin_mesh(theirs)
    theirs.materials = theirs.materials[:1]
    theirs.face_uvs_idx = torch.full_like(FACES, -1)
    with pytest.raises(ValueError, match="no texture coordinates"):
        from_kaolin_mesh(theirs)
    theirs.faces = FACES.repeat(1, 2)[:, :4]
    with pytest.raises(ValueError, match="needs triangles"):
        from_kaolin_mesh(theirs)
    with pytest.raises(ValueError, match="needs a single mesh"):
        from_kaolin_mesh(type(theirs)(TETRAHEDRON.expand(2, 4, 3), FACES))


@pytest.mark.parametrize("placeholder", [True, False])
def test_a_missing_kaolin_says_how_to_get_it(
    placeholder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cameras: Camera, mesh: Mesh
) -> None:
    """The package of this name on PyPI can be imported, and is empty."""
    for name in [name for name in sys.modules if name.split(".")[0] == "kaolin"]:
        monkeypatch.delitem(sys.modules, name)
    if placeholder:
        (tmp_path / "kaolin").mkdir()
        (tmp_path / "kaolin" / "__init__.py").touch()
        monkeypatch.syspath_prepend(tmp_path)
    else:
        monkeypatch.setitem(sys.modules, "kaolin", None)
    for adapter, item in ((to_kaolin_camera, cameras), (to_kaolin_mesh, mesh)):
        with pytest.raises(ImportError, match=r"this needs NVIDIA Kaolin.*empty placeholder.*pip install kaolin -f"):
            adapter(item)
    sys.modules.pop("kaolin")  # not to be mistaken for the real one later
