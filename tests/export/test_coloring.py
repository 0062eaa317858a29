"""Colours of surface points: what lies in empty voxels stays out, views are those of the capture; baked textures."""

import math
import sys

import pytest
import torch

from nfldm3d.appearance import Rgb, SphericalHarmonics
from nfldm3d.camera import Camera
from nfldm3d.export import MeshOptions, extract_mesh
from nfldm3d.export.baking import rasterize
from nfldm3d.export.coloring import choose_views, color_features, color_points, depends_on_view, spread_views
from nfldm3d.export.levels import choose_level
from nfldm3d.export.surface_samples import find_taps, read_density, read_surface_features
from nfldm3d.fields import VoxelField, surface_density
from nfldm3d.geometry import Box
from nfldm3d.scene import Scene

BOX = Box((-1.0, 2.0, 0.5), (1.5, 5.0, 2.5))
RESOLUTION = (40, 48, 31)
CENTER = torch.tensor((0.3, 3.4, 1.4))


def place_color(points: torch.Tensor) -> torch.Tensor:
    """A colour that says where in the box a point is."""
    return (points - torch.tensor(BOX.lower)) / torch.tensor(BOX.size)


def ball_field(features: torch.Tensor | None = None, strength: float = 10.0) -> VoxelField:
    """An opaque ball, sharp to a voxel; its features are its colours."""
    centers = VoxelField.zeros(BOX, RESOLUTION, 1).voxel_centers()
    depth = (0.7 - (centers - CENTER).norm(dim=-1)) / min(BOX.voxel_size(RESOLUTION))
    density = strength * surface_density(BOX.voxel_size(RESOLUTION)) * (depth + 0.5).clamp(0, 1)
    return VoxelField(density, place_color(centers) if features is None else features, BOX)


def test_density_reads_as_the_field_answers(generator: torch.Generator) -> None:
    field = VoxelField(torch.rand(5, 1, 4, generator=generator), torch.rand(5, 1, 4, 2, generator=generator), BOX)
    points = torch.rand(200, 3, generator=generator) * 3.5 + torch.tensor((-1.5, 1.5, 0.0))
    assert torch.allclose(read_density(field, points), field.query(points)[0], atol=1e-5)
    index, weight = find_taps(field, points)
    inside = BOX.contains(points)
    assert torch.allclose(weight.sum(-1), inside.float(), atol=1e-5)
    assert int(index.min()) >= 0 and int(index.max()) < field.density.numel()


def test_constant_features_come_back_constant(generator: torch.Generator) -> None:
    features = torch.tensor((0.25, -3.0, 7.0)).expand(*RESOLUTION, 3).contiguous()
    normals = torch.nn.functional.normalize(torch.randn(64, 3, generator=generator), dim=-1)
    points = CENTER + 0.7 * normals
    found = read_surface_features(ball_field(features), points, normals)
    assert torch.allclose(found, features[0, 0, 0].expand(64, 3), atol=1e-4)


@pytest.mark.parametrize("strength", [3.0, 30.0])
def test_colours_are_those_of_the_matter_whatever_empty_voxels_hold(
    strength: float, generator: torch.Generator
) -> None:
    field = ball_field(strength=strength)
    junk = torch.rand(field.features.shape, generator=generator)
    field = VoxelField(field.density, torch.where(field.density[..., None] > 0, field.features, junk), BOX)
    mesh = extract_mesh(Scene(field, Rgb()))
    assert mesh.colors is not None
    expected = place_color(mesh.vertices)
    assert float((mesh.colors - expected).abs().max()) < 1.1 * max(
        1.5 / n for n in RESOLUTION
    )  # the look goes up to 1.5 voxels deep
    assert float((mesh.colors - expected).abs().mean()) < 0.01


def test_a_thin_sheet_has_different_colours_on_its_two_sides() -> None:
    density, features = torch.zeros(RESOLUTION), torch.zeros(*RESOLUTION, 3)
    density[20:24] = 20 * surface_density(BOX.voxel_size(RESOLUTION))
    features[:22, ..., 0], features[22:, ..., 2] = 1.0, 1.0  # red towards -x, blue towards +x
    mesh = extract_mesh(Scene(VoxelField(density, features, BOX), Rgb()))
    assert mesh.colors is not None
    left, right = mesh.normals[:, 0] < -0.9, mesh.normals[:, 0] > 0.9
    assert float(mesh.colors[left, 0].min()) > 0.95 and float(mesh.colors[right, 2].min()) > 0.95


def view_dependent_scene(cameras: Camera | None) -> Scene:
    """A ball that is red seen along +x, cyan seen along -x, and grey from the other sides."""
    appearance = SphericalHarmonics(1)
    features = torch.zeros(*RESOLUTION, 12)
    features[..., 9], features[..., 10:12] = -0.8, 0.8  # the basis function of x is -0.4886 x
    return Scene(ball_field(features), appearance, cameras=cameras)


def test_without_cameras_every_point_is_seen_along_its_normal() -> None:
    scene = view_dependent_scene(None)
    normals = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0], [0, 1.0, 0]])
    colors = color_points(scene, CENTER + 0.7 * normals, normals)
    strength = 0.8 * math.sqrt(3 / (4 * math.pi))
    expected = torch.tensor(
        [[0.5 - strength, 0.5 + strength, 0.5 + strength], [0.5 + strength, 0.5 - strength, 0.5 - strength], [0.5] * 3]
    )
    assert torch.allclose(colors, expected, atol=1e-4)


def test_capture_cameras_decide_how_points_look() -> None:
    eye = torch.tensor((6.3, 6.4, 1.4))
    cameras = Camera.look_at(eye, CENTER, width=64, height=48, horizontal_fov_degrees=30.0).reshape(1)
    scene = view_dependent_scene(cameras)
    normals = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [-1.0, 0, 0]])
    points = CENTER + 0.7 * normals
    colors = color_points(scene, points, normals)
    for number in (0, 1):  # seen by the camera, at an angle
        direction = torch.nn.functional.normalize(points[number] - eye, dim=-1)
        expected = 0.5 + 0.8 * math.sqrt(3 / (4 * math.pi)) * float(direction[0])
        assert float(colors[number, 0]) == pytest.approx(expected, abs=1e-3)
    assert float(colors[2, 0]) == pytest.approx(0.5 + 0.8 * math.sqrt(3 / (4 * math.pi)), abs=1e-3)  # turned away


def test_views_blend_without_jumps() -> None:
    cameras = Camera.orbit((0.3, 3.4, 1.4), 4.0, views=40, width=64, height=48)
    angle = torch.linspace(0, 2 * math.pi, 4001)[:-1]
    normals = torch.stack((angle.cos(), angle.sin(), torch.zeros_like(angle)), dim=-1)
    points = CENTER + 0.7 * normals
    views, weights = choose_views(cameras, points, normals)
    assert views.shape == (4000, 3)
    assert torch.allclose(weights.sum(1), torch.ones(4000), atol=1e-5)
    eyes = cameras.centers[views]
    assert bool((((eyes - points[:, None]) * normals[:, None]).sum(-1)[weights > 0] > 0).all())
    mean = (weights[..., None] * eyes).sum(1)
    assert float((mean - mean.roll(1, 0)).norm(dim=-1).max()) < 0.03


def test_a_scene_with_no_views_is_coloured_like_one_without_cameras() -> None:
    scene = view_dependent_scene(Camera.orbit((0.0, 0.0, 0.0), 1.0, views=3)[:0])
    expected, found = extract_mesh(view_dependent_scene(None)), extract_mesh(scene)
    assert expected.colors is not None and found.colors is not None
    assert torch.allclose(found.colors, expected.colors)


def test_points_without_a_normal_are_seen_from_wherever_a_camera_is() -> None:
    cameras = Camera.look_at((6.0, 3.4, 1.4), (0.3, 3.4, 1.4)).reshape(1)
    assert float(choose_views(cameras, CENTER[None], torch.zeros(1, 3))[1]) == 1
    behind = Camera.look_at((6.0, 3.4, 1.4), (9.0, 3.4, 1.4)).reshape(1)
    assert float(choose_views(behind, CENTER[None], torch.zeros(1, 3))[1]) == 0
    scene = view_dependent_scene(behind)
    features = torch.zeros(1, 12)
    features[0, 6:9] = 0.5  # the basis function of z is 0.4886 z: seen from above, the colour is darker
    color = color_features(scene, features, CENTER[None], torch.zeros(1, 3))
    assert torch.allclose(color, torch.tensor(0.5 - 0.5 * math.sqrt(3 / (4 * math.pi))))


def test_what_stands_before_a_point_hides_it() -> None:
    """The wall behind the ball is red seen along +x, cyan along -x; the camera in front of it is hidden by the ball."""
    scene = view_dependent_scene(None)
    density = scene.field.density.clone()
    density[-4:] = 500.0
    features = scene.field.features
    eyes = torch.tensor([[-4.0, 3.4, 1.4], [0.9, 4.8, 1.5]])
    target = torch.tensor([[1.2, 3.4, 1.4]] * 2)
    cameras = Camera.look_at(eyes, target, width=64, height=48)
    scene = Scene(VoxelField(density, features, BOX), scene.appearance, cameras=cameras)
    point, normal = torch.tensor([[1.22, 3.4, 1.4]]), torch.tensor([[-1.0, 0.0, 0.0]])
    color = color_points(scene, point, normal)
    direction = torch.nn.functional.normalize(point[0] - eyes[1], dim=-1)
    expected = 0.5 + 0.8 * math.sqrt(3 / (4 * math.pi)) * float(direction[0])
    assert float(color[0, 0]) == pytest.approx(expected, abs=0.02)


def test_half_transparent_surfaces_look_as_they_are_rendered() -> None:
    """The mesh is opaque, so the background that shines through belongs to its colour."""
    density = torch.zeros(RESOLUTION)
    density[20:24] = 10.0  # absorbs about 1 - exp(-2.5)
    features = torch.full((*RESOLUTION, 3), 0.2)
    cameras = Camera.look_at((6.0, 3.4, 1.4), (0.3, 3.4, 1.4), width=64, height=48).reshape(1)
    field = VoxelField(density, features, BOX)
    scene = Scene(field, Rgb(), background=torch.tensor((1.0, 0.5, 0.0)), cameras=cameras)
    opacity = 1 - math.exp(-10 * 4 * 0.0625)
    color = color_points(scene, torch.tensor([[0.52, 3.4, 1.4]]), torch.tensor([[1.0, 0.0, 0.0]]))
    expected = opacity * 0.2 + (1 - opacity) * torch.tensor((1.0, 0.5, 0.0))
    assert torch.allclose(color[0], expected, atol=0.01)


def test_the_level_follows_the_softness_that_cameras_see() -> None:
    level = surface_density(BOX.voxel_size(RESOLUTION))
    cameras = Camera.orbit((0.3, 3.4, 1.4), 4.0, views=7, width=64, height=48)
    opaque = ball_field(strength=10.0)
    assert choose_level(Scene(opaque, Rgb()), opaque) == pytest.approx(level)
    assert 0.5 * level < choose_level(Scene(opaque, Rgb(), cameras=cameras), opaque) <= level  # some rays graze it
    soft = ball_field(strength=0.6)  # absorbs nearly all light, but over many voxels
    assert choose_level(Scene(soft, Rgb(), cameras=cameras), soft) == pytest.approx(0.2 * level, rel=0.25)
    thin = ball_field(strength=0.01)  # nothing to be seen
    assert choose_level(Scene(thin, Rgb(), cameras=cameras), thin) == pytest.approx(level)
    inner = Box((-1.0, 2.0, 0.6), (1.4, 4.9, 2.4))  # the ball belongs to another field
    assert choose_level(Scene(soft, Rgb(), cameras=cameras), soft, inner) == pytest.approx(level)
    assert len(extract_mesh(Scene(soft, Rgb(), cameras=cameras)).faces) > 1000


def test_only_some_appearances_depend_on_the_view() -> None:
    normals = torch.nn.functional.normalize(torch.ones(9, 3), dim=-1)
    features = torch.linspace(-1, 1, 9 * 12).view(9, 12)
    assert depends_on_view(SphericalHarmonics(1), features, normals)
    assert not depends_on_view(SphericalHarmonics(0), features[:, :3], normals)
    assert not depends_on_view(Rgb(12), features, normals)
    assert len(spread_views(Camera.orbit((0.0, 0.0, 0.0), 1.0, views=200))) == 64


def test_surroundings_colour_what_lies_in_them() -> None:
    outer = Box((-4.0, -1.0, -1.0), (4.0, 8.0, 6.0))
    around = VoxelField(torch.full((8, 9, 7), 5.0), torch.full((8, 9, 7, 3), 0.9), outer)
    scene = Scene(ball_field(torch.full((*RESOLUTION, 3), 0.2)), Rgb(), surroundings=(around,))
    points = torch.stack((CENTER, torch.tensor((-3.0, 0.0, 0.0))))
    colors = color_points(scene, points, torch.tensor([[1.0, 0.0, 0.0]] * 2))
    assert torch.allclose(colors, torch.tensor([[0.2] * 3, [0.9] * 3]), atol=1e-4)


def test_triangles_cover_the_texels_whose_centres_they_hold() -> None:
    square = torch.tensor([[2.0, 3.0], [9.0, 3.0], [9.0, 8.0], [2.0, 8.0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 0, 1]])  # the last one has no area
    texels = list(rasterize(square, faces))
    column, row, face, share = (torch.cat(parts) for parts in zip(*texels, strict=True))
    assert {(int(c), int(r)) for c, r in zip(column, row, strict=True)} == {
        (c, r) for c in range(2, 9) for r in range(3, 8)
    }
    centers = (share[..., None] * square[faces[face]]).sum(1)
    assert torch.allclose(centers, torch.stack((column, row), dim=-1) + 0.5, atol=1e-4)


def test_a_baked_texture_shows_each_place_in_its_colour() -> None:
    mesh = extract_mesh(Scene(ball_field(), Rgb()), options=MeshOptions(texture_size=256, max_faces=1000))
    assert mesh.texture is not None and mesh.uv is not None and len(mesh.faces) <= 1000
    assert mesh.texture.shape == (3, 256, 256)
    assert float(mesh.uv.min()) >= 0 and float(mesh.uv.max()) <= 1
    _, height, width = mesh.texture.shape
    middle = mesh.uv[mesh.faces].mean(1)  # (faces 2)
    row = ((1 - middle[:, 1]) * height).long().clamp(0, height - 1)
    column = (middle[:, 0] * width).long().clamp(0, width - 1)
    expected = place_color(mesh.vertices[mesh.faces].mean(1))
    assert float((mesh.texture[:, row, column].T - expected).abs().max()) < 0.06
    # bilinear filtering at a seam reads the neighbours: they hold colours of the surface as well
    corner = ((mesh.uv * torch.tensor((width, height))).floor() + 2).long()
    seam = mesh.texture[:, (height - corner[:, 1]).clamp(0, height - 1), corner[:, 0].clamp(0, width - 1)].T
    assert float((seam - place_color(mesh.vertices)).abs().max()) < 0.12
    assert str(mesh).endswith(f"with a texture of {width}x{height} pixels")


@pytest.mark.parametrize("package", ["xatlas", "fast_simplification"])
def test_a_missing_package_is_named_with_its_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"needs the package {package} .*pip install 'nfldm3d\[export\]'"):
        extract_mesh(Scene(ball_field(), Rgb()), options=MeshOptions(texture_size=64, max_faces=1000))
