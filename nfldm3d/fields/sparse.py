"""The field that keeps only the bricks of a grid that hold anything: its cost follows the surface, not the volume.

A brick is a block of 8x8x8 voxels; the pool holds them in any order, ``bricks`` says where each belongs. All else is
as in ``voxel``: voxel (i, j, k) of the whole grid has its centre at ``box.lower + (ijk + 0.5) * voxel_size``, and what
the pool lacks is zero.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor

from nfldm3d import ops
from nfldm3d._types import Vector
from nfldm3d.fields.packing import check_bricks, find_bricks, require_map
from nfldm3d.fields.protocol import Brick, FieldState
from nfldm3d.fields.refinement import place_voxels, subdivide, touched_bricks
from nfldm3d.fields.values import average_rows, check_values, find_normals, find_voxels
from nfldm3d.fields.voxel import VoxelField, surface_density
from nfldm3d.geometry import Box, Rays
from nfldm3d.memory import require_memory, require_pool_memory
from nfldm3d.ops.bricks import BRICK, gather_bricks, scatter_bricks_


@dataclass(frozen=True)
class SparseField:
    """Density and features in some of a grid's bricks, trilinear between voxel centres; zero in the others."""

    density: Float[Tensor, "bricks 8 8 8"]
    """Extinction in 1/metre, not negative unless ``signed``."""
    features: Float[Tensor, "bricks 8 8 8 channels"]
    """What the appearance turns into colour."""
    places: Int32[Tensor, "bricks 3"]
    """Where each brick lies: voxels 8 * place to 8 * place + 7. What lies beyond the resolution counts for nothing."""
    resolution: tuple[int, int, int]
    """Voxels of the whole grid along x, y and z."""
    box: Box
    signed: bool = False
    """As for ``VoxelField``; next to matter, bricks that are missing cut densities below zero off at zero."""

    def __post_init__(self):
        check_bricks(self.places, self.density, self.features, self.resolution)
        if self.features.shape[-1] < 1:
            raise ValueError("a sparse field needs at least one channel of features, got none")
        if not (self.density.is_floating_point() and self.features.is_floating_point()):
            raise ValueError(
                f"density and features must be floating point, got {self.density.dtype} and {self.features.dtype}"
            )
        if not self.density.device == self.features.device == self.places.device:
            where = f"{self.density.device}, {self.features.device} and {self.places.device}"
            raise ValueError(f"density, features and places are on {where}; move them to one device")
        if not (self.density.requires_grad or self.features.requires_grad):
            self.check()

    def check(self) -> None:
        """Raises a ValueError that names the first voxel, by brick, whose density or features are not as they must."""
        check_values(self.density.detach(), self.features.detach(), self.signed)

    @classmethod
    def from_dense(cls, field: VoxelField) -> "SparseField":
        """The bricks of a dense field that hold anything but zero: loses nothing."""
        if field.density.dim() != 3:
            raise ValueError(f"a sparse field holds one scene, got {tuple(field.density.shape[:-3])}; index one")
        places = find_bricks(field.density.detach(), field.features.detach()).nonzero().int()
        density, features = (gather_bricks(grid, places) for grid in (field.density, field.features))
        return cls(density, features, places, field.resolution, field.box, field.signed)

    @classmethod
    def from_points(
        cls,
        points: Float[Tensor, "points 3"],
        features: Float[Tensor, "points channels"],
        box: Box,
        resolution: tuple[int, int, int],
        *,
        density: float | None = None,
    ) -> "SparseField":
        """Voxels that hold points get the mean of their features and ``density`` (default: one voxel absorbs half).

        Raises:
            ValueError: the bricks do not fit in memory; it says how much they need, and what would fit.
        """
        require_map(resolution, points.device)
        inside = box.contains(points)
        places, rows = place_voxels(find_voxels(points[inside], box, resolution), resolution)
        require_pool_memory(len(places) * BRICK**3, features.shape[-1], resolution, points.device)
        held, mean = average_rows(rows, features[inside], len(places) * BRICK**3)
        solid = surface_density(box.voxel_size(resolution)) if density is None else density
        shape = (len(places), BRICK, BRICK, BRICK)
        return cls(held.mul(solid).view(shape), mean.view(*shape, -1), places, resolution, box)

    def to_dense(self) -> VoxelField:
        """The same field with all its voxels.

        Raises:
            ValueError: they do not fit in memory.
        """
        require_memory(self.resolution, self.channels, self.device)
        density = self.density.new_zeros(self.resolution)
        features = self.features.new_zeros(*self.resolution, self.channels)
        scatter_bricks_(self.density.detach(), self.places, density)
        scatter_bricks_(self.features.detach(), self.places, features)
        return VoxelField(density, features, self.box, self.signed)

    def pruned(self, threshold: float = 0.0) -> "SparseField":
        """Without the bricks that no sample denser than ``threshold`` (1/metre) reads; at 0, pictures stay the same."""
        kept = touched_bricks(self.occupancy(threshold))[self.places.long().unbind(-1)]
        return replace(self, density=self.density[kept], features=self.features[kept], places=self.places[kept])

    def subdivided(self) -> "SparseField":
        """Twice the resolution over the same box, read at the new voxel centres, where samples see matter.

        Raises:
            ValueError: the bricks do not fit in memory; it says how much they need, and what would fit.
        """
        fine = (2 * self.resolution[0], 2 * self.resolution[1], 2 * self.resolution[2])
        density, features, places = subdivide(self.density, self.features, self.map, self.box, fine)
        return SparseField(density, features, places, fine, self.box, self.signed)

    @cached_property
    def map(self) -> ops.PoolMap:
        """Where the bricks lie, as the kernels read it."""
        return ops.PoolMap.of(self.places, self.resolution)

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
        """Memory of the bricks and of the map that finds them, in bytes."""
        return self.density.nbytes + self.features.nbytes + self.places.nbytes + self.map.numbers.nbytes

    @property
    def occupied_fraction(self) -> float:
        """Share of the grid's voxels with a density above zero."""
        x, y, z = self.resolution
        return int(((self.density > 0) & self.inside).sum()) / (x * y * z)

    def __str__(self) -> str:
        x, y, z = self.resolution
        size = " x ".join(f"{extent:.3g}" for extent in self.box.size)
        return (
            f"SparseField {x}x{y}x{z} voxels x {self.channels} channels ({self.density.dtype}, {self.device}), "
            f"{size} m, {len(self.places)} of {self.map.numbers.numel()} bricks, "
            f"{100 * self.occupied_fraction:.2g} % occupied, {self.nbytes / 2**20:.1f} MiB"
        )

    __repr__ = __str__

    def to(self, target: torch.device | torch.dtype | str) -> "SparseField":
        """The field on another device or in another dtype."""
        density, features = self.density.to(target), self.features.to(target)
        return replace(self, density=density, features=features, places=self.places.to(density.device))

    def unsigned(self) -> "SparseField":
        """The field with each density cut at zero, for programs that take none below; surfaces grow a little."""
        return replace(self, density=self.density.clamp(min=0), signed=False) if self.signed else self

    def detach(self) -> "SparseField":
        """The same values without gradients."""
        return replace(self, density=self.density.detach(), features=self.features.detach())

    def query(
        self, points: Float[Tensor, "*batch 3"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch channels"]]:
        """Trilinear density and features at world points; gradients reach the pool and the points."""
        density, features = self.interpolate(points)
        return density.relu() if self.signed else density, features

    def interpolate(
        self, points: Float[Tensor, "*batch 3"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch channels"]]:
        """As ``query``, but the density of a ``signed`` field keeps its sign."""
        features = self._read(self.features, points.reshape(-1, 3))
        return self._read_density(points), features.view(*points.shape[:-1], self.channels)

    def query_density(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        """The density of ``query`` without the features."""
        density = self._read_density(points)
        return density.relu() if self.signed else density

    def normals(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Unit vectors from dense to empty space, against the density's gradient; zero where it is constant."""
        return find_normals(lambda at: self._read(self.density[..., None], at), points, self.voxel_size)

    def occupancy(self, threshold: float = 0.0) -> ops.PoolOccupancy:
        """Where the density exceeds ``threshold`` (1/metre)."""
        return ops.build_pool_occupancy(self.density, self.map, threshold)

    def integrate(
        self,
        rays: Rays,
        near_far: Float[Tensor, "rays 2"],
        step: float,
        early_stop: float,
        occupancy: ops.PoolOccupancy | None = None,
        gradient: ops.FieldGradient | None = None,
    ) -> ops.RayIntegral:
        """The fused march, see ``ops.integrate_rays_in_pool``; ``gradient`` has the shapes of the pool."""
        march = ops.March((self.box.lower, self.box.upper), step, early_stop)
        lines = (rays.origins, rays.directions, near_far, march)
        pool = (self.density, self.features, self.map)
        return ops.integrate_rays_in_pool(*pool, *lines, occupancy=occupancy, gradient=gradient)

    def bricks(self) -> Iterator[Brick]:
        """The blocks of up to 8x8x8 voxels of the pool, cut off at the end of the grid."""
        for number, (x, y, z) in enumerate(self.places.mul(BRICK).tolist()):
            ends = zip(self.resolution, (x, y, z), strict=True)
            part = (number, *(slice(0, min(BRICK, count - first)) for count, first in ends))
            yield Brick((x, y, z), self.density[part], self.features[part])

    def state(self) -> FieldState:
        """What scene files keep: the bricks, and how many they are."""
        self.check()
        config: dict[str, object] = {"lower": self.box.lower, "upper": self.box.upper}
        config |= {"resolution": self.resolution, "bricks": len(self.places)}
        config |= {"signed": True} if self.signed else {}
        return FieldState(config, {"density": self.density, "features": self.features, "bricks": self.places})

    @classmethod
    def from_state(cls, state: FieldState) -> "SparseField":
        """The field that ``state`` was taken from.

        Raises:
            ValueError: bricks are missing, overlap or lie outside, or the grid is far too large for them or for memory.
        """
        corners = (tuple(state.config[name]) for name in ("lower", "upper"))  # type: ignore[arg-type]
        x, y, z = (int(count) for count in state.config["resolution"])  # type: ignore[union-attr]
        places, density, features = (state.tensors[name] for name in ("bricks", "density", "features"))
        require_map((x, y, z), density.device, held=density.nbytes + features.nbytes)
        check_bricks(places, density, features, (x, y, z), int(state.config["bricks"]))  # type: ignore[call-overload]
        signed = bool(state.config.get("signed", False))
        return cls(density, features, places.int(), (x, y, z), Box(*corners), signed)

    @property
    def inside(self) -> Bool[Tensor, "bricks 8 8 8"]:
        """Which voxels of the pool lie in the grid."""
        voxels = self.places[:, None] * BRICK + torch.arange(BRICK, device=self.device)[:, None]  # (bricks 8 3)
        x, y, z = (voxels < self.places.new_tensor(self.resolution)).unbind(-1)
        return x[:, :, None, None] & y[:, None, :, None] & z[:, None, None, :]

    @property
    def voxels(self) -> Int[Tensor, "bricks 8 8 8 3"]:
        """The place of every voxel of the pool in the grid."""
        axis = torch.arange(BRICK, dtype=torch.int32, device=self.device)
        within = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
        return self.places[:, None, None, None] * BRICK + within

    def covering(self, threshold: float = 0.0) -> "SparseField":
        """Just the bricks that samples denser than ``threshold`` (1/metre) read; those that were missing hold zeros."""
        places = touched_bricks(self.occupancy(threshold)).nonzero().int()
        require_pool_memory(len(places) * BRICK**3, self.channels, self.resolution, self.device)
        number = self.map.numbers[places.long().unbind(-1)].long()
        held = number >= 0
        density = self.density.new_zeros(len(places), *self.density.shape[1:])
        features = self.features.new_zeros(len(places), *self.features.shape[1:])
        density[held], features[held] = self.density[number[held]], self.features[number[held]]
        return SparseField(density, features, places, self.resolution, self.box, self.signed)

    def voxel_centers(self) -> Float[Tensor, "bricks 8 8 8 3"]:
        """World positions of the centres of all voxels of the pool."""
        lower, size = (self.density.new_tensor(values) for values in (self.box.lower, self.voxel_size))
        return lower + (self.voxels + 0.5) * size

    def _read(
        self, pool: Float[Tensor, "bricks 8 8 8 n"], points: Float[Tensor, "points 3"]
    ) -> Float[Tensor, "points n"]:
        return ops.interpolate_pool(pool, self.map, points, (self.box.lower, self.box.upper))

    def _read_density(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        return self._read(self.density[..., None], points.reshape(-1, 3)).view(points.shape[:-1])
