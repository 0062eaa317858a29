"""A converted U-Net is at first the old one; then views ask each other, are told their poses, and share a volume."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from small_priors import WIDTH, small_unet
from small_views import cameras

from nfldm3d import Camera
from nfldm3d.models.views.multiview.batches import (
    NUMBERS,
    ViewBatch,
    describe_views,
    picture_statistics,
    to_cube,
)
from nfldm3d.models.views.multiview.network import MultiViewNetwork
from nfldm3d.models.views.multiview.view_layers import ViewLayers
from nfldm3d.models.weights import load_network

SMALL: dict = {"rank": 2, "width": 8, "grid": 8}


def network(*, random: bool = True, **options) -> MultiViewNetwork:
    torch.manual_seed(3)
    unet = small_unet()
    layers = ViewLayers.of(unet, **(SMALL | options))
    if random:
        for parameter in layers.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.3)
    return MultiViewNetwork(unet, layers).eval()


def batch_of(objects: int, views: int, left_out: int = 0) -> ViewBatch:
    camera = to_cube(cameras(objects * views)).reshape(objects, views)
    return replace(ViewBatch.of(camera), left_out=left_out)


def latents_of(objects: int, views: int) -> torch.Tensor:
    return torch.randn(objects, views, 4, 8, 8, generator=torch.Generator().manual_seed(1))


def ask(net: MultiViewNetwork, latents: torch.Tensor, batch: ViewBatch, times=None) -> torch.Tensor:
    objects, views = latents.shape[:2]
    times = torch.full((objects, views), 500) if times is None else times
    texts = torch.randn(objects, 3, WIDTH, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return net(latents, times, texts, batch)


def test_a_single_view_is_at_first_what_it_was() -> None:
    net = network(random=False)
    torch.manual_seed(3)
    plain = small_unet().eval()
    latents, texts = latents_of(2, 1), torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        before = plain(latents[:, 0], torch.full((2,), 500), encoder_hidden_states=texts).sample
        unasked = net.unet(latents[:, 0], torch.full((2,), 500), encoder_hidden_states=texts).sample
    assert torch.allclose(unasked, before, atol=1e-5)  # without views, as if nothing had been added
    assert torch.allclose(ask(net, latents, batch_of(2, 1))[:, 0], before, atol=1e-5)
    assert net.unet.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("levels", [None, 1])
def test_views_of_an_object_see_each_other_and_no_others(levels: int | None) -> None:
    net, latents, batch = network(levels=levels), latents_of(2, 3), batch_of(2, 3)
    said, other = ask(net, latents, batch), latents.clone()
    other[0, 2] += 1
    changed = (ask(net, other, batch) - said).abs().amax((2, 3, 4))
    assert (changed[0] > 1e-5).all() and changed[1].max() < 1e-5


def test_without_sharing_and_projection_views_are_alone() -> None:
    net, latents, batch = network(levels=None, shared=False), latents_of(1, 3), batch_of(1, 3)
    said, other = ask(net, latents, batch), latents.clone()
    other[0, 2] += 1
    assert torch.allclose(ask(net, other, batch)[0, :2], said[0, :2], atol=1e-6)


def test_any_number_of_views_and_equal_ones_in_any_order() -> None:
    net = network()
    for views in (1, 2, 5):
        assert ask(net, latents_of(1, views), batch_of(1, views)).shape == (1, views, 4, 8, 8)
    latents, batch, order = latents_of(1, 4), batch_of(1, 4), [2, 0, 1, 3]
    swapped = replace(batch, camera=batch.camera[:, order], vectors=batch.vectors[:, order])
    assert torch.allclose(ask(net, latents[:, order], swapped), ask(net, latents, batch)[:, order], atol=1e-4)


def test_poses_and_times_are_told() -> None:
    net, latents, batch = network(levels=None), latents_of(1, 2), batch_of(1, 2)
    said = ask(net, latents, batch)
    moved = ViewBatch.of(to_cube(cameras(5)[3:]).reshape(1, 2))
    assert not torch.allclose(ask(net, latents, moved), said, atol=1e-5)
    times = torch.tensor([[0, 500]])
    assert not torch.allclose(ask(net, latents, batch, times)[0, 1], said[0, 1], atol=1e-5)


def test_the_last_views_are_not_looked_at_where_they_are_left_out() -> None:
    net = network(shared=False)
    latents, other = latents_of(1, 3), latents_of(1, 3)
    other[0, 2] += 1
    for left_out, same in ((0, False), (1, True)):
        batch = batch_of(1, 3, left_out)
        gap = (ask(net, other, batch) - ask(net, latents, batch))[0, :2].abs().max()
        assert (float(gap) < 1e-5) == same
    with pytest.raises(ValueError, match="3 of 3 views are left out"):
        ask(net, latents, batch_of(1, 3, 3))


@pytest.mark.parametrize("options", [{"unbounded": False}, {"replace": True}])
def test_variants_work_and_are_saved(options, tmp_path: Path) -> None:
    net = network(**options)
    said = ask(net, latents_of(1, 2), batch_of(1, 2))
    net.layers.save_pretrained(tmp_path / "view_layers")
    torch.manual_seed(3)
    again = MultiViewNetwork(small_unet(), load_network(ViewLayers, tmp_path / "view_layers")).eval()
    assert torch.allclose(ask(again, latents_of(1, 2), batch_of(1, 2)), said, atol=1e-5)


def test_all_weights_learn() -> None:
    net = network().train()
    times, texts = torch.full((1, 2), 500), torch.randn(1, 3, WIDTH)
    net(latents_of(1, 2), times, texts, batch_of(1, 2)).square().mean().backward()
    dull = [name for name, each in net.layers.named_parameters() if each.grad is None or not each.grad.any()]
    assert not dull


def test_views_are_told_by_ten_numbers() -> None:
    camera = Camera.look_at((0.0, 2.0, 0.0), (0.0, 0.0, 0.0), width=20, height=10, horizontal_fov_degrees=90.0)
    found = describe_views(camera, torch.tensor([0.1, 0.2]))
    expected = torch.tensor([torch.pi / 2, 1.0, 0.0, 2.0, 0.5, 1.0, 0.5, 0.5, 0.1, 0.2])
    assert found.shape == (NUMBERS,) and torch.allclose(found, expected, atol=1e-6)
    assert describe_views(camera)[-2:].tolist() == [0.0, 0.0]
    striped = torch.tensor([-1.0, 1.0, -1.0, 1.0]).expand(3, 4, 4)
    pictures = torch.stack((torch.full((3, 4, 4), 0.5), striped))
    assert torch.allclose(picture_statistics(pictures), torch.tensor([[0.5, 0.0], [0.0, 1.0]]))


def test_u_nets_that_do_not_fit_are_refused() -> None:
    for levels, message in ((3, "down_blocks of this U-Net have attention in 1 blocks, not 3"), (-1, "levels counts")):
        with pytest.raises(ValueError, match=message):
            ViewLayers.of(small_unet(), **SMALL, levels=levels)
    simple = UNet2DConditionModel(
        sample_size=8,
        in_channels=3,
        out_channels=6,
        block_out_channels=(8, 16),
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    with pytest.raises(ValueError, match="no transformers, as DeepFloyd's"):
        ViewLayers.of(simple, **SMALL)
    with pytest.raises(ValueError, match="of another U-Net"):
        ViewLayers([("a.attn1", 8, 8, 8, True)]).attach(small_unet())
    with pytest.raises(ValueError, match="multiple of 4 voxels"):
        ViewLayers.of(small_unet(), grid=6)
