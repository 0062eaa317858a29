"""Held-out objects as networks draw them, from one view of each or from what they are called."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.data.view_sets import ViewSet, ViewSets, find_given
from nfldm3d.models.views.sampling import ViewSampling, draw_views
from nfldm3d.models.views.xunet import XUNet
from nfldm3d.pipelines.views.multiview import KnownViews, MultiViewGenerator, MultiViewSampling

SPIRAL, SPIRAL_VIEW = 251, 64
"""Test objects of SRN have so many views along a spiral; that of this number is the one that is given."""
TOGETHER = 8
"""Objects drawn side by side."""

DrawViews: TypeAlias = Callable[[list[ViewSet], torch.Generator], Float[Tensor, "objects views 3 height width"]]
"""Draws all views of some objects, as many of each; the first one stays as it is, where it is given."""


@dataclass(frozen=True)
class DrawnObject:
    """The views of one object; of the drawn ones the first is the true one, where it was given."""

    true: ViewSet
    drawn: Float[Tensor, "views 3 height width"]


def one_by_one(network: XUNet, sampling: ViewSampling) -> DrawViews:
    """As 3DiM draws."""

    def draw(objects: list[ViewSet], generator: torch.Generator) -> Tensor:
        images = torch.stack([views.images for views in objects])
        camera = Camera.cat([views.camera for views in objects]).reshape(len(objects), -1)
        given = images[:, :1], camera[:, :1]
        drawn = draw_views(network, *given, camera[:, 1:], sampling, generator=generator)
        return torch.cat((images[:, :1], drawn.to(images)), dim=1)

    return draw


def together(model: MultiViewGenerator, sampling: MultiViewSampling, *, given: bool = True) -> DrawViews:
    """As ViewDiff draws, with the object's caption; without ``given`` from that alone."""

    def draw(objects: list[ViewSet], generator: torch.Generator) -> Tensor:
        drawn = []
        for views in objects:
            known = KnownViews(views.images[:1], views.camera[:1]) if given else None
            wanted = views.camera[int(given) :]
            made = model.draw_along(views.caption, wanted, sampling, known=known, generator=generator)
            drawn.append(torch.cat((views.images[: int(given)], made.to(views.images))))
        return torch.stack(drawn)

    return draw


def choose_views(camera: Camera, views: int) -> Int64[Tensor, " numbers"]:
    """The number of the view that is given, SRN's or ``find_given``'s, and those of the views that are drawn."""
    count = len(camera)
    given = SPIRAL_VIEW if count >= SPIRAL else find_given(camera)
    others = torch.tensor([number for number in range(count) if number != given], dtype=torch.int64)
    places = torch.linspace(0, len(others) - 1, min(views, len(others))).round().long()
    return torch.cat((torch.tensor([given]), others[places]))


def draw_objects(draw: DrawViews, sets: ViewSets, *, objects: int, views: int, seed: int) -> Iterator[DrawnObject]:
    """Draws ``views`` views of at most so many objects, evenly spread.

    Raises:
        ValueError: there are no objects, or one of two views or fewer.
    """
    count = min(objects, len(sets))
    if count < 1:
        raise ValueError("there are no objects to judge by; record some, or give another split")
    draws = torch.Generator().manual_seed(seed)
    for first in range(0, count, TOGETHER):
        numbers = [number * len(sets) // count for number in range(first, min(first + TOGETHER, count))]
        read = [sets.read(number, lambda camera: choose_views(camera, views)) for number in numbers]
        fewest = min(len(each.images) for each in read)
        if fewest < 2:
            raise ValueError("an object has a single view, so that there is nothing to compare with; record more")
        read = [each[:fewest] for each in read]
        for each, made in zip(read, draw(read, draws).cpu(), strict=True):
            yield DrawnObject(each, made)
