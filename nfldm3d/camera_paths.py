"""The shapes of camera paths: circles, and smooth curves past keys."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

GOLDEN = math.pi * (3 - math.sqrt(5))
"""Radians between neighbours of a spiral that lie all around however many there are."""


def circle(views: int, elevation_degrees: float = 0.0) -> Float[Tensor, "views 3"]:
    """Unit vectors at one elevation above the horizon, counter-clockwise from +x."""
    azimuth, elevation = torch.arange(views) * (2 * math.pi / views), math.radians(elevation_degrees)
    level = torch.stack((torch.cos(azimuth), torch.sin(azimuth), torch.zeros_like(azimuth)), dim=-1)
    return level * math.cos(elevation) + level.new_tensor((0.0, 0.0, math.sin(elevation)))


def spiral(views: int, lowest_degrees: float, highest_degrees: float, turn: float = 0.0) -> Float[Tensor, "views 3"]:
    """Unit vectors evenly spread between two elevations, from the lowest up, each a golden angle further round; the
    first has an azimuth of ``turn`` radians."""
    low, high = (math.sin(math.radians(angle)) for angle in (lowest_degrees, highest_degrees))
    count = torch.arange(views, dtype=torch.float64)
    height, azimuth = low + (count + 0.5) / views * (high - low), turn + GOLDEN * count
    flat = (1 - height.square()).sqrt()
    return torch.stack((flat * azimuth.cos(), flat * azimuth.sin(), height), dim=-1)


@dataclass(frozen=True, eq=False)
class KeyPath:
    """Where the frames of a path lie among the views that it passes."""

    keys: Int64[Tensor, " keys"]
    """Numbers of these views, in order."""
    times: Float[Tensor, " frames"]
    """When each frame is shown; the path passes one key in each unit of time, the first at 0."""

    @classmethod
    def past(cls, views: int, frames: int, *, closed: bool) -> "KeyPath":
        """Frames at equal times, from the first view to the last, or on to just before the first if closed."""
        if views < 2 or frames < 1:
            raise ValueError(f"a path needs at least two cameras and one frame, got {views} cameras, {frames} frames")
        times = torch.linspace(0, views - 1 + closed, frames + closed, dtype=torch.float64)[:frames]
        if closed:  # one more key on both sides, for the slope at the seam
            return cls(torch.arange(-1, views + 2) % views, times + 1)
        return cls(torch.arange(views), times)

    def mix(self, values: Float[Tensor, "keys numbers"]) -> Float[Tensor, "frames numbers"]:
        """What the frames have of some numbers of the keys, in straight lines from key to key."""
        start = self.times.floor().clamp(max=len(self.keys) - 2).long()
        return torch.lerp(values[start], values[start + 1], (self.times - start).to(values)[:, None])
