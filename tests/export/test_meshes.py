"""Meshing: closed forms of spheres, slabs and solid boxes; marching cubes against Warp's and scikit-image's."""

import math

import numpy as np
import pytest
import torch

from nfldm3d.appearance import Rgb
from nfldm3d.export import Mesh, MeshOptions, extract_mesh
from nfldm3d.export.marching_cubes import marching_cubes
from nfldm3d.export.mesh import vertex_normals
from nfldm3d.fields import VoxelField, surface_density
from nfldm3d.geometry import Box
from nfldm3d.scene import Scene

BOX = Box((-1.0, 2.0, 0.5), (1.5, 5.0, 2.5))
RESOLUTION = (40, 48, 31)  # voxels of 0.0625 x 0.0625 x 0.0645 m
CENTER = torch.tensor((0.3, 3.4, 1.4))
RADIUS = 0.7


def scene_of(density: torch.Tensor, box: Box = BOX, surroundings: tuple[VoxelField, ...] = ()) -> Scene:
    return Scene(VoxelField(density, torch.full((*density.shape, 3), 0.5), box), Rgb(), surroundings=surroundings)


def centers_of(box: Box, resolution: tuple[int, int, int]) -> torch.Tensor:
    return VoxelField.zeros(box, resolution, 1).voxel_centers()


def ball(box: Box = BOX, resolution: tuple[int, int, int] = RESOLUTION, center=CENTER, radius=RADIUS) -> torch.Tensor:
    """A density that falls linearly with the radius and is the default level on the sphere."""
    level = surface_density(box.voxel_size(resolution))
    distance = (centers_of(box, resolution) - center).norm(dim=-1)
    return level * (1 + (radius - distance) / 0.2).clamp(0, 3)


def volume_of(mesh: Mesh) -> float:
    a, b, c = mesh.vertices.double()[mesh.faces].unbind(1)
    return float((a * torch.linalg.cross(b, c)).sum() / 6)


def is_closed(faces: torch.Tensor) -> bool:
    """Whether every directed edge has its opposite."""
    edges = torch.cat((faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]))
    count = int(faces.max()) + 1
    forward, backward = edges[:, 0] * count + edges[:, 1], edges[:, 1] * count + edges[:, 0]
    return torch.equal(forward.sort().values, backward.sort().values)


def test_marching_cubes_gives_the_triangles_of_warp(generator: torch.Generator) -> None:
    wp = pytest.importorskip("warp")
    from nfldm3d.ops.launch import quiet_warp

    quiet_warp()
    values = torch.randn(9, 12, 7, generator=generator)
    vertices, faces = marching_cubes(values, 0.3)
    from warp.geometry import IsoSurfaceMarchingCubes

    theirs, indices = IsoSurfaceMarchingCubes.extract(wp.array(values.numpy(), dtype=float, device="cpu"), 0.3)
    triangles = vertices[faces.flip(1)].sum(1)
    expected = torch.from_numpy(theirs.numpy()[indices.numpy().reshape(-1, 3)]).sum(1)
    assert len(vertices) == len(theirs)
    assert torch.allclose(triangles, expected, atol=1e-5)


def test_marching_cubes_agrees_with_scikit_image(generator: torch.Generator) -> None:
    measure = pytest.importorskip("skimage.measure")
    values = ball()
    vertices, faces = marching_cubes(values, 12.0)
    theirs, their_faces, _, _ = measure.marching_cubes(values.numpy(), 12.0)
    assert len(vertices) == len(theirs)
    ours = np.sort(np.round(vertices.numpy().astype(np.float64), 4), axis=0)
    assert np.abs(ours - np.sort(np.round(theirs.astype(np.float64), 4), axis=0)).max() < 2e-4
    area = measure.mesh_surface_area(vertices.numpy(), faces.numpy())
    assert area == pytest.approx(measure.mesh_surface_area(theirs, their_faces), rel=2e-3)


def test_marching_cubes_is_closed_whatever_the_values(generator: torch.Generator) -> None:
    values = torch.nn.functional.pad(torch.randn(11, 8, 13, generator=generator), (1,) * 6, value=-1.0)
    _, faces = marching_cubes(values, 0.1)
    assert is_closed(faces)


def test_a_sphere_has_its_radius_its_volume_and_radial_normals() -> None:
    mesh = extract_mesh(scene_of(ball()))
    offset = mesh.vertices - CENTER
    voxel = max(BOX.voxel_size(RESOLUTION))
    assert float((offset.norm(dim=-1) - RADIUS).abs().max()) < 0.03 * voxel
    assert volume_of(mesh) == pytest.approx(4 / 3 * math.pi * RADIUS**3, rel=5e-3)
    assert is_closed(mesh.faces)
    assert float((mesh.normals * offset).sum(-1).min() / RADIUS) > 0.99
    flat = vertex_normals(mesh.vertices, mesh.faces)
    assert float((flat * mesh.normals).sum(-1).min()) > 0.95


def test_the_sphere_converges_with_the_square_of_the_voxel_size() -> None:
    def error(factor: int) -> float:
        resolution = (10 * factor, 12 * factor, 8 * factor)
        distance = (centers_of(BOX, resolution) - CENTER).norm(dim=-1)
        scene = scene_of((20 * (1 + RADIUS - distance)).clamp(min=0))
        mesh = extract_mesh(scene, options=MeshOptions(level=20.0))
        return float(((mesh.vertices - CENTER).norm(dim=-1) - RADIUS).square().mean().sqrt())

    assert error(1) / error(2) == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_plane_stands_where_the_linear_density_crosses_the_level(axis: int) -> None:
    place = BOX.lower[axis] + 0.6180 * BOX.size[axis]
    density = (30 + 40 * (centers_of(BOX, RESOLUTION)[..., axis] - place)).clamp(min=0)
    mesh = extract_mesh(scene_of(density), options=MeshOptions(level=30.0))
    assert float(mesh.vertices[:, axis].min()) == pytest.approx(place, abs=1e-5)
    assert float(mesh.vertices[:, axis].max()) == pytest.approx(BOX.upper[axis], abs=1e-6)
    area = volume_of(mesh) / (BOX.upper[axis] - place)
    assert area == pytest.approx(math.prod(BOX.size) / BOX.size[axis], rel=1e-4)


@pytest.mark.parametrize("resolution", [(4, 5, 3), (1, 3, 2), (1, 1, 1)])
def test_a_solid_field_meshes_to_its_box_with_sharp_edges(resolution: tuple[int, int, int]) -> None:
    mesh = extract_mesh(scene_of(torch.full(resolution, 50.0)))
    assert torch.allclose(mesh.vertices.amin(0), torch.tensor(BOX.lower), atol=1e-6)
    assert torch.allclose(mesh.vertices.amax(0), torch.tensor(BOX.upper), atol=1e-6)
    assert volume_of(mesh) == pytest.approx(math.prod(BOX.size), rel=1e-5)
    assert is_closed(mesh.faces)
    lower, upper = mesh.vertices == torch.tensor(BOX.lower), mesh.vertices == torch.tensor(BOX.upper)
    outward = torch.nn.functional.normalize(upper.float() - lower.float(), dim=-1)
    assert torch.allclose(mesh.normals, outward, atol=1e-6)


@pytest.mark.parametrize(
    "crop",
    [
        Box((-0.7, 2.33, 0.9), (1.13, 4.71, 2.01)),
        Box((0.31, 2.33, 0.9), (0.32, 4.71, 2.01)),  # thinner than a voxel
        Box((-3.0, 3.0, 0.0), (0.5, 9.0, 9.0)),  # reaches out of the field
    ],
)
def test_a_crop_cuts_exactly_at_the_box(crop: Box) -> None:
    mesh = extract_mesh(scene_of(torch.full(RESOLUTION, 50.0)), options=MeshOptions(box=crop))
    expected = crop.intersection(BOX)
    assert torch.allclose(mesh.vertices.amin(0), torch.tensor(expected.lower), atol=1e-6)
    assert torch.allclose(mesh.vertices.amax(0), torch.tensor(expected.upper), atol=1e-6)
    assert volume_of(mesh) == pytest.approx(math.prod(expected.size), rel=1e-5)


def test_a_crop_leaves_the_surface_inside_alone_and_walls_off_the_matter() -> None:
    whole = extract_mesh(scene_of(ball()))
    crop = Box((-1.0, 2.0, 0.5), (float(CENTER[0]) + 0.013, 5.0, 2.5))
    half = extract_mesh(scene_of(ball()), options=MeshOptions(box=crop))
    assert is_closed(half.faces)
    assert volume_of(half) == pytest.approx(volume_of(whole) * (0.5 + 0.75 * 0.013 / RADIUS), rel=2e-3)
    kept = whole.vertices[whole.vertices[:, 0] < crop.upper[0] - 0.07]
    assert float(torch.cdist(kept, half.vertices, compute_mode="donot_use_mm_for_euclid_dist").amin(1).max()) < 1e-5
    middle = (half.vertices[:, 0] == half.vertices[:, 0].max()) & ((half.vertices - CENTER).norm(dim=-1) < 0.6)
    assert bool(middle.any())
    assert torch.allclose(half.normals[middle], torch.tensor((1.0, 0.0, 0.0)).expand(int(middle.sum()), 3))


def test_the_default_level_is_where_one_voxel_absorbs_half() -> None:
    density = torch.full(RESOLUTION, 0.0)
    level = math.log(2) / min(BOX.voxel_size(RESOLUTION))
    density[10:20, 10:20, 10:20] = 1.01 * level
    assert len(extract_mesh(scene_of(density)).faces) > 100
    density[10:20, 10:20, 10:20] = 0.99 * level
    with pytest.raises(ValueError, match=r"no surface at the level .* from 0 to 10\.\d+/m; give a level below 10"):
        extract_mesh(scene_of(density))


def test_small_components_are_dropped_and_the_largest_never() -> None:
    density = ball()
    density[1, 1, 1] = 100.0
    assert (
        float(extract_mesh(scene_of(density), options=MeshOptions(min_component_share=0.0)).vertices[:, 0].min()) < -0.8
    )
    cleaned = extract_mesh(scene_of(density), options=MeshOptions(min_component_share=0.01))
    assert torch.equal(cleaned.vertices, extract_mesh(scene_of(ball())).vertices)
    assert len(extract_mesh(scene_of(density), options=MeshOptions(min_component_share=1.0)).faces) == len(
        cleaned.faces
    )


def test_decimation_keeps_the_budget_and_the_shape() -> None:
    mesh = extract_mesh(scene_of(ball()), options=MeshOptions(max_faces=800))
    assert 400 < len(mesh.faces) <= 800
    assert volume_of(mesh) == pytest.approx(4 / 3 * math.pi * RADIUS**3, rel=0.02)
    assert float((mesh.normals * (mesh.vertices - CENTER)).sum(-1).min() / RADIUS) > 0.9


def test_nodes_that_hold_the_level_exactly_leave_no_cracks(generator: torch.Generator) -> None:
    density = torch.randint(0, 3, (7, 9, 8), generator=generator) * 10.0
    mesh = extract_mesh(scene_of(density), options=MeshOptions(level=10.0, min_component_share=0.0))
    assert is_closed(mesh.faces)
    a, b, c = mesh.faces.unbind(1)
    assert not bool(((a == b) | (b == c) | (c == a)).any())


def test_surroundings_are_meshed_on_request_outside_the_inner_box() -> None:
    outer_box = Box((-4.0, -1.0, -1.0), (4.0, 8.0, 6.0))
    resolution = (32, 36, 28)
    outer = torch.maximum(
        ball(outer_box, resolution, torch.tensor((-2.5, 1.0, 3.0)), 1.0), ball(outer_box, resolution, CENTER, 0.5)
    )
    around = VoxelField(outer, torch.full((*resolution, 3), 0.5), outer_box)
    scene = scene_of(ball(), surroundings=(around,))
    focus = extract_mesh(scene)
    everything = extract_mesh(scene, options=MeshOptions(surroundings=True))
    assert torch.equal(everything.vertices[: len(focus.vertices)], focus.vertices)
    added = everything.vertices[len(focus.vertices) :]
    assert not bool(BOX.contains(added).any())  # what lies in the inner box is hidden
    assert float(((added - torch.tensor((-2.5, 1.0, 3.0))).norm(dim=-1) - 1.0).abs().max()) < 0.05
    assert torch.allclose(everything.colors, torch.tensor(0.5), atol=1e-5)


def test_empty_fields_and_boxes_outside_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the field is empty .* nothing to export"):
        extract_mesh(scene_of(torch.zeros(RESOLUTION)))
    outside = Box((7.0, 7.0, 7.0), (8.0, 8.0, 8.0))
    with pytest.raises(ValueError, match="lies outside the field's"):
        extract_mesh(scene_of(ball()), options=MeshOptions(box=outside))
    hollow = Box((-1.0, 2.0, 0.5), (-0.8, 2.2, 0.7))
    with pytest.raises(ValueError, match="the field is empty from"):
        extract_mesh(scene_of(ball()), options=MeshOptions(box=hollow))


@pytest.mark.parametrize(
    ("option", "value"), [("level", 0.0), ("min_component_share", 2.0), ("max_faces", 0), ("texture_size", 4)]
)
def test_senseless_options_are_refused(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=option):
        MeshOptions(**{option: value})


def test_meshes_that_no_program_could_read_are_refused() -> None:
    vertices, faces = torch.rand(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])
    with pytest.raises(ValueError, match="NaN or infinity"):
        Mesh(vertices.clone().fill_(torch.nan), faces, vertices)
    with pytest.raises(ValueError, match="name vertices 0 to 4, the mesh has 4"):
        Mesh(vertices, torch.tensor([[0, 1, 4]]), vertices)
    with pytest.raises(ValueError, match="needs both uv and texture"):
        Mesh(vertices, faces, vertices, uv=torch.rand(4, 2))
    assert str(Mesh(vertices, faces, vertices)) == "Mesh of 4 vertices and 2 faces, without colour"


@pytest.mark.cuda
def test_meshes_on_cuda_are_those_of_the_cpu() -> None:
    scene = scene_of(ball())
    ours, reference = extract_mesh(scene.to("cuda")), extract_mesh(scene)
    assert torch.equal(ours.faces.cpu(), reference.faces)
    assert torch.allclose(ours.vertices.cpu(), reference.vertices, atol=1e-6)
    assert ours.colors is not None and reference.colors is not None
    assert torch.allclose(ours.colors.cpu(), reference.colors, atol=1e-5)
