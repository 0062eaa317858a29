"""Where a dream is looked at from, and by what light: the draws of DreamFusion, each range an option."""

import math
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.geometry import look_at

Range = tuple[float, float]


@dataclass(frozen=True)
class ViewRanges:
    """What cameras and lights are drawn from; lengths are in radii of the object's ball, which lies around zero.

    The cameras are by default about those of ``recording.objects``, the only ones that our own text prior knows; models
    that have seen everything are better asked from ``published()``'s.
    """

    elevation: Range = (-10.0, 75.0)
    """Degrees above the horizon."""
    azimuth: Range = (-180.0, 180.0)
    """Degrees from +x, the front, to +y."""
    distance: Range = (1.3, 1.3)
    """From the middle."""
    focal: Range = (0.95, 1.1)
    """In widths of the picture: fields of view from 56 to 49 degrees."""
    aim: float = 0.0
    """Deviation of the point looked at."""
    roll: float = 0.0
    """Deviation of the upward direction."""
    shift: float = 0.0
    """Greatest shift of the camera along each axis."""
    light_distance: Range = (0.8, 1.5)
    """Of the lamp from the middle; it stands near the camera's direction."""
    light_spread: float = 1.0
    """Deviation of the lamp from the camera before its direction is taken."""

    @staticmethod
    def published() -> "ViewRanges":
        """DreamFusion's: near and far, wide and narrow, aimed beside the middle and a little askew."""
        return ViewRanges((-10.0, 90.0), distance=(1.0, 1.5), focal=(0.7, 1.35), aim=0.2, roll=0.02, shift=0.1)

    def __post_init__(self):
        for part in fields(self):
            value = getattr(self, part.name)
            if isinstance(value, tuple) and not (len(value) == 2 and -math.inf < value[0] <= value[1] < math.inf):
                raise ValueError(f"{part.name} goes from a number to one not below it, got {value}")
            if not isinstance(value, tuple) and not 0 <= value < math.inf:
                raise ValueError(f"{part.name} must not be negative, got {value}")
        if not -90 <= self.elevation[0] <= self.elevation[1] <= 90:
            raise ValueError(f"elevation lies between -90 and 90 degrees, got {self.elevation}")
        if min(self.distance[0], self.focal[0], self.light_distance[0]) <= 0:
            raise ValueError("distance, focal and light_distance must be above 0")


@dataclass(frozen=True)
class DreamViews:
    """Cameras with where they stand, in degrees, and a lamp for each."""

    camera: Camera
    azimuth: Float[Tensor, " views"]
    """-180 to 180; 0 is the front."""
    elevation: Float[Tensor, " views"]
    lamps: Float[Tensor, "views 3"]


def draw_views(
    ranges: ViewRanges, views: int, size: int, *, radius: float = 1.0, generator: torch.Generator | None = None
) -> DreamViews:
    """Cameras around zero, spread over the azimuth, with square pictures of ``size`` pixels, on the CPU."""

    def uniform(bounds: Range) -> Float[Tensor, " views"]:
        return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(views, generator=generator)

    def normal() -> Float[Tensor, "views 3"]:
        return torch.randn(views, 3, generator=generator)

    share = (torch.arange(views) + torch.rand(views, generator=generator)) / views  # one camera in each part
    azimuth = ranges.azimuth[0] + (ranges.azimuth[1] - ranges.azimuth[0]) * share
    elevation, distance, focal = uniform(ranges.elevation), uniform(ranges.distance), uniform(ranges.focal)
    shift = ranges.shift * (2 * torch.rand(views, 3, generator=generator) - 1)
    eyes = radius * (distance[:, None] * directions(azimuth, elevation) + shift)
    targets = radius * ranges.aim * normal()
    upwards = torch.tensor((0.0, 0.0, 1.0)) + ranges.roll * normal()
    poses = torch.stack(
        [look_at(eye, target, tuple(up)) for eye, target, up in zip(eyes, targets, upwards.tolist(), strict=True)]
    )
    towards = torch.nn.functional.normalize(eyes / radius + ranges.light_spread * normal(), dim=-1)
    lamps = radius * uniform(ranges.light_distance)[:, None] * towards
    middle = torch.full((views, 2), size / 2)
    camera = Camera(poses, (focal * size)[:, None].expand(-1, 2), middle, size, size)
    return DreamViews(camera, (azimuth + 180) % 360 - 180, elevation, lamps)


def directions(azimuth: Float[Tensor, "*views"], elevation: Float[Tensor, "*views"]) -> Float[Tensor, "*views 3"]:
    """Unit vectors from angles in degrees."""
    around, up = torch.deg2rad(azimuth), torch.deg2rad(elevation)
    return torch.stack((around.cos() * up.cos(), around.sin() * up.cos(), up.sin()), dim=-1)


def circle_views(views: int, size: int, *, radius: float = 1.0, elevation: float = 15.0) -> Camera:
    """Cameras that see the whole ball's middle from all sides, for people to look at; the first at the front."""
    return Camera.orbit(
        (0.0, 0.0, 0.0),
        1.5 * radius,
        views=views,
        elevation_degrees=elevation,
        width=size,
        height=size,
        horizontal_fov_degrees=60.0,
    )
