"""Folding and its inverse; blocks that start as the identity; networks that see a crop as part of the whole."""

import pytest
import torch
from torch import Tensor

from nfldm3d.blocks import ChannelNorm, ResidualBlock, UNet, fold, unfold


def scrambled(module: torch.nn.Module, generator: torch.Generator) -> torch.nn.Module:
    """The module without any weight at zero."""
    for parameter in module.parameters():
        parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module


def test_fold_puts_features_before_heights() -> None:
    scene, x, y, z, channel = torch.meshgrid(*(torch.arange(n).float() for n in (2, 3, 5, 4, 6)), indexing="ij")
    folded = fold(10000 * scene + 1000 * x + 100 * y + 10 * z + channel)
    assert folded.shape == (2, 24, 3, 5)
    assert folded[1, 5 * 4 + 3, 2, 4] == 10000 + 2000 + 400 + 30 + 5


def test_unfold_undoes_fold(generator: torch.Generator) -> None:
    grid = torch.rand(2, 3, 5, 4, 6, generator=generator)
    assert torch.equal(unfold(fold(grid), 4), grid)
    picture = torch.rand(1, 12, 3, 2, generator=generator)
    assert torch.equal(fold(unfold(picture, 3)), picture)


@pytest.mark.parametrize("local", [False, True])
def test_a_new_block_is_the_identity(local: bool, generator: torch.Generator) -> None:
    block = ResidualBlock(16, 16, local=local)
    torch.nn.init.zeros_(block.conv_out.bias)  # type: ignore[arg-type]
    image = torch.randn(2, 16, 5, 3, generator=generator)
    assert torch.equal(block(image), image)


def test_condition_scales_and_shifts_the_second_norm(generator: torch.Generator) -> None:
    plain, conditional = ResidualBlock(8, 16), ResidualBlock(8, 16, condition=3)
    scrambled(plain, generator)
    conditional.load_state_dict(plain.state_dict(), strict=False)
    image, condition = torch.randn(2, 8, 4, 6, generator=generator), torch.randn(2, 3, generator=generator)
    assert torch.equal(conditional(image, condition), plain(image))  # the modulation starts at zero
    weight, bias = plain.norm_out.weight.data.clone(), plain.norm_out.bias.data.clone()  # type: ignore[union-attr]
    scale, shift = torch.randn(16, generator=generator), torch.randn(16, generator=generator)
    conditional.modulation.bias.data.copy_(torch.cat((scale, shift)))  # type: ignore[union-attr]
    plain.norm_out.weight.data.copy_(weight * (1 + scale))  # type: ignore[union-attr]
    plain.norm_out.bias.data.copy_(bias * (1 + scale) + shift)  # type: ignore[union-attr]
    assert torch.allclose(conditional(image, condition), plain(image), atol=1e-5)


def test_channel_norm_treats_every_pixel_alone(generator: torch.Generator) -> None:
    image = 3 * torch.randn(1, 12, 4, 5, generator=generator) + 1
    result = ChannelNorm(12)(image)
    assert torch.allclose(result.mean(1), torch.zeros(1, 4, 5), atol=1e-5)
    assert torch.allclose(result.var(1, unbiased=False), torch.ones(1, 4, 5), atol=1e-3)
    assert torch.allclose(ChannelNorm(12)(image[..., 1:3, 2:]), result[..., 1:3, 2:], atol=1e-6)


@pytest.mark.parametrize("size", [(8, 12), (7, 5), (1, 3)])
@pytest.mark.parametrize("widths", [(8,), (8, 16), (8, 16, 24)])
def test_unet_keeps_the_size(size: tuple[int, int], widths: tuple[int, ...], generator: torch.Generator) -> None:
    network = UNet(5, 3, widths, blocks=2, condition=2)
    image, condition = torch.randn(2, 5, *size, generator=generator), torch.randn(2, 2, generator=generator)
    assert network(image, condition).shape == (2, 3, *size)


def test_a_local_unet_sees_a_crop_as_part_of_the_whole(generator: torch.Generator) -> None:
    network = scrambled(UNet(4, 3, (8, 16), local=True), generator)
    image = torch.randn(1, 4, 40, 44, generator=generator)
    rim = 14  # what the convolutions of both levels reach

    def interior(crop: Tensor) -> Tensor:
        return network(crop)[..., rim:-rim, rim:-rim]

    whole, part = interior(image), interior(image[..., 4:, 6:-2])
    assert torch.allclose(part, whole[..., 4:, 6:-2], atol=1e-5)
    assert float(part.detach().std()) > 0.01


def test_gradients_reach_every_weight_of_a_unet(generator: torch.Generator) -> None:
    network = scrambled(UNet(4, 3, (8, 16), condition=2), generator)
    image, condition = torch.randn(2, 4, 8, 6, generator=generator), torch.randn(2, 2, generator=generator)
    network(image, condition).square().sum().backward()
    silent = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert not silent
