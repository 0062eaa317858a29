"""From rendered features to colour: what a field's channels mean.

An appearance answers two questions: ``image`` turns composited features into a picture, ``point_color`` colours
single points of a surface. Compositing is linear, so both built-in appearances act on the composited features as
they would on every sample, which costs one evaluation for each ray. The learned image decoder follows the same
protocol; it may look at neighbouring pixels, so ``image`` receives whole pictures ``(*views height width ...)``.
"""

import math
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.geometry import Rays

Rotation = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]

IDENTITY: Rotation = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@runtime_checkable
class Appearance(Protocol):
    """What every appearance offers; scenes, renderer and exporters rely on nothing else."""

    @property
    def channels(self) -> int:
        """Number of feature channels that a field must have."""
        ...

    @property
    def per_ray(self) -> bool:
        """Whether ``image`` treats every ray alone, so that a picture may be made in pieces."""
        ...

    @property
    def needs_normals(self) -> bool:
        """Whether ``image`` must be told the surface normals, which cost queries of their own."""
        ...

    def image(
        self,
        features: Float[Tensor, "*batch channels"],
        opacity: Float[Tensor, "*batch"],
        rays: Rays,
        distance: Float[Tensor, "*batch"] | None = None,
        normals: Float[Tensor, "*batch 3"] | None = None,
    ) -> Float[Tensor, "*pixels 3"]:
        """Colour over black (premultiplied by opacity, not clamped) of composited features.

        Args:
            distance: mean along each ray in metres, 0 where it meets nothing; only a decoder needs it.
            normals: unit vectors out of the matter at that distance, 0 where there is none; only given to appearances
                that need them.
        """
        ...

    def point_color(
        self,
        features: Float[Tensor, "*batch channels"],
        directions: Float[Tensor, "*batch 3"],
        normals: Float[Tensor, "*batch 3"] | None = None,
    ) -> Float[Tensor, "*batch 3"]:
        """sRGB in [0, 1] of points seen by rays that travel along the unit vectors ``directions``."""
        ...

    def moved(self, motion: Float[Tensor, "4 4"]) -> "Appearance":
        """The appearance of the same field after it has been turned and shifted: ``motion`` is new from old world."""
        ...

    def config(self) -> dict[str, object]:
        """Constructor arguments as plain JSON values."""
        ...


@dataclass(frozen=True)
class Rgb:
    """The first three channels are sRGB colour, the same from every side; further channels are left alone."""

    channels: int = 3

    def __post_init__(self):
        if self.channels < 3:
            raise ValueError(f"Rgb needs at least 3 channels, got {self.channels}")

    @property
    def per_ray(self) -> bool:
        """Every ray is coloured alone."""
        return True

    @property
    def needs_normals(self) -> bool:
        """The colours have their light in them."""
        return False

    def image(
        self,
        features: Float[Tensor, "*batch channels"],
        opacity: Float[Tensor, "*batch"],
        rays: Rays,
        distance: Float[Tensor, "*batch"] | None = None,
        normals: Float[Tensor, "*batch 3"] | None = None,
    ) -> Float[Tensor, "*batch 3"]:
        return features[..., :3]

    def point_color(
        self,
        features: Float[Tensor, "*batch channels"],
        directions: Float[Tensor, "*batch 3"],
        normals: Float[Tensor, "*batch 3"] | None = None,
    ) -> Float[Tensor, "*batch 3"]:
        return features[..., :3].clamp(0, 1)

    def moved(self, motion: Float[Tensor, "4 4"]) -> "Rgb":
        return self

    def config(self) -> dict[str, object]:
        return {"channels": self.channels}


@dataclass(frozen=True)
class SphericalHarmonics:
    """View-dependent sRGB: ``0.5 + sum_k basis_k(direction) * feature_k``.

    Channel ``3 * k + rgb`` belongs to basis function k, so the first three channels set the mean colour whatever the
    degree; the direction is that in which the ray travels. The basis is real and orthonormal, in the order and signs
    of 3-D Gaussian splatting and Plenoxels.
    """

    degree: int = 2
    """0 to 3: 1, 4, 9 or 16 basis functions."""
    frame: Rotation = field(default=IDENTITY)
    """World from the axes in which the coefficients were fitted; changes when the scene is turned."""

    def __post_init__(self):
        if self.degree not in (0, 1, 2, 3):
            raise ValueError(f"spherical harmonics go from degree 0 to 3, got {self.degree}")
        if len(self.frame) != 3 or any(len(row) != 3 for row in self.frame):
            raise ValueError(f"the frame of spherical harmonics is a 3x3 rotation, got {self.frame}")
        object.__setattr__(self, "frame", tuple(tuple(float(value) for value in row) for row in self.frame))

    @property
    def channels(self) -> int:
        """Three colours for each basis function."""
        return 3 * (self.degree + 1) ** 2

    @property
    def per_ray(self) -> bool:
        """Every ray is coloured alone."""
        return True

    @property
    def needs_normals(self) -> bool:
        """The colours have their light in them."""
        return False

    def image(
        self,
        features: Float[Tensor, "*batch channels"],
        opacity: Float[Tensor, "*batch"],
        rays: Rays,
        distance: Float[Tensor, "*batch"] | None = None,
        normals: Float[Tensor, "*batch 3"] | None = None,
    ) -> Float[Tensor, "*batch 3"]:
        return 0.5 * opacity[..., None] + self._sum(features, rays.directions)

    def point_color(
        self,
        features: Float[Tensor, "*batch channels"],
        directions: Float[Tensor, "*batch 3"],
        normals: Float[Tensor, "*batch 3"] | None = None,
    ) -> Float[Tensor, "*batch 3"]:
        return (0.5 + self._sum(features, directions)).clamp(0, 1)

    def moved(self, motion: Float[Tensor, "4 4"]) -> "SphericalHarmonics":
        return self.rotated(motion[:3, :3])

    def rotated(self, rotation: Float[Tensor, "3 3"]) -> "SphericalHarmonics":
        """The same colours after the world has been turned; the coefficients stay as they are."""
        turned = rotation.double().cpu() @ torch.tensor(self.frame, dtype=torch.float64)
        return SphericalHarmonics(self.degree, tuple(tuple(row) for row in turned.tolist()))  # type: ignore[arg-type]

    def config(self) -> dict[str, object]:
        return {"degree": self.degree, "frame": [list(row) for row in self.frame]}

    def change_frame(
        self, features: Float[Tensor, "*batch channels"], frame: Rotation
    ) -> Float[Tensor, "*batch channels"]:
        """Coefficients that give in another frame the colours that ``features`` give in this one."""
        directions = torch.randn(64, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        directions = torch.nn.functional.normalize(directions, dim=-1)
        here, there = (
            spherical_harmonics(directions @ torch.tensor(axes, dtype=torch.float64), self.degree)
            for axes in (self.frame, frame)
        )
        change = torch.linalg.lstsq(there, here).solution.to(features)  # exact: turns mix functions of one degree
        return (change @ features.unflatten(-1, (-1, 3))).flatten(-2)

    def _sum(
        self, features: Float[Tensor, "*batch channels"], directions: Float[Tensor, "*batch 3"]
    ) -> Float[Tensor, "*batch 3"]:
        local = directions @ directions.new_tensor(self.frame)  # frame^T applied to each direction
        exact = torch.promote_types(features.dtype, local.dtype)
        basis = spherical_harmonics(local, self.degree).to(exact)[..., None, :]
        # (*batch 1 basis) @ (*batch basis 3) -> (*batch 1 3): an eighth of the time of products that are then summed
        return (basis @ features.to(exact).unflatten(-1, (-1, 3)))[..., 0, :]


def spherical_harmonics(directions: Float[Tensor, "*batch 3"], degree: int) -> Float[Tensor, "*batch basis"]:
    """Real orthonormal spherical harmonics up to ``degree`` at unit vectors (Sloan 2008, appendix A2)."""
    x, y, z = directions.unbind(-1)
    values = [torch.full_like(x, 0.5 / math.sqrt(math.pi))]
    if degree >= 1:
        c1 = math.sqrt(3 / (4 * math.pi))
        values += [-c1 * y, c1 * z, -c1 * x]
    if degree >= 2:
        c2 = math.sqrt(15 / (4 * math.pi))
        values += [
            c2 * x * y,
            -c2 * y * z,
            c2 / (2 * math.sqrt(3)) * (3 * z * z - 1),
            -c2 * x * z,
            c2 / 2 * (x * x - y * y),
        ]
    if degree >= 3:
        a, b, c = math.sqrt(35 / (32 * math.pi)), math.sqrt(105 / (4 * math.pi)), math.sqrt(21 / (32 * math.pi))
        values += [
            -a * y * (3 * x * x - y * y),
            b * x * y * z,
            -c * y * (5 * z * z - 1),
            math.sqrt(7 / (16 * math.pi)) * z * (5 * z * z - 3),
            -c * x * (5 * z * z - 1),
            b / 2 * z * (x * x - y * y),
            -a * x * (x * x - 3 * y * y),
        ]
    return torch.stack(values, dim=-1)


@dataclass(frozen=True)
class EnvironmentMap:
    """What lies infinitely far away: an equirectangular picture in sRGB; row 0 is the zenith, column 0 starts at -x."""

    image: Float[Tensor, "height width channels"]

    def __post_init__(self):
        if self.image.dim() != 3 or 0 in self.image.shape:
            raise ValueError(
                f"an environment map needs an image (height, width, channels), got {tuple(self.image.shape)}"
            )

    def query(self, directions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch channels"]:
        """Bilinear look-up along unit vectors, at least in single precision; differentiable by the picture."""
        height, width, _ = self.image.shape
        exact = torch.promote_types(torch.promote_types(directions.dtype, self.image.dtype), torch.float32)
        directions = directions.to(exact)
        x, y, z = directions.unbind(-1)
        column = (torch.atan2(y, x) / (2 * math.pi) + 0.5) * width - 0.5
        row = (torch.acos(z.clamp(-1, 1)) / math.pi * height - 0.5).clamp(0, height - 1)
        left, top = column.floor(), row.floor()
        right_share, bottom_share = (column - left)[..., None], (row - top)[..., None]
        first, second = left.long() % width, (left.long() + 1) % width
        upper, lower = top.long(), (top.long() + 1).clamp(max=height - 1)
        above = torch.lerp(self.image[upper, first].to(exact), self.image[upper, second].to(exact), right_share)
        below = torch.lerp(self.image[lower, first].to(exact), self.image[lower, second].to(exact), right_share)
        return torch.lerp(above, below, bottom_share)

    def directions(self) -> Float[Tensor, "height width 3"]:
        """Unit vectors through the centres of all pixels."""
        height, width, _ = self.image.shape
        like = torch.zeros((), dtype=torch.promote_types(self.image.dtype, torch.float32), device=self.image.device)
        polar = (torch.arange(height).to(like) + 0.5) * (math.pi / height)
        azimuth = (torch.arange(width).to(like) + 0.5) * (2 * math.pi / width) - math.pi
        polar, azimuth = torch.meshgrid(polar, azimuth, indexing="ij")
        x, y = torch.sin(polar) * torch.cos(azimuth), torch.sin(polar) * torch.sin(azimuth)
        return torch.stack((x, y, torch.cos(polar)), dim=-1)

    def rotated(self, rotation: Float[Tensor, "3 3"]) -> "EnvironmentMap":
        """The map after the world has been turned, resampled."""
        directions = self.directions()
        turned = self.query(directions @ rotation.to(directions))  # rotation^T applied to each
        return EnvironmentMap(turned.to(self.image.dtype))

    def to(self, target: torch.device | torch.dtype | str) -> "EnvironmentMap":
        """The map on another device or in another dtype."""
        return EnvironmentMap(self.image.to(target))
