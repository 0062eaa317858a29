"""Refines a scene by what a 2-D model knows of photographs (NF-LDM, section 7, and beyond it).

The scene is read on a finer grid of plain colours, which holds far more than a decoder of coarse features draws. Either
a restorer draws, once for each camera, what a photograph would show, and the grid is fitted to that; or a diffusion
model pulls the pictures by score distillation, towards y (what photographs are like) and away from y' (the scene's own
renders). Colours move first, densities later, slowly, and kept near: fast ones fall to pieces.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d._types import PathName
from nfldm3d.camera import Camera
from nfldm3d.fitting import Checkpoint, OptimisationError, Schedule, Step, optimise
from nfldm3d.guidance import Prior
from nfldm3d.guidance.prior import Described
from nfldm3d.models.priors.restorer import Restorer, look_at
from nfldm3d.pipelines.refining.cameras import choose_cameras, square
from nfldm3d.pipelines.refining.grid import RefinedGrid
from nfldm3d.pipelines.refining.guides import DistillingGuide, Guide, RestoringGuide
from nfldm3d.pipelines.refining.options import RefineOptions
from nfldm3d.pipelines.refining.palettes import match_palette
from nfldm3d.scene import Scene

CHECKPOINT_SECONDS = 60.0
FINAL_RATE = 0.1
"""Share of the step size that is left at the end."""
PALETTE_SIZE = 32
"""Pixels along each side of the pictures whose colours are matched."""
FEWEST_PICTURES = 4
"""A look needs so many pictures, or its embedding is that of what happens to stand in them."""


class RefinementStopped(ValueError):
    """A step that was not finite; ``scene`` is the last good one."""

    def __init__(self, message: str, scene: Scene):
        super().__init__(message)
        self.scene = scene


def refine(
    scene: Scene,
    model: Restorer | Prior,
    *,
    options: RefineOptions | None = None,
    like: Described | None = None,
    checkpoint: PathName | None = None,
    preview: Callable[[Step, Scene], None] | None = None,
    progress: bool = True,
) -> Scene:
    """A sharper scene of plain colours, from a restorer or by score distillation with a prior.

    Args:
        like: what a prior pulls towards: pictures of the look that is wanted, or a text for each. A prior that is told
            pictures needs some; photographs of the world that the scene is from sharpen, others change its look.
        checkpoint: a file that keeps the state once a minute; if it exists, the run goes on from there.
        preview: is shown the scene after every tenth part of the run.

    Raises:
        ValueError: the scene has no cameras, a restorer is given ``like``, or a prior none, or too few pictures.
        RefinementStopped: a loss or gradient was not finite; it names the step and holds the last good scene.
    """
    options = options or RefineOptions()
    generator = torch.Generator().manual_seed(options.seed)
    grid = RefinedGrid(scene, options)
    if options.match_colors and isinstance(like, Tensor) and scene.cameras is not None:
        _require_pictures(like)
        own = look_at(scene, square(scene.cameras.reshape(-1), PALETTE_SIZE))["render"]
        grid.recolor(match_palette(own, like, options.match_colors))
        scene = grid.scene()
    guide = _make_guide(scene, model, like, options, grid.unit, generator)
    count, identity = len(guide.camera), _identify(grid, model, options)

    def losses(step: Step) -> Mapping[str, Tensor]:
        chosen = torch.randperm(count, generator=generator)[: options.views_per_step].tolist()
        return guide.losses(grid.draw(guide.camera[chosen]), chosen, step) | grid.keep()

    def show(step: Step) -> None:
        if preview is not None and step.number % max(1, options.steps // 10) == 0:
            preview(step, grid.scene())

    saved = None if checkpoint is None else Checkpoint(checkpoint, identity, CHECKPOINT_SECONDS)
    schedule = Schedule(options.steps, rate=options.rate, final_rate=FINAL_RATE, name="refine")
    try:
        run = {"checkpoint": saved, "generator": generator, "callbacks": [show], "progress": progress}
        end = optimise(grid, losses, schedule, **run)
    except OptimisationError as error:
        raise RefinementStopped(str(error), grid.scene()) from error
    about = {"method": type(model).__name__, "steps": end.number, "saturated": round(grid.saturated(), 4)}
    refined = grid.scene()
    return replace(refined, metadata=refined.metadata | {"refined": about | asdict(options)})


def _make_guide(
    scene: Scene,
    model: Restorer | Prior,
    like: Described | None,
    options: RefineOptions,
    place: float,
    generator: torch.Generator,
) -> Guide:
    if isinstance(model, Restorer):
        if like is not None:
            raise ValueError("a restorer knows one look, that of its photographs; give a prior for another")
        camera = choose_cameras(scene, options.views, model.image_size, generator)
        return RestoringGuide(scene, model, camera, options.restoring_steps, place, generator)
    if like is None:
        raise ValueError("a prior must be told what pictures should be like: give like= pictures or a text (--like)")
    camera = choose_cameras(scene, options.views, model.image_size, generator)
    conditions = make_conditions(scene, model, camera, like, options)
    return DistillingGuide(scene, model, camera, conditions, options, generator)


def make_conditions(
    scene: Scene, prior: Prior, camera: Camera, like: Described, options: RefineOptions
) -> tuple[Float[Tensor, "views tokens numbers"], Float[Tensor, "views tokens numbers"] | None]:
    """y and y' of each camera: the embedding of what it shows, moved by the mean difference of the wanted pictures from
    all that the scene shows, and that embedding itself. With a text y is that text, and y' says nothing.

    Raises:
        ValueError: fewer than ``FEWEST_PICTURES`` pictures, or such with NaN.
    """
    if not isinstance(like, Tensor):
        wanted = prior.embed(like)
        return wanted[:1].expand(len(camera), -1, -1), None
    _require_pictures(like)
    shown = prior.embed(look_at(scene, camera)["render"])
    wanted = shown + prior.embed(like).mean(0) - shown.mean(0)
    return wanted, None if options.plain_guidance else shown


def _require_pictures(like: Float[Tensor, "pictures 3 height width"]) -> None:
    if len(like) < FEWEST_PICTURES:
        raise ValueError(f"a look needs at least {FEWEST_PICTURES} pictures, got {len(like)}; give more")
    if not bool(torch.isfinite(like).all()):
        raise ValueError("the pictures of a look hold NaN or infinity; read them again")


def _identify(grid: RefinedGrid, model: Restorer | Prior, options: RefineOptions) -> dict[str, Mapping[str, object]]:
    """What a run that goes on must have in common with the one that was stopped."""
    parts = {"densities": grid.start, "colours": grid.colors}
    sums = {name: hashlib.sha256(part.detach().cpu().numpy().tobytes()).hexdigest() for name, part in parts.items()}
    return {"options": asdict(options), "model": {"kind": type(model).__name__}, "scene": sums}
