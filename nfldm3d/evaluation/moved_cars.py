"""Whether a car that is moved on a map is found at its new place, and no longer at its old one (NF-LDM, Figure 9)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from torch.nn import functional

CAR, ROAD = "car", ("road", "marking")
"""Names of the classes: what is moved, and where it may stand."""
SMALLEST, LARGEST = 6, 80
"""Cells of one car; smaller ones are cut off by the edge of the map, larger ones are several."""
NEAREST = 10
"""Cells along x or y by which a car is moved at least, so that it does not cover its old place."""
FOUND = 0.3
"""A car stands where the reader finds it on this share of its cells."""


@dataclass(frozen=True)
class CarMove:
    """A car on a map, and the same map with it elsewhere on the road."""

    before: Bool[Tensor, "x y"]
    """Where it stood."""
    after: Bool[Tensor, "x y"]
    """Where it stands now."""
    classes: Int64[Tensor, "x y"]
    """The changed map; at the old place there is road."""


def find_parts(mask: Bool[Tensor, "x y"]) -> list[Bool[Tensor, "x y"]]:
    """The connected parts of a mask, also over corners, by the first of their cells."""
    labels = torch.where(mask, torch.arange(1, mask.numel() + 1, device=mask.device).view(mask.shape), 0).float()
    while True:
        grown = torch.where(mask, functional.max_pool2d(labels[None], 3, 1, 1)[0], 0)
        if torch.equal(grown, labels):
            return [labels == number for number in labels.unique() if number > 0]
        labels = grown


def move_car(
    classes: Int64[Tensor, "x y"], names: Sequence[str], *, generator: torch.Generator | None = None
) -> CarMove | None:
    """A random car of a map at a random free place of the road; None if there is no such car or place.

    Raises:
        ValueError: the maps know no cars, or no road.
    """
    if missing := sorted({CAR, ROAD[0]} - set(names)):
        raise ValueError(f"maps of {', '.join(names)} hold no {missing[0]}, so no car can be moved on them")
    car, road = classes == names.index(CAR), torch.zeros_like(classes, dtype=torch.bool)
    for name in ROAD:
        if name in names:
            road |= classes == names.index(name)
    whole = [part for part in find_parts(car) if SMALLEST <= int(part.sum()) <= LARGEST and not _touches_edge(part)]
    for number in torch.randperm(len(whole), generator=generator).tolist():
        before = whole[number]
        shifts = _find_room(before, road)
        if len(shifts):
            shift = shifts[int(torch.randint(len(shifts), (), generator=generator))]
            after = torch.zeros_like(before)
            after[tuple((before.nonzero() + shift).unbind(-1))] = True
            changed = torch.where(before, names.index(ROAD[0]), classes)
            return CarMove(before, after, torch.where(after, names.index(CAR), changed))
    return None


def _touches_edge(part: Bool[Tensor, "x y"]) -> bool:
    return bool(part[0].any() | part[-1].any() | part[:, 0].any() | part[:, -1].any())


def _find_room(part: Bool[Tensor, "x y"], road: Bool[Tensor, "x y"]) -> Int64[Tensor, "shifts 2"]:
    """By how many cells the shape can be shifted so that all of it lies on the road, some way off."""
    corner, end = (edge(part.nonzero(), 0) for edge in (torch.amin, torch.amax))
    shape = part[corner[0] : end[0] + 1, corner[1] : end[1] + 1].float()
    covered = functional.conv2d(road.float()[None, None], shape[None, None])[0, 0]  # by where the corner lies
    shifts = (covered > shape.sum() - 0.5).nonzero() - corner
    return shifts[shifts.abs().amax(1) >= NEAREST]


def stands_at(found: Int64[Tensor, "x y"], place: Bool[Tensor, "x y"], car: int) -> bool:
    """Whether a map that was read holds a car there."""
    return float((found[place] == car).float().mean()) >= FOUND


def judge_moves(
    moves: Sequence[CarMove],
    moved: Int64[Tensor, "scenes x y"],
    unmoved: Int64[Tensor, "scenes x y"],
    car: int,
) -> dict[str, float]:
    """Shares of cars, from maps that were read in scenes generated with the car moved, and with it where it was.

    ``cars_moved`` counts those found at the new place and not at the old one; ``cars_unmoved`` those that were found at
    the old place before, and ``cars_by_chance`` those at the new place before: what the first has to be compared with.
    """
    found, left, stood, chance = ([] for _ in range(4))
    for move, now, before in zip(moves, moved, unmoved, strict=True):
        found.append(stands_at(now, move.after, car))
        left.append(not stands_at(now, move.before, car))
        stood.append(stands_at(before, move.before, car))
        chance.append(stands_at(before, move.after, car))
    count = len(moves)
    both = sum(new and gone for new, gone in zip(found, left, strict=True))
    return {
        "cars_moved": both / count,
        "cars_found_at_new_place": sum(found) / count,
        "cars_gone_from_old_place": sum(left) / count,
        "cars_unmoved": sum(stood) / count,
        "cars_by_chance": sum(chance) / count,
        "cars": float(count),
    }
