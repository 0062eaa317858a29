"""Laws of rendering: closed forms, invariance under rigid motion, nesting, chunking, memory."""

import math
from dataclasses import replace

import pytest
import torch

from nfldm3d import Box, Camera, EnvironmentMap, Rgb, Scene, SphericalHarmonics, VoxelField
from nfldm3d.appearance import spherical_harmonics
from nfldm3d.rendering import composite, render

BOX = Box((-1.0, 0.5, 2.0), (2.0, 2.5, 3.0))


def blob_field(generator, channels=3, resolution=(15, 10, 6), box=BOX):
    density = torch.rand(resolution, generator=generator) * 3
    density[torch.rand(resolution, generator=generator) < 0.6] = 0
    return VoxelField(density, torch.rand(*resolution, channels, generator=generator), box)


def cameras(views=2, width=20, height=13, target=BOX.center):
    return Camera.orbit(target, 4.0, views=views, width=width, height=height, elevation_degrees=20.0)


def test_uniform_slab_follows_beer_lambert():
    field = VoxelField(torch.full((4, 5, 6), 0.7), torch.ones(4, 5, 6, 3), Box((0, 0, 0), (2, 50, 60)))
    camera = Camera.look_at((-3.0, 25.0, 30.0), (1.0, 25.0, 30.0), width=1, height=1, horizontal_fov_degrees=0.01)
    picture = render(Scene(field, Rgb()), camera, step_in_voxels=0.125)
    assert picture.opacity.item() == pytest.approx(1 - math.exp(-0.7 * 2), abs=1e-4)
    assert picture.image[:, 0, 0].tolist() == pytest.approx([1 - math.exp(-1.4)] * 3, abs=1e-4)
    mean = 1 / 0.7 - 2 * math.exp(-1.4) / (1 - math.exp(-1.4))  # of an exponential cut at 2 m
    assert picture.depth.item() == pytest.approx(3 + mean, abs=1e-2)


def test_background_shows_where_nothing_absorbs(generator):
    scene = Scene(VoxelField.zeros(BOX, (3, 4, 5), 3), Rgb(), torch.tensor([0.2, 0.4, 0.6]))
    picture = render(scene, cameras())
    torch.testing.assert_close(picture.image, torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1).expand_as(picture.image))
    assert picture.depth.abs().max() == 0 and picture.opacity.max() == 0


def test_environment_map_is_seen_in_the_direction_of_each_ray():
    sky = EnvironmentMap(torch.zeros(8, 16, 3))
    sky.image[:4, :, 2] = 1  # upper half is blue
    scene = Scene(VoxelField.zeros(BOX, (2, 2, 2), 3), Rgb(), sky)
    up = Camera.look_at(BOX.center, (BOX.center[0], BOX.center[1] + 1e-3, 9.0), width=3, height=2)
    assert render(scene, up).image[2].min() > 0.99
    down = Camera.look_at(BOX.center, (BOX.center[0], BOX.center[1] + 1e-3, -9.0), width=3, height=2)
    assert render(scene, down).image[2].max() < 0.01


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_rigid_motion_of_scene_and_camera_leaves_the_image_unchanged(generator, quarter_turns):
    field = blob_field(generator, channels=12)
    field = replace(field, features=field.features - 0.5)
    scene = Scene(field, SphericalHarmonics(1))
    angle = quarter_turns * math.pi / 2
    rotation = torch.tensor(
        [[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0], [0.0, 0.0, 1.0]]
    ).round()
    motion = torch.eye(4)
    motion[:3, :3], motion[:3, 3] = rotation, torch.tensor([0.3, -2.0, 1.0])
    corners = torch.tensor([field.box.lower, field.box.upper]) @ rotation.T + motion[:3, 3]
    moved = VoxelField(
        torch.rot90(field.density, quarter_turns, (0, 1)).contiguous(),
        torch.rot90(field.features, quarter_turns, (0, 1)).contiguous(),
        Box.around(corners),
    )
    turned = Scene(moved, scene.appearance.moved(motion))
    here, there = render(scene, cameras()), render(turned, cameras().transformed(motion))
    for name in ("image", "opacity", "depth"):
        torch.testing.assert_close(getattr(there, name), getattr(here, name), atol=2e-4, rtol=1e-3)


def test_surroundings_are_hidden_inside_the_box_and_seen_outside(generator):
    inner = blob_field(generator)
    outer = blob_field(generator, box=BOX.scaled(2.0))
    both = Scene(inner, Rgb(), None, (outer,))
    view = cameras(views=3)
    picture = render(both, view)
    points = outer.voxel_centers()
    hollow = replace(outer, density=outer.density * ~BOX.contains(points))
    again = render(replace(both, surroundings=(hollow,)), view)
    assert (picture.image - again.image).abs().mean() < 0.05  # only voxels across the border differ
    alone = render(Scene(inner, Rgb()), view)
    assert (picture.opacity >= alone.opacity - 1e-3).all()
    assert (picture.opacity - alone.opacity).mean() > 0.05


def test_pieces_of_a_uniform_medium_compose_to_the_whole():
    inner = VoxelField(torch.full((8, 8, 8), 0.3), torch.full((8, 8, 8, 3), 0.25), Box((-1, -1, -1), (1, 1, 1)))
    outer = replace(inner, box=inner.box.scaled(2.0))
    view = cameras(target=(0.0, 0.0, 0.0), views=5)
    nested = render(Scene(inner, Rgb(), None, (outer,)), view, step_in_voxels=0.25)
    whole = render(Scene(outer, Rgb()), view, step_in_voxels=0.25)
    torch.testing.assert_close(nested.opacity, whole.opacity, atol=0.02, rtol=0.02)
    torch.testing.assert_close(nested.image, whole.image, atol=0.02, rtol=0.02)


def test_chunks_change_nothing(generator):
    scene = Scene(blob_field(generator), Rgb(), torch.ones(3))
    whole = render(scene, cameras(), with_normals=True, with_features=True)
    pieces = render(scene, cameras(), with_normals=True, with_features=True, rays_per_chunk=45)
    for name in ("image", "opacity", "distance", "depth", "normals", "features"):
        torch.testing.assert_close(getattr(pieces, name), getattr(whole, name), atol=1e-5, rtol=1e-4)


def test_batch_axes_follow_the_camera(generator):
    scene = Scene(blob_field(generator), Rgb())
    flat = cameras(views=6)
    picture = render(scene, flat.reshape(2, 3))
    assert picture.image.shape == (2, 3, 3, 13, 20) and picture.depth.shape == (2, 3, 13, 20)
    torch.testing.assert_close(picture.image.flatten(0, 1), render(scene, flat).image)


def test_normals_of_a_wall_face_the_camera():
    density = torch.zeros(12, 9, 7)
    density[6:] = 80.0
    scene = Scene(VoxelField(density, torch.ones(12, 9, 7, 3), Box((0, 0, 0), (3, 2, 1))), Rgb())
    camera = Camera.look_at((-2.0, 1.0, 0.5), (3.0, 1.0, 0.5), width=5, height=4, horizontal_fov_degrees=15.0)
    normals = render(scene, camera, with_normals=True).normals
    assert normals is not None
    torch.testing.assert_close(normals, torch.tensor([-1.0, 0, 0]).view(3, 1, 1).expand_as(normals), atol=1e-3, rtol=0)


def test_depth_is_measured_along_the_optical_axis():
    density = torch.zeros(64, 8, 8)
    density[32:] = 500.0
    scene = Scene(VoxelField(density, torch.ones(64, 8, 8, 3), Box((0, -4, -4), (4, 4, 4))), Rgb())
    camera = Camera.look_at((-1.0, 0.0, 0.0), (1.0, 0.0, 0.0), width=9, height=7, horizontal_fov_degrees=70.0)
    picture = render(scene, camera)
    torch.testing.assert_close(picture.depth, torch.full_like(picture.depth, 3.0), atol=0.06, rtol=0)
    assert picture.distance[0, 0] > picture.depth[0, 0] * 1.2


def test_gradients_reach_density_features_and_background(generator):
    field = blob_field(generator)
    density, features = field.density.requires_grad_(), field.features.requires_grad_()
    color = torch.rand(3, generator=generator).requires_grad_()
    picture = render(Scene(VoxelField(density, features, BOX), Rgb(), color), cameras())
    picture.image.square().mean().backward()
    for tensor in (density, features, color):
        assert tensor.grad is not None and torch.isfinite(tensor.grad).all() and tensor.grad.abs().sum() > 0


def test_feature_background_passes_through_the_appearance(generator):
    direction = torch.nn.functional.normalize(torch.tensor([0.3, -0.5, 0.8]), dim=0)
    code = torch.rand(12, generator=generator) - 0.5
    scene = Scene(VoxelField.zeros(BOX, (2, 2, 2), 12), SphericalHarmonics(1), code)
    eye = torch.tensor([9.0, 9.0, 9.0])
    camera = Camera.look_at(eye, eye + direction, width=1, height=1, horizontal_fov_degrees=1.0)
    expected = (0.5 + spherical_harmonics(direction, 1) @ code.view(4, 3)).clamp(0, 1)
    torch.testing.assert_close(render(scene, camera).image[:, 0, 0], expected, atol=1e-4, rtol=1e-4)


def test_memory_does_not_grow_with_samples_along_a_ray(generator):
    scene = Scene(blob_field(generator), Rgb())
    rays = cameras(views=1, width=40, height=30)[0].rays().reshape(-1)

    class Allocations(torch.utils._python_dispatch.TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                self.largest = max(self.largest, result.untyped_storage().nbytes())
            return result

    with Allocations() as counted:
        composite(scene.levels, rays, step_in_voxels=0.01)  # some 2000 samples a ray
    assert counted.largest < len(rays) * 100 * 4


@pytest.mark.parametrize("step", [0.0, -1.0, 9.0])
def test_absurd_steps_are_refused(generator, step):
    with pytest.raises(ValueError, match="step_in_voxels"):
        render(Scene(blob_field(generator), Rgb()), cameras(), step_in_voxels=step)


@pytest.mark.parametrize("name", ["world_from_camera", "focal", "principal"])
def test_cameras_of_no_numbers_are_refused(generator, name):
    camera = cameras()
    broken = replace(camera, **{name: getattr(camera, name).clone().index_fill_(0, torch.tensor([1]), math.nan)})
    with pytest.raises(ValueError, match=f"cannot be rendered: {name} holds NaN"):
        render(Scene(blob_field(generator), Rgb()), broken)


def test_scenes_render_and_export_themselves(generator, tmp_path):
    field = blob_field(generator)
    scene, camera = Scene(replace(field, density=4 * field.density), Rgb()), cameras()
    picture = scene.render(camera, with_normals=True)
    expected = render(scene, camera, with_normals=True)
    assert torch.equal(picture.image, expected.image) and torch.equal(picture.normals, expected.normals)
    assert repr(picture) == "Rendering (2,): image, opacity, distance, depth, normals of 20x13 pixels, on cpu"
    assert repr(scene) == str(scene) and "VoxelField 15x10x6 voxels x 3 channels" in repr(scene)
    for name in ("a.ply", "a.nvdb"):
        scene.export(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 0
    with pytest.raises(ValueError, match=r"unknown format '.stl'; use one of .glb .* .vdb, or save\(\)"):
        scene.export(tmp_path / "a.stl")


def test_one_view_is_what_it_is_among_several(generator):
    scene, camera = Scene(blob_field(generator), Rgb()), cameras(views=3)
    several = render(scene, camera, with_normals=True, with_features=True, rays_per_chunk=60)
    for number, (one, shape) in enumerate(((camera[:1], (1,)), (camera[1], ()), (camera[[2]], (1,)))):
        alone = render(scene, one, with_normals=True, with_features=True, rays_per_chunk=100)
        for name in ("image", "opacity", "distance", "depth", "normals", "features"):
            found, expected = vars(alone)[name], vars(several)[name][number]
            assert found.is_contiguous() and found.equal(expected.expand(*shape, *expected.shape)), name
