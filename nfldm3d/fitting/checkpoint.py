"""The state of a fit, and its file: one safetensors file, written whole or not at all, that holds used bricks only."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from nfldm3d.appearance import EnvironmentMap, SphericalHarmonics
from nfldm3d.fields import VoxelField
from nfldm3d.files import DataFormatError, atomic_write
from nfldm3d.fitting.grids import TrainableGrid
from nfldm3d.ops import bricks as brick_ops
from nfldm3d.scene import Scene


@dataclass
class FitState:
    """Everything that changes while a scene is fitted."""

    grids: list[TrainableGrid]
    resolutions: list[tuple[int, int, int]]
    """Final resolution of each grid."""
    appearance: SphericalHarmonics
    sky: Tensor | None
    """Learned environment map (height width 3)."""
    constant: Tensor | None
    """Known background colour."""
    generator: torch.Generator
    step: int = 0
    seconds: float = 0.0
    stage: int = 0
    carved: int = -1
    psnr: float = 0.0
    sky_optimizer: torch.optim.Adam | None = field(init=False, default=None)

    def __post_init__(self):
        if self.sky is not None:
            self.sky_optimizer = torch.optim.Adam([self.sky.requires_grad_()], betas=(0.9, 0.99), eps=1e-15)

    def scene(self, *, trainable: bool) -> Scene:
        """The scene as it stands: sharing memory and collecting gradients, or cleaned up and final."""
        levels: list[VoxelField] = [grid.level if trainable else grid.finished() for grid in self.grids]
        background = self.constant
        if self.sky is not None:
            background = EnvironmentMap(self.sky if trainable else self.sky.detach().clamp(0, 1))
        return Scene(levels[0], self.appearance, background, tuple(levels[1:]))

    def step_sky(self, rate: float) -> None:
        """One Adam step on the environment map."""
        if self.sky_optimizer is not None:
            self.sky_optimizer.param_groups[0]["lr"] = rate
            self.sky_optimizer.step()
            self.sky_optimizer.zero_grad()


VERSION = 1
COUNTERS = ("step", "seconds", "stage", "carved", "psnr")


def save_checkpoint(path: Path, state: FitState, identity: str) -> None:
    """Writes the state; ``identity`` tells which fit it belongs to."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {"generator": state.generator.get_state()}
    for number, grid in enumerate(state.grids):
        tensors |= {f"grid{number}.{name}": value for name, value in _pack_grid(grid).items()}
    if state.sky is not None and state.sky_optimizer is not None:
        tensors["sky"] = state.sky.detach()
        moments = state.sky_optimizer.state[state.sky]
        tensors |= {f"sky.{name}": value for name, value in moments.items()}
    counters = {name: getattr(state, name) for name in COUNTERS}
    head = {"version": str(VERSION), "identity": identity, "counters": json.dumps(counters)}
    with atomic_write(path) as temporary:
        save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, temporary, head)


def load_checkpoint(path: Path, state: FitState, identity: str) -> None:
    """Puts a state that ``save_checkpoint`` wrote in the place of ``state``.

    Raises:
        DataFormatError: if the file is damaged or belongs to another fit.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            head = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise DataFormatError(path, f"is not a checkpoint or is damaged ({error}); delete it to start anew") from error
    if head.get("version") != str(VERSION) or head.get("identity") != identity:
        raise DataFormatError(path, "is the checkpoint of another capture or other options; delete it to start anew")
    for name, value in json.loads(head["counters"]).items():
        setattr(state, name, value)
    for number, grid in enumerate(state.grids):
        prefix = f"grid{number}."
        parts = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        state.grids[number] = _unpack_grid(parts, grid)
    if state.sky is not None and state.sky_optimizer is not None:
        with torch.no_grad():
            state.sky.copy_(tensors["sky"])
        moments = {name: tensors[f"sky.{name}"].to(state.sky.device) for name in ("exp_avg", "exp_avg_sq")}
        state.sky_optimizer.state[state.sky] = moments | {"step": tensors["sky.step"]}
    state.generator.set_state(tensors["generator"])


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


def _unpack_grid(parts: dict[str, Tensor], like: TrainableGrid) -> TrainableGrid:
    x, y, z, steps = parts["shape"].tolist()
    grid = TrainableGrid(VoxelField.zeros(like.box, (x, y, z), like.features.shape[-1], like.density.device))
    for name, tensor in _grid_tensors(grid).items():
        brick_ops.scatter_bricks_(parts[name].to(tensor.device), parts["bricks"], tensor)
    grid.steps = steps
    grid.refresh()
    return grid
