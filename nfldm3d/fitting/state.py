"""The state of a fit to photographs: grids, sky and phase, which take steps and can be written down."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from nfldm3d.appearance import EnvironmentMap, SphericalHarmonics
from nfldm3d.fields import SparseField, VoxelField
from nfldm3d.fields.packing import check_bricks
from nfldm3d.fitting.exposures import center_
from nfldm3d.fitting.grids import StepSizes, TrainableGrid
from nfldm3d.fitting.options import FitOptions
from nfldm3d.fitting.parameters import TensorParameters, require_alike
from nfldm3d.fitting.phases import PHASES, Phase
from nfldm3d.fitting.schedule import Step
from nfldm3d.ops import PoolOccupancy
from nfldm3d.ops.records import BRICK, TILE
from nfldm3d.scene import Scene

DENSITY_RATE, FEATURE_RATE, SKY_RATE, EXPOSURE_RATE = 0.1, 0.02, 0.01, 0.005
FOG_DECAY = 1e-9
"""Slope of the density's logarithm that makes fog fade where no picture asks for it."""
SKY, EXPOSURE = "sky.", "exposure."
"""Begin the names of the tensors of the sky, and of what the views' exposures are."""


@dataclass
class FitState:
    """Everything that changes while a scene is fitted; a run's ``Parameters``, whose rate goes from 1 down."""

    options: FitOptions
    grids: list[TrainableGrid]
    resolutions: list[tuple[int, int, int]]
    """Final resolution of each grid."""
    appearance: SphericalHarmonics
    sky: Tensor | None
    """Learned environment map (height width 3)."""
    constant: Tensor | None
    """Known background colour."""
    generator: torch.Generator
    number: int = 0
    """Of the phase."""
    carved: int = -1
    """Number of the last phase in which the balls around cameras were emptied."""
    exposures: Tensor | None = None
    """Logarithms of the factors on the colours of each view (views 3), zero on average; None for one exposure of all.
    They are learned as soon as the sky is."""
    beside: dict[str, TensorParameters] = field(init=False, default_factory=dict)
    """What is learned beside the grids, by the beginning of its names."""

    def __post_init__(self):
        if self.sky is not None:
            self.beside[SKY] = TensorParameters({"image": self.sky}, rates={"image": SKY_RATE})
        if self.exposures is not None:
            self.beside[EXPOSURE] = TensorParameters({"views": self.exposures}, rates={"views": EXPOSURE_RATE})

    @property
    def phase(self) -> Phase:
        """The phase that the grids are in."""
        return PHASES[self.number]

    def scene(self) -> Scene:
        """The scene as it stands, sharing memory and collecting gradients."""
        background = self.constant if self.sky is None else EnvironmentMap(self.sky)
        field, *surroundings = (grid.level for grid in self.grids)
        return Scene(field, self.appearance, background, tuple(surroundings))

    def finish(self) -> Scene:
        """The scene cleaned up and final; the grids are given up one by one, to make room for what they become."""
        levels: list[VoxelField | SparseField] = []
        while self.grids:
            field = self.grids.pop(0).finished()
            levels.append(field if self.options.sparse else field.to_dense())
            del field
        background = self.constant if self.sky is None else EnvironmentMap(self.sky.detach().clamp(0, 1))
        return Scene(levels[0], self.appearance, background, tuple(levels[1:]))

    def advance(self, step: Step) -> None:
        """One optimiser step of grids, sky and exposures."""
        footprint = self.phase.footprint
        sizes = StepSizes(
            DENSITY_RATE * step.rate,
            FEATURE_RATE * step.rate,
            self.options.smoothness * footprint,
            FOG_DECAY * footprint,
        )
        for part in self.beside.values():  # first: they raise, before anything moves
            part.require_finite(step)
        for part in self.beside.values():
            part.advance(step)
        if self.exposures is not None:
            center_(self.exposures)
        for grid in self.grids:
            grid.step(sizes)

    def state(self) -> dict[str, Tensor]:
        """Bricks of all grids with their moments, what rays skip, the sky, the exposures, and the phase."""
        tensors = {"phase": torch.tensor((self.number, self.carved))}
        for number, grid in enumerate(self.grids):
            tensors |= {f"grid{number}.{name}": value for name, value in _pack_grid(grid).items()}
        for prefix, part in self.beside.items():
            tensors |= {f"{prefix}{name}": value for name, value in part.state().items()}
        return tensors

    def restore(self, state: dict[str, Tensor]) -> None:
        """Puts what ``state`` gave in the place of what is there."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

        require_alike(state, {"phase": torch.zeros(2, dtype=torch.int64)})
        number, carved = state["phase"].tolist()
        if not (0 <= number < len(PHASES) and -1 <= carved <= number):
            raise ValueError(f"phase is {number}, emptied in {carved}, of {len(PHASES)} phases")
        for level, grid in enumerate(self.grids):
            resolution = PHASES[number].scaled(self.resolutions[level])
            _require_grid(part(f"grid{level}."), resolution, grid.features.shape[-1], f"grid{level}.")
        for prefix, parameters in self.beside.items():
            parameters.restore(part(prefix))
        self.number, self.carved = number, carved
        self.grids = [_unpack_grid(part(f"grid{level}."), grid) for level, grid in enumerate(self.grids)]


def _pack_grid(grid: TrainableGrid) -> dict[str, Tensor]:
    """All bricks, and what rays skip, which tells of densities some steps ago."""
    shape, found = torch.tensor([*grid.resolution, grid.steps], dtype=torch.int64), grid.occupancy
    skipped = {"numbers": found.numbers, "marks": found.marks, "leaps": found.leaps}
    return {"shape": shape, "bricks": grid.level.places, **skipped, **grid.parts}


def _require_grid(parts: dict[str, Tensor], resolution: tuple[int, int, int], channels: int, prefix: str) -> None:
    """Raises a ValueError unless the parts are those of a grid of this resolution, with bricks inside it."""
    count, marks = (len(parts[key]) if key in parts and parts[key].dim() else 0 for key in ("bricks", "marks"))
    side, flat = (count, BRICK, BRICK, BRICK), ("features", "feature_mean", "feature_variance")
    names = ("density", "log_density", "density_mean", "density_variance", *flat)
    expected = {
        "shape": torch.zeros(4, dtype=torch.int64),
        "bricks": torch.zeros(count, 3, dtype=torch.int32),
        "numbers": torch.zeros([-(-size // BRICK) for size in resolution], dtype=torch.int32),
        "marks": torch.zeros(marks, BRICK, BRICK, BRICK, dtype=torch.uint8),
        "leaps": torch.zeros([-(-size // TILE) for size in resolution], dtype=torch.uint8),
        **{name: torch.zeros(1).expand(*side, *([channels] if name in flat else [])) for name in names},
    }
    require_alike(
        {f"{prefix}{name}": part for name, part in parts.items()}, {f"{prefix}{n}": e for n, e in expected.items()}
    )
    *found, steps = parts["shape"].tolist()
    if tuple(found) != resolution or steps < 0:
        raise ValueError(f"{prefix}shape is {found} after {steps} steps, not {list(resolution)}")
    if not -1 <= int(parts["numbers"].min()) <= int(parts["numbers"].max()) < len(parts["marks"]):
        raise ValueError(f"{prefix}numbers name other than its {len(parts['marks'])} bricks of marks")
    check_bricks(parts["bricks"], parts["density"], parts["features"], resolution)


def _unpack_grid(parts: dict[str, Tensor], like: TrainableGrid) -> TrainableGrid:
    x, y, z, steps = parts["shape"].tolist()
    parts = {name: part.to(like.density.device) for name, part in parts.items()}
    grid = TrainableGrid(SparseField(parts["density"], parts["features"], parts["bricks"], (x, y, z), like.box))
    grid.hold(parts["bricks"], parts)
    grid.steps = steps
    grid.look_into(PoolOccupancy(parts["numbers"], parts["marks"], parts["leaps"], (x, y, z)))
    return grid
