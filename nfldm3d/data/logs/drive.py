"""What recordings of real vehicles have in common, whichever data set they belong to.

A *drive* is one uninterrupted recording. Its *moments* are the times at which all cameras took a picture and the lidar
finished a turn. World and vehicle are right-handed with z up in metres, the vehicle's x lies ahead; poses are float64,
since such worlds lie kilometres from their origin.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from nfldm3d.data.intrinsics import Intrinsics
from nfldm3d.data.logs.wide_lens import WideView

CLASS_NAMES = (
    *("void", "road", "crossing", "sidewalk", "parking", "terrain"),
    *("building", "tree", "object", "vehicle", "person"),
)
"""Of bird's-eye maps. A building is whatever was built and is no road; an object is a pole, sign, cone or bin; where
the set says nothing there is void."""
PALETTE = (
    *((0, 0, 0), (110, 110, 115), (240, 240, 240), (200, 120, 200), (150, 140, 190), (90, 140, 60)),
    *((170, 110, 80), (20, 90, 40), (230, 190, 60), (200, 40, 40), (240, 120, 40)),
)


@dataclass(frozen=True)
class LogView:
    """One picture of a moment."""

    camera: str
    path: Path
    lens: Intrinsics
    """Of the view."""
    world_from_camera: Float[Tensor, "4 4"]
    """When the picture was taken: cameras fire at their own times, and the vehicle moves meanwhile."""
    seconds: float | None
    wide: WideView | None = None
    """How the view is cut out of a fisheye picture, if it is one."""


@dataclass(frozen=True)
class LogObject:
    """Something on or beside the road, as the set's annotators boxed it."""

    name: str
    """Tells one thing from another within the drive."""
    kind: str
    """What the set calls it."""
    map_class: str
    """One of ``CLASS_NAMES``."""
    world_from_object: Float[Tensor, "4 4"]
    """Its middle; x points ahead."""
    size: tuple[float, float, float]
    """Length, width and height in metres."""
    moving: bool


@dataclass(frozen=True)
class GroundArea:
    """A region of the ground: what lies within an odd number of its rings."""

    map_class: str
    rings: tuple[Float[np.ndarray, "corners 2"], ...]
    """World x and y."""


@runtime_checkable
class Drive(Protocol):
    """One drive of a log, whose pictures have not been opened."""

    @property
    def name(self) -> str:
        """Tells it from the others of the log."""
        ...

    @property
    def route(self) -> str:
        """Drives of one route show the same streets: they belong on one side of a split."""
        ...

    @property
    def source(self) -> Path:
        """The file or folder that messages name."""
        ...

    def vehicle_poses(self) -> Float[Tensor, "moments 4 4"]:
        """``world_from_vehicle`` at each moment."""
        ...

    def views(self, moment: int) -> list[LogView]:
        """The pictures of a moment."""
        ...

    def sweep(self, moment: int) -> Float[Tensor, "points 3"] | None:
        """Surfaces that the lidar met, in the world; None if the log has no lidar."""
        ...

    def objects(self, moment: int) -> list[LogObject]:
        """What is around the vehicle at a moment."""
        ...

    def ground(self, lower: tuple[float, float], upper: tuple[float, float]) -> list[GroundArea] | None:
        """Areas that reach into a rectangle of the world, later ones on top; None if the log has no map there."""
        ...
