"""Occupancy against its torch twin and by its definition."""

import pytest
import torch
from ops_cases import DEVICES

from nfldm3d.ops import TILE, build_occupancy, reference


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("resolution", [(1, 1, 1), (5, 1, 9), (33, 17, 40), (4, 4, 4), (90, 3, 2)])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 1.0])
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_agrees_with_the_twin(
    resolution: tuple[int, int, int], share: float, threshold: float, device: str, generator: torch.Generator
) -> None:
    density = torch.rand(resolution, generator=generator) * (torch.rand(resolution, generator=generator) < share)
    ours, twin = build_occupancy(density.to(device), threshold), reference.build_occupancy(density, threshold)
    assert torch.equal(ours.cells.cpu(), twin.cells)
    assert torch.equal(ours.leaps.cpu(), twin.leaps)


def test_one_voxel_marks_the_cells_around_it_and_the_distances_to_its_brick() -> None:
    density = torch.zeros(20, 24, 28)
    density[9, 4, 17] = 1e-3
    occupancy = build_occupancy(density)
    marked = occupancy.cells.nonzero()
    assert sorted(map(tuple, marked.tolist())) == [(x, y, z) for x in (8, 9) for y in (3, 4) for z in (16, 17)]
    bricks = torch.unique(marked // TILE, dim=0)
    places = torch.cartesian_prod(*(torch.arange(size) for size in occupancy.leaps.shape))
    expected = (places[:, None] - bricks).abs().amax(-1).amin(-1)
    assert torch.equal(occupancy.leaps.flatten().long(), expected)


def test_an_empty_field_is_as_far_as_can_be() -> None:
    assert bool((build_occupancy(torch.zeros(5, 6, 7)).leaps == 255).all())


def test_only_float32_grids_are_taken() -> None:
    with pytest.raises(ValueError, match="density must be torch.float32 on cpu, got torch.float64"):
        build_occupancy(torch.zeros(2, 2, 2, dtype=torch.float64))
