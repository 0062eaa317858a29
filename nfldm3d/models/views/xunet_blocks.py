"""The blocks of 3DiM's X-UNet, on frames (objects*frames channels height width) of which both share all weights."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

FEW_TOKENS = 256
"""Up to which attention is computed as plain products where that is faster."""
GROUPS = 32
"""Of channels in group norms, where they divide them."""
HALF = math.sqrt(0.5)
"""Sums of two are scaled by it, so that their variance stays."""


class ModulatedBlock(nn.Module):
    """BigGAN's residual block, whose second norm is scaled and shifted at every pixel by an embedding."""

    def __init__(self, inputs: int, outputs: int, memory: int, dropout: float):
        super().__init__()
        self.norm_in, self.norm_out = make_norm(inputs), make_norm(outputs)
        self.conv_in, self.conv_out = (nn.Conv2d(width, outputs, 3, padding=1) for width in (inputs, outputs))
        self.modulation = nn.Conv2d(memory, 2 * outputs, 1)
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        silence(self.conv_out)

    def forward(
        self, hidden: Float[Tensor, "frames inputs height width"], told: Float[Tensor, "frames memory height width"]
    ) -> Float[Tensor, "frames outputs height width"]:
        inner = self.conv_in(functional.silu(self.norm_in(hidden)))
        scale, shift = self.modulation(functional.silu(told)).chunk(2, dim=1)
        inner = functional.silu(self.norm_out(inner) * (1 + scale) + shift)
        return (self.skip(hidden) + self.conv_out(self.dropout(inner))) * HALF


class FrameAttention(nn.Module):
    """Attention of each frame to itself, or with ``across`` to the other frame of its object, by the same weights."""

    def __init__(self, channels: int, heads: int, *, across: bool):
        super().__init__()
        self.heads, self.across = heads, across
        self.norm = make_norm(channels)
        self.query, self.key, self.value, self.out = (nn.Linear(channels, channels) for _ in range(4))
        silence(self.out)

    def forward(
        self, hidden: Float[Tensor, "frames channels height width"]
    ) -> Float[Tensor, "frames channels height width"]:
        tokens = self.norm(hidden).flatten(2).transpose(1, 2)  # frames height*width channels
        seen = tokens.unflatten(0, (-1, 2)).flip(1).flatten(0, 1) if self.across else tokens
        query, key, value = (
            layer(source).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, source in ((self.query, tokens), (self.key, seen), (self.value, seen))
        )
        mixed = _attend(query, key, value).transpose(1, 2).flatten(2)
        return (hidden + self.out(mixed).transpose(1, 2).unflatten(2, hidden.shape[2:])) * HALF


class FrameBlock(nn.Module):
    """A modulated block; where pictures are small, attention within and across frames follows."""

    def __init__(self, inputs: int, outputs: int, memory: int, dropout: float, *, heads: int, frames: int):
        """``heads`` of 0 leaves attention out, one frame that across frames."""
        super().__init__()
        self.block = ModulatedBlock(inputs, outputs, memory, dropout)
        kinds = (False, True)[:frames] if heads else ()
        self.attention = nn.ModuleList(FrameAttention(outputs, heads, across=across) for across in kinds)

    def forward(
        self, hidden: Float[Tensor, "frames inputs height width"], told: Float[Tensor, "frames memory height width"]
    ) -> Float[Tensor, "frames outputs height width"]:
        hidden = self.block(hidden, told)
        for attention in self.attention:
            hidden = attention(hidden)
        return hidden


def _attend(
    query: Float[Tensor, "frames heads tokens width"],
    key: Float[Tensor, "frames heads tokens width"],
    value: Float[Tensor, "frames heads tokens width"],
) -> Float[Tensor, "frames heads tokens width"]:
    """Scaled dot-product attention; on a CPU, where gradients of the fused one are slow, the plain products."""
    if query.device.type != "cpu" or query.shape[2] > FEW_TOKENS or not torch.is_grad_enabled():
        return functional.scaled_dot_product_attention(query, key, value)
    return (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1).to(value.dtype) @ value


def make_norm(channels: int) -> nn.GroupNorm:
    """A group norm of each frame by itself."""
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels)


def silence(layer: nn.Conv2d | nn.Linear) -> None:
    """Makes a layer begin with zeros."""
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


def embed_log_snr(log_snr: Float[Tensor, " frames"], numbers: int) -> Float[Tensor, "frames numbers"]:
    """Sines and cosines of 1000 * 2 / pi * atan(exp(-lambda / 2)), which is 0 without noise and 1000 of noise alone."""
    time = 1000 * 2 / math.pi * torch.atan(torch.exp(-log_snr.float().clamp(-20, 20) / 2))
    half = numbers // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, device=log_snr.device) / max(half - 1, 1))
    angles = time[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), dim=-1)
