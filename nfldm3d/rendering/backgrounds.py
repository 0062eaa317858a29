"""What is behind a field: plain colours, or a small network over directions that is learned."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nfldm3d.appearance import EnvironmentMap, spherical_harmonics

DEGREE = 3


def draw_plain_backgrounds(count: int, generator: torch.Generator) -> Float[Tensor, "pictures 3"]:
    """White for half of the pictures, middle grey for most others, and any colour.

    A prior learns from them, so there are few: else most of what it learns where most is noise is the background's.
    """
    colors, kind = torch.rand(count, 3, generator=generator), torch.rand(count, 1, generator=generator)
    return torch.where(kind < 0.5, 1.0, torch.where(kind < 0.8, 0.5, colors))


class BackgroundNetwork(nn.Module):
    """A colour for every direction: spherical harmonics of degree 3 and a hidden layer; grey at the start."""

    def __init__(self, width: int = 16, *, generator: torch.Generator | None = None):
        super().__init__()
        if width < 1:
            raise ValueError(f"the width of a background must be at least 1, got {width}")
        inputs = (DEGREE + 1) ** 2
        limit = math.sqrt(6 / (inputs + width))
        self.hidden = nn.Parameter(limit * (2 * torch.rand(width, inputs, generator=generator) - 1))
        self.output = nn.Parameter(torch.zeros(3, width))

    def forward(self, directions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """sRGB in [0, 1] along unit vectors."""
        seen = functional.linear(spherical_harmonics(directions, DEGREE), self.hidden).relu()
        return torch.sigmoid(functional.linear(seen, self.output))

    @torch.no_grad()
    def to_environment_map(self, height: int = 64) -> EnvironmentMap:
        """The same as a picture, twice as wide as high."""
        directions = EnvironmentMap(self.output.new_zeros(height, 2 * height, 3)).directions()
        return EnvironmentMap(self(directions))
