"""Objects from sentences, dreamt in the page."""

from dataclasses import replace
from typing import TYPE_CHECKING

from nfldm3d.fitting import Step
from nfldm3d.guidance import Prior
from nfldm3d.pipelines.dream import Dream, DreamOptions, dream
from nfldm3d.pipelines.dream.canvas import Kind
from nfldm3d.viewer.make_panel import MAX_SEED
from nfldm3d.viewer.tasks import Progress

if TYPE_CHECKING:
    from nfldm3d.viewer.viewer import Viewer

MAX_STEPS, MAX_GUIDANCE, LONGEST = 20_000, 200.0, 300
"""The last of a prompt, in letters."""


class DreamPanel:
    """The tab."""

    def __init__(self, viewer: "Viewer", prior: Prior):
        """Adds its elements to the page, in the container that is open."""
        self.viewer, self.prior, gui = viewer, prior, viewer.server.gui
        self.options = DreamOptions().suiting(prior)
        self.prompt = gui.add_text("Prompt", "a red chair")
        self.seed = gui.add_number("Seed", 0, min=0, max=MAX_SEED, step=1)
        self.steps = gui.add_number("Steps", self.options.steps, min=1, max=MAX_STEPS, step=1)
        self.guidance = gui.add_number(
            "Guidance", self.options.distillation.guidance_scale, min=0.0, max=MAX_GUIDANCE, step=0.5
        )
        self.field = gui.add_dropdown(
            "Drawn on",
            ("voxels", "hash"),
            initial_value=self.options.field,
            hint="voxels are faster on a processor; a hash grid is what the paper's successors take",
        )
        start = gui.add_button("Dream", color="green")
        start.on_click(viewer.told(lambda _: self._dream()))

    def _dream(self) -> None:
        prompt, steps = " ".join(self.prompt.value.split()), int(self.steps.value)
        if not prompt:
            raise ValueError("the prompt is empty: say what to dream of, such as 'a wooden chair'")
        if len(prompt) > LONGEST:
            raise ValueError(f"the prompt has {len(prompt)} letters; {LONGEST} are the most")
        if not 1 <= steps <= MAX_STEPS:
            raise ValueError(f"steps must lie between 1 and {MAX_STEPS}, got {steps}")
        field: Kind = "hash" if self.field.value == "hash" else "voxels"
        distillation = replace(self.options.distillation, guidance_scale=float(self.guidance.value))
        options = replace(self.options, steps=steps, seed=int(self.seed.value), field=field, distillation=distillation)

        def run(progress: Progress) -> str:
            def tell(_: Dream, step: Step) -> None:
                progress(step.share)

            scene = dream(
                prompt, self.prior, options, device=self.prior.alphas_cumprod.device, callbacks=[tell], progress=False
            )
            progress(1.0)
            added = self.viewer.add(prompt, scene)
            self.viewer.choose(added)
            return f"made: {added}"

        self.viewer.tasks.start(f"dreaming of {prompt}", run)
