"""Scenes stand where a vehicle came by, however positions were recorded."""

import torch

from nfldm3d.data.logs import LogCut
from nfldm3d.data.logs.cutting import cut_drive


def along(*places: float) -> torch.Tensor:
    poses = torch.eye(4, dtype=torch.float64).repeat(len(places), 1, 1)
    poses[:, 0, 3] = torch.tensor(places, dtype=torch.float64)
    return poses


def test_scenes_are_spread_along_the_way(generator: torch.Generator) -> None:
    """Each mark along the way gives the moment nearest to it."""
    for _ in range(40):
        steps = 5 * torch.rand(50, generator=generator, dtype=torch.float64)
        steps[torch.rand(50, generator=generator) < 0.3] = 0
        ways = torch.cat((steps.new_zeros(1), steps.cumsum(0)))
        spacing = float(1 + 12 * torch.rand((), generator=generator))
        found = [place.middle for place in cut_drive(along(*ways.tolist()), LogCut(spacing=spacing))]
        total, reach = float(ways[-1]), 16 - 2.5
        count = int(max(0.0, total - 2 * reach) // spacing) + 1
        marks = [(total - (count - 1) * spacing) / 2 + number * spacing for number in range(count)]
        assert found == list(dict.fromkeys(int((ways - mark).abs().argmin()) for mark in marks))


def test_positions_that_jump_take_no_time() -> None:
    """Hostile poses lie light years apart: there are as many scenes as moments at most."""
    assert 1 <= len(cut_drive(along(0.0, 5.0, 1e18, 1e18 + 4096.0), LogCut())) <= 4


def test_a_vehicle_that_stands_still_has_one_scene() -> None:
    assert [place.middle for place in cut_drive(along(3.0, 3.0, 3.0), LogCut())] == [0]
