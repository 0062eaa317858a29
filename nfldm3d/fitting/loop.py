"""The loop: draw rays, compare, step; refine and prune on a schedule; keep a checkpoint."""

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d import ops
from nfldm3d._types import PathName
from nfldm3d.appearance import SphericalHarmonics
from nfldm3d.data.posed_images import PosedImages
from nfldm3d.fields import VoxelField
from nfldm3d.fitting.batches import PixelStore, RayBatch
from nfldm3d.fitting.boxes import estimate_boxes, nest_boxes
from nfldm3d.fitting.checkpoint import FitState, load_checkpoint, save_checkpoint
from nfldm3d.fitting.grids import VISIBILITY_RAYS, StepSizes, TrainableGrid
from nfldm3d.fitting.options import FitOptions
from nfldm3d.geometry import Box
from nfldm3d.memory import require_memory
from nfldm3d.rendering import composite
from nfldm3d.scene import Scene


@dataclass(frozen=True)
class Phase:
    """A part of the schedule. While there is fog everywhere, rays are dear and coarse voxels need few of them."""

    start: float
    """Share of the schedule at which it begins."""
    resolution: float
    """Share of the final resolution along each axis."""
    rays: float
    """Share of the rays per step."""
    prune_unseen: bool
    """Whether it begins with a look at which voxels are seen at all."""
    sky: bool
    """Whether the sky is learned. Before, rays that nothing stops see noise, so that walls form, not holes in them."""


PHASES = (
    Phase(0.0, 1 / 8, 1 / 4, prune_unseen=False, sky=False),
    Phase(0.02, 1 / 4, 1 / 4, prune_unseen=False, sky=False),
    Phase(0.15, 1 / 2, 1 / 2, prune_unseen=True, sky=True),
    Phase(0.35, 1.0, 1.0, prune_unseen=False, sky=True),
)
VALUES = 100_000_000
"""Densities and features of the field in focus, unless the number of voxels is given."""
REFRESH_EVERY = 64
"""Steps between two looks at what is empty."""
DENSITY_RATE, FEATURE_RATE, SKY_RATE = 0.1, 0.02, 0.01
FINAL_RATE = 0.1
"""Share of the first step size that is left at the end."""
FOG_DECAY = 1e-9
"""Slope of the density's logarithm that makes fog fade where no picture asks for it."""
SKY_SHAPE = (64, 128, 3)
"""Rows, columns and colours of the learned environment map."""
EMPTY_RADIUS = 0.05
"""Radius around each camera that is kept empty, as a share of the box's shortest edge."""


EARLY_STOP = 1e-3
"""Transmittance behind which training rays stop."""
CHECKPOINT_SECONDS = 60.0
"""Seconds between two checkpoints."""


def fit(
    images: PosedImages,
    *,
    options: FitOptions | None = None,
    checkpoint: PathName | None = None,
    device: torch.device | str = "cpu",
    show_progress: bool = True,
) -> Scene:
    """Fits a scene to posed images.

    The grid starts as thin fog at a quarter of the final resolution and is refined twice. Rays skip what has become
    empty, and the optimiser touches only the bricks that are left.

    Args:
        checkpoint: a file that keeps the state once a minute; if it exists, the fit goes on from there. Delete it to
            start anew.

    Raises:
        ValueError: if there are no images, or the grids do not fit in memory (the message says how much they need).
        DataFormatError: if the checkpoint is damaged or belongs to another fit.
    """
    from tqdm.auto import tqdm

    options = options or FitOptions()
    if len(images) == 0:
        raise ValueError("there are no images to fit; give at least one")
    store = PixelStore.load(images, torch.device(device))
    state = _start(images, store, options)
    path = None if checkpoint is None else Path(checkpoint)
    identity = f"{asdict(options)} {images.camera.world_from_camera.double().sum():.6f} {len(images)}"
    if path is not None and path.exists():
        load_checkpoint(path, state, identity)
    saved_at = state.seconds
    with tqdm(total=100, unit="%", desc="fit", disable=not show_progress, bar_format=BAR) as bar:
        clock = time.monotonic() - state.seconds
        while (share := _share(state, options)) < 1:
            _follow_schedule(state, share, store)
            rays = max(1, round(options.rays_per_step * PHASES[state.stage].rays))
            psnr = _step(state, store.draw(rays, state.generator), share, options)
            state.seconds = time.monotonic() - clock
            _show(bar, state, share, psnr)
            if path is not None and state.seconds - saved_at > CHECKPOINT_SECONDS:
                save_checkpoint(path, state, identity)
                saved_at = state.seconds
    return _finish(state, images, options)


BAR = "{desc} {percentage:3.0f}% |{bar}| {elapsed}{postfix}"


def _start(images: PosedImages, store: PixelStore, options: FitOptions) -> FitState:
    device = store.device
    box, surroundings = estimate_boxes(images)
    if options.box is not None:
        box = Box(*options.box)
    if options.surroundings is not None:
        surroundings = options.surroundings
    boxes = nest_boxes(box, surroundings)
    degree = options.degree
    if degree is None:
        degree = 1 if images.metadata.get("view_dependent", True) else 0
    appearance = SphericalHarmonics(degree)
    channels = appearance.channels
    voxels = options.voxels or VALUES // (channels + 1)
    counts = [voxels, *[options.surrounding_voxels or max(voxels // 2, 1)] * surroundings]
    resolutions = [_resolution(part, count) for part, count in zip(boxes, counts, strict=True)]
    require_memory(resolutions[0], channels, device, copies=4)
    known = store.surface_points()
    stage = 0 if known is None else len(PHASES) - 1  # with dense depth the surface is known, and the grids start fine
    grids = []
    for part, resolution in zip(boxes, resolutions, strict=True):
        grids.append(TrainableGrid.fog(part, _scaled(resolution, PHASES[stage].resolution), channels, device))
        if known is not None:
            grids[-1].seed(*known)
    backdrop = images.background
    sky = None
    if options.background == "environment" or (options.background == "auto" and backdrop is None):
        sky = torch.full(SKY_SHAPE, 0.5, device=device)
    constant = torch.tensor(backdrop, device=device) if options.background == "auto" and backdrop is not None else None
    generator = torch.Generator().manual_seed(options.seed)
    return FitState(grids, resolutions, appearance, sky, constant, generator, stage=stage)


def _resolution(box: Box, voxels: int) -> tuple[int, int, int]:
    x, y, z = box.size
    return box.resolution((x * y * z / voxels) ** (1 / 3))


def _scaled(resolution: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    x, y, z = (max(1, round(count * share)) for count in resolution)
    return (x, y, z)


def _share(state: FitState, options: FitOptions) -> float:
    """How much of the schedule is done, 0 to 1."""
    by_time = 0.0 if options.time_budget is None else state.seconds / options.time_budget
    return min(1.0, max(by_time, state.step / options.steps))


def _follow_schedule(state: FitState, share: float, store: PixelStore) -> None:
    """Refines the grids when a new stage begins, and looks for empty space now and then."""
    stage = max(number for number, stage in enumerate(PHASES) if share >= stage.start)
    if stage > state.stage:
        seen = measure_visibility(state, store) if PHASES[stage].prune_unseen else [None] * len(state.grids)
        for number, grid in enumerate(state.grids):
            grid.prune(seen[number])
            state.grids[number] = grid.refined(_scaled(state.resolutions[number], PHASES[stage].resolution))
        state.stage = stage
    if state.carved < state.stage:
        for grid in state.grids:
            grid.carve(store.centers, EMPTY_RADIUS * min(state.grids[0].box.size))
            grid.refresh()
        state.carved = state.stage
    if state.step % REFRESH_EVERY == 0:
        for grid in state.grids:
            grid.refresh()


def measure_visibility(state: FitState, store: PixelStore) -> list[Float[Tensor, "_ _ _"]]:
    """The sum of weights that each voxel has in a number of random rays: the gradient of what they see."""
    levels, gradients = [], []
    for grid in state.grids:
        blank = torch.zeros_like(grid.density)[..., None].requires_grad_()
        levels.append(VoxelField(grid.density, blank, grid.box))
        gradients.append(
            ops.FieldGradient(torch.zeros_like(grid.density), torch.zeros_like(blank, requires_grad=False))
        )
    for _ in range(VISIBILITY_RAYS // 4096):
        rays = store.draw(4096, state.generator).rays
        occupancies = [grid.occupancy for grid in state.grids]
        composite(levels, rays, occupancies=occupancies, gradients=gradients).features.sum().backward()
    return [gradient.features[..., 0] for gradient in gradients]


def _step(state: FitState, batch: RayBatch, share: float, options: FitOptions) -> float:
    """One optimiser step; returns the batch's PSNR in dB."""
    scene = state.scene(trainable=True)
    integral = composite(
        scene.levels,
        batch.rays,
        occupancies=[grid.occupancy for grid in state.grids],
        gradients=[grid.gradient for grid in state.grids],
        early_stop=EARLY_STOP,
    )
    behind = scene.background_color(batch.rays)
    if state.sky is not None and not PHASES[state.stage].sky:  # no hiding behind transparency
        behind = torch.rand(len(batch.rays), 3, generator=state.generator).to(behind.device)
    colors = scene.appearance.image(integral.features, integral.opacity, batch.rays)
    error = (colors + (1 - integral.opacity)[:, None] * behind - batch.colors).square().mean()
    size = min(scene.box.size)
    loss = error + options.distortion_weight * integral.distortion.mean() / size
    if batch.distances is not None and options.depth_weight > 0:
        known = batch.distances > 0
        miss = (integral.distance - integral.opacity * batch.distances).abs() / size + (1 - integral.opacity)
        loss = loss + options.depth_weight * (miss * known).mean()
    loss.backward()
    factor = FINAL_RATE**share
    footprint = PHASES[state.stage].resolution ** -2  # a coarse voxel is met by more rays, its gradient is stronger
    sizes = StepSizes(
        DENSITY_RATE * factor, FEATURE_RATE * factor, options.smoothness * footprint, FOG_DECAY * footprint
    )
    for grid in state.grids:
        grid.step(sizes)
    state.step_sky(SKY_RATE * factor)
    state.step += 1
    return -10 * math.log10(max(float(error.detach()), 1e-10))


def _show(bar: Any, state: FitState, share: float, psnr: float) -> None:
    state.psnr = psnr if state.step < 2 else 0.95 * state.psnr + 0.05 * psnr
    bar.n = int(100 * share)
    if state.step % 10 == 0:
        resolution = "x".join(str(count) for count in state.grids[0].density.shape)
        bar.set_postfix_str(f"PSNR {state.psnr:.1f} dB, step {state.step}, {resolution} voxels")


def _finish(state: FitState, images: PosedImages, options: FitOptions) -> Scene:
    for grid in state.grids:
        grid.carve(images.camera.centers.to(grid.density), EMPTY_RADIUS * min(state.grids[0].box.size))
    record = {"fit": asdict(options) | {"steps_done": state.step, "seconds": round(state.seconds, 1)}}
    scene = state.scene(trainable=False)
    return replace(
        scene,
        surroundings=tuple(scene.surroundings),
        cameras=images.camera.to(scene.device),
        metric=images.metric,
        metadata={**images.metadata, **record},
    )
