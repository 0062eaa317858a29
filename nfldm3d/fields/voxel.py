"""The field that keeps density and features on a regular grid.

Three coordinate systems meet here. World: metres. Voxel: voxel (i, j, k) has its centre at
``box.lower + (ijk + 0.5) * voxel_size``. Memory: ``density[i, j, k]`` and ``features[i, j, k, channel]``.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nfldm3d import ops
from nfldm3d._types import Vector
from nfldm3d.fields.packing import find_bricks, pack_grid, unpack_grid
from nfldm3d.fields.protocol import Brick, Field, FieldState
from nfldm3d.fields.values import average_rows, check_values, find_normals, find_voxels
from nfldm3d.geometry import Box, Rays
from nfldm3d.memory import require_memory
from nfldm3d.ops.bricks import BRICK


@dataclass(frozen=True)
class VoxelField:
    """Density and features on a regular grid, trilinear between voxel centres and zero outside the box.

    Inside the box the outer half voxel takes the value of the nearest centre. Leading ``*scenes`` axes hold
    independent fields over one box.
    """

    density: Float[Tensor, "*scenes x y z"]
    """Extinction in 1/metre, not negative unless ``signed``."""
    features: Float[Tensor, "*scenes x y z channels"]
    """What the appearance turns into colour."""
    box: Box
    signed: bool = False
    """Whether densities below zero are kept. There is matter where the trilinear density exceeds zero, so surfaces lie
    anywhere between voxel centres (ReLU fields, Karnewar et al. 2022), not only where opaque voxels end."""

    def __post_init__(self):
        if self.density.dim() < 3 or self.features.shape[:-1] != self.density.shape or 0 in self.features.shape:
            raise ValueError(
                "a voxel field needs density (*scenes, x, y, z) and features (*scenes, x, y, z, channels), got "
                f"{tuple(self.density.shape)} and {tuple(self.features.shape)}"
            )
        if not (self.density.is_floating_point() and self.features.is_floating_point()):
            raise ValueError(
                f"density and features must be floating point, got {self.density.dtype} and {self.features.dtype}"
            )
        if self.density.device != self.features.device:
            raise ValueError(f"density is on {self.density.device}, features are on {self.features.device}; move one")
        if not (self.density.requires_grad or self.features.requires_grad):
            self.check()

    def check(self) -> None:
        """Raises a ValueError that names the first voxel whose density or features are not finite.

        Densities below zero are refused as well, unless the field is ``signed``.
        """
        check_values(self.density.detach(), self.features.detach(), self.signed)

    @classmethod
    def zeros(
        cls, box: Box, resolution: tuple[int, int, int], channels: int, device: torch.device | str = "cpu"
    ) -> "VoxelField":
        """An empty field; refuses a grid that does not fit in memory and says how much it needs."""
        require_memory(resolution, channels, torch.device(device))
        density = torch.zeros(resolution, device=device)
        return cls(density, torch.zeros(*resolution, channels, device=device), box)

    @classmethod
    def from_points(
        cls,
        points: Float[Tensor, "points 3"],
        features: Float[Tensor, "points channels"],
        box: Box,
        resolution: tuple[int, int, int],
        *,
        density: float | None = None,
    ) -> "VoxelField":
        """Voxels that hold points get the mean of their features and ``density`` (default: one voxel absorbs half)."""
        require_memory(resolution, features.shape[-1], points.device)
        inside = box.contains(points)
        x, y, z = find_voxels(points[inside], box, resolution).unbind(-1)
        flat = (x * resolution[1] + y) * resolution[2] + z
        held, mean = average_rows(flat, features[inside], math.prod(resolution))
        solid = surface_density(box.voxel_size(resolution)) if density is None else density
        return cls(held.mul(solid).view(resolution), mean.view(*resolution, -1), box)

    @property
    def resolution(self) -> tuple[int, int, int]:
        """Voxels along x, y and z."""
        x, y, z = self.density.shape[-3:]
        return (x, y, z)

    @property
    def voxel_size(self) -> Vector:
        """Extents of one voxel in metres."""
        return self.box.voxel_size(self.resolution)

    @property
    def channels(self) -> int:
        """Number of feature channels."""
        return self.features.shape[-1]

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.density.device

    @property
    def nbytes(self) -> int:
        """Memory of density and features in bytes."""
        return self.density.nbytes + self.features.nbytes

    @property
    def occupied_fraction(self) -> float:
        """Share of voxels with a density above zero."""
        return float((self.density > 0).float().mean())

    def __getitem__(self, index) -> "VoxelField":
        if self.density.dim() == 3:
            raise ValueError("this is a single field; only fields with *scenes axes can be indexed")
        density = self.density[index]
        return replace(self, density=density, features=self.features[index])

    def __str__(self) -> str:
        x, y, z = self.resolution
        size = " x ".join(f"{extent:.3g}" for extent in self.box.size)
        scenes = f"{tuple(self.density.shape[:-3])} scenes of " if self.density.dim() > 3 else ""
        return (
            f"VoxelField {scenes}{x}x{y}x{z} voxels x {self.channels} channels ({self.density.dtype}, {self.device}), "
            f"{size} m, {100 * self.occupied_fraction:.1f} % occupied, {self.nbytes / 2**20:.1f} MiB"
        )

    __repr__ = __str__

    def to(self, target: torch.device | torch.dtype | str) -> "VoxelField":
        """The field on another device or in another dtype."""
        return self._map(lambda tensor: tensor.to(target))

    def unsigned(self) -> "VoxelField":
        """The field with each density cut at zero, for programs that take none below; surfaces grow a little."""
        return replace(self, density=self.density.clamp(min=0), signed=False) if self.signed else self

    def detach(self) -> "VoxelField":
        """The same values without gradients."""
        return self._map(lambda tensor: tensor.detach())

    def query(
        self, points: Float[Tensor, "*batch 3"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch channels"]]:
        """Trilinear density and features at world points of a single field; gradients reach the grid and the points.

        The density is not negative; that of a ``signed`` field is cut at zero after interpolation.
        """
        self._require_single("query")
        density, features = self.interpolate(points)
        return density.relu() if self.signed else density, features

    def interpolate(
        self, points: Float[Tensor, "*batch 3"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch channels"]]:
        """As ``query``, but the density of a ``signed`` field keeps its sign: what other grids are filled with."""
        self._require_single("interpolate")
        flat, box = points.reshape(-1, 3), (self.box.lower, self.box.upper)
        density = ops.interpolate(self.density[..., None], flat, box)
        features = ops.interpolate(self.features, flat, box)
        return density.view(points.shape[:-1]), features.view(*points.shape[:-1], self.channels)

    def query_density(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        """The density of ``query`` without the features."""
        self._require_single("query_density")
        flat, box = points.reshape(-1, 3), (self.box.lower, self.box.upper)
        density = ops.interpolate(self.density[..., None], flat, box).view(points.shape[:-1])
        return density.relu() if self.signed else density

    def normals(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Unit vectors from dense to empty space, against the density's gradient; zero where it is constant."""
        self._require_single("normals")
        box = (self.box.lower, self.box.upper)
        return find_normals(lambda at: ops.interpolate(self.density[..., None], at, box), points, self.voxel_size)

    def occupancy(self, threshold: float = 0.0) -> ops.Occupancy:
        """Where the density exceeds ``threshold`` (1/metre)."""
        self._require_single("occupancy")
        return ops.build_occupancy(self.density, threshold)

    def integrate(
        self,
        rays: Rays,
        near_far: Float[Tensor, "rays 2"],
        step: float,
        early_stop: float,
        occupancy: ops.Occupancy | None = None,
        gradient: ops.FieldGradient | None = None,
    ) -> ops.RayIntegral:
        """The fused march, see ``ops.integrate_rays``: queries nothing, so its memory does not grow with samples."""
        self._require_single("integrate")
        march = ops.March((self.box.lower, self.box.upper), step, early_stop)
        grids, lines = (self.density, self.features), (rays.origins, rays.directions)
        return ops.integrate_rays(*grids, *lines, near_far, march, occupancy=occupancy, gradient=gradient)

    def state(self) -> FieldState:
        """What scene files keep: the bricks that hold anything."""
        self.check()
        config: dict[str, object] = {"lower": self.box.lower, "upper": self.box.upper}
        config |= {"signed": True} if self.signed else {}
        return FieldState(config, pack_grid(self.density, self.features))

    @classmethod
    def from_state(cls, state: FieldState) -> "VoxelField":
        """The field that ``state`` was taken from."""
        corners = (tuple(state.config[name]) for name in ("lower", "upper"))  # type: ignore[arg-type]
        return cls(*unpack_grid(state.tensors), Box(*corners), bool(state.config.get("signed", False)))

    def bricks(self) -> Iterator[Brick]:
        """The blocks of up to 8x8x8 voxels in which any density or feature is not zero."""
        self._require_single("bricks")
        for start in self.brick_mask().nonzero().mul(BRICK).tolist():
            part = tuple(slice(first, first + BRICK) for first in start)
            yield Brick((start[0], start[1], start[2]), self.density[part], self.features[part])

    def brick_mask(self) -> Bool[Tensor, "bx by bz"]:
        """Which blocks of 8x8x8 voxels hold any non-zero density or feature."""
        return find_bricks(self.density, self.features)

    def voxel_centers(self) -> Float[Tensor, "x y z 3"]:
        """World positions of all voxel centres."""
        return self.box.voxel_centers(self.resolution, self.density)

    def resampled(self, resolution: tuple[int, int, int], box: Box | None = None) -> "VoxelField":
        """The field on another grid, read at the new voxel centres."""
        require_memory(resolution, self.channels, self.device)
        box = box or self.box
        density, features = self.interpolate(box.voxel_centers(resolution, self.density))
        return VoxelField(density, features, box, self.signed)

    def _require_single(self, what: str) -> None:
        if self.density.dim() != 3:
            raise ValueError(f"{what} needs a single field, got {tuple(self.density.shape[:-3])} scenes; index one")

    def _map(self, change: Callable[[Tensor], Tensor]) -> "VoxelField":
        return replace(self, density=change(self.density), features=change(self.features))


def surface_density(voxel_size: Vector) -> float:
    """The density at which one voxel absorbs half of the light, in 1/metre: where a surface is taken to be."""
    return math.log(2) / min(voxel_size)


def require_voxels(field: Field, what: str) -> VoxelField:
    """The field itself, for what must read a dense grid; other fields are refused with the remedy."""
    if not isinstance(field, VoxelField):
        raise ValueError(
            f"{what} needs a VoxelField, got {type(field).__name__}; read it on a grid with editing.resample first"
        )
    return field
