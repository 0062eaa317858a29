"""What open meshes keep: one looks into a house from above, a lone object stays whole, cameras lose nothing."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nfldm3d import Box, Camera, Rays, Rgb, Scene, VoxelField
from nfldm3d.export import Mesh, MeshOptions, export_mesh, extract_mesh
from nfldm3d.export.occluders import Occluder
from nfldm3d.export.viewpoints import find_viewpoints

VOXEL = 0.25
LOWER = torch.tensor((-1.0, 2.0, 0.5))
BOX = Box((-1.0, 2.0, 0.5), (9.0, 7.0, 4.5))  # 40 x 20 x 16 voxels
WEST, EAST = (slice(5, 18), slice(5, 15), slice(3, 11)), (slice(20, 35), slice(5, 15), slice(3, 11))
DOOR = (slice(18, 20), slice(8, 12), slice(3, 10))
FLOOR = 3 * VOXEL + 0.5
EYE = FLOOR + 1.3


def house() -> Scene:
    """Two rooms with a door between, a roof, ground that the box cuts; two cameras stand in the western room."""
    solid = torch.zeros(40, 20, 16)
    solid[:, :, :3] = 1
    solid[3:37, 3:17, :13] = 1
    for room in (WEST, EAST, DOOR):
        solid[room] = 0
    features = torch.full((40, 20, 16, 3), 0.2)
    features[..., :3, 0] = 0.9  # what is low is red
    eyes = torch.tensor(((1.0, 4.4, EYE), (2.2, 4.6, EYE)))
    ahead = torch.tensor(((1.0, 0.1, -0.1), (-1.0, 0.2, -0.3)))
    cameras = Camera.look_at(eyes, eyes + ahead, width=12, height=9, horizontal_fov_degrees=90.0)
    return Scene(VoxelField(solid * 40, features, BOX), Rgb(), cameras=cameras)


def normals_of(mesh: Mesh) -> tuple[Tensor, Tensor, Tensor]:
    """Middles, unit normals and areas of the faces."""
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    doubled = torch.linalg.cross(b - a, c - a)
    area = doubled.norm(dim=-1)
    return (a + b + c) / 3, doubled / area[:, None].clamp(min=1e-12), area / 2


def wall_area(mesh: Mesh) -> float:
    """Square metres of upright faces inside the house, without the uppermost row below the ceiling."""
    middle, normal, area = normals_of(mesh)
    lower, upper = LOWER + 4 * VOXEL, LOWER + VOXEL * torch.tensor((36.0, 16.0, 10.0))
    inside = ((middle > lower) & (middle < upper)).all(1)
    return float(area[inside & (normal[:, 2].abs() < 0.2)].sum())


def first_hits(mesh: Mesh, rays: Rays) -> tuple[Tensor, Tensor]:
    """Distance to the first face along each ray and the z of its normal (Moeller and Trumbore 1997)."""
    a, b, c = mesh.vertices.double()[mesh.faces].unbind(1)
    origins, directions = rays.origins.double()[:, None], rays.directions.double()[:, None]
    cross = torch.linalg.cross(directions, (c - a)[None].expand(len(rays.origins), -1, -1))
    scale = 1 / (cross * (b - a)).sum(-1)
    offset = origins - a
    u = (offset * cross).sum(-1) * scale
    other = torch.linalg.cross(offset, (b - a)[None].expand_as(offset))
    v, distance = (directions * other).sum(-1) * scale, ((c - a) * other).sum(-1) * scale
    hit = (u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9) & (distance > 1e-6)
    nearest = torch.where(hit, distance, torch.inf).min(1)
    return nearest.values, normals_of(mesh)[1][nearest.indices, 2]


def test_one_looks_into_the_rooms_of_a_house_from_above() -> None:
    mesh = extract_mesh(house())
    middle, normal, area = normals_of(mesh)
    floor = (normal[:, 2] > 0.9) & ((middle[:, 2] - FLOOR).abs() < VOXEL)
    rooms = (13 * 10 + 15 * 10 + 2 * 4) * VOXEL**2
    assert 0.7 * rooms < float(area[floor].sum()) < rooms  # edges are rounded by up to a voxel
    assert wall_area(mesh) > 0.95 * wall_area(extract_mesh(house(), options=MeshOptions(closed=True)))
    from_above = torch.tensor(((2.0, 4.0), (5.5, 5.0))) + torch.zeros(2, 2)
    down = Rays(
        torch.cat((from_above, torch.full((2, 1), 9.0)), dim=1),
        torch.tensor((0.0, 0.0, -1.0)).expand(2, 3).contiguous(),
    )
    assert torch.allclose(first_hits(mesh, down)[0].float(), torch.tensor(9.0 - FLOOR), atol=VOXEL / 2)


def test_nothing_of_the_hull_and_no_ceiling_is_left() -> None:
    mesh = extract_mesh(house())
    inside = Box(
        tuple((LOWER + VOXEL * torch.tensor((4.0, 4.0, 2.0))).tolist()),
        tuple((LOWER + VOXEL * torch.tensor((36.0, 16.0, 12.0))).tolist()),
    )
    assert bool(inside.contains(mesh.vertices).all())
    _, normal, _ = normals_of(mesh)
    assert float(normal[:, 2].min()) > -0.5
    covered = extract_mesh(house(), options=MeshOptions(ceilings=True))
    _, normal, area = normals_of(covered)
    assert float(area[normal[:, 2] < -0.9].sum()) > 0.7 * (13 * 10 + 15 * 10 + 2 * 4) * VOXEL**2


def test_faces_look_into_the_rooms_in_the_colours_seen_there() -> None:
    scene = house()
    mesh = extract_mesh(scene)
    middle, normal, _ = normals_of(mesh)
    free = scene.field.query_density(middle + 0.8 * VOXEL * normal) < 20
    assert float(free.float().mean()) > 0.99
    flat = mesh.normals[mesh.faces].mean(1)
    assert float((flat * normal).sum(-1).min()) > 0
    assert mesh.colors is not None and mesh.single_sided
    on_floor = (mesh.normals[:, 2] > 0.99) & (mesh.vertices[:, 2] < FLOOR + VOXEL / 2)
    assert float((mesh.colors[on_floor, 0] / mesh.colors[on_floor, 1]).min()) > 1.4
    high = mesh.vertices[:, 2] > EYE
    assert float((mesh.colors[high, 0] / mesh.colors[high, 1]).max()) < 1.01


def test_cameras_lose_nothing_but_ceilings() -> None:
    scene = house()
    assert scene.cameras is not None
    rays = scene.cameras.rays().reshape(-1)[::3]
    before, upwards = first_hits(extract_mesh(scene, options=MeshOptions(closed=True)), rays)
    after, _ = first_hits(extract_mesh(scene), rays)
    assert torch.equal(before[upwards > -0.25], after[upwards > -0.25])
    kept, _ = first_hits(extract_mesh(scene, options=MeshOptions(ceilings=True)), rays)
    assert torch.equal(before, kept)


def test_closed_meshes_are_those_of_scenes_without_cameras() -> None:
    scene = house()
    closed = extract_mesh(scene, options=MeshOptions(closed=True))
    anyhow = extract_mesh(replace(scene, cameras=None))
    assert not closed.single_sided and not anyhow.single_sided
    assert torch.equal(closed.faces, anyhow.faces)
    assert torch.equal(closed.vertices, anyhow.vertices) and torch.equal(closed.normals, anyhow.normals)
    assert len(closed.faces) > 2 * len(extract_mesh(scene).faces)


def ball(inner: float = 0.0) -> Scene:
    """A ball, hollow up to a radius, that cameras circle above its middle."""
    blank = VoxelField.zeros(BOX, (40, 20, 16), 3)
    distance = (blank.voxel_centers() - torch.tensor((4.1, 4.4, 2.3))).norm(dim=-1)
    density = 10 * (1 + 4 * (1.4 - distance)).clamp(0, 2) * (1 + 4 * (distance - inner)).clamp(0, 1)
    cameras = Camera.orbit((4.1, 4.4, 2.3), 6.0, views=6, elevation_degrees=50.0)
    return Scene(VoxelField(density, torch.full((40, 20, 16, 3), 0.5), BOX), Rgb(), cameras=cameras)


def test_a_lone_object_keeps_all_of_its_surface() -> None:
    for scene in (ball(), replace(ball(), cameras=None)):
        mesh = extract_mesh(scene)
        whole = extract_mesh(scene, options=MeshOptions(closed=True))
        assert torch.equal(mesh.vertices, whole.vertices) and torch.equal(mesh.faces, whole.faces)
        assert not mesh.single_sided


def test_hollows_that_nobody_looks_into_go() -> None:
    mesh, full = extract_mesh(ball(0.8)), extract_mesh(ball())
    assert len(extract_mesh(ball(0.8), options=MeshOptions(closed=True)).faces) > 100 + len(full.faces)
    assert len(mesh.faces) == len(full.faces)


def test_walls_at_the_box_stay_where_cameras_stand_beyond() -> None:
    scene = replace(ball(), cameras=Camera.orbit((4.1, 4.4, 2.3), 9.0, views=8, elevation_degrees=30.0))
    half = Box((-1.0, 2.0, 0.5), (9.0, 7.0, 2.3))
    mesh = extract_mesh(scene, options=MeshOptions(box=half))
    assert float(normals_of(mesh)[2][normals_of(mesh)[1][:, 2] > 0.999].sum()) > 6.0  # cameras look down on the cut
    upper = extract_mesh(scene, options=MeshOptions(box=Box((-1.0, 2.0, 2.3), BOX.upper)))
    _, normal, area = normals_of(upper)
    assert float(area[normal[:, 2] < -0.999].sum()) < 0.05  # nobody is below


def test_walkers_reach_what_cameras_see_but_stay_out_of_gaps() -> None:
    scene = house()
    assert scene.cameras is not None
    occluder = Occluder.inside(scene.field, 2.8, None)
    viewpoints = find_viewpoints(scene.cameras, occluder)
    assert viewpoints.height == pytest.approx(1.3, abs=VOXEL / 2)
    assert bool((viewpoints.places[:, 0] > 4.0).any())  # in the eastern room, where no camera is
    assert not bool(occluder.holds(viewpoints.places).any())
    solid = scene.field.density.clone()
    solid[DOOR] = 40
    solid[18:20, 9, 3:10] = 0  # a gap of one voxel
    walled = replace(scene.field, density=solid)
    there = find_viewpoints(scene.cameras, Occluder.inside(walled, 2.8, None)).places
    assert len(there) and not bool((there[:, 0] > 3.5).any())


def test_scenes_whose_cameras_stand_in_matter_stay_whole() -> None:
    scene = house()
    assert scene.cameras is not None
    buried = Camera.look_at((0.0, 4.0, 0.75), (1.0, 4.0, 0.75), width=8, height=8, horizontal_fov_degrees=60.0)
    mesh = extract_mesh(replace(scene, cameras=buried.reshape(1)))
    assert float(mesh.vertices[:, 2].max()) > 3.6 and not mesh.single_sided  # the roof is there


def test_surroundings_are_looked_at_past_the_field_in_focus() -> None:
    scene = house()
    outer_box = Box((-3.0, 0.0, 0.5), (11.0, 9.0, 6.5))
    outer = torch.zeros(28, 18, 12)
    outer[:, :, :2] = 40.0
    outer[26:] = 40.0  # a wall outside, which the house hides
    around = VoxelField(outer, torch.full((28, 18, 12, 3), 0.5), outer_box)
    scene = replace(scene, surroundings=(around,))
    with_all = extract_mesh(scene, options=MeshOptions(surroundings=True))
    assert torch.equal(with_all.faces, extract_mesh(scene).faces)
    open_air = replace(scene, field=replace(scene.field, density=scene.field.density * (torch.arange(16) < 3)))
    seen = extract_mesh(open_air, options=MeshOptions(surroundings=True))
    assert float(seen.vertices[:, 0].max()) == pytest.approx(10.0, abs=0.3)


@pytest.mark.parametrize("suffix", [".glb", ".usda"])
def test_files_say_whether_faces_show_from_both_sides(tmp_path, suffix: str) -> None:
    if suffix == ".usda":
        pytest.importorskip("pxr")
    triangle = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]), torch.eye(3), torch.eye(3))
    words = (b'"doubleSided":true', b'"doubleSided":false') if suffix == ".glb" else (b"ed = 1", b"ed = 0")
    for single, word in zip((False, True), words, strict=True):
        path = tmp_path / f"mesh{suffix}"
        export_mesh(replace(triangle, single_sided=single), path)
        assert word in path.read_bytes()


def test_baked_textures_show_what_is_seen() -> None:
    pytest.importorskip("xatlas")
    mesh = extract_mesh(house(), options=MeshOptions(texture_size=64, max_faces=400))
    assert mesh.texture is not None and mesh.single_sided
    assert float(normals_of(mesh)[1][:, 2].min()) > -0.8
