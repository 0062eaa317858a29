"""Images to a field and back: depth comes back, sizes and turns of the world do not matter."""

import math
from dataclasses import replace

import pytest
import torch
from small_rooms import BOX, GRID, HEIGHT, WIDTH, cameras, room_sample, room_views, scene_autoencoder

from nfldm3d import Box, Scene, render
from nfldm3d.evaluation.metrics import psnr
from nfldm3d.evaluation.scene_scores import judge_field, judge_scene, mean_scores, split_views
from nfldm3d.geometry import turn_about
from nfldm3d.models.nfldm.lifting import build_frustums, splat
from nfldm3d.models.nfldm.losses import relative_depth_error
from nfldm3d.models.nfldm.scene_autoencoder import PAPER, Encoding, SceneAutoencoder
from nfldm3d.models.nfldm.views import Views

PLAIN = {"complete": False, "weigh_evidence": False}
"""The field is what was pooled, without a network that changes it."""


def without_depth(views: Views) -> Views:
    return replace(views, depth=None)


@pytest.mark.parametrize("stride", [1, 2])
@torch.no_grad()
def test_an_untrained_network_gives_depth_and_colours_back(stride: int) -> None:
    """Measured surfaces land where they were measured before anything is learned."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = SceneAutoencoder((32, 32, 16), 8, 40, (8,), (8,), (8,), stride).eval()
    camera = cameras(12)
    views = room_views(camera)
    encoding = model.encode(views, BOX)
    assert views.depth is not None and set(encoding.weights.unique().tolist()) == {0.0, 1.0}
    rendered = model.render(encoding.field, encoding.background, camera.rays())
    cosine = (rendered.rays.directions * camera.forward[:, None, None]).sum(-1)
    seen = (rendered.opacity > 0.5).float()
    error = relative_depth_error(rendered.distance, rendered.opacity, views.depth, cosine, seen)
    assert float(seen.mean()) > 0.97 and float(error) < 0.06  # a voxel is 0.125 m, walls are 1 to 2 m away
    painted = views.images.mean((0, 2, 3), keepdim=True).expand_as(views.images)
    assert float(psnr(model.decode(rendered), views.images)) > float(psnr(painted, views.images)) + 6


@pytest.mark.parametrize("pooling", ["occupancy", "mean", "attention"])
@pytest.mark.parametrize("density", ["explicit", "inferred"])
@pytest.mark.parametrize("complete", [True, False])
def test_every_kind_encodes_and_learns(pooling: str, density: str, complete: bool) -> None:
    model = scene_autoencoder(pooling=pooling, density=density, complete=complete)
    views = without_depth(room_views(cameras(3)))
    encoding = model.encode(views, BOX)
    assert encoding.field.resolution == GRID and encoding.field.channels == 5
    picture = model.decode(model.render(encoding.field, encoding.background, views.camera.rays()))
    assert picture.shape == views.images.shape
    (picture - views.images).square().mean().backward()
    silent = {name for name, value in model.named_parameters() if value.grad is None}
    assert not silent
    assert all(bool(torch.isfinite(value.grad).all()) for value in model.parameters())  # type: ignore[arg-type]
    assert bool(model.head.weight.grad.any())  # type: ignore[union-attr]
    heard = bool(model.evidence[0].weight.grad[:, 5:].any())  # type: ignore[union-attr,index]
    assert heard == (density == "explicit")


@pytest.mark.parametrize("stride", [1, 2])
@torch.no_grad()
def test_mean_pooling_is_the_mean_over_all_entries(stride: int) -> None:
    """White pictures, carried along: a voxel's colour is the mean of the light that ends at its entries."""
    with torch.random.fork_rng([]):
        model = SceneAutoencoder(GRID, 5, 24, (8,), (8,), (8,), stride, pooling="mean", **PLAIN).eval()
    views = without_depth(room_views(cameras(3)))
    encoding = model.encode(replace(views, images=torch.ones_like(views.images)), BOX)
    camera = views.camera.resized(WIDTH // stride, HEIGHT // stride)
    frustums, zero = build_frustums(camera, BOX, GRID, 24), torch.zeros_like(encoding.weights)
    sums = splat(torch.ones(len(zero), 1), encoding.weights, zero, zero, frustums, (BOX, GRID))
    mean = sums.hits / sums.counts.clamp(min=1)
    assert torch.allclose(encoding.field.features[..., :3], mean[..., None].expand(*GRID, 3), atol=1e-5)
    assert 0 < float(mean.max()) < 1


def test_attention_weighs_views_against_each_other() -> None:
    """Scores of all pixels alike change nothing but the share of the prior; unlike ones do."""
    model = scene_autoencoder(pooling="attention", **PLAIN)
    views = without_depth(room_views(cameras(3)))
    with torch.no_grad():
        model.head.weight[-1] = 0
        model.head.bias[-1] = 0
        even = model.encode(views, BOX).field.features
        plain = scene_autoencoder(**PLAIN)
        plain.load_state_dict(model.state_dict())
        assert torch.allclose(plain.encode(views, BOX).field.features, even, atol=1e-6)
        model.head.weight[-1] = 1.0
        assert not torch.allclose(model.encode(views, BOX).field.features, even, atol=1e-2)


def test_the_plain_recipe_has_no_use_for_additions() -> None:
    model, views = scene_autoencoder(**PAPER), room_views(cameras(3))
    encoding = model.encode(views, BOX)
    model.decode(model.render(encoding.field, encoding.background, views.camera.rays())).mean().backward()
    assert model.grid_network is None and all(value.grad is None for value in model.evidence.parameters())
    assert float(encoding.field.density.detach().max()) > 0


@torch.no_grad()
def test_light_adds_up_whatever_the_weights() -> None:
    encoding = scene_autoencoder().encode(room_views(cameras(3)), BOX)
    total = encoding.weights.sum(1) + encoding.passed[:, -1]
    assert torch.allclose(total, torch.ones_like(total), atol=1e-5)
    assert encoding.weights.shape == (3 * (HEIGHT // 2) * (WIDTH // 2), 24)


@torch.no_grad()
def test_no_surface_is_not_the_same_as_not_measured() -> None:
    model, views = scene_autoencoder(), room_views(cameras(3))
    blind, seeing = model.encode(without_depth(views), BOX), model.encode(views, BOX)
    assert not torch.allclose(blind.field.density, seeing.field.density)
    nothing = replace(views, depth=torch.zeros_like(views.images[:, 0]))
    known_empty = model.encode_batch([nothing], [BOX])[0]
    assert not known_empty.weights.any() and bool((known_empty.passed == 1).all()) and bool(blind.weights.any())


@torch.no_grad()
def test_scenes_of_a_batch_do_not_mix() -> None:
    model = scene_autoencoder()
    scenes = [room_views(cameras(3)), without_depth(room_views(cameras(4, eye=(3.2, -0.4, 1.5))))]
    boxes = [BOX, Box((1.2, -1.8, 0.6), (4.8, 1.8, 2.4))]
    together = model.encode_batch(scenes, boxes)
    for number, (views, box) in enumerate(zip(scenes, boxes, strict=True)):
        alone = model.encode(views, box)
        assert torch.allclose(alone.field.density, together[number].field.density, atol=1e-4)
        assert torch.allclose(alone.field.features, together[number].field.features, atol=1e-4)
        assert torch.allclose(alone.background.image, together[number].background.image, atol=1e-5)


@torch.no_grad()
def test_views_have_no_order() -> None:
    model, views = scene_autoencoder(), room_views(cameras(4))
    order = [2, 0, 3, 1]
    assert views.depth is not None
    shuffled = Views(views.images[order], views.camera[order], views.depth[order])
    here, there = model.encode(views, BOX), model.encode(shuffled, BOX)
    assert torch.allclose(here.field.density, there.field.density, atol=1e-3)
    assert torch.allclose(here.field.features, there.field.features, atol=1e-4)


@pytest.mark.parametrize("scale", [8.0, 0.25])
@torch.no_grad()
def test_a_larger_world_is_as_much_thinner(scale: float) -> None:
    """From pictures alone nothing tells how large a world is."""
    model, views = scene_autoencoder(), without_depth(room_views(cameras(3)))
    poses = views.camera.world_from_camera.clone()
    poses[:, :3, 3] *= scale
    box = Box(*(tuple(scale * value for value in corner) for corner in (BOX.lower, BOX.upper)))
    small, large = (
        model.encode(views, BOX),
        model.encode(replace(views, camera=replace(views.camera, world_from_camera=poses)), box),
    )
    assert torch.allclose(small.field.density, large.field.density * scale, rtol=1e-3, atol=1e-4)
    assert torch.allclose(small.field.features, large.field.features, atol=1e-4)
    assert float(small.field.density.max()) > 0


@pytest.mark.parametrize("quarters", [1, 2, 3])
@torch.no_grad()
def test_turning_the_world_turns_the_field(quarters: int) -> None:
    model, views = scene_autoencoder(**PLAIN), room_views(cameras(3))
    turned = replace(views, camera=views.camera.transformed(turn_about(BOX, quarters)))
    here, there = model.encode(views, BOX), model.encode(turned, BOX)

    def share_off(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(((a - b).abs() > 1e-3 * (1 + b.abs())).float().mean())

    # rounding puts a few entries on the other side of a face
    assert share_off(there.field.density, here.field.density.rot90(quarters, (0, 1))) < 0.03
    assert share_off(there.field.features, here.field.features.rot90(quarters, (0, 1))) < 0.03
    assert share_off(there.background.image, here.background.image.roll(2 * quarters, 1)) < 0.1
    assert share_off(there.field.density, here.field.density) > 0.2


def test_one_step_changes_the_picture_by_its_features() -> None:
    model, views = scene_autoencoder(), room_views(cameras(3))
    encoding = model.encode(views, BOX)
    rendered = model.render(encoding.field, encoding.background, views.camera.rays())
    other = replace(rendered, features=torch.cat((rendered.features[..., :3], -rendered.features[..., 3:]), dim=-1))
    assert float((model.decode(rendered) - model.decode(other)).detach().abs().mean()) > 1e-4


@torch.no_grad()
def test_a_scene_of_the_encoding_renders_what_the_decoder_shows() -> None:
    model, camera = scene_autoencoder(), cameras(3)
    encoding = model.encode(room_views(camera), BOX)
    scene = Scene(encoding.field, model.decoder, encoding.background)
    ours = model.decode(model.render(encoding.field, encoding.background, camera.rays())).clamp(0, 1)
    assert torch.allclose(render(scene, camera).image, ours, atol=5e-3)


def test_mixed_precision_trains() -> None:
    model, views = scene_autoencoder(), room_views(cameras(3))
    rays = views.camera.rays()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encoding = model.encode_batch([views], [BOX])[0]
        picture = model.decode(model.render(encoding.field, encoding.background, rays))
        loss = (picture.float() - views.images).abs().mean()
    loss.backward()
    assert encoding.field.density.dtype == torch.float32 and bool(torch.isfinite(loss.detach()))
    exact = model.encode(views, BOX)
    assert torch.allclose(encoding.passed, exact.passed, atol=0.1)


def test_pictures_must_be_multiples_of_the_stride() -> None:
    views = room_views(cameras(2).resized(21, 16))
    with pytest.raises(ValueError, match="multiples of 2 pixels, got 21x16; resize"):
        scene_autoencoder().encode(views, BOX)


def test_constructor_names_what_it_needs() -> None:
    with pytest.raises(ValueError, match="at least 3 channels"):
        SceneAutoencoder(GRID, 2)


def test_one_view_is_enough_to_encode_but_not_to_judge() -> None:
    with torch.no_grad():
        assert isinstance(scene_autoencoder().encode(room_views(cameras(1)), BOX), Encoding)
    with pytest.raises(ValueError, match="room_0000 has 1 view.*record more views"):
        split_views(room_sample(views=1))


@pytest.mark.parametrize("views", [2, 5, 16, 17, 24])
def test_a_split_uses_every_view_once(views: int) -> None:
    sample = room_sample(views=views)
    split = split_views(sample)
    centers = torch.cat((split.inputs.camera.centers, split.targets.camera.centers))
    assert len(split.inputs.images) == min(16, views - 1) and len(centers) == views
    assert len(centers.unique(dim=0)) == views
    assert split_views(sample, with_depth=False).inputs.depth is None


def test_what_is_masked_out_changes_no_score() -> None:
    sample = room_sample(views=6)
    masks = torch.ones_like(sample.depth, dtype=torch.bool)
    masks[:, :, : masks.shape[2] // 2] = False
    odd = torch.where(masks[:, None], sample.images, 255)
    depth = torch.where(masks, sample.depth, 0)
    split = split_views(replace(sample, masks=masks, depth=depth), inputs=4)
    other = replace(split, targets=split_views(replace(sample, images=odd, masks=masks, depth=depth), inputs=4).targets)
    model = scene_autoencoder()
    encoding = model.encode(split.inputs, sample.box)
    scores = [judge_field(model, encoding.field, encoding.background, part)[0] for part in (split, other)]
    assert scores[0].figures() == pytest.approx(scores[1].figures(), rel=1e-5)


def test_scores_are_figures_of_the_views_that_were_not_encoded() -> None:
    scores, picture = judge_scene(scene_autoencoder(), room_sample(views=6), with_depth=True, inputs=4)
    assert picture.shape == (3, 2 * HEIGHT, 2 * WIDTH)
    assert 5 < scores.psnr < 40 and scores.depth_error > 0 and 10 < scores.mean_colour_psnr < 20
    wide = replace(scores, depth_error=1.0, surfaces=3 * scores.surfaces)
    assert mean_scores([scores, wide]).depth_error == pytest.approx((scores.depth_error + 3) / 4)
    bare = replace(scores, depth_error=math.nan, surfaces=0)
    assert mean_scores([scores, bare]).depth_error == pytest.approx(scores.depth_error)
    assert math.isnan(mean_scores([bare]).depth_error)
    doubled = mean_scores([scores, replace(scores, psnr=scores.psnr + 2)])
    assert doubled.psnr == pytest.approx(scores.psnr + 1) and doubled.ssim == pytest.approx(scores.ssim)
    with pytest.raises(ValueError, match="no scenes to judge"):
        mean_scores([])
