"""A car is moved on the road, and found again, or not."""

import pytest
import torch

from nfldm3d.evaluation.moved_cars import CarMove, find_parts, judge_moves, move_car

NAMES = ("void", "road", "marking", "terrain", "car")


def street() -> torch.Tensor:
    """A road along x, 24 of 30 cells wide between verges, two cars on it, one cut off by the edge."""
    classes = torch.full((50, 30), 3)
    classes[:, 3:27] = 1
    classes[::4, 15] = 2
    classes[8:12, 6:9] = 4
    classes[48:, 20:23] = 4
    return classes


def test_parts_hang_together_over_corners() -> None:
    mask = torch.zeros(9, 7, dtype=torch.bool)
    mask[1, 1] = mask[2, 2] = mask[3, 1] = mask[6, 5] = True
    assert sorted(int(part.sum()) for part in find_parts(mask)) == [1, 3]
    assert find_parts(torch.zeros(3, 4, dtype=torch.bool)) == []


def test_cars_move_along_the_road() -> None:
    classes, seen = street(), set()
    for seed in range(8):
        move = move_car(classes, NAMES, generator=torch.Generator().manual_seed(seed))
        assert move is not None and int(move.after.sum()) == int(move.before.sum()) == 12
        assert bool((classes[move.after] != 3).all()) and bool((classes[move.after] != 4).all())
        assert bool((move.classes[move.before] == 1).all()) and bool((move.classes[move.after] == 4).all())
        rest = ~(move.before | move.after)
        assert torch.equal(move.classes[rest], classes[rest])
        a, b = (part.nonzero().float().mean(0) for part in (move.before, move.after))
        assert float((a - b).abs().max()) >= 10 and torch.equal(a.frac(), b.frac())
        seen.add(tuple(b.tolist()))
    assert len(seen) > 4


def test_what_cannot_be_moved_stays() -> None:
    full = torch.full((20, 20), 3)
    full[5:8, 5:8] = 4
    assert move_car(full, NAMES) is None and move_car(torch.full((20, 20), 1), NAMES) is None
    with pytest.raises(ValueError, match="maps of void, floor hold no car"):
        move_car(full, ("void", "floor"))


def test_cars_are_found_where_they_stand() -> None:
    move = move_car(street(), NAMES, generator=torch.Generator().manual_seed(0))
    assert isinstance(move, CarMove)
    moves = [move] * 4
    faint = move.classes.clone()
    faint[move.after.nonzero()[3:].unbind(-1)] = 1  # 3 of 12 cells are too few
    both = torch.where(move.before, 4, move.classes)
    moved, unmoved = torch.stack((move.classes, faint, both, street())), torch.stack([street()] * 4)
    figures = judge_moves(moves, moved, unmoved, NAMES.index("car"))
    assert figures == {
        "cars_moved": 0.25,
        "cars_found_at_new_place": 0.5,
        "cars_gone_from_old_place": 0.5,
        "cars_unmoved": 1.0,
        "cars_by_chance": 0.0,
        "cars": 4.0,
    }
