"""Plain backgrounds of opaque pictures: the one colour around an object in every view, and what is cut out of it."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from nfldm3d._types import Vector

BORDER_SHARE, VIEW_SHARE = 0.8, 0.9
"""So much of the border of a picture shows the colour, in so many of the pictures: an object may stand on something."""
LEAST_COVER = 0.3
"""It fills at least so much of the middle picture: frames around pictures of whole scenes fill less."""
LEAST_TOLERANCE, MOST_TOLERANCE = 3 / 255, 12 / 255
"""A rendered background is exact, one that a lossy format has kept is not; what varies more is not plain."""
NOISE_FACTOR = 4.0
"""By which the tolerance exceeds the median difference along the borders."""


class Backdrop(NamedTuple):
    """The colour of a plain background."""

    color: Vector
    """sRGB in [0, 1]."""
    tolerance: float
    """Pixels that differ by no more in any channel show it."""

    def holds(self, pictures: Float[Tensor, "*batch 3 height width"]) -> Bool[Tensor, "*batch height width"]:
        """Which pixels show it."""
        return (pictures - pictures.new_tensor(self.color)[:, None, None]).abs().amax(-3) <= self.tolerance


def find_backdrop(pictures: Float[Tensor, "views 3 height width"]) -> Backdrop | None:
    """The colour that nearly all borders of the pictures show; None if there is none."""
    sides = (pictures[..., [0, -1], :].flatten(2), pictures[..., [0, -1]].flatten(2))
    border = torch.cat(sides, dim=-1)  # (views 3 pixels)
    color = border.transpose(0, 1).flatten(1).median(1).values
    differences = (border - color[:, None]).abs().amax(1)
    tolerance = max(LEAST_TOLERANCE, NOISE_FACTOR * float(differences.median()))
    plain = (differences <= tolerance).float().mean(1) >= BORDER_SHARE
    if tolerance > MOST_TOLERANCE or float(plain.float().mean()) < VIEW_SHARE:
        return None
    red, green, blue = color.tolist()
    backdrop = Backdrop((red, green, blue), tolerance)
    covers = torch.stack([find_outside(backdrop.holds(picture)).float().mean() for picture in pictures])
    return backdrop if float(covers.median()) >= LEAST_COVER else None


def cut_out(picture: Float[Tensor, "3 height width"], backdrop: Backdrop) -> Float[Tensor, "height width"]:
    """Opacity before a backdrop: 0 where it reaches in from the border, 1 where nothing near looks like it, -1 between.

    Not known are the pixels along silhouettes, and those inside that look like the backdrop: they may be a hole.
    """
    plain = backdrop.holds(picture)
    empty, solid = ~_grow(~find_outside(plain)), ~_grow(plain)
    return solid.float() - (~(empty | solid)).float()


def find_outside(plain: Bool[Tensor, "height width"]) -> Bool[Tensor, "height width"]:
    """The pixels of a mask that are connected with the border, by their sides."""
    border = torch.ones_like(plain)
    border[1:-1, 1:-1] = False
    before, reached = torch.zeros_like(plain), plain & border
    while not torch.equal(before, reached):
        before, reached = reached, _sweep(plain.T, _sweep(plain, reached).T).T
    return reached


def _sweep(plain: Bool[Tensor, "height width"], reached: Bool[Tensor, "height width"]) -> Bool[Tensor, "height width"]:
    """All of each run along a row of which a part has been reached."""
    runs = (~plain).cumsum(-1)  # what ends a run has the number of the next one
    hit = torch.zeros(len(plain), plain.shape[1] + 1, dtype=torch.uint8, device=plain.device)
    hit.scatter_reduce_(-1, runs, reached.to(torch.uint8), "amax")
    return plain & hit.gather(-1, runs).bool()


def _grow(mask: Bool[Tensor, "height width"]) -> Bool[Tensor, "height width"]:
    """The pixels of a mask and those beside them, across corners, too."""
    return functional.max_pool2d(mask.float()[None], 3, stride=1, padding=1)[0] > 0
