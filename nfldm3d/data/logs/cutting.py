"""Cuts a drive into scenes: boxes along the way, each seen from several stops of the vehicle."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.data.vehicle_poses import level
from nfldm3d.geometry import Box

BELOW = 0.25
"""So much of a box lies below the vehicle's origin, as in the driving world."""
OVERHANG = 2.5
"""Metres from the vehicle's origin to its farthest camera."""
LONGEST = 10_000.0
"""Metres of a box."""
STILL = 0.02
"""Metres between two moments below which the vehicle stands: measured positions tremble."""


@dataclass(frozen=True)
class LogCut:
    """How recordings of real vehicles become scenes; whatever else is read does not ask."""

    box: tuple[float, float, float] = (32.0, 32.0, 8.0)
    """Extents of a scene in metres, x along the vehicle's heading; the vehicle stands in its middle, a quarter up."""
    spacing: float | None = None
    """Metres along the way from one scene's middle to the next; by default half the box."""
    stops: int = 4
    """Moments of a scene, evenly spread along the way through the box."""
    longest: int = 128
    """Pictures are scaled to so many pixels along their longer side, and sides cut to multiples of 8."""
    hide_moving: bool = True
    """Whether pixels of things that move are left out by masks, since a scene stands still."""

    def __post_init__(self):
        if not (all(2 * OVERHANG < side < LONGEST for side in self.box[:2]) and 0 < self.box[2] < LONGEST):
            raise ValueError(
                f"box needs more than {2 * OVERHANG} m along x and y, to hold the vehicle, and less than {LONGEST:g} m "
                f"along all axes, got {self.box}"
            )
        if self.stops < 1 or self.longest < 8 or not (self.spacing is None or 0 < self.spacing < float("inf")):
            raise ValueError(
                f"a cut needs at least 1 stop, 8 pixels and a spacing above 0, got stops={self.stops}, "
                f"longest={self.longest}, spacing={self.spacing}"
            )

    @property
    def room(self) -> Box:
        """The box around a vehicle at the origin."""
        x, y, z = self.box
        return Box((-x / 2, -y / 2, -BELOW * z), (x / 2, y / 2, (1 - BELOW) * z))

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that pictures are scaled to."""
        share = min(1.0, self.longest / max(width, height))
        across, down = (8 * max(1, int(share * side + 0.5) // 8) for side in (width, height))
        return across, down


@dataclass(frozen=True)
class Place:
    """One scene of a drive."""

    middle: int
    """The moment whose vehicle is the scene's origin."""
    stops: tuple[int, ...]
    """Moments whose pictures are taken."""
    way: tuple[int, ...]
    """Moments of the vehicle's way through the box."""


def cut_drive(poses: Float[Tensor, "moments 4 4"], cut: LogCut) -> list[Place]:
    """The scenes of a drive, from the vehicle's float64 poses; one at least."""
    steps = (poses[1:, :3, 3] - poses[:-1, :3, 3]).norm(dim=-1)
    walked = torch.cat((steps.new_zeros(1), torch.where(steps < STILL, 0.0, steps).cumsum(0)))
    reach, total = cut.box[0] / 2 - OVERHANG, float(walked[-1])
    spacing = cut.box[0] / 2 if cut.spacing is None else cut.spacing
    last = max(0.0, total - 2 * reach) // spacing
    first = (total - last * spacing) / 2
    return [_find_place(poses, walked, middle, cut) for middle in _nearest_to_marks(walked, first, spacing, last)]


def _nearest_to_marks(walked: Float[Tensor, " moments"], first: float, spacing: float, last: float) -> list[int]:
    """The moments that are nearest to one of the marks first, first + spacing ... first + last * spacing.

    Marks are not gone through: where recorded positions jump there may be any number of them.
    """
    ways, repeats = walked.unique_consecutive(return_counts=True)
    between = (ways[1:] + ways[:-1]) / 2
    before = torch.floor((between - first) / spacing).clamp(-1, last)  # number of the last mark before each of them
    before = torch.cat((before.new_tensor([-1.0]), before, before.new_tensor([last])))
    return (repeats.cumsum(0) - repeats)[before.diff() > 0].tolist()


def _find_place(
    poses: Float[Tensor, "moments 4 4"], walked: Float[Tensor, " moments"], middle: int, cut: LogCut
) -> Place:
    local = poses[:, :3, 3] @ level(poses[middle])[:3, :3].T + level(poses[middle])[:3, 3]
    limit = local.new_tensor(cut.box[:2]) / 2 - OVERHANG
    held = ((local[:, :2].abs() <= limit).all(-1)).tolist()
    start, end = middle, middle
    while start > 0 and held[start - 1]:
        start -= 1
    while end + 1 < len(held) and held[end + 1]:
        end += 1
    low, high = float(walked[start]), float(walked[end])
    share = torch.linspace(0, 1, cut.stops) if cut.stops > 1 else torch.tensor([0.5])
    aims = low + (high - low) * share.double()
    inside = walked[start : end + 1]
    stops = sorted({start + int((inside - aim).abs().argmin()) for aim in aims})
    return Place(middle, tuple(stops), tuple(range(start, end + 1)))
