"""Making scenes from the page: from nothing, from the painted map, parts anew, larger worlds, sharper scenes."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from nfldm3d.fitting import Step
from nfldm3d.models.priors.restorer import Restorer
from nfldm3d.pipelines import SceneGenerator
from nfldm3d.pipelines.refining import RefineOptions, refine
from nfldm3d.pipelines.schedulers import BY_NAME, make_scheduler
from nfldm3d.scene import Scene
from nfldm3d.viewer.region import Region
from nfldm3d.viewer.tasks import Progress

if TYPE_CHECKING:
    from nfldm3d.viewer.viewer import Viewer

MAX_SEED, MAX_STEPS, MAX_WINDOWS = 2**31 - 1, 100, 6
SAMPLED = 0.95
"""Share of the work that is sampling; the rest decodes."""


class MakePanel:
    """The tab."""

    def __init__(self, viewer: "Viewer", pipeline: SceneGenerator, restorer: Restorer | None = None):
        """Adds its elements to the page, in the container that is open."""
        self.viewer, self.pipeline, gui = viewer, pipeline, viewer.server.gui
        self.restorer, self.refining = restorer, RefineOptions()
        pipeline.set_progress_bar_config(disable=True)
        self.seed = gui.add_number("Seed", 0, min=0, max=MAX_SEED, step=1)
        self.steps = gui.add_slider("Steps", 1, MAX_STEPS, 1, 20, hint="of each level; fewer are faster")
        self.guidance = gui.add_slider("Guidance", 1.0, 15.0, 0.5, 8.0, hint="how much the map counts")
        self.scheduler = gui.add_dropdown("Scheduler", ("default", *BY_NAME))
        self.from_map = gui.add_checkbox("From the painted map", False, visible=bool(pipeline.map_size))
        generate = gui.add_button("Generate a scene", color="green")
        generate.on_click(viewer.told(lambda _: self._generate()))
        if restorer is not None:
            sharpen = gui.add_button("Sharpen this scene", hint="on a grid twice as fine; the scene itself stays")
            sharpen.on_click(viewer.told(lambda _: self._sharpen()))
        with gui.add_folder("A part anew", expand_by_default=False):
            self.region = Region(viewer)
            again = gui.add_button("Sample this part again")
            again.on_click(viewer.told(lambda _: self._edit()))
        with gui.add_folder("A larger world", expand_by_default=False):
            self.windows = gui.add_vector2(
                "Windows", (2.0, 2.0), min=(1.0, 1.0), max=(float(MAX_WINDOWS), float(MAX_WINDOWS)), step=1.0
            )
            self.around = gui.add_checkbox("Around this scene", True)
            grow = gui.add_button("Grow")
            grow.on_click(viewer.told(lambda _: self._grow()))

    def _generate(self) -> None:
        seed, bev = int(self.seed.value), None
        if self.from_map.value:
            paint = self.viewer.paint_panel
            assert paint is not None, "weights with maps have a panel to paint them"
            bev = paint.map.cells
            self.pipeline.read_map(bev)  # says what is wrong with it
        options = {"bev": bev, "guidance_scale": float(self.guidance.value)}

        def work(settings: dict[str, Any]) -> Scene:
            return self.pipeline.generate(1, **options, **settings).scenes[0]

        self._make(f"seed {seed}" if bev is None else f"map, seed {seed}", work)

    def _edit(self) -> None:
        shown, box = self.viewer.require_current(), self.region.box
        name = f"{shown.name}, edited"
        self._make(name, lambda settings: self.pipeline.edit(shown.scene, box, **settings), move=False)

    def _grow(self) -> None:
        windows = int(self.windows.value[0]), int(self.windows.value[1])
        if max(windows) > MAX_WINDOWS:
            raise ValueError(f"a world has up to {MAX_WINDOWS} windows along x and y, got {windows}")
        scene = self.viewer.require_current().scene if self.around.value else None
        name = f"world of {windows[0]} x {windows[1]}"
        self._make(name, lambda settings: self.pipeline.grow(windows, scene=scene, **settings))

    def _sharpen(self) -> None:
        shown, restorer = self.viewer.require_current(), self.restorer
        assert restorer is not None, "the button is there for it"
        options = replace(self.refining, seed=int(self.seed.value))

        def run(progress: Progress) -> str:
            def look(step: Step, scene: Scene) -> None:
                progress(SAMPLED * step.share)

            refined = refine(shown.scene, restorer, options=options, preview=look, progress=False)
            progress(1.0)
            added = self.viewer.add(f"{shown.name}, sharper", refined)
            self.viewer.choose(added, move=False)
            return f"made: {added}"

        self.viewer.tasks.start(f"sharpening {shown.name}", run)

    def _make(self, name: str, work: Callable[[dict[str, Any]], Scene], *, move: bool = True) -> None:
        """Starts a task that adds the scene which ``work`` makes, given steps, scheduler, seed and callback."""
        steps = int(self.steps.value)
        if not 1 <= steps <= MAX_STEPS:
            raise ValueError(f"steps must lie between 1 and {MAX_STEPS}, got {steps}")
        scheduler = make_scheduler(self.pipeline.scheduler, self.scheduler.value)
        generator = torch.Generator().manual_seed(int(self.seed.value))
        levels = [self.pipeline.denoiser_g is not None, True, self.pipeline.denoiser_f is not None]

        def run(progress: Progress) -> str:
            done = StepCounter(progress, steps, ["g", "c", "f"], levels)
            scene = work(
                {
                    "num_inference_steps": steps,
                    "scheduler": scheduler,
                    "generator": generator,
                    "callback_on_step_end": done,
                }
            )
            progress(1.0)
            added = self.viewer.add(name, scene)
            self.viewer.choose(added, move=move)
            return f"made: {added}"

        self.viewer.tasks.start(f"making {name}", run)


class StepCounter:
    """Turns what a generator says after each step into a share of the work; a stopped task ends there."""

    def __init__(self, progress: Progress, steps: int, levels: list[str], used: list[bool]):
        self.progress, self.steps = progress, steps
        self.levels = [level for level, wanted in zip(levels, used, strict=True) if wanted]

    def __call__(self, pipeline: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        """As diffusers calls it."""
        place = self.levels.index(values["level"]) + min((step + 1) / self.steps, 1.0)
        self.progress(SAMPLED * place / len(self.levels))
        return {}
