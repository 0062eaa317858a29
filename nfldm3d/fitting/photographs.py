"""Fits scenes to photographs: draw rays, compare; refine and prune on a schedule."""

import math
from collections.abc import Mapping
from dataclasses import asdict, replace

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d import ops
from nfldm3d._moved import renamed_argument
from nfldm3d._types import PathName
from nfldm3d.appearance import SphericalHarmonics
from nfldm3d.data.posed_images import PosedImages
from nfldm3d.fields.packing import require_map
from nfldm3d.fitting.batches import PixelStore, RayBatch
from nfldm3d.fitting.boxes import choose_boxes, nest_boxes
from nfldm3d.fitting.checkpoint import Checkpoint
from nfldm3d.fitting.exposures import are_photographs, read_factors
from nfldm3d.fitting.grids import COPIES, VISIBILITY_RAYS, TrainableGrid
from nfldm3d.fitting.optimisation import SHOWN_EVERY, optimise
from nfldm3d.fitting.options import FitOptions
from nfldm3d.fitting.phases import PHASES, find_phase
from nfldm3d.fitting.schedule import Schedule, Step
from nfldm3d.fitting.state import FitState
from nfldm3d.geometry import Box
from nfldm3d.memory import require_bytes, require_memory
from nfldm3d.rendering import composite
from nfldm3d.scene import Scene

VALUES = 100_000_000
"""Densities and features of the field in focus at most, unless the number of voxels is given."""
PIXELS_PER_VOXEL = 2.5
"""Where photographs alone tell of a place: finer voxels are finer than what they show, and held-out views lose."""
FEWEST_VOXELS = 1_000_000
"""For small captures."""
REFRESH_EVERY = 64
"""Steps between two looks at what is empty."""
FINAL_RATE = 0.1
"""Share of the first step size that is left at the end."""
SKY_SHAPE = (64, 128, 3)
"""Rows, columns and colours of the learned environment map."""
EMPTY_RADIUS = 0.05
"""Radius around each camera that is kept empty, as a share of the box's shortest edge."""
EARLY_STOP = 1e-3
"""Transmittance behind which training rays stop."""
CHECKPOINT_SECONDS = 60.0
"""Seconds between two checkpoints."""
RAY_NUMBERS = 40
"""Kept of each ray of a step, beside its features."""
PHOTO = "photo"
"""Name of the mean squared error of colours among the losses."""


@renamed_argument("show_progress", "progress")
def fit(
    images: PosedImages,
    *,
    options: FitOptions | None = None,
    checkpoint: PathName | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> Scene:
    """Fits a scene to posed images.

    The grid starts as thin fog at an eighth of the final resolution and is refined three times. Rays skip what has
    become empty, and memory is taken by the bricks of 8x8x8 voxels that are left (plenoxels, Fridovich-Keil et al.
    2022, are pruned alike).

    Args:
        checkpoint: a file that keeps the state once a minute; if it exists, the fit goes on from there. Delete it to
            start anew.
        progress: whether a bar is shown.

    Raises:
        ValueError: if there are no images, or the grids do not fit in memory (the message says how much they need).
        DataFormatError: if the checkpoint is damaged, or belongs to other pictures, cameras or options.
    """
    options = options or FitOptions()
    if len(images) == 0:
        raise ValueError("there are no images to fit; give at least one")
    store = PixelStore.load(images, torch.device(device), plain=options.background == "auto")
    state = _start(images, store, options)
    kept = None
    if checkpoint is not None:
        kept = Checkpoint(checkpoint, _identify(store, state), CHECKPOINT_SECONDS)

    def compare(step: Step) -> Mapping[str, Tensor]:
        _follow_schedule(state, step, store)
        rays = max(1, round(options.rays_per_step * state.phase.rays))
        return _compare(state, store.draw(rays, state.generator))

    end = optimise(
        state,
        compare,
        Schedule(options.steps, options.time_budget, rate=1.0, final_rate=FINAL_RATE, name="fit"),
        checkpoint=kept,
        generator=state.generator,
        callbacks=[_Report(state)],
        progress=progress,
    )
    return _finish(state, images, store, end)


def _identify(store: PixelStore, state: FitState) -> dict[str, Mapping[str, object]]:
    """What a fit that goes on must have in common with the one that was stopped."""
    boxes = {f"box {number}": f"{grid.box.lower} {grid.box.upper}" for number, grid in enumerate(state.grids)}
    voxels = {f"voxels {number}": list(counts) for number, counts in enumerate(state.resolutions)}
    pictures, cameras = store.fingerprints()
    return {"options": asdict(state.options), "grids": boxes | voxels, "pictures": pictures, "cameras": cameras}


def _start(images: PosedImages, store: PixelStore, options: FitOptions) -> FitState:
    device = store.device
    box, surroundings = choose_boxes(images, store.hull)
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
    known = store.surface_points()
    free = known is None and store.hull is None
    voxels = options.voxels or count_voxels(store.pixels if free else None, channels)
    counts = [voxels, *[options.surrounding_voxels or max(voxels // 2, 1)] * surroundings]
    resolutions = [_resolution(part, count) for part, count in zip(boxes, counts, strict=True)]
    if options.sparse:
        require_map(resolutions[0], device)
    else:  # before the work, for what is made dense at its end beside the bricks
        require_memory(resolutions[0], channels, device, copies=COPIES)
    first = 0 if known is None else len(PHASES) - 1  # with dense depth the surface is known, and the grids start fine
    grids = []
    for part, resolution in zip(boxes, resolutions, strict=True):
        resolution = PHASES[first].scaled(resolution)
        if known is None:
            grids.append(TrainableGrid.fog(part, resolution, channels, device))
        else:
            grids.append(TrainableGrid.around(*known, part, resolution, channels))
    backdrop = images.background
    if store.hull is not None and store.hull.backdrop is not None:
        backdrop = store.hull.backdrop.color
    sky = None
    if options.background == "environment" or (options.background == "auto" and backdrop is None):
        sky = torch.full(SKY_SHAPE, 0.5, device=device)
    constant = torch.tensor(backdrop, device=device) if options.background == "auto" and backdrop is not None else None
    exposed = are_photographs(images) and constant is None if options.exposure is None else options.exposure
    exposures = torch.zeros(len(store.names), 3, device=device) if exposed else None
    what, needed = f"a step of {options.rays_per_step} rays", 4 * options.rays_per_step * (channels + RAY_NUMBERS)
    require_bytes(needed, what, "lower rays_per_step", device)
    generator = torch.Generator().manual_seed(options.seed)
    return FitState(options, grids, resolutions, appearance, sky, constant, generator, first, exposures=exposures)


def count_voxels(pixels: int | None, channels: int) -> int:
    """How many voxels of so many features suit photographs of so many ``pixels``, None where depth or outlines say
    where matter is."""
    most = VALUES // (channels + 1)
    return most if pixels is None else min(most, max(FEWEST_VOXELS, round(pixels / PIXELS_PER_VOXEL)))


def _resolution(box: Box, voxels: int) -> tuple[int, int, int]:
    x, y, z = box.size
    return box.resolution((x * y * z / voxels) ** (1 / 3))


def _follow_schedule(state: FitState, step: Step, store: PixelStore) -> None:
    """Refines the grids when a new phase begins, and looks for empty space now and then."""
    due = find_phase(step.share, step.number, timed=state.options.time_budget is not None)
    if due > state.number:
        seen = measure_visibility(state, store) if PHASES[due].prune_unseen else [None] * len(state.grids)
        for number, grid in enumerate(state.grids):
            grid.prune(seen[number])
            state.grids[number] = grid.refined(PHASES[due].scaled(state.resolutions[number]))
        state.number = due
    if state.carved < state.number:
        for grid in state.grids:
            grid.carve(store.centers, EMPTY_RADIUS * min(state.grids[0].box.size))
            if store.hull is not None:
                grid.keep_within(store.hull)
            grid.refresh()
            grid.forget()
        state.carved = state.number
    if step.number % REFRESH_EVERY == 0:
        for grid in state.grids:
            grid.refresh()


def measure_visibility(state: FitState, store: PixelStore) -> list[Float[Tensor, "_ 8 8 8"]]:
    """The sum of weights that each voxel has in a number of random rays: the gradient of what they see."""
    levels, gradients = [], []
    for grid in state.grids:
        blank = torch.zeros_like(grid.density)[..., None].requires_grad_()
        levels.append(replace(grid.level, density=grid.density, features=blank))
        gradients.append(
            ops.FieldGradient(torch.zeros_like(grid.density), torch.zeros_like(blank, requires_grad=False))
        )
    for _ in range(VISIBILITY_RAYS // 4096):
        rays = store.draw(4096, state.generator).rays
        occupancies = [grid.occupancy for grid in state.grids]
        composite(levels, rays, occupancies=occupancies, gradients=gradients).features.sum().backward()
    return [gradient.features[..., 0] for gradient in gradients]


def _compare(state: FitState, batch: RayBatch) -> dict[str, Tensor]:
    """What the scene shows along some rays beside what pictures and depth do: losses by name."""
    scene, options = state.scene(), state.options
    integral = composite(
        scene.levels,
        batch.rays,
        occupancies=[grid.occupancy for grid in state.grids],
        gradients=[grid.gradient for grid in state.grids],
        early_stop=EARLY_STOP,
    )
    behind, wanted = scene.background_color(batch.rays), batch.colors
    if batch.opacities is not None and scene.background is not None:  # over any colour, so that opacity is learned
        drawn = torch.rand(len(batch.rays), 3, generator=state.generator).to(behind)
        drawn = torch.where(batch.opacities[:, None] < 0, behind, drawn)
        wanted, behind = wanted + (1 - batch.opacities)[:, None] * (drawn - behind), drawn
    if state.sky is not None and not state.phase.sky:  # no hiding behind transparency
        behind = torch.rand(len(batch.rays), 3, generator=state.generator).to(behind.device)
    colors, losses = scene.appearance.image(integral.features, integral.opacity, batch.rays), {}
    if state.exposures is not None and state.phase.sky:  # noise behind would be taken for light
        factors, losses["exposure"] = read_factors(state.exposures, batch.views)
        colors, behind = factors * colors, behind if state.sky is None else factors * behind
    error = (colors + (1 - integral.opacity)[:, None] * behind - wanted).square().mean()
    size = min(scene.box.size)
    losses |= {PHOTO: error, "distortion": options.distortion_weight * integral.distortion.mean() / size}
    if batch.distances is not None and options.depth_weight > 0:
        known = batch.distances > 0
        miss = (integral.distance - integral.opacity * batch.distances).abs() / size + (1 - integral.opacity)
        losses["depth"] = options.depth_weight * (miss * known).mean()
    return losses


class _Report:
    """Tells in the progress bar how far a fit is."""

    def __init__(self, state: FitState):
        self.state, self.psnr = state, math.nan

    def __call__(self, step: Step) -> str | None:
        psnr = -10 * math.log10(max(step.losses[PHOTO], 1e-10))
        self.psnr = psnr if math.isnan(self.psnr) else 0.95 * self.psnr + 0.05 * psnr
        if step.number % SHOWN_EVERY:
            return None
        resolution = "x".join(str(count) for count in self.state.grids[0].resolution)
        return f"PSNR {self.psnr:.1f} dB, step {step.number}, {resolution} voxels"


def _finish(state: FitState, images: PosedImages, store: PixelStore, end: Step) -> Scene:
    for grid in state.grids:
        grid.carve(images.camera.centers.to(grid.density), EMPTY_RADIUS * min(state.grids[0].box.size))
        if store.hull is not None:
            grid.keep_within(store.hull)
    record = {"fit": asdict(state.options) | {"steps_done": end.number, "seconds": round(end.seconds, 1)}}
    if state.exposures is not None:
        factors = [[round(factor, 4) for factor in view] for view in state.exposures.detach().exp().tolist()]
        record["exposures"] = dict(zip(store.names, factors, strict=True))
    scene = state.finish()
    return replace(
        scene,
        surroundings=tuple(scene.surroundings),
        cameras=images.camera.to(scene.device),
        metric=images.metric,
        metadata={**images.metadata, **record},
    )
