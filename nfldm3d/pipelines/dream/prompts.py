"""What a view is told to look like: a prompt with the side it is seen from, and what it must not look like.

Perp-Neg (Armandpour et al. 2023): what the prompts of other sides add to the noise beyond the wanted one's direction is
taken away, so that an object does not show its face to all sides.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nfldm3d.guidance import CameraPrior, Prior
from nfldm3d.guidance.perpendicular import OtherSides

SIDES = ("front", "side", "back", "overhead")
FRONT, SIDE, BACK, OVERHEAD = range(4)
MIDDLES = ((0.0, 15.0), (90.0, 15.0), (180.0, 15.0), (0.0, 75.0))
"""Azimuth and elevation of each side, in degrees, for priors that are told them as numbers."""
OVERHEAD_DEGREES = 60.0
"""Elevation above which a view is from overhead."""
SIDE_DEGREES = 45.0
"""How far front and back reach to each side of the middle."""
# f(r) = a exp(-b r) + c, the published weights, by which sides they stand between
SIDE_BACK, FRONT_BEHIND, FRONT_SIDE, SIDE_FRONT = (
    (1.0, 0.5, -0.606),
    (1.0, 0.5, 0.967),
    (4.0, 0.5, -2.426),
    (4.0, 0.5, -2.426),
)

ViewPrompts = Literal["interpolate", "threshold", "none"]


@dataclass(frozen=True)
class Conditions:
    """What a prior is told about a batch of views."""

    wanted: Float[Tensor, "views tokens numbers"]
    avoided: Float[Tensor, "views tokens numbers"]
    """Nothing, or the negative prompt."""
    others: OtherSides | None = None
    """For Perp-Neg."""


@dataclass(frozen=True)
class Prompts:
    """The embeddings of a prompt from each side."""

    plain: Float[Tensor, "1 tokens numbers"]
    sides: Float[Tensor, "sides tokens numbers"]
    """In the order of ``SIDES``."""
    avoided: Float[Tensor, "1 tokens numbers"]
    place: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    """Of a prior that is told angles instead of the names of sides."""

    @staticmethod
    def embed(prior: Prior, prompt: str, negative: str = "") -> "Prompts":
        """What a prior makes of a prompt; a ValueError if there is none, or the prior takes no texts."""
        if not prompt.strip():
            raise ValueError("the prompt is empty: say what to dream of, such as 'a wooden chair'")
        plain = prior.embed([prompt])
        avoided = (prior.embed([negative]) if negative.strip() else prior.embed_nothing(1)).to(plain)
        if isinstance(prior, CameraPrior):
            sides = prior.place(plain.expand(len(SIDES), -1, -1), *torch.tensor(MIDDLES).unbind(-1))
            return Prompts(plain, sides, avoided, prior.place)
        sides = torch.cat([prior.embed([f"{prompt}, {side} view"]) for side in SIDES])
        return Prompts(plain, sides, avoided)

    def conditions(
        self,
        azimuth: Float[Tensor, " views"],
        elevation: Float[Tensor, " views"],
        kind: ViewPrompts = "interpolate",
        *,
        perp_neg: bool = False,
    ) -> Conditions:
        """What views at angles in degrees are told.

        Args:
            kind: prompts of the sides mixed by the azimuth, or the nearest side's, or the same from everywhere; for a
                ``CameraPrior`` the angles themselves, or those of the nearest side's middle, or none.
            perp_neg: mixes them and adds what Perp-Neg avoids.
        """
        views = len(azimuth)
        avoided = self.avoided.expand(views, -1, -1)
        if kind == "none" and not perp_neg:
            return Conditions(self.plain.expand(views, -1, -1), avoided)
        nearest = kind == "threshold" and not perp_neg
        if self.place is not None and not nearest:
            wanted = self.place(self.plain.expand(views, -1, -1), azimuth, elevation)
        else:
            shares = nearest_side(azimuth, elevation) if nearest else mix(azimuth, elevation)
            wanted = torch.einsum("vs,stn->vtn", shares.to(self.sides), self.sides)
        if not perp_neg:
            return Conditions(wanted, avoided)
        chosen, weights = perpendicular_weights(azimuth, elevation)
        others = OtherSides(self.sides[chosen.to(self.sides.device)], weights.to(self.sides))
        return Conditions(wanted, avoided, others)


def nearest_side(azimuth: Float[Tensor, " views"], elevation: Float[Tensor, " views"]) -> Float[Tensor, "views sides"]:
    """1 for the side that a view is seen from."""
    turned = azimuth.abs()
    side = torch.full_like(azimuth, SIDE).long()
    side[turned < SIDE_DEGREES] = FRONT
    side[turned > 180 - SIDE_DEGREES] = BACK
    side[elevation > OVERHEAD_DEGREES] = OVERHEAD
    return torch.nn.functional.one_hot(side, len(SIDES)).to(azimuth)


def mix(azimuth: Float[Tensor, " views"], elevation: Float[Tensor, " views"]) -> Float[Tensor, "views sides"]:
    """Shares of front, side and back by the azimuth; overhead alone above its elevation."""
    quarter = azimuth.abs() / 90
    shares = torch.zeros(len(azimuth), len(SIDES)).to(azimuth)
    shares[:, FRONT] = (1 - quarter).clamp(min=0)
    shares[:, SIDE] = 1 - (1 - quarter).abs()
    shares[:, BACK] = (quarter - 1).clamp(min=0)
    overhead = torch.nn.functional.one_hot(torch.tensor(OVERHEAD), len(SIDES)).to(shares)
    return torch.where((elevation > OVERHEAD_DEGREES)[:, None], overhead, shares)


def perpendicular_weights(
    azimuth: Float[Tensor, " views"], elevation: Float[Tensor, " views"]
) -> tuple[Int64[Tensor, "views others"], Float[Tensor, "views others"]]:
    """The two sides that each view must not look like, and their weights, which are not positive."""
    quarter = azimuth.abs() / 90
    before = quarter < 1
    r = torch.where(before, 1 - quarter, 2 - quarter)
    first = torch.where(before, falling(FRONT_SIDE, r), falling(SIDE_BACK, r))
    second = torch.where(before, falling(SIDE_FRONT, 1 - r), falling(FRONT_BEHIND, r))
    sides = torch.where(before[:, None], torch.tensor((FRONT, SIDE)), torch.tensor((SIDE, FRONT)))
    weights = -torch.stack((first, second), dim=-1)
    return sides, torch.where((elevation > OVERHEAD_DEGREES)[:, None], 0.0, weights)


def falling(shape: tuple[float, float, float], r: Float[Tensor, " views"]) -> Float[Tensor, " views"]:
    """a exp(-b r) + c."""
    a, b, c = shape
    return a * torch.exp(-b * r) + c
