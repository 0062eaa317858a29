"""What an X-UNet's frames are told at every level: how noisy they are, and where their pixels look."""

from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nfldm3d.models.views.xunet_blocks import embed_log_snr

Places: TypeAlias = tuple[Float[Tensor, "pairs ..."], ...]
"""What is told of the rays of pairs of views, a map for each level of a network from fine to coarse; the points of a
sweep follow."""


class Conditions(nn.Module):
    """What every level is told: how noisy a frame is, where its pixels look, and which of the two it is."""

    def __init__(self, encoded: int, memory: int, side: int, levels: int, frames: int):
        super().__init__()
        self.noise = nn.Sequential(nn.Linear(memory, memory), nn.SiLU(), nn.Linear(memory, memory))
        self.place = nn.Parameter(torch.randn(encoded, side, side) / encoded**0.5)
        self.frame = nn.Parameter(torch.randn(frames, encoded, 1, 1) / encoded**0.5)
        self.levels = nn.ModuleList(
            nn.Conv2d(encoded, memory, 3, stride=1 << level, padding=1) for level in range(levels)
        )

    def place_rays(self, encoded: Float[Tensor, "objects frames encoded height width"]) -> Places:
        """What is told of rays; those of views need no gradients, what is learned of places is the same for all."""
        rays, learned = encoded.flatten(0, 1), self.place + self.frame
        made = []
        for level in self.levels:
            assert isinstance(level, nn.Conv2d)
            same = functional.conv2d(learned, level.weight, None, level.stride, level.padding)
            made.append(level(rays).unflatten(0, encoded.shape[:2]) + same)
        return tuple(made)

    def forward(
        self, places: Places, log_snr: Float[Tensor, "objects 2"]
    ) -> list[Float[Tensor, "objects_frames memory _ _"]]:
        """One map for each level, from fine to coarse."""
        levels = log_snr if len(self.frame) == 2 else log_snr[:, 1:]
        noise = self.tell_noise(levels.flatten())
        return [noise[..., None, None] + place.flatten(0, 1) for place in places]

    def tell_noise(self, log_snr: Float[Tensor, " frames"]) -> Float[Tensor, "frames memory"]:
        """What is told of noise levels."""
        first = self.noise[0]
        assert isinstance(first, nn.Linear)
        return self.noise(embed_log_snr(log_snr, first.in_features).to(self.place.dtype))
