"""The state of a fit to photographs: grids, sky and phase, which take steps and can be written down."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from nfldm3d.appearance import EnvironmentMap, SphericalHarmonics
from nfldm3d.fields import VoxelField
from nfldm3d.fitting.grids import StepSizes, TrainableGrid
from nfldm3d.fitting.options import FitOptions
from nfldm3d.fitting.parameters import TensorParameters, require_alike
from nfldm3d.fitting.phases import PHASES, Phase
from nfldm3d.fitting.schedule import Step
from nfldm3d.ops import bricks as brick_ops
from nfldm3d.scene import Scene

DENSITY_RATE, FEATURE_RATE, SKY_RATE = 0.1, 0.02, 0.01
FOG_DECAY = 1e-9
"""Slope of the density's logarithm that makes fog fade where no picture asks for it."""
SKY = "sky."
"""Begins the names of the tensors of the sky."""


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
    sky_parameters: TensorParameters | None = field(init=False, default=None)

    def __post_init__(self):
        if self.sky is not None:
            self.sky_parameters = TensorParameters({"image": self.sky}, rates={"image": SKY_RATE})

    @property
    def phase(self) -> Phase:
        """The phase that the grids are in."""
        return PHASES[self.number]

    def scene(self, *, trainable: bool) -> Scene:
        """The scene as it stands: sharing memory and collecting gradients, or cleaned up and final."""
        levels: list[VoxelField] = [grid.level if trainable else grid.finished() for grid in self.grids]
        background = self.constant
        if self.sky is not None:
            background = EnvironmentMap(self.sky if trainable else self.sky.detach().clamp(0, 1))
        return Scene(levels[0], self.appearance, background, tuple(levels[1:]))

    def advance(self, step: Step) -> None:
        """One optimiser step of grids and sky."""
        footprint = self.phase.footprint
        sizes = StepSizes(
            DENSITY_RATE * step.rate,
            FEATURE_RATE * step.rate,
            self.options.smoothness * footprint,
            FOG_DECAY * footprint,
        )
        if self.sky_parameters is not None:
            self.sky_parameters.advance(step)  # first: it raises, before anything moves, if gradients are not finite
        for grid in self.grids:
            grid.step(sizes)

    def state(self) -> dict[str, Tensor]:
        """Used bricks of all grids with their moments, the sky, and the phase."""
        tensors = {"phase": torch.tensor((self.number, self.carved))}
        for number, grid in enumerate(self.grids):
            tensors |= {f"grid{number}.{name}": value for name, value in _pack_grid(grid).items()}
        if self.sky_parameters is not None:
            tensors |= {f"{SKY}{name}": value for name, value in self.sky_parameters.state().items()}
        return tensors

    def restore(self, state: dict[str, Tensor]) -> None:
        """Puts what ``state`` gave in the place of what is there."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

        fixed = {name: value for name, value in self.state().items() if name == "phase" or name.endswith(".shape")}
        require_alike(state, fixed)
        for number, grid in enumerate(self.grids):
            _require_bricks(part(f"grid{number}."), grid, f"grid{number}.")
        if self.sky_parameters is not None:
            require_alike(part(SKY), {"image": self.sky_parameters.parts["image"]})  # type: ignore[dict-item]
        self.number, self.carved = state["phase"].tolist()
        self.grids = [_unpack_grid(part(f"grid{number}."), grid) for number, grid in enumerate(self.grids)]
        if self.sky_parameters is not None:
            self.sky_parameters.restore(part(SKY))


def _grid_tensors(grid: TrainableGrid) -> dict[str, Tensor]:
    return {
        "density": grid.density,
        "log_density": grid.log_density,
        "features": grid.features,
        "density_mean": grid.density_state.mean,
        "density_variance": grid.density_state.variance,
        "feature_mean": grid.feature_state.mean,
        "feature_variance": grid.feature_state.variance,
    }


def _pack_grid(grid: TrainableGrid) -> dict[str, Tensor]:
    """Every brick that holds density, and those that rays may still change."""
    bricks = torch.cat((VoxelField(grid.density, grid.features, grid.box).brick_mask().nonzero().int(), grid.bricks))
    bricks = bricks.unique(dim=0)
    packed = {name: brick_ops.gather_bricks(tensor, bricks) for name, tensor in _grid_tensors(grid).items()}
    shape = torch.tensor([*grid.density.shape, grid.steps], dtype=torch.int64)
    return {"shape": shape, "bricks": bricks, **packed}


def _require_bricks(parts: dict[str, Tensor], like: TrainableGrid, prefix: str) -> None:
    """Raises a ValueError unless there are as many bricks of each tensor as there are places for them."""
    if "bricks" not in parts:
        raise ValueError(f"it lacks {prefix}bricks")
    count = len(parts["bricks"])
    for name, tensor in _grid_tensors(like).items():
        if name not in parts:
            raise ValueError(f"it lacks {prefix}{name}")
        shape = parts[name].shape
        if shape[:1] != (count,) or shape[4:] != tensor.shape[3:]:
            raise ValueError(f"{prefix}{name} has shape {tuple(shape)}, which does not fit {count} bricks")


def _unpack_grid(parts: dict[str, Tensor], like: TrainableGrid) -> TrainableGrid:
    x, y, z, steps = parts["shape"].tolist()
    grid = TrainableGrid(VoxelField.zeros(like.box, (x, y, z), like.features.shape[-1], like.density.device))
    for name, tensor in _grid_tensors(grid).items():
        brick_ops.scatter_bricks_(parts[name].to(tensor.device), parts["bricks"], tensor)
    grid.steps = steps
    grid.refresh()
    return grid
