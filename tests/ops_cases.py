"""Fields and rays that the tests of the kernels share; nothing in them is symmetric."""

import pytest
import torch
from torch import Tensor

BOX = ((-1.0, 0.5, 2.0), (1.2, 3.0, 3.1))
DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.cuda))


def random_field(
    resolution: tuple[int, int, int], channels: int, generator: torch.Generator, *, share: float = 0.4
) -> tuple[Tensor, Tensor]:
    """Density in a random share of the voxels, and features everywhere."""
    density = 6 * torch.rand(resolution, generator=generator)
    density[torch.rand(resolution, generator=generator) > share] = 0
    return density, torch.randn(*resolution, channels, generator=generator)


def random_rays(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rays through the box: some start in it, some before it, and the last tenth misses it."""
    lower, upper = torch.tensor(BOX[0]), torch.tensor(BOX[1])
    targets = lower + torch.rand(count, 3, generator=generator) * (upper - lower)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    origins = targets - torch.where(torch.rand(count, 1, generator=generator) < 0.5, 0.2, 4.0) * directions
    missing = slice(count - count // 10, count)
    origins[missing] = targets[missing] + 9 * directions[missing]
    return origins, directions
