"""Sampling parts of a scene again, and growing worlds: what is kept stays, what meets has no seams."""

from dataclasses import replace

import pytest
import torch
from small_rooms import scene_generator

from nfldm3d.appearance import Rgb
from nfldm3d.camera import Camera
from nfldm3d.fields import VoxelField
from nfldm3d.geometry import Box
from nfldm3d.pipelines.scene_editing import MARGIN, adopt, encode_scene, grow_world, look_around, resample_region
from nfldm3d.pipelines.scene_generator import SceneGenerator
from nfldm3d.scene import Scene


@pytest.fixture(scope="module")
def generator() -> SceneGenerator:
    return scene_generator()


@pytest.fixture(scope="module")
def scene(generator: SceneGenerator) -> Scene:
    return generator.generate(num_inference_steps=2, generator=seed()).scenes[0]


def seed(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def corner(box: Box) -> Box:
    """The last voxel along x and y, of 8."""
    size = [extent / 8 for extent in box.size]
    return Box((box.upper[0] - size[0], box.upper[1] - size[1], box.lower[2]), box.upper)


def test_a_region_is_made_anew_and_the_rest_stays(generator: SceneGenerator, scene: Scene) -> None:
    edited = generator.edit(scene, corner(scene.box), generator=seed(5), num_inference_steps=2)
    same = (edited.field.density == scene.field.density) & (edited.field.features == scene.field.features).all(-1)
    far = torch.ones(8, 8, 4, dtype=torch.bool)
    far[7 - MARGIN :, 7 - MARGIN :] = False
    assert bool(same[far].all()) and not bool(same[7, 7].any())
    again = generator.edit(scene, corner(scene.box), generator=seed(5), num_inference_steps=2)
    other = generator.edit(scene, corner(scene.box), generator=seed(6), num_inference_steps=2)
    assert torch.equal(again.field.density, edited.field.density)
    assert not torch.equal(other.field.density[7, 7], edited.field.density[7, 7])


def test_edited_scenes_can_be_edited_again(generator: SceneGenerator, scene: Scene) -> None:
    edited = generator.edit(scene, corner(scene.box), generator=seed(5), num_inference_steps=2)
    made = generator.recall(edited)
    assert made is not None
    _, c, _ = generator.hierarchy.fold(made)
    old = generator.recall(scene)
    assert old is not None
    before = generator.hierarchy.fold(old)[1]
    assert torch.allclose(c[..., 0, :], before[..., 0, :], atol=1e-5) and not torch.allclose(
        c[..., 1, 1], before[..., 1, 1]
    )


def test_a_region_smaller_than_a_voxel_is_its_voxel(generator: SceneGenerator, scene: Scene) -> None:
    box, size = scene.box, scene.field.voxel_size
    lower = [low + (number + 0.1) * step for low, number, step in zip(box.lower, (7, 7, 2), size, strict=True)]
    region = Box((lower[0], lower[1], lower[2]), tuple(low + 0.2 * step for low, step in zip(lower, size, strict=True)))  # type: ignore[arg-type]
    edited = generator.edit(scene, region, generator=seed(5), num_inference_steps=2)
    assert not torch.equal(edited.field.density[7, 7, 2], scene.field.density[7, 7, 2])
    assert torch.equal(edited.field.density[:2], scene.field.density[:2])


def test_regions_beside_the_scene_are_refused(generator: SceneGenerator, scene: Scene) -> None:
    with pytest.raises(ValueError, match="lies outside the scene, which fills"):
        generator.edit(scene, Box((90.0, 0.0, 0.0), (91.0, 1.0, 1.0)))


def test_any_scene_can_be_edited(generator: SceneGenerator) -> None:
    """It is encoded from pictures first; the networks' grid and decoder take the place of its own."""
    field = VoxelField.zeros(Box((0.0, 0.0, 0.0), (3.0, 3.0, 2.0)), (12, 12, 8), 3)
    field.density[:, :, :2] = 20.0
    field.features[...] = 0.4
    foreign = Scene(field, Rgb())
    adopted, made = adopt(generator.coder, foreign)
    assert adopted.field.resolution == (8, 8, 4) and adopted.box.size == (4.0, 4.0, 2.0)
    assert made.latents.f.shape == (1, 4, 8, 8)
    edited = generator.edit(foreign, Box((2.0, 2.0, 0.0), (3.0, 3.0, 2.0)), num_inference_steps=2)
    assert edited.field.resolution == (8, 8, 4)


@pytest.mark.parametrize("metric", [True, False])
def test_cameras_scale_and_place_stay_those_of_the_scene(generator: SceneGenerator, metric: bool) -> None:
    field = VoxelField.zeros(Box((0.0, 0.0, 0.0), (3.0, 3.0, 2.0)), (12, 12, 8), 3)
    field.density[:, :, :2] = 20.0
    own, place = Camera.orbit((1.5, 1.5, 0.5), 1.0, views=3), torch.eye(4).tolist()
    scene = Scene(field, Rgb(), cameras=own, metric=metric, metadata={"scene_from_world": place})
    region = Box((2.0, 2.0, 0.0), (3.0, 3.0, 2.0))
    edited = generator.edit(scene, region, num_inference_steps=2)
    grown = generator.grow((1, 1), scene=scene, num_inference_steps=2)
    for made in (edited, grown):
        assert made.metric == metric and made.metadata["scene_from_world"] == place
        assert made.cameras is not None and torch.equal(made.cameras.world_from_camera.cpu(), own.world_from_camera)


def test_scenes_without_their_latents_are_encoded_but_kept(generator: SceneGenerator, scene: Scene) -> None:
    forgetful = replace(scene, extras={}, metadata={"name": "mine"})
    adopted, _ = adopt(generator.coder, forgetful)
    assert adopted is forgetful
    edited = generator.edit(forgetful, corner(scene.box), num_inference_steps=2)
    assert edited.metadata["name"] == "mine" and generator.recall(edited) is not None
    assert torch.equal(edited.field.density[0], scene.field.density[0])


def test_scenes_are_looked_at_from_open_places() -> None:
    field = VoxelField.zeros(Box((0.0, 0.0, 0.0), (8.0, 8.0, 4.0)), (16, 16, 8), 3)
    field.density[:, :, 0] = 20.0
    field.density[8:] = 20.0
    cameras = look_around(Scene(field, Rgb()))
    density, _ = field.query(cameras.centers)
    assert not density.any() and float(cameras.centers[:, 0].max()) < 4
    assert float(torch.pdist(cameras.centers).min()) > 0.5
    assert torch.allclose(cameras.forward[:, 2], torch.zeros(len(cameras.centers)), atol=1e-6)


def test_empty_and_full_scenes_can_be_looked_at(generator: SceneGenerator) -> None:
    for density in (0.0, 30.0):
        field = VoxelField(
            torch.full((8, 8, 4), density), torch.zeros(8, 8, 4, 3), Box((0.0, 0.0, 0.0), (4.0, 4.0, 2.0))
        )
        assert bool(torch.isfinite(encode_scene(generator.coder, Scene(field, Rgb())).latents.c).all())


@pytest.mark.parametrize("windows", [(1, 1), (3, 2), (1, 4)])
def test_worlds_are_as_large_as_their_windows(windows: tuple[int, int], generator: SceneGenerator) -> None:
    world = generator.grow(windows, generator=seed(), num_inference_steps=2)
    x, y = (8 + 4 * (count - 1) for count in windows)
    assert world.field.resolution == (x, y, 4) and world.cameras is not None
    assert world.box.size == pytest.approx((x / 2, y / 2, 2.0))
    middle = [(count - 1) // 2 * 2.0 for count in windows]
    assert world.box.lower[:2] == pytest.approx([-2.0 - shift for shift in middle])


def test_growing_shows_how_far_it_is(generator: SceneGenerator, capsys: pytest.CaptureFixture[str]) -> None:
    was = dict(getattr(generator, "_progress_bar_config", {}))
    generator.set_progress_bar_config(disable=False)
    generator.grow((2, 1), num_inference_steps=2)
    shown = capsys.readouterr().err
    assert all(name in shown for name in ("sample c", "sample f", "decode windows"))
    generator.set_progress_bar_config(disable=True)
    generator.grow((2, 1), num_inference_steps=2)
    assert not capsys.readouterr().err
    generator.set_progress_bar_config(**was)


def test_one_window_is_a_scene(generator: SceneGenerator) -> None:
    world = generator.grow((1, 1), generator=seed(3), num_inference_steps=2)
    assert torch.allclose(world.field.density, generator.decode(_latents(generator, 3))[0].field.density, atol=1e-3)


def _latents(generator: SceneGenerator, number: int):
    from nfldm3d.pipelines.sampling import split_generator

    return generator.hierarchy.sample(generator.sampler(2), split_generator(seed(number), 1))


def test_a_scene_lies_in_the_middle_of_its_world(generator: SceneGenerator, scene: Scene) -> None:
    world = generator.grow((3, 3), scene=scene, generator=seed(), num_inference_steps=2)
    for axis in (0, 1):
        assert world.box.lower[axis] == pytest.approx(scene.box.lower[axis] - 2.0)
    assert world.field.resolution == (16, 16, 4)


def test_windows_must_be_some(generator: SceneGenerator) -> None:
    with pytest.raises(ValueError, match="at least one window"):
        generator.grow((0, 3))


def test_old_names_warn_and_do_the_same(generator: SceneGenerator, scene: Scene) -> None:
    with pytest.warns(DeprecationWarning, match=r"resample_region is now SceneGenerator.edit"):
        old = resample_region(generator, scene, corner(scene.box), seed=seed(5), num_inference_steps=2)
    new = generator.edit(scene, corner(scene.box), generator=seed(5), num_inference_steps=2)
    assert torch.equal(old.field.density, new.field.density)
    with pytest.warns(DeprecationWarning, match=r"grow_world is now SceneGenerator.grow"):
        world = grow_world(generator, (2, 1), seed=seed(3), num_inference_steps=2)
    again = generator.grow((2, 1), generator=seed(3), num_inference_steps=2)
    assert torch.equal(world.field.density, again.field.density)


def test_callbacks_see_the_steps_of_edits(generator: SceneGenerator, scene: Scene) -> None:
    seen = []

    def note(pipeline: SceneGenerator, step: int, timestep: object, values: dict) -> dict:
        seen.append((values["level"], step))
        return {}

    generator.edit(scene, corner(scene.box), num_inference_steps=2, callback_on_step_end=note)
    assert seen == [("c", 0), ("c", 1), ("f", 0), ("f", 1)]
