"""Edited scenes look as they must: moved ones the same, cut ones less, joined ones more."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from balls import Ball, make_ball

from nfldm3d import editing
from nfldm3d.appearance import EnvironmentMap, Rgb, SphericalHarmonics, spherical_harmonics
from nfldm3d.camera import Camera
from nfldm3d.editing import compose, crop, paste, resample, transform
from nfldm3d.fields import VoxelField, voxelize
from nfldm3d.geometry import Box, Rays, invert_pose, look_at, transform_points
from nfldm3d.image_decoder import ImageDecoder
from nfldm3d.rendering import render
from nfldm3d.scene import Scene

BOX = Box((-1.0, 2.0, 0.5), (3.0, 3.5, 4.5))  # 0.5 m voxels at (8, 3, 8)


def make_field(generator: torch.Generator, resolution=(8, 3, 8), channels=12, box=BOX) -> VoxelField:
    density = torch.rand(resolution, generator=generator) * 3
    density[torch.rand(resolution, generator=generator) < 0.4] = 0
    return VoxelField(density, 0.4 * torch.randn(*resolution, channels, generator=generator), box)


def make_scene(generator: torch.Generator) -> Scene:
    """View-dependent, with a sky, a shell of surroundings and cameras."""
    around = make_field(generator, (6, 5, 4), 12, Box((-5.0, -3.0, -2.0), (7.0, 7.0, 6.0)))
    around = replace(around, density=around.density * 0.1)
    sky = EnvironmentMap(torch.rand(8, 16, 3, generator=generator))
    cameras = Camera.orbit(BOX.center, 5.0, views=2, width=24, height=18)
    return Scene(make_field(generator), SphericalHarmonics(1), sky, (around,), cameras, True, {"name": "test"})


def smooth_scene(box: Box = BOX) -> Scene:
    """A soft ball whose colour changes slowly: what resampling may not disturb much."""
    field = VoxelField.zeros(box, box.resolution(0.125), 12)
    centers = field.voxel_centers()
    distance = (centers - torch.tensor(BOX.center)).norm(dim=-1)
    density = 4 * torch.sigmoid((0.5 - distance) / 0.1)
    density = torch.where(distance < 0.74, density - 4 * torch.sigmoid(torch.tensor(-2.4)), 0.0)
    features = torch.zeros(*field.resolution, 12)
    features[..., :3] = 0.5 * torch.sin(centers)
    features[..., 3:] = 0.1
    return Scene(VoxelField(density, features, box), SphericalHarmonics(1))


def quarter_turn(axis: int, turns: int) -> torch.Tensor:
    """With the rounding of sines and cosines, and a shift."""
    angle = turns * math.pi / 2
    a, b = [other for other in range(3) if other != axis]
    motion = torch.eye(4)
    motion[a, a] = motion[b, b] = math.cos(angle)
    motion[a, b], motion[b, a] = -math.sin(angle), math.sin(angle)
    motion[:3, 3] = torch.tensor([0.25, -3.0, 1.7])
    return motion


TILT = look_at(torch.tensor([0.3, 1.0, 0.8]), torch.tensor([0.1, -0.4, 2.0]))


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_quarter_turns_leave_the_picture_as_it_was(generator: torch.Generator, axis: int, turns: int) -> None:
    scene, motion = make_scene(generator), quarter_turn(axis, turns)
    # the sky is resampled and compared apart, unless the turn is about its axis
    scene = scene if axis == 2 else replace(scene, background=torch.tensor([0.2, 0.5, 0.7]))
    assert scene.cameras is not None
    moved = transform(scene, motion)
    before, after = render(scene, scene.cameras), render(moved, scene.cameras.transformed(motion))
    torch.testing.assert_close(after.image, before.image, atol=2e-4, rtol=0)
    torch.testing.assert_close(after.depth, before.depth, atol=2e-3, rtol=1e-3)
    assert moved.cameras is not None
    torch.testing.assert_close(
        moved.cameras.world_from_camera, scene.cameras.transformed(motion).world_from_camera, atol=1e-5, rtol=0
    )
    assert sorted(moved.field.density.flatten().tolist()) == sorted(scene.field.density.flatten().tolist())


def test_four_quarter_turns_are_none(generator: torch.Generator) -> None:
    scene = replace(make_scene(generator), background=None)
    motion = quarter_turn(0, 1)
    back = scene
    for _ in range(4):
        back = transform(back, motion @ torch.linalg.inv(quarter_turn(0, 0)))
    assert torch.equal(back.field.features, scene.field.features)
    assert back.box.lower == pytest.approx(scene.box.lower) and back.box.upper == pytest.approx(scene.box.upper)


def test_any_turn_leaves_the_picture_nearly_as_it_was() -> None:
    scene = smooth_scene()
    camera = Camera.look_at((4.0, 1.0, 4.0), BOX.center, width=40, height=30, horizontal_fov_degrees=40.0)
    before, after = render(scene, camera), render(transform(scene, TILT), camera.transformed(TILT))
    assert before.opacity.max() > 0.9
    assert (after.image - before.image).abs().mean() < 4e-3
    assert (after.image - before.image).abs().max() < 0.06


def test_a_turned_scene_keeps_its_surroundings_in_the_corners_of_its_new_box(generator: torch.Generator) -> None:
    """The box around the turned field is larger; what it gains was seen before, so it must be seen still."""
    scene = make_scene(generator)
    moved = transform(scene, TILT)
    points = torch.rand(500, 3, generator=generator) * torch.tensor(moved.box.size) + torch.tensor(moved.box.lower)
    old = transform_points(invert_pose(TILT), points)
    clear = Box.from_center(scene.box.center, (5.8, 3.3, 5.8))  # of voxels that mix both
    gained = ~clear.contains(old) & scene.surroundings[0].box.contains(old)
    assert gained.sum() > 50
    inner = moved.field.query(points[gained])[0]
    truth = scene.surroundings[0].query(old[gained])[0]
    assert torch.corrcoef(torch.stack((inner, truth)))[0, 1] > 0.9


def test_a_pure_shift_moves_the_box_alone(generator: torch.Generator) -> None:
    scene, motion = make_scene(generator), torch.eye(4)
    motion[:3, 3] = torch.tensor([1.0, 2.0, -3.0])
    moved = transform(scene, motion)
    assert torch.equal(moved.field.density, scene.field.density)
    assert moved.box.lower == pytest.approx((0.0, 4.0, -2.5))
    assert moved.appearance == scene.appearance and moved.metadata == scene.metadata and moved.metric == scene.metric
    assert isinstance(moved.background, EnvironmentMap) and isinstance(scene.background, EnvironmentMap)
    assert torch.allclose(moved.background.image, scene.background.image, atol=1e-5)


@pytest.mark.parametrize(
    "motion", [torch.eye(4) * 2, torch.eye(4) * math.nan, torch.diag(torch.tensor([1.0, 1, -1, 1]))]
)
def test_only_rigid_motions_are_taken(generator: torch.Generator, motion: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="rigid 4x4 matrix, this one"):
        transform(make_scene(generator), motion)


def test_a_crop_keeps_its_voxels(generator: torch.Generator) -> None:
    scene = make_scene(generator)
    cut = crop(scene, Box((0.1, 2.4, -9.0), (1.6, 9.0, 2.1)))  # nearest faces: 0.0 to 1.5, 2.5 to 3.5, 0.5 to 2.0
    assert cut.box.lower == pytest.approx((0.0, 2.5, 0.5)) and cut.box.upper == pytest.approx((1.5, 3.5, 2.0))
    assert torch.equal(cut.field.features, scene.field.features[2:5, 1:3, 0:3])
    assert torch.equal(cut.field.density, scene.field.density[2:5, 1:3, 0:3])
    assert cut.surroundings == () and cut.background is scene.background
    assert cut.field.density.untyped_storage().nbytes() == cut.field.density.nbytes, "the rest is let go"
    assert torch.equal(cut.field.query(cut.field.voxel_centers())[0], scene.field.query(cut.field.voxel_centers())[0])


def test_a_crop_to_everything_is_the_field(generator: torch.Generator) -> None:
    scene = make_scene(generator)
    whole = crop(scene, scene.box.scaled(3.0))
    assert torch.equal(whole.field.density, scene.field.density)
    assert whole.box.lower == pytest.approx(scene.box.lower) and whole.box.upper == pytest.approx(scene.box.upper)


def test_a_tiny_crop_keeps_one_voxel(generator: torch.Generator) -> None:
    for point in ((0.1, 2.1, 0.6), (2.9, 3.4, 4.4)):
        assert crop(make_scene(generator), Box.from_center(point, (0.01, 0.01, 0.01))).field.resolution == (1, 1, 1)


def test_a_crop_beside_the_scene_is_refused(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="cannot crop to .*choose a box that overlaps"):
        crop(make_scene(generator), Box((3.0, 2.0, 0.5), (4.0, 3.0, 4.0)))  # touches


def test_halving_the_resolution_takes_means(generator: torch.Generator) -> None:
    field = make_field(generator, (8, 4, 6), 12, Box((0.0, 0.0, 0.0), (4.0, 2.0, 3.0)))
    coarse = resample(Scene(field, SphericalHarmonics(1)), 1.0).field
    blocks = field.density.reshape(4, 2, 2, 2, 3, 2)
    assert coarse.resolution == (4, 2, 3)
    assert torch.allclose(coarse.density, blocks.mean((1, 3, 5)), atol=1e-5)
    weighted = (field.density[..., None] * field.features).reshape(4, 2, 2, 2, 3, 2, 12).mean((1, 3, 5))
    assert torch.allclose(coarse.features * coarse.density[..., None], weighted, atol=1e-4)


def test_resampling_reads_the_surroundings_beyond_the_box(generator: torch.Generator) -> None:
    scene = make_scene(generator)
    wide = resample(scene, 0.5, Box((-2.0, 1.0, -0.5), (4.0, 4.5, 5.5)))
    assert wide.field.resolution == (12, 7, 12)
    assert torch.allclose(wide.field.density[2:10, 2:5, 2:10], scene.field.density, atol=1e-4)
    outer = wide.field.voxel_centers()[0]
    assert torch.allclose(wide.field.density[0], scene.surroundings[0].query(outer)[0], atol=1e-5)
    assert wide.surroundings == scene.surroundings


def test_pasting_replaces_what_was_there(generator: torch.Generator) -> None:
    scene = make_scene(generator)
    patch = Scene(make_field(generator, (2, 1, 4), 12, Box((0.0, 2.5, 1.0), (1.0, 3.0, 3.0))), SphericalHarmonics(1))
    result = paste(scene, patch)
    assert torch.allclose(result.field.density[2:4, 1:2, 1:5], patch.field.density, atol=1e-5)
    assert torch.allclose(result.field.features[2:4, 1:2, 1:5], patch.field.features, atol=1e-4)
    untouched = torch.ones(8, 3, 8, dtype=torch.bool)
    untouched[2:4, 1:2, 1:5] = False
    assert torch.equal(result.field.density[untouched], scene.field.density[untouched])
    assert torch.equal(result.field.features[untouched], scene.field.features[untouched])
    assert result.surroundings == scene.surroundings
    cleared = paste(scene, replace(patch, field=VoxelField.zeros(scene.box, (1, 1, 1), 12)))
    assert cleared.field.density.abs().max() == 0


def test_pasting_beside_the_scene_is_refused(generator: torch.Generator) -> None:
    scene = make_scene(generator)
    far = Scene(make_field(generator, box=Box((9.0, 9.0, 9.0), (10.0, 10.0, 10.0))), SphericalHarmonics(1))
    with pytest.raises(ValueError, match="cannot paste into"):
        paste(scene, far)


def test_scenes_apart_are_both_there(generator: torch.Generator) -> None:
    """Two balls side by side: their joint picture is that of one over the other, and far rays see one alone."""
    first = crop(smooth_scene(), Box((0.0, 2.0, 1.5), (2.0, 3.5, 3.5)))
    shift = torch.eye(4)
    shift[:3, 3] = torch.tensor([0.0, 1.9, 0.125])
    second = transform(first, shift)
    both = compose(first, second)
    assert both.field.voxel_size == pytest.approx((0.125, 0.125, 0.125))
    camera = Camera.look_at((5.0, 3.7, 2.6), (1.0, 3.7, 2.6), width=48, height=24, horizontal_fov_degrees=60.0)
    pictures = [render(scene, camera).image for scene in (both, first, second)]
    assert (pictures[0] - (pictures[1] + pictures[2])).abs().max() < 0.02
    assert min(picture.max() for picture in pictures) > 0.3
    assert float(both.field.density.sum()) == pytest.approx(2 * float(first.field.density.sum()), rel=1e-3)


def test_two_media_in_one_place_add_up() -> None:
    box = Box((0.0, 0.0, 0.0), (1.0, 2.0, 3.0))
    red = VoxelField(torch.full((2, 2, 2), 3.0), torch.tensor([1.0, 0.0, 0.0]).expand(2, 2, 2, 3), box)
    blue = VoxelField(torch.full((3, 3, 3), 1.0), torch.tensor([0.0, 0.0, 1.0]).expand(3, 3, 3, 3), box)
    both = compose(Scene(red, Rgb()), Scene(blue, Rgb())).field
    assert both.resolution == (4, 4, 4), "divided until no coarser than the guest"
    assert torch.allclose(both.density, torch.full((4, 4, 4), 4.0), atol=1e-5)
    assert torch.allclose(both.features, torch.tensor([0.75, 0.0, 0.25]).expand(4, 4, 4, 3), atol=1e-5)


def test_the_host_keeps_its_voxels_when_its_grid_grows(generator: torch.Generator) -> None:
    scene = replace(make_scene(generator), surroundings=())
    guest = Scene(make_field(generator, (2, 2, 2), 12, Box((-2.3, 2.2, 4.0), (-1.2, 3.3, 5.2))), SphericalHarmonics(1))
    both = compose(scene, guest)
    assert both.field.resolution == (11, 3, 10)
    assert both.box.lower == pytest.approx((-2.5, 2.0, 0.5)) and both.box.upper == pytest.approx((3.0, 3.5, 5.5))
    assert torch.allclose(both.field.density[3:, :, :8], scene.field.density, atol=1e-5)
    assert torch.allclose(both.field.features[3:, :, :8], scene.field.features, atol=1e-4)


def test_an_empty_guest_changes_no_picture(generator: torch.Generator) -> None:
    scene = make_scene(generator)
    assert scene.cameras is not None
    nothing = Scene(VoxelField.zeros(Box((2.0, 2.0, 3.5), (4.0, 4.0, 5.5)), (4, 4, 4), 12), SphericalHarmonics(1))
    both = compose(scene, nothing)
    assert both.box != scene.box, "the surroundings moved into the grown field"
    before, after = render(scene, scene.cameras), render(both, scene.cameras)
    assert (after.image - before.image).abs().mean() < 0.01


def test_a_turned_guest_keeps_its_colours(generator: torch.Generator) -> None:
    """Its harmonics live in turned axes; composing brings them into those of the host."""
    host = Scene(VoxelField.zeros(BOX, (8, 3, 8), 12), SphericalHarmonics(1))
    field = make_field(generator, (8, 5, 8), 12, Box((-1.0, 2.0, 0.5), (3.0, 4.5, 4.5)))
    for axis in range(3):  # nothing at its faces, where the host's empty voxels come in
        field.density.index_fill_(axis, torch.tensor([0, field.resolution[axis] - 1]), 0.0)
    motion = quarter_turn(2, 1)
    motion[:3, 3] = torch.tensor([0.5, -3.0, 1.5])
    guest = transform(Scene(field, SphericalHarmonics(1)), motion)
    both = compose(host, guest)
    assert both.appearance == host.appearance != guest.appearance
    camera = Camera.look_at((6.0, -6.0, 5.0), guest.box.center, width=20, height=16)
    seen, expected = (render(scene, camera, step_in_voxels=0.05).image for scene in (both, guest))
    torch.testing.assert_close(seen, expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_harmonics_change_their_frame(generator: torch.Generator, degree: int) -> None:
    turned = SphericalHarmonics(degree).rotated(TILT[:3, :3])
    features = torch.randn(5, 4, turned.channels, generator=generator, dtype=torch.float64)
    directions = torch.nn.functional.normalize(torch.randn(5, 4, 3, generator=generator).double(), dim=-1)
    plain = SphericalHarmonics(degree)
    changed = turned.change_frame(features, plain.frame)
    rays, opacity = Rays(torch.zeros_like(directions), directions), torch.ones(5, 4).double()
    assert torch.allclose(plain.image(changed, opacity, rays), turned.image(features, opacity, rays), atol=1e-6)
    assert spherical_harmonics(directions, degree).shape[-1] * 3 == turned.channels


@pytest.mark.parametrize("edit", [compose, paste])
def test_different_appearances_are_not_mixed(generator: torch.Generator, edit) -> None:
    scene = Scene(make_field(generator), SphericalHarmonics(1))
    for other in (Rgb(12), SphericalHarmonics(0)):
        wrong = Scene(make_field(generator, channels=other.channels), other)
        with pytest.raises(ValueError, match="share one appearance, got SphericalHarmonics.*fit both alike"):
            edit(scene, wrong)


def test_a_guest_outside_the_surroundings_is_refused(generator: torch.Generator) -> None:
    far = Scene(make_field(generator, box=Box((20.0, 20.0, 20.0), (24.0, 21.5, 24.0))), SphericalHarmonics(1))
    with pytest.raises(ValueError, match="do not enclose"):
        compose(make_scene(generator), far)


def test_edits_leave_their_inputs_alone(generator: torch.Generator) -> None:
    scene = make_scene(generator)
    before = scene.field.density.clone(), scene.field.features.clone()
    patch = Scene(make_field(generator, box=Box((0.0, 2.5, 1.0), (1.0, 3.0, 3.0))), SphericalHarmonics(1))
    for result in (
        crop(scene, BOX),
        resample(scene, 0.5),
        paste(scene, patch),
        compose(scene, patch),
        transform(scene, torch.eye(4)),
    ):
        result.field.density.add_(1)
        result.field.features.add_(1)
        assert torch.equal(scene.field.density, before[0]) and torch.equal(scene.field.features, before[1])


def test_large_grids_are_filled_piece_by_piece(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene(generator)
    whole = resample(scene, 0.3)
    monkeypatch.setattr(editing, "POINTS_AT_ONCE", 100)
    pieces = resample(scene, 0.3)
    assert torch.equal(whole.field.density, pieces.field.density)
    assert torch.equal(whole.field.features, pieces.field.features)


def ball_scene(**changes) -> Scene:
    """A field without a grid, in a box that holds no whole number of voxels' doubles."""
    return Scene(replace(make_ball(**changes), voxel_size=(0.1, 0.11, 0.08)), Rgb())


def test_other_fields_are_cropped_as_their_voxels() -> None:
    scene, box = ball_scene(), Box((0.1, 1.7, -0.3), (0.9, 9.0, 0.7))
    cut, same = crop(scene, box), crop(Scene(voxelize(scene.field), Rgb()), box)
    assert cut.box.lower == pytest.approx(same.box.lower) and cut.box.upper == pytest.approx(same.box.upper)
    torch.testing.assert_close(cut.field.density, same.field.density, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="cannot crop to .*choose a box that overlaps"):
        crop(scene, Box((5.0, 5.0, 5.0), (6.0, 6.0, 6.0)))


def test_other_fields_are_resampled_from_their_queries() -> None:
    scene = ball_scene()
    fine = resample(scene, 0.05)
    assert isinstance(fine.field, VoxelField) and fine.field.resolution == (40, 44, 48)
    density, features = scene.field.query(fine.field.voxel_centers())
    torch.testing.assert_close(fine.field.density, density, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fine.field.features[density > 0], features[density > 0], atol=1e-4, rtol=0)
    coarse = resample(scene, 0.4)
    assert float(coarse.field.density.mean()) == pytest.approx(float(fine.field.density.mean()), rel=0.02), "means"
    wide = resample(
        replace(scene, surroundings=(make_field(torch.Generator(), channels=3, box=BOX.scaled(4.0)),)), 0.2, BOX
    )
    assert wide.box == BOX and float(wide.field.density.sum()) > 0


@pytest.mark.parametrize("exact", [True, False])
def test_other_fields_are_moved_onto_grids(exact: bool) -> None:
    scene = ball_scene()
    motion = quarter_turn(0, 1) if exact else TILT
    moved = transform(scene, motion)
    middle = transform_points(motion, torch.tensor([scene.box.center]))[0]
    normals = torch.nn.functional.normalize(torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    for share, density in ((0.3, 3 * (1 - 0.09)), (0.7, 3 * (1 - 0.49)), (1.2, 0.0)):
        found = moved.field.query_density(middle + 0.8 * share * normals)
        torch.testing.assert_close(found, torch.full((40,), density), atol=0.06, rtol=0)


def test_other_fields_are_pasted_and_composed(generator: torch.Generator) -> None:
    ball = ball_scene()
    host = Scene(VoxelField.zeros(ball.box.scaled(2.0), (40, 44, 48), 3), Rgb())
    pasted = paste(host, ball)
    inside = ball.box.contains(pasted.field.voxel_centers())
    truth = ball.field.query_density(pasted.field.voxel_centers()[inside])
    torch.testing.assert_close(pasted.field.density[inside], truth, atol=0.1, rtol=0)
    assert pasted.field.density[~inside].max() == 0
    grid = Scene(voxelize(make_ball(radius=0.3)), Rgb())
    into = paste(ball, replace(grid, field=crop(grid, grid.box.scaled(0.3)).field))
    assert into.field.resolution == (20, 20, 30) and into.box == ball.box
    both = compose(ball, transform(ball_scene(radius=0.4), quarter_turn(2, 0)))
    assert isinstance(both.field, VoxelField)
    mass = [float(s.field.density.sum()) * math.prod(s.field.voxel_size) for s in (resample(ball, 0.05), both)]
    expected = 8 * math.pi / 15 * 3.0  # of k (1 - r² / R²), a cubic metre for R = 1
    assert mass[0] == pytest.approx(expected * 0.8**3, rel=0.01)
    assert mass[1] == pytest.approx(expected * (0.8**3 + 0.4**3), rel=0.02)


def test_harmonics_of_other_fields_turn_into_those_of_the_host(generator: torch.Generator) -> None:
    class Shaded(Ball):
        channels = 12

        def query(self, points):
            return self.query_density(points), 0.1 * torch.ones(*points.shape[:-1], 12)

    ball = make_ball(kind=Shaded)
    turned = SphericalHarmonics(1).rotated(quarter_turn(2, 1)[:3, :3])
    host = Scene(VoxelField.zeros(ball.box, (20, 22, 24), 12), SphericalHarmonics(1))
    both = compose(host, Scene(ball, turned))
    views = torch.nn.functional.normalize(torch.randn(9, 3, generator=generator), dim=-1)
    point = torch.tensor(ball.box.center) + 0.05
    features = both.field.query(point.expand(9, 3))[1]
    expected = turned.point_color(ball.query(point.expand(9, 3))[1], views)
    torch.testing.assert_close(host.appearance.point_color(features, views), expected, atol=1e-3, rtol=0)


def learned_scene(generator: torch.Generator, decoder: ImageDecoder) -> Scene:
    return Scene(make_field(generator), decoder, EnvironmentMap(torch.rand(4, 8, 12, generator=generator)))


def test_parts_of_learned_scenes_are_moved_and_pasted(generator: torch.Generator, tmp_path: Path) -> None:
    decoder = ImageDecoder(12, widths=(4,))
    scene = learned_scene(generator, decoder)
    motion = torch.eye(4)
    motion[0, 3] = 1.0
    patch = transform(crop(scene, Box((-1.0, 2.0, 0.5), (1.0, 3.5, 4.5))), motion)
    assert patch.appearance != scene.appearance  # it stands elsewhere
    pasted = paste(scene, patch)
    assert pasted.appearance is decoder
    torch.testing.assert_close(pasted.field.density[2:6], scene.field.density[:4])
    for path in (tmp_path / "a.nfld", tmp_path / "b.nfld"):
        scene.save(path)
    first, second = (Scene.load(tmp_path / name) for name in ("a.nfld", "b.nfld"))
    assert compose(first, second).field.density.sum() > scene.field.density.sum()


def test_decoders_of_other_weights_or_configuration_are_not_joined(generator: torch.Generator) -> None:
    decoder = ImageDecoder(12, widths=(4,))
    scene, other = learned_scene(generator, decoder), copy.deepcopy(decoder)
    with torch.no_grad():
        next(other.parameters()).add_(0.1)
    strange = copy.deepcopy(decoder)
    strange.finest = 0.25
    for appearance in (other, strange, ImageDecoder(12, widths=(4, 4))):
        with pytest.raises(ValueError, match="share one appearance"):
            paste(scene, replace(scene, appearance=appearance))
    with pytest.raises(ValueError, match="share one appearance"):
        paste(scene, replace(scene, appearance=Rgb(12)))
