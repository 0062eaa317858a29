"""The learned appearance: alive, local, moved with its scene, and welcome wherever an appearance is."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError
from small_rooms import BOX, GRID, ROOM, cameras
from torch import Tensor

from nfldm3d import Appearance, Camera, EnvironmentMap, Rays, Scene, VoxelField, extract_mesh, render
from nfldm3d.editing import transform
from nfldm3d.geometry import turn_about
from nfldm3d.image_decoder import ImageDecoder, _pixel_angle

CHANNELS = 5
Inputs = tuple[Tensor, Tensor, Rays, Tensor]


def small_decoder(*, alive: bool = True, finest: float = 0.5) -> ImageDecoder:
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        decoder = ImageDecoder(CHANNELS, widths=(8, 16), octaves=2, finest=finest)
        if alive:
            for parameter in decoder.parameters():
                parameter.data.add_(0.1 * torch.randn_like(parameter))
    return decoder.eval()


def composited(camera: Camera, generator: torch.Generator) -> Inputs:
    shape = (*camera.shape, camera.height, camera.width)
    features, opacity = torch.rand(*shape, CHANNELS, generator=generator), torch.rand(shape, generator=generator)
    return features, opacity, camera.rays(), 3 * torch.rand(shape, generator=generator)


def small_scene(decoder: ImageDecoder, generator: torch.Generator) -> Scene:
    """A ball in a box, before a background of features."""
    field = VoxelField.zeros(BOX, GRID, CHANNELS)
    apart = (field.voxel_centers() - torch.tensor(BOX.center)).norm(dim=-1)
    features = torch.rand(*GRID, CHANNELS, generator=generator)
    ball = VoxelField(8 * (1.1 - apart).clamp(min=0), features, BOX)
    return Scene(ball, decoder, EnvironmentMap(torch.rand(4, 8, CHANNELS, generator=generator)))


def outside_cameras() -> Camera:
    return Camera.orbit(BOX.center, 3.0, views=3, width=20, height=14)


def test_an_untrained_decoder_shows_about_the_colours(generator: torch.Generator) -> None:
    inputs = composited(cameras(2), generator)
    error = small_decoder(alive=False).image(*inputs).detach() - inputs[0][..., :3]
    assert 0 < float(error.abs().max()) < 0.15


def test_finer_pixels_get_the_same_detail(generator: torch.Generator) -> None:
    """Strokes are as wide, seen from the camera, whatever the size of the picture."""
    decoder, camera = small_decoder(), cameras(2)
    decoder.pixel_angle = 0.084  # that of the cameras
    inputs = composited(camera, generator)

    def enlarge(values: Tensor) -> Tensor:
        return values.repeat_interleave(3, dim=1).repeat_interleave(3, dim=2)

    features, opacity, _, distance = inputs
    large = camera.resized(3 * camera.width, 3 * camera.height)
    picture = decoder.image(*inputs).detach() - features[..., :3]
    fine = decoder.image(enlarge(features), enlarge(opacity), large.rays(), enlarge(distance)).detach()
    fine = fine - enlarge(features)[..., :3]
    middles = fine[:, 1::3, 1::3] / opacity[..., None] - picture / opacity[..., None]
    assert fine.shape == (2, 3 * camera.height, 3 * camera.width, 3)
    assert float(middles.abs().mean()) < 0.1 * float((picture / opacity[..., None]).abs().mean())
    decoder.pixel_angle = 0.02  # coarser pixels than in training are taken as they are
    assert torch.equal(decoder.image(*inputs).detach() - features[..., :3], picture)


def test_focal_lengths_are_read_from_any_part_of_a_picture() -> None:
    camera = cameras(3)
    directions = camera.rays().directions
    for part in (directions, directions[:, 2:7, 11:], directions[:, -2:, :2]):
        assert _pixel_angle(part) == pytest.approx(1 / float(camera.focal[0, 0]), rel=1e-3)


def test_it_is_alive_from_the_first_step(generator: torch.Generator) -> None:
    """The picture changes with features beyond the colours, and all weights learn once blocks are no identities."""
    decoder, (features, *rest) = small_decoder(alive=False), composited(cameras(2), generator)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-2)
    target, other = torch.rand(*features.shape[:-1], 3, generator=generator), features.clone()
    other[..., 3:] = torch.rand(other[..., 3:].shape, generator=generator)
    for step in range(2):
        optimizer.zero_grad()
        (decoder.image(features, *rest) - target).square().mean().backward()
        optimizer.step()
        change = decoder.image(features, *rest) - decoder.image(other, *rest)
        assert float(change.detach().abs().mean()) > 1e-4, step
    silent = [name for name, value in decoder.named_parameters() if value.grad is None or not value.grad.any()]
    assert not silent


def test_detail_weighs_as_much_as_there_is_matter(generator: torch.Generator) -> None:
    decoder, (features, opacity, rays, distance) = small_decoder(), composited(cameras(1), generator)
    detail = decoder.image(features, torch.ones_like(opacity), rays, distance) - features[..., :3]
    expected = features[..., :3] + opacity[..., None] * detail
    assert torch.allclose(decoder.image(features, opacity, rays, distance), expected, atol=1e-5)


def test_mixed_precision_keeps_positions(generator: torch.Generator) -> None:
    """Half a hundred metres away a number of 8 bits is off by an eighth, and so would be the texture."""
    decoder = small_decoder()
    camera = cameras(2, eye=(51.3, -47.7, 9.1))
    inputs = composited(camera, generator)
    exact = decoder.image(*inputs).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = decoder.image(*inputs).detach().float()
    assert float((half - exact).abs().mean()) < 0.1 * float((exact - inputs[0][..., :3]).abs().mean())


def test_views_are_decoded_one_by_one(generator: torch.Generator) -> None:
    decoder, inputs = small_decoder(), composited(cameras(3), generator)
    together = decoder.image(*inputs)
    for number in range(3):
        alone = decoder.image(*(part[number] for part in inputs))  # type: ignore[arg-type]
        assert torch.allclose(alone, together[number], atol=1e-5)


def test_a_crop_is_decoded_as_part_of_the_picture(generator: torch.Generator) -> None:
    camera = Camera.look_at((1.5, 0.0, 1.0), (4.0, 0.5, 1.2), width=72, height=64).reshape(1)
    decoder, inputs = small_decoder(), composited(camera, generator)
    decoder.pixel_angle = 1e-3  # finer pixels than in training would be put together in other groups
    window = slice(2, 62), slice(4, 70)  # an even step: the network halves the picture once
    part = decoder.image(*(value[:, window[0], window[1]] for value in inputs))  # type: ignore[arg-type]
    rim = 24
    whole = decoder.image(*inputs)[:, window[0], window[1]]
    assert torch.allclose(part[:, rim:-rim, rim:-rim], whole[:, rim:-rim, rim:-rim], atol=1e-5)
    assert part[:, rim:-rim, rim:-rim].numel() > 500


def test_motion_of_camera_and_scene_together_changes_nothing(generator: torch.Generator) -> None:
    motion = torch.eye(4)
    motion[:2, :2], motion[:3, 3] = torch.tensor([[0.6, -0.8], [0.8, 0.6]]), torch.tensor([1.0, -2.0, 3.0])
    decoder, camera = small_decoder(), cameras(2)
    features, opacity, rays, distance = composited(camera, generator)
    moved = camera.transformed(motion).rays()
    still = decoder.image(features, opacity, rays, distance)
    assert not torch.allclose(decoder.image(features, opacity, moved, distance), still, atol=1e-3)
    assert torch.allclose(decoder.moved(motion).image(features, opacity, moved, distance), still, atol=1e-4)
    twice = decoder.moved(motion).moved(motion)
    again = camera.transformed(motion).transformed(motion).rays()
    assert torch.allclose(twice.image(features, opacity, again, distance), still, atol=1e-3)


def test_moving_shares_the_weights_and_leaves_the_original() -> None:
    decoder = small_decoder()
    moved = decoder.moved(torch.eye(4) * 1.0 + torch.nn.functional.pad(torch.ones(3, 1), (3, 0, 0, 1)))
    assert torch.equal(decoder.anchor, torch.eye(4)) and not torch.equal(moved.anchor, decoder.anchor)
    assert all(a is b for a, b in zip(moved.parameters(), decoder.parameters(), strict=True))
    assert "anchor" not in decoder.state_dict()


def test_it_is_an_appearance() -> None:
    decoder = small_decoder()
    assert isinstance(decoder, Appearance) and not decoder.per_ray and decoder.channels == CHANNELS
    features = torch.tensor([[0.2, 1.4, -0.3, 9.0, 9.0]])
    assert decoder.point_color(features, torch.tensor([[1.0, 0.0, 0.0]])).tolist() == [[pytest.approx(0.2), 1.0, 0.0]]
    assert str(decoder).startswith("ImageDecoder of 5 channels, ") and "\n" not in str(decoder)


def test_render_decodes_whole_pictures(generator: torch.Generator) -> None:
    decoder = small_decoder()
    scene, camera = small_scene(decoder, generator), outside_cameras()
    seen = render(scene, camera, with_features=True)
    chunked = render(scene, camera, rays_per_chunk=60)
    assert torch.allclose(chunked.image, seen.image, atol=1e-5)
    assert isinstance(scene.background, EnvironmentMap) and seen.features is not None
    rays = camera.rays()
    behind = (1 - seen.opacity)[..., None] * scene.background.query(rays.directions)
    picture = decoder.image(
        seen.features.movedim(1, -1) + behind, torch.ones_like(seen.opacity), rays, seen.distance
    ).clamp(0, 1)
    assert torch.allclose(seen.image.movedim(1, -1), picture, atol=1e-5)
    plain = render(replace(scene, appearance=small_decoder(alive=False)), camera)
    assert float((plain.image - seen.image).detach().abs().mean()) > 1e-3


def test_meshes_take_the_colours_without_the_detail(generator: torch.Generator) -> None:
    scene = small_scene(small_decoder(), generator)
    colors = [extract_mesh(each).colors for each in (scene, replace(scene, cameras=outside_cameras()))]
    assert colors[0] is not None and colors[1] is not None and len(colors[0]) > 50
    low, high = scene.field.features[..., :3].aminmax()
    for color in colors:
        assert (
            color is not None and float(color.min()) >= float(low) - 1e-3 and float(color.max()) <= float(high) + 1e-3
        )


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_transformed_scenes_look_the_same(quarters: int, generator: torch.Generator) -> None:
    scene, camera = small_scene(small_decoder(), generator), outside_cameras()
    motion = turn_about(BOX, quarters)
    motion[:3, 3] += torch.tensor([4.0, -1.0, 2.0])
    seen = render(replace(scene, background=None), camera)
    moved = render(replace(transform(scene, motion), background=None), camera.transformed(motion))
    assert torch.allclose(moved.image, seen.image, atol=2e-3)


def test_a_moved_scene_keeps_its_looks_on_disk(tmp_path: Path, generator: torch.Generator) -> None:
    decoder = small_decoder()
    motion = turn_about(BOX, 1)
    motion[:3, 3] += torch.tensor([0.3, -1.0, 2.0])
    scene = transform(small_scene(decoder, generator), motion)
    scene.save(tmp_path / "moved.nfld")
    camera = outside_cameras().transformed(motion)
    seen = render(scene, camera).image
    for appearance in (decoder, scene.appearance):  # as it was trained, and as it is
        loaded = Scene.load(tmp_path / "moved.nfld", appearance=appearance)
        assert torch.equal(render(loaded, camera).image, seen)
    assert torch.equal(decoder.anchor, torch.eye(4))


@torch.no_grad()
def test_halving_leaves_no_grid(generator: torch.Generator) -> None:
    decoder = small_decoder()
    plain = torch.rand(1, CHANNELS + 4 + 12, 1, 1, generator=generator).expand(-1, -1, 80, 80)
    smooth = plain + 0.02 * torch.arange(80.0)

    def grid(picture: torch.Tensor) -> float:
        """How much every second column differs from its neighbours, far from the margins."""
        bend = picture[..., 1:-1] - 0.5 * (picture[..., 2:] + picture[..., :-2])
        return float((bend[..., 32:48, 32:48] * (-1.0) ** torch.arange(16)).mean().abs())

    spun, once = decoder._draw(smooth), decoder.train()._draw(smooth)
    assert torch.equal(once, decoder.network(smooth))
    assert grid(spun) < 0.2 * grid(once)


def test_a_scene_file_is_complete(tmp_path: Path, generator: torch.Generator) -> None:
    scene = small_scene(small_decoder(), generator)
    scene.save(tmp_path / "scene.nfld")
    loaded = Scene.load(tmp_path / "scene.nfld")
    assert isinstance(loaded.appearance, ImageDecoder)
    with torch.no_grad():
        assert torch.equal(render(loaded, cameras(1)).image, render(scene, cameras(1)).image)


def test_weights_that_are_halves_are_kept_as_halves(tmp_path: Path, generator: torch.Generator) -> None:
    whole = small_decoder()
    scene, rounded = small_scene(whole, generator), small_decoder().half().float()
    scene.save(tmp_path / "whole.nfld")
    replace(scene, appearance=rounded).save(tmp_path / "half.nfld")
    assert (tmp_path / "half.nfld").stat().st_size < (tmp_path / "whole.nfld").stat().st_size
    for one, other in zip(
        Scene.load(tmp_path / "half.nfld").appearance.parameters(), rounded.parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_mistakes_are_named(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="at least the 3 colour channels, got 2"):
        ImageDecoder(2)
    features, opacity, rays, distance = composited(cameras(1), generator)
    with pytest.raises(ValueError, match="whole pictures"):
        small_decoder().image(features, opacity, rays)
    with pytest.raises((ValueError, TypeCheckError), match="whole pictures|Type-check"):
        small_decoder().image(features[0, 0], opacity[0, 0], rays[0, 0], distance[0, 0])
    with pytest.raises((ValueError, TypeCheckError), match="ImageDecoder needs 5|Type-check"):
        Scene(VoxelField.zeros(ROOM, GRID, 4), small_decoder())
