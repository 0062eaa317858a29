"""``nfldm3d dream``: an object from a sentence and a text-to-image model."""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
import tyro

from nfldm3d.cli.devices import open_device
from nfldm3d.cli.values import require_at_least
from nfldm3d.export import export_mesh
from nfldm3d.files import atomic_write
from nfldm3d.fitting.checkpoint import is_under_way, remove_checkpoint
from nfldm3d.models.weight_folders import OBJECTS
from nfldm3d.pipelines.dream.options import DreamOptions
from nfldm3d.written_files import writing

if TYPE_CHECKING:
    from nfldm3d.scene import Scene

PREVIEW, TURNTABLE, SCENE, MESH, RECORD = "preview.png", "turntable.mp4", "scene.nfld", "scene.glb", "dream.json"
CHECKPOINT = ".dream.checkpoint.safetensors"


@dataclass(frozen=True)
class Dream:
    """Makes an object from a sentence (DreamFusion): a scene, a closed mesh in its colours, a turntable and a preview.

    Its text-to-image model is the small one that comes with nfldm3d, or another, as diffusers keeps it."""

    prompt: Annotated[str, tyro.conf.Positional]
    """What to dream of, such as 'a wooden chair'."""
    out: Path
    """Folder for preview.png, turntable.mp4, scene.nfld, scene.glb and dream.json; a dream that was stopped goes on."""
    prior: str = OBJECTS
    """The small prior that comes with nfldm3d, a run of nfldm3d train text-prior, or a folder of a Stable Diffusion or
    DeepFloyd IF (first stage) pipeline, weights in safetensors."""
    hub: bool = False
    """Take --prior for a name on the Hugging Face Hub, OWNER/NAME, and download it; nothing else asks a network."""
    options: Annotated[DreamOptions, tyro.conf.arg(name="")] = field(default_factory=DreamOptions)
    """How to dream."""
    preset: Literal["auto", "small", "published"] = "auto"
    """Options where they are left as they are: those that suit our own small priors, or DreamFusion's, for large models
    such as Stable Diffusion; auto takes what suits --prior."""
    frames: int = 60
    """Of the turntable; 0 makes none."""
    mesh: bool = True
    """Whether scene.glb is written."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to dream."""
    resume: bool = True
    """Go on from the checkpoint of a dream that was stopped."""
    overwrite: bool = False
    """Replace what nfldm3d wrote there before and nobody has changed."""

    def run(self) -> None:
        """Dreams and writes."""
        require_at_least(self, frames=0)
        device = open_device(self.device)
        if not self.prompt.strip():
            raise ValueError("the prompt is empty: say what to dream of, such as 'a wooden chair'")
        names = [PREVIEW, SCENE, RECORD, *([TURNTABLE] if self.frames else []), *([MESH] if self.mesh else [])]
        checkpoint = self.out / CHECKPOINT
        is_begun = is_under_way(checkpoint) or not any((self.out / name).exists() for name in names if name != PREVIEW)
        overwrite = self.overwrite or is_begun  # a preview that is there, perhaps alone, is its own
        with writing(*(self.out / name for name in names), overwrite=overwrite):
            self._dream(device, checkpoint)
        remove_checkpoint(checkpoint)

    def _dream(self, device: torch.device, checkpoint: Path) -> None:
        from nfldm3d.guidance import load_prior
        from nfldm3d.pipelines.dream import dream, preview

        prior = load_prior(self.prior, device, **({"hub": True} if self.hub else {}))
        if not self.resume:
            remove_checkpoint(checkpoint)
        options = self.options.or_published() if self.preset == "published" else self.options
        options = options.suiting(prior) if self.preset == "auto" else options
        every = options.preview_every
        callbacks = [preview(self.out / PREVIEW, every)] if every else []
        start = time.monotonic()
        scene = dream(self.prompt, prior, options, checkpoint=checkpoint, device=device, callbacks=callbacks)
        self._write(scene, options, time.monotonic() - start)

    def _write(self, scene: "Scene", options: DreamOptions, seconds: float) -> None:
        from nfldm3d.pipelines.dream import save_sides, save_turntable

        scene.save(self.out / SCENE)
        save_sides(scene, self.out / PREVIEW)
        if self.frames:
            save_turntable(scene, self.out / TURNTABLE, frames=self.frames)
        figures: dict[str, object] = {"prompt": self.prompt, "prior": self.prior, "seconds": round(seconds, 1)}
        if self.mesh:
            figures["faces"] = len(export_mesh(scene, self.out / MESH).faces)
        with atomic_write(self.out / RECORD) as temporary:
            temporary.write_text(json.dumps(figures | {"options": asdict(options)}, indent=1), encoding="utf-8")
        print(json.dumps(figures))  # noqa: T201 - the command's result
