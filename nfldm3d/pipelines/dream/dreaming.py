"""From a sentence to an object (DreamFusion, Poole et al. 2022): pictures of a field that a prior pulls to its text.

Each step draws cameras and lamps, lights the field, puts it before a background, and moves field and background against
the gradient of score distillation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d._types import PathName
from nfldm3d.appearance import Rgb
from nfldm3d.fields import Field, NeuralField
from nfldm3d.fitting import Checkpoint, Schedule, Step, TensorParameters, optimise
from nfldm3d.fitting.optimisation import Callback
from nfldm3d.guidance import Prior
from nfldm3d.guidance.distillation import distill
from nfldm3d.guidance.perpendicular import distill_away
from nfldm3d.pipelines.dream.canvas import Canvas, cells_of, field_of, finish, make_canvas
from nfldm3d.pipelines.dream.options import DreamOptions
from nfldm3d.pipelines.dream.prompts import Prompts
from nfldm3d.pipelines.dream.views import DreamViews, circle_views, draw_views
from nfldm3d.rendering.backgrounds import BackgroundNetwork, draw_plain_backgrounds
from nfldm3d.rendering.shading import (
    Light,
    ShadedRays,
    Shading,
    ShadingOptions,
    look_shaded,
    opacity_penalty,
    orientation_penalty,
    render_shaded,
)
from nfldm3d.scene import Scene

RADIUS = 1.0
"""Of the ball that holds the object, in metres."""
OCCUPANCY_EVERY = 16
"""Steps between two looks at where the field is empty."""
BACKGROUND_RATE = 0.1
ORIENTATION_RAMP = 0.5
"""Share of the run over which the weight of the orientation grows."""
VOXEL_RATE = 5.0
"""How much faster voxels move than weights, each of which moves many places."""
STEP_IN_VOXELS = 1.0
KEPT_VIEWS, KEPT_SIZE = 12, 256
"""Of the cameras that a scene keeps: exporters ask them where surfaces are."""


@dataclass
class Dream:
    """A dream under way."""

    prompt: str
    options: DreamOptions
    canvas: Canvas
    background: BackgroundNetwork
    generator: torch.Generator
    """On the CPU; all draws come from it."""

    @staticmethod
    def begin(prompt: str, options: DreamOptions, device: torch.device | str = "cpu") -> "Dream":
        """A blob in the middle before grey."""
        generator = torch.Generator().manual_seed(options.seed)
        canvas = make_canvas(
            options.field, radius=RADIUS, detail=options.detail, activation=options.activation, generator=generator
        )
        background = BackgroundNetwork(generator=generator)
        return Dream(prompt, options, canvas.to(device), background.to(device), generator)

    @property
    def device(self) -> torch.device:
        """Where it is dreamt."""
        return self.background.output.device

    def loss(self, prior: Prior, prompts: Prompts, step: Step) -> dict[str, Tensor]:
        """What a step makes small, by its parts."""
        options = self.options
        size = options.coarse_size if step.share < options.coarse_share else options.size
        views = draw_views(options.views, options.batch, size, radius=RADIUS, generator=self.generator)
        shading = draw_shading(options, step.share, self.generator)
        seen = self.look(views, shading, step)
        images = self._before_background(views, seen)
        conditions = prompts.conditions(views.azimuth, views.elevation, options.view_prompts, perp_neg=options.perp_neg)
        rest = {"share": step.share, "options": options.distillation, "generator": self.generator}
        told = (conditions.wanted, conditions.avoided)
        if conditions.others is None:
            parts = {"guidance": distill(prior, images, *told, **rest)}
        else:
            parts = {"guidance": distill_away(prior, images, told, conditions.others, **rest)}
        if options.opacity_weight:
            parts["opacity"] = options.opacity_weight * torch.stack([opacity_penalty(s.opacity) for s in seen]).mean()
        grown = min(1.0, step.share / ORIENTATION_RAMP)
        weight = (1 - grown) * options.first_orientation_weight + grown * options.last_orientation_weight
        if shading != "albedo" and weight:
            parts["orientation"] = weight * torch.stack([orientation_penalty(s) for s in seen]).mean()
        return parts

    def look(self, views: DreamViews, shading: Shading, step: Step) -> list[ShadedRays]:
        """The field in each view, with gradients."""
        if isinstance(self.canvas, NeuralField) and step.number % OCCUPANCY_EVERY == 0:
            self.canvas.update_occupancy(generator=self.generator)
        seen, options = field_of(self.canvas), ShadingOptions(shading, self.options.normals)
        cells = cells_of(seen)
        options = replace(options, step_in_voxels=STEP_IN_VOXELS)
        looks = []
        for number in range(len(views.camera)):
            rays = views.camera[number].to(self.device).rays().reshape(-1)
            light = Light(views.lamps[number].to(self.device))
            looks.append(look_shaded(seen, rays, light, options, cells=cells))
        return looks

    def _before_background(
        self, views: DreamViews, seen: Sequence[ShadedRays]
    ) -> Float[Tensor, "views 3 height width"]:
        """Plain colours at random, else the learned background: what is half transparent must look right on both."""
        plain: Tensor | None = None
        if torch.rand((), generator=self.generator) < self.options.random_background:
            plain = draw_plain_backgrounds(len(seen), self.generator).to(self.device)
        size, images = views.camera.width, []
        directions = views.camera.to(self.device).rays().directions.flatten(1, 2)  # views rays 3
        for number, rays in enumerate(seen):
            behind = self.background(directions[number]) if plain is None else plain[number]
            image = rays.color + (1 - rays.opacity[:, None]) * behind
            images.append(image.T.reshape(3, size, size))
        return torch.stack(images)

    def finish(self) -> Scene:
        """The scene; a ValueError if nothing is left in it."""
        with torch.no_grad():
            kept = finish(self.canvas, self.generator)
            behind = self.background.to_environment_map()
        require_visible(kept)
        known = {"prompt": self.prompt, "seed": self.options.seed}
        cameras = circle_views(KEPT_VIEWS, KEPT_SIZE, radius=RADIUS).to(self.device)
        return Scene(kept, Rgb(), behind, cameras=cameras, metric=False, metadata=known)


def dream(
    prompt: str,
    prior: Prior,
    options: DreamOptions | None = None,
    *,
    checkpoint: PathName | None = None,
    device: torch.device | str = "cpu",
    callbacks: Sequence[Callable[[Dream, Step], str | None]] = (),
    progress: bool = True,
) -> Scene:
    """An object that looks like a text from all sides, in a ball of radius 1 around zero.

    Args:
        prior: a model of pictures that takes texts, on ``device``.
        options: None takes what suits the prior, ``DreamOptions.suiting``.
        checkpoint: a file that keeps the state once a minute; if it exists, the run goes on from there.
        callbacks: told of every step with the dream as it stands; what they return stands in the progress bar.

    Raises:
        ValueError: an empty prompt, a prior that takes no texts, or a field that went empty.
        OptimisationError: a loss or a gradient is not finite; it names the step.
        DataFormatError: the checkpoint is damaged or belongs to another run.
    """
    options = options or DreamOptions().suiting(prior)
    run = Dream.begin(prompt, options, device)
    prompts = Prompts.embed(prior, prompt, options.negative)
    schedule = Schedule(options.steps, options.time_budget, options.rate, name="dream")
    parts = {"field": run.canvas, "background": run.background}
    rates = {"field": 1.0 if isinstance(run.canvas, NeuralField) else VOXEL_RATE, "background": BACKGROUND_RATE}
    told: list[Callback] = [lambda step, tell=tell: tell(run, step) for tell in callbacks]
    optimise(
        TensorParameters(parts, rates=rates),
        lambda step: run.loss(prior, prompts, step),
        schedule,
        checkpoint=None if checkpoint is None else Checkpoint(checkpoint, _identity(prompt, options)),
        generator=run.generator,
        callbacks=told,
        progress=progress,
    )
    return run.finish()


class EmptyFieldError(ValueError):
    """Nothing of what was dreamt is to be seen."""


def require_visible(field: Field) -> None:
    """Raises an EmptyFieldError if no pixel of four views is half covered."""
    views = circle_views(4, 32, radius=RADIUS).to(field.device)
    opacity = float(render_shaded(field, views, ShadingOptions("albedo")).opacity.max())
    if opacity < 0.5:
        with torch.no_grad():
            density = field.query_density(field.box.voxel_centers((32, 32, 32), views.focal).reshape(-1, 3))
        raise EmptyFieldError(
            f"the field went empty: it hides at most {100 * opacity:.0f} % of what is behind it, with densities from "
            f"{float(density.min()):.3g} to {float(density.max()):.3g}/m; lower --opacity-weight, raise "
            "--guidance-scale, or take more steps or another seed"
        )


def draw_shading(options: DreamOptions, share: float, generator: torch.Generator | None) -> Shading:
    """Albedo first; then, at random, light with or without colours, or still none."""
    lit, plain = torch.rand(2, generator=generator).tolist()
    if share < options.albedo_share or lit >= options.shaded_share:
        return "albedo"
    return "textureless" if plain < options.textureless_share else "lambertian"


def _identity(prompt: str, options: DreamOptions) -> dict[str, dict[str, object]]:
    return {"prompt": {"text": prompt}, "options": options.identity()}
