"""The grids while they are being fitted: values, gradients, Adam's moments, and the bricks still in use."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int32, UInt8
from torch import Tensor
from torch.nn import functional

from nfldm3d import ops
from nfldm3d.fields import VoxelField
from nfldm3d.fitting.hulls import Hull
from nfldm3d.geometry import Box
from nfldm3d.memory import require_memory
from nfldm3d.ops import bricks as brick_ops

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
    """One level of a scene during fitting; its tensors are updated in place."""

    def __init__(self, field: VoxelField):
        x, y, z = field.resolution
        require_memory((x, y, z), field.channels, field.device, copies=4)
        self.box: Box = field.box
        self.unit = min(field.voxel_size)
        self.density = field.density.contiguous()
        self.features = field.features.contiguous()
        self.log_density = (self.density * self.unit).log().clamp(min=LOG_FLOOR)
        self.gradient = ops.FieldGradient(torch.zeros_like(self.density), torch.zeros_like(self.features))
        self.density_state = brick_ops.AdamState.zeros_like(self.density)
        self.feature_state = brick_ops.AdamState.zeros_like(self.features)
        self.steps = 0
        self.occupancy: ops.Occupancy
        self.bricks: Int32[Tensor, "bricks 3"]
        self.refresh()

    @classmethod
    def fog(cls, box: Box, resolution: tuple[int, int, int], channels: int, device: torch.device) -> "TrainableGrid":
        """Thin grey fog everywhere: the start of every fit."""
        field = VoxelField.zeros(box, resolution, channels, device)
        field.density.fill_(-math.log(1 - INITIAL_ABSORPTION) / min(field.voxel_size))
        return cls(field)

    @property
    def level(self) -> VoxelField:
        """The grid as a field whose gradients are wanted; shares memory."""
        density, features = self.density.detach().requires_grad_(), self.features.detach().requires_grad_()
        return VoxelField(density, features, self.box)

    def refresh(self) -> None:
        """Finds anew what rays may skip and which bricks are updated."""
        self.look_into(ops.build_occupancy(self.density, SKIP_ABSORPTION / self.unit))

    def look_into(self, occupancy: ops.Occupancy) -> None:
        """Sets what rays may skip, and so which bricks are updated."""
        self.occupancy = occupancy
        self.bricks = _bricks_of(occupancy.cells)

    def step(self, rates: "StepSizes") -> None:
        """One optimiser step from the accumulated gradients, which are cleared."""
        self.steps += 1
        brick_ops.to_log_gradient_(self.gradient.density, self.density, self.bricks, rates.decay)
        if rates.smoothness > 0 and self.steps % SMOOTH_EVERY == 0:
            brick_ops.add_smoothness_(
                self.features, self.gradient.features, self.bricks, SMOOTH_EVERY * SMOOTH_COLOR * rates.smoothness
            )
            brick_ops.add_smoothness_(
                self.log_density, self.gradient.density, self.bricks, SMOOTH_EVERY * SMOOTH_DENSITY * rates.smoothness
            )
        feature_rates = brick_ops.AdamRates(rates.features, self.steps)
        brick_ops.adam_features_(self.features, self.gradient.features, self.feature_state, feature_rates, self.bricks)
        density_rates = brick_ops.AdamRates(rates.density, self.steps)
        brick_ops.adam_density_(
            self.log_density,
            self.density,
            self.gradient.density,
            self.density_state,
            density_rates,
            self.bricks,
            unit=self.unit,
        )

    def carve(self, centers: Tensor, radius: float) -> None:
        """Empties the balls around camera centres, where nothing can have been."""
        x, y, z = resolution = self.density.shape
        lower = torch.tensor(self.box.lower, dtype=torch.float64)
        size = torch.tensor(self.box.voxel_size((x, y, z)), dtype=torch.float64)
        for center in centers.double().cpu():
            first = ((center - radius - lower) / size).floor().clamp(min=0).long()
            last = ((center + radius - lower) / size).ceil().long().minimum(torch.tensor(resolution))
            if bool((last <= first).any()):
                continue
            axes = [lower[i] + (torch.arange(int(first[i]), int(last[i])) + 0.5) * size[i] for i in range(3)]
            offsets = [(axis - middle).square() for axis, middle in zip(axes, center, strict=True)]
            near = offsets[0][:, None, None] + offsets[1][:, None] + offsets[2] < radius * radius
            part = tuple(slice(int(low), int(high)) for low, high in zip(first, last, strict=True))
            near = near.to(self.density.device)
            self.density[part].masked_fill_(near, 0.0)
            self.log_density[part].masked_fill_(near, LOG_FLOOR)

    def keep_within(self, hull: Hull) -> None:
        """Empties what lies outside the cells of a hull and those beside them."""
        mask = functional.max_pool3d(functional.pad(hull.cells.float(), (1, 1) * 3)[None], 3, 1, 1)[0] > 0
        for axis, count in enumerate(self.density.shape):
            low, size = self.box.lower[axis], self.box.size[axis] / count
            centers = low + (torch.arange(count, dtype=torch.float64) + 0.5) * size - hull.box.lower[axis]
            cells = (centers * (hull.cells.shape[axis] / hull.box.size[axis])).floor().long()
            mask = mask.index_select(axis, cells.clamp(-1, hull.cells.shape[axis]) + 1)
        outside = ~mask.to(self.density.device)
        self.density.masked_fill_(outside, 0.0)
        self.log_density.masked_fill_(outside, LOG_FLOOR)

    def seed(self, points: Float[Tensor, "points 3"], colors: Float[Tensor, "points 3"]) -> None:
        """Starts anew with matter of the given sRGB colours where surface points are known, and thin fog around it."""
        inside = self.box.contains(points)
        shape = self.density.shape
        lower, upper = points.new_tensor(self.box.lower), points.new_tensor(self.box.upper)
        limit = torch.tensor(shape, device=points.device)
        index = ((points[inside] - lower) / (upper - lower) * limit).long().minimum(limit - 1)
        flat = (index[:, 0] * shape[1] + index[:, 1]) * shape[2] + index[:, 2]
        values = torch.cat((colors[inside], torch.ones_like(colors[inside, :1])), dim=-1)
        total = self.density.new_zeros(self.density.numel(), 4).index_add_(0, flat, values)
        total = total.view(*shape, 4).permute(3, 0, 1, 2)  # (4 x y z)
        hit = total[3] > 0
        for axis in range(3):  # sums over the 5x5x5 voxels around each, one axis at a time
            window = [5 if other == axis else 1 for other in range(3)]
            margin = [size // 2 for size in reversed(window) for _ in range(2)]  # the grid may be thinner than that
            total = functional.avg_pool3d(functional.pad(total, margin)[None], window, 1, divisor_override=1)[0]
        rim = total[3] > 0.5
        self.features[rim] = 0.0
        self.features[..., :3][rim] = ((total[:3] / total[3:].clamp(min=1))[:, rim].T - 0.5) / MEAN_BASIS
        thickness = torch.where(hit, SEED_THICKNESS, torch.where(rim, RIM_ABSORPTION, 0.0))
        self.density.copy_(thickness / self.unit)
        self.log_density.copy_(thickness.log().clamp(min=LOG_FLOOR))
        self.refresh()

    def prune(self, visibility: Float[Tensor, "x y z"] | None = None) -> None:
        """Empties voxels that no ray has changed, that absorb next to nothing, or that nobody sees."""
        empty = (self.density_state.variance == 0) | (self.density < SKIP_ABSORPTION / self.unit)
        if visibility is not None:  # a voxel between two rays is as visible as its neighbours
            empty |= functional.max_pool3d(visibility[None], 3, 1, 1)[0] < MIN_VISIBILITY
        self.density.masked_fill_(empty, 0.0)
        self.log_density.masked_fill_(empty, LOG_FLOOR)
        self.refresh()

    def forget(self) -> None:
        """Clears the features further than a brick from where rays look; else checkpoints would hold whole grids."""
        near = self.density.new_zeros([-(-count // brick_ops.BRICK) for count in self.density.shape])
        near[self.bricks.long().unbind(-1)] = 1.0
        near = functional.max_pool3d(near[None], 3, 1, 1)[0]
        for axis, count in enumerate(self.density.shape):
            near = near.repeat_interleave(brick_ops.BRICK, axis).narrow(axis, 0, count)
        self.features.masked_fill_(near[..., None] == 0, 0.0)

    def refined(self, resolution: tuple[int, int, int]) -> "TrainableGrid":
        """The same fog on a finer grid, read at its voxel centres, with fresh moments."""
        stacked = torch.cat((self.density[..., None], self.features), dim=-1).permute(3, 0, 1, 2)[None]
        finer = functional.interpolate(stacked, size=resolution, mode="trilinear", align_corners=False)
        finer = finer[0].permute(1, 2, 3, 0)  # (x y z 1+channels)
        unit = min(self.box.voxel_size(resolution))
        density = finer[..., 0] * (self.unit / unit)  # a finer voxel absorbs as much as the coarse one
        solid = (density > SKIP_ABSORPTION / unit).float()
        rim = functional.max_pool3d(solid[None], 5, 1, 2)[0]  # thin fog around matter lets holes close
        density = density.maximum(rim * (RIM_ABSORPTION / unit))
        return TrainableGrid(VoxelField(density, finer[..., 1:].contiguous(), self.box))

    def finished(self) -> VoxelField:
        """The field that remains: nothing where rays saw nothing, no features where nothing can be seen."""
        with torch.no_grad():
            self.prune()
            visible = functional.max_pool3d((self.density > 0).float()[None], 3, 1, 1)[0] > 0
            return VoxelField(self.density.clone(), self.features * visible[..., None], self.box)


def _bricks_of(cells: UInt8[Tensor, "x y z"]) -> Int32[Tensor, "bricks 3"]:
    """The bricks that samples in the given cells touch: a cell reaches one voxel further along each axis."""
    pad = [amount for count in reversed(cells.shape) for amount in (0, -count % brick_ops.BRICK)]
    used = functional.pad(cells, pad)
    for axis in range(3):
        blocks = used.unflatten(axis, (-1, brick_ops.BRICK))
        last = blocks.select(axis + 1, brick_ops.BRICK - 1)
        used = blocks.amax(axis + 1)
        used.narrow(axis, 1, used.shape[axis] - 1).bitwise_or_(last.narrow(axis, 0, used.shape[axis] - 1))
    return used.nonzero().int().contiguous()
