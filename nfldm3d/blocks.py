"""Building blocks that the networks share, and the folding of a voxel grid into pictures."""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

GROUP = 8
"""Channels of a group in group norms."""


class ChannelNorm(nn.Module):
    """Normalises the channels of every pixel by themselves, so that a crop gives what the whole picture gives."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(
        self, image: Float[Tensor, "views channels height width"]
    ) -> Float[Tensor, "views channels height width"]:
        return self.norm(image.movedim(1, -1)).movedim(-1, 1)


class ResidualBlock(nn.Module):
    """Norm, activation, convolution, twice, added to the input; the second convolution starts at zero.

    With ``condition`` channels, a vector scales and shifts the second norm: conditional group norm.
    """

    def __init__(self, inputs: int, outputs: int, *, condition: int = 0, local: bool = False):
        super().__init__()
        self.norm_in, self.norm_out = _norm(inputs, local), _norm(outputs, local)
        self.conv_in, self.conv_out = (nn.Conv2d(width, outputs, 3, padding=1) for width in (inputs, outputs))
        nn.init.zeros_(self.conv_out.weight)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        self.modulation = nn.Linear(condition, 2 * outputs) if condition else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(
        self,
        image: Float[Tensor, "views inputs height width"],
        condition: Float[Tensor, "views condition"] | None = None,
    ) -> Float[Tensor, "views outputs height width"]:
        hidden = self.norm_out(self.conv_in(functional.silu(self.norm_in(image))))
        if self.modulation is not None:
            assert condition is not None
            scale, shift = self.modulation(condition)[..., None, None].chunk(2, dim=1)
            hidden = hidden * (1 + scale) + shift
        return self.skip(image) + self.conv_out(functional.silu(hidden))


class UNet(nn.Module):
    """A small U-Net: residual blocks at each width, halving the picture in between."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        widths: tuple[int, ...],
        *,
        blocks: int = 1,
        condition: int = 0,
        local: bool = False,
    ):
        super().__init__()
        self.stem = nn.Conv2d(inputs, widths[0], 3, padding=1)

        def stage(first: int, width: int) -> nn.ModuleList:
            return nn.ModuleList(
                ResidualBlock(first if number == 0 else width, width, condition=condition, local=local)
                for number in range(blocks)
            )

        self.down = nn.ModuleList(stage(width, width) for width in widths)
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise(widths))
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(stage(2 * width, width) for width in widths[:-1])
        self.norm = _norm(widths[0], local)
        self.head = nn.Conv2d(widths[0], outputs, 1)

    def forward(
        self,
        image: Float[Tensor, "views inputs height width"],
        condition: Float[Tensor, "views condition"] | None = None,
        layout: Float[Tensor, "views second half_height half_width"] | None = None,
        sketches: Sequence[Float[Tensor, "views _ _ _"]] | None = None,
    ) -> Float[Tensor, "views outputs height width"]:
        """``layout`` is added to what the second level sees, ``sketches`` to all levels, from fine to coarse."""
        hidden, kept = self.stem(image), []
        for number, blocks in enumerate(self.down):
            if sketches is not None:
                hidden = hidden + sketches[number]
            for block in blocks:  # type: ignore[union-attr]
                hidden = block(hidden, condition)
            if number < len(self.shrink):
                kept.append(hidden)
                hidden = self.shrink[number](hidden)
                if number == 0 and layout is not None:
                    hidden = hidden + layout
        for number in reversed(range(len(self.up))):
            side = kept.pop()
            raised = functional.interpolate(self.grow[number](hidden), size=side.shape[-2:], mode="nearest")
            hidden = torch.cat((side, raised), dim=1)
            for block in self.up[number]:  # type: ignore[union-attr]
                hidden = block(hidden, condition)
        return self.head(functional.silu(self.norm(hidden)))


def fold(grid: Float[Tensor, "scenes x y z channels"]) -> Float[Tensor, "scenes folded x y"]:
    """The grid as pictures over x and y; channel ``c * z_count + k`` is feature c at height k."""
    return grid.movedim((4, 3), (1, 2)).flatten(1, 2)  # (scenes channels z x y) -> (scenes channels*z x y)


def unfold(picture: Float[Tensor, "scenes folded x y"], heights: int) -> Float[Tensor, "scenes x y z channels"]:
    """The inverse of ``fold`` for a grid of ``heights`` voxels along z."""
    return picture.unflatten(1, (-1, heights)).movedim((1, 2), (4, 3))


def _norm(channels: int, local: bool) -> nn.Module:
    return ChannelNorm(channels) if local else nn.GroupNorm(max(1, channels // GROUP), channels)
