"""The grids while they are being fitted: bricks of values, gradients and Adam's moments, where there may be matter."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor
from torch.nn import functional

from nfldm3d import ops
from nfldm3d.fields import SparseField
from nfldm3d.fields.refinement import place_voxels, read_centers, touched_bricks
from nfldm3d.fields.values import find_voxels
from nfldm3d.fitting.hulls import Hull
from nfldm3d.fitting.neighbours import find_finer, grow, sum_around
from nfldm3d.geometry import Box
from nfldm3d.memory import require_pool_memory
from nfldm3d.ops import bricks as brick_ops
from nfldm3d.ops.records import BRICK

INITIAL_ABSORPTION = 0.03
"""What one voxel of the first grid absorbs before fitting: thin fog that every ray still sees through."""
RIM_ABSORPTION = 0.02
"""What voxels next to matter absorb at least when a grid has been refined."""
SKIP_ABSORPTION = 0.004
"""Voxels that absorb less are skipped by the rays, and pruned when their turn comes."""
MIN_VISIBILITY = 0.02
"""Voxels whose weights in ``VISIBILITY_RAYS`` rays sum to less, neighbours included, are seen by nobody."""
VISIBILITY_RAYS = 2**15
SEED_THICKNESS = 0.7
"""Optical thickness of a voxel that holds a measured surface, at the start."""
MEAN_BASIS = 0.5 / math.sqrt(math.pi)
"""The constant spherical harmonic: what turns the first three features into the mean colour."""
LOG_FLOOR = -12.0
"""Logarithm of the optical thickness of a pruned voxel."""
MOMENTS = ("mean", "variance")
"""Of Adam."""
COPIES = 4
"""Values, gradients and two moments."""
SMOOTH_COLOR, SMOOTH_DENSITY = 6e-8, 6e-9
"""Slopes of the total variation for each unit of difference, beside a photometric loss that is a mean over rays."""
SMOOTH_EVERY = 4
"""Steps between two looks at the neighbours, which then count so many times."""


@dataclass(frozen=True)
class StepSizes:
    """What one optimiser step needs to know."""

    density: float
    """Adam's step size for the logarithm of the density."""
    features: float
    """Adam's step size for the features."""
    smoothness: float = 0.0
    """Factor on the total-variation weights; 0 leaves them out."""
    decay: float = 0.0
    """Slope that thins fog: a constant pull on the logarithm of the density."""


class TrainableGrid:
    """One level of a scene during fitting; its tensors are updated in place, and hold just the bricks in use."""

    def __init__(self, field: SparseField):
        require_pool_memory(field.density.numel(), field.channels, field.resolution, field.device, copies=COPIES)
        self.box: Box = field.box
        self.resolution = field.resolution
        self.unit = min(field.voxel_size)
        density, features = field.density.contiguous(), field.features.contiguous()
        parts = {"density": density, "features": features}
        parts["log_density"] = (density * self.unit).log().clamp(min=LOG_FLOOR)
        parts |= {f"density_{moment}": torch.zeros_like(density) for moment in MOMENTS}
        parts |= {f"feature_{moment}": torch.zeros_like(features) for moment in MOMENTS}
        self.steps = 0
        self.occupancy: ops.PoolOccupancy
        self.parts: dict[str, Tensor]
        self.hold(field.places, parts)
        self.refresh()

    @classmethod
    def fog(cls, box: Box, resolution: tuple[int, int, int], channels: int, device: torch.device) -> "TrainableGrid":
        """Thin grey fog everywhere: the start of most fits."""
        places = torch.ones([-(-count // BRICK) for count in resolution], device=device).nonzero().int()
        require_pool_memory(len(places) * BRICK**3, channels, resolution, device, copies=COPIES)
        field = _make_empty(box, resolution, channels, places)
        field.density[field.inside] = -math.log(1 - INITIAL_ABSORPTION) / min(field.voxel_size)
        return cls(field)

    @classmethod
    def around(
        cls,
        points: Float[Tensor, "points 3"],
        colors: Float[Tensor, "points 3"],
        box: Box,
        resolution: tuple[int, int, int],
        channels: int,
    ) -> "TrainableGrid":
        """Matter of the given sRGB colours where surface points are known, and thin fog around it."""
        inside, limit = box.contains(points), torch.tensor(resolution, device=points.device) - 1
        voxels = find_voxels(points[inside], box, resolution)
        near = [(voxels + voxels.new_tensor(way)).clamp(min=0).minimum(limit) for way in product((-2, 2), repeat=3)]
        places, _ = place_voxels(torch.cat(near).unique(dim=0), resolution)
        require_pool_memory(len(places) * BRICK**3, channels, resolution, points.device, copies=COPIES)
        field = _make_empty(box, resolution, channels, places)
        values = torch.cat((colors[inside], torch.ones_like(colors[inside, :1])), dim=-1)
        rows = brick_ops.find_rows(field.map, voxels)
        total = values.new_zeros(field.density.numel(), 4).index_add_(0, rows, values).view(*field.density.shape, 4)
        hit = total[..., 3] > 0
        total = sum_around(total, places, field.map)
        rim = (total[..., 3] > 0.5) & field.inside
        field.features[..., :3][rim] = (total[..., :3] / total[..., 3:].clamp(min=1))[rim].sub(0.5) / MEAN_BASIS
        field.density.copy_(
            torch.where(hit, SEED_THICKNESS, torch.where(rim, RIM_ABSORPTION, 0.0)) / min(field.voxel_size)
        )
        return cls(field)

    @property
    def density(self) -> Float[Tensor, "bricks 8 8 8"]:
        """In 1/metre; follows from ``log_density``."""
        return self.parts["density"]

    @property
    def features(self) -> Float[Tensor, "bricks 8 8 8 channels"]:
        """What the appearance turns into colour."""
        return self.parts["features"]

    @property
    def log_density(self) -> Float[Tensor, "bricks 8 8 8"]:
        """Logarithm of the optical thickness of a voxel, which is what is optimised."""
        return self.parts["log_density"]

    def hold(self, places: Int32[Tensor, "bricks 3"], parts: dict[str, Tensor]) -> None:
        """Takes other bricks, with all that is kept of them; gradients are lost."""
        self.parts = parts
        """Everything that is kept of each voxel, by name, with Adam's moments."""
        self.gradient = ops.FieldGradient(torch.zeros_like(self.density), torch.zeros_like(self.features))
        density, features = self.density.detach().requires_grad_(), self.features.detach().requires_grad_()
        self.level = SparseField(density, features, places, self.resolution, self.box)
        """The grid as a field whose gradients are wanted; shares memory."""

    def _change(self, places: Int32[Tensor, "bricks 3"], change: Callable[[str, Tensor], Tensor]) -> None:
        """Holds what becomes of each part, by its name; one after the other, so that just one is held twice."""
        parts = self._give_up()
        for name in parts:
            parts[name] = change(name, parts[name])
        self.hold(places, parts)

    def _give_up(self) -> dict[str, Tensor]:
        """The parts, which nothing else holds any longer."""
        parts = self.parts
        del self.parts, self.gradient, self.level
        return parts

    def refresh(self) -> None:
        """Finds anew what rays may skip and which bricks are updated; takes those that samples have come to read."""
        found = ops.build_pool_occupancy(self.density, self.level.map, SKIP_ABSORPTION / self.unit)
        missing = (touched_bricks(found) & (self.level.map.numbers < 0)).nonzero().int()
        if len(missing):
            self._add(missing)
        self.look_into(found)

    def look_into(self, occupancy: ops.PoolOccupancy) -> None:
        """Sets what rays may skip, and so which bricks are updated."""
        self.occupancy = occupancy
        used = touched_bricks(occupancy) & (self.level.map.numbers >= 0)
        self.numbers = self.level.map.numbers[used].sort().values
        """Of the bricks that are updated."""

    def step(self, rates: "StepSizes") -> None:
        """One optimiser step from the accumulated gradients, which are cleared."""
        self.steps += 1
        bricks = self.numbers[:, None] * self.numbers.new_tensor((1, 0, 0))
        density, features, log_density = (_in_a_row(t) for t in (self.density, self.features, self.log_density))
        slopes, feature_slopes = _in_a_row(self.gradient.density), _in_a_row(self.gradient.features)
        brick_ops.to_log_gradient_(slopes, density, bricks, rates.decay)
        if rates.smoothness > 0 and self.steps % SMOOTH_EVERY == 0:
            where, weight = (self.level.map, self.level.places[self.numbers.long()]), SMOOTH_EVERY * rates.smoothness
            brick_ops.add_smoothness_(self.features, self.gradient.features, *where, SMOOTH_COLOR * weight)
            brick_ops.add_smoothness_(self.log_density, self.gradient.density, *where, SMOOTH_DENSITY * weight)
        feature_state, density_state = (
            brick_ops.AdamState(*(_in_a_row(self.parts[f"{part}_{moment}"]) for moment in MOMENTS))
            for part in ("feature", "density")
        )
        feature_rates = brick_ops.AdamRates(rates.features, self.steps)
        brick_ops.adam_features_(features, feature_slopes, feature_state, feature_rates, bricks)
        density_rates = brick_ops.AdamRates(rates.density, self.steps)
        brick_ops.adam_density_(log_density, density, slopes, density_state, density_rates, bricks, unit=self.unit)

    def carve(self, centers: Tensor, radius: float) -> None:
        """Empties the balls around camera centres, where nothing can have been."""
        places = self.level.places
        lower = torch.tensor(self.box.lower, dtype=torch.float64, device=places.device)
        size = lower.new_tensor(self.box.voxel_size(self.resolution))
        middles = lower + (places * BRICK + BRICK / 2) * size
        axis = torch.arange(BRICK, device=places.device)
        within = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
        for center in centers.to(lower):
            near = ((center - middles).abs() <= radius + BRICK / 2 * size).all(-1).nonzero()[:, 0]
            if len(near):
                voxels = places[near, None, None, None] * BRICK + within
                ball = (lower + (voxels + 0.5) * size - center).square().sum(-1) < radius * radius
                self.density[near] = self.density[near].masked_fill_(ball, 0.0)
                self.log_density[near] = self.log_density[near].masked_fill_(ball, LOG_FLOOR)

    def keep_within(self, hull: Hull) -> None:
        """Empties what lies outside the cells of a hull and those beside them."""
        mask = functional.max_pool3d(functional.pad(hull.cells.float(), (1, 1) * 3)[None], 3, 1, 1)[0] > 0
        mask, cells = mask.to(self.density.device), []
        axis = torch.arange(BRICK, device=mask.device)
        for n, count in enumerate(self.resolution):
            voxels = (self.level.places[:, n, None] * BRICK + axis).double()  # (bricks 8)
            centers = self.box.lower[n] + (voxels + 0.5) * (self.box.size[n] / count) - hull.box.lower[n]
            cell = (centers * (hull.cells.shape[n] / hull.box.size[n])).floor().long()
            cells.append(cell.clamp(-1, hull.cells.shape[n]) + 1)
        x, y, z = cells
        self._empty(~mask[x[:, :, None, None], y[:, None, :, None], z[:, None, None, :]])

    def prune(self, visibility: Float[Tensor, "bricks 8 8 8"] | None = None) -> None:
        """Empties voxels that no ray has changed, that absorb next to nothing, or that nobody sees."""
        empty = (self.parts["density_variance"] == 0) | (self.density < SKIP_ABSORPTION / self.unit)
        if visibility is not None:  # a voxel between two rays is as visible as its neighbours
            empty |= ~grow(visibility >= MIN_VISIBILITY, self.level.places, self.level.map)
        self._empty(empty)
        self.refresh()

    def forget(self) -> None:
        """Leaves out the bricks further than a brick from where rays look."""
        near = torch.zeros_like(self.level.map.numbers, dtype=torch.float32)
        near[self.level.places[self.numbers.long()].long().unbind(-1)] = 1.0
        near = functional.max_pool3d(near[None], 3, 1, 1)[0] > 0
        kept = near[self.level.places.long().unbind(-1)]
        if not bool(kept.all()):
            self._change(self.level.places[kept], lambda _, part: part[kept])
            self.look_into(self.occupancy)

    def refined(self, resolution: tuple[int, int, int]) -> "TrainableGrid":
        """The same fog on a finer grid, read at its voxel centres, with fresh moments; this one is given up."""
        unit, channels = min(self.box.voxel_size(resolution)), self.features.shape[-1]
        matter = (self.density > 0).flatten(1).any(1)
        places = find_finer(self.level.places[matter], self.resolution, resolution)
        require_pool_memory(len(places) * BRICK**3, 1, resolution, self.density.device)
        where = (self.level.map, self.box, resolution)
        density = read_centers(self.density[..., None], *where, places)[..., 0]
        density *= self.unit / unit  # a finer voxel absorbs as much as the coarse one
        field = SparseField(density, density[..., None], places, resolution, self.box)
        rim = density > SKIP_ABSORPTION / unit
        for _ in range(2):  # thin fog around matter lets holes close
            rim = grow(rim, places, field.map)
        density = torch.where(rim, density.clamp(min=RIM_ABSORPTION / unit), density) * field.inside
        touched = touched_bricks(ops.build_pool_occupancy(density, field.map, SKIP_ABSORPTION / unit))
        kept, missing = touched[places.long().unbind(-1)], (touched & (field.map.numbers < 0)).nonzero().int()
        density = torch.cat((density[kept], density.new_zeros(len(missing), *density.shape[1:])))
        places = torch.cat((places[kept], missing))
        del field, rim, touched
        require_pool_memory(len(places) * BRICK**3, channels, resolution, self.density.device, copies=COPIES)
        features = read_centers(self._give_up()["features"], *where, places)
        features[len(places) - len(missing) :] = 0.0
        return TrainableGrid(SparseField(density, features, places, resolution, self.box))

    def finished(self) -> SparseField:
        """The field that remains: nothing where rays saw nothing, no features where nothing can be seen.

        The grid is given up, to make room.
        """
        with torch.no_grad():
            self.prune()
            places, visible = self.level.places, grow(self.density > 0, self.level.places, self.level.map)
            parts = self._give_up()
            density, features = parts["density"], parts["features"]
            del parts
            features.mul_(visible[..., None])
            return SparseField(density, features, places, self.resolution, self.box).pruned()

    def _empty(self, mask: Bool[Tensor, "bricks 8 8 8"]) -> None:
        self.density.masked_fill_(mask, 0.0)
        self.log_density.masked_fill_(mask, LOG_FLOOR)

    def _add(self, places: Int32[Tensor, "added 3"]) -> None:
        """Takes empty bricks in addition."""
        blank = {"log_density": LOG_FLOOR}

        def extend(name: str, part: Tensor) -> Tensor:
            return torch.cat((part, part.new_full((len(places), *part.shape[1:]), blank.get(name, 0.0))))

        self._change(torch.cat((self.level.places, places)), extend)


def _make_empty(
    box: Box, resolution: tuple[int, int, int], channels: int, places: Int32[Tensor, "bricks 3"]
) -> SparseField:
    density = torch.zeros(len(places), BRICK, BRICK, BRICK, device=places.device)
    return SparseField(density, torch.zeros(*density.shape, channels, device=places.device), places, resolution, box)


def _in_a_row(pool: Tensor) -> Tensor:
    """A pool as the grid of its bricks along x, which takes kernels for the bricks of grids; shares memory."""
    return pool.flatten(0, 1)
