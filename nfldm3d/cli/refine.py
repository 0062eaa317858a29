"""``nfldm3d refine``: a sharper scene, or one of another look, by a 2-D model."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor

from nfldm3d.cli.devices import open_device
from nfldm3d.export.mesh_files import MESH_SUFFIXES, name_companions
from nfldm3d.files import DataFormatError, check_output
from nfldm3d.fitting.checkpoint import is_under_way, remove_checkpoint
from nfldm3d.models.weight_folders import DEFAULT, find_weights
from nfldm3d.pipelines.refining.options import RefineOptions
from nfldm3d.scene import Scene
from nfldm3d.scene_file import check_target
from nfldm3d.written_files import writing

PHOTOGRAPHS = "photographs"
"""A folder beside weights of a prior that is told pictures: what its world looks like."""


@dataclass(frozen=True)
class Refine:
    """Refines a scene on a finer grid of plain colours; pictures of before and after land in NAME.refined.png."""

    scene: Annotated[Path, tyro.conf.Positional]
    """A .nfld file or a scene folder, with cameras."""
    out: Path
    """Scene to write."""
    weights: str = DEFAULT
    """Of a restorer (nfldm3d train restorer), or for sds of a diffusion model: a run, a folder, or a name of those that
    nfldm3d comes with; a restorer suits scenes of the world that it was trained on."""
    method: Literal["restore", "sds"] = "restore"
    """``restore`` fits to what a restorer draws, ``sds`` follows the score of a diffusion model."""
    like: Path | None = None
    """With sds: a folder of pictures of the wanted look; photographs of the same world sharpen, and are the default
    if they lie beside the weights."""
    prompt: str | None = None
    """With sds and a model of texts: what the scene should look like."""
    mesh: Path | None = None
    """Mesh to write, too: .glb, .obj, .ply or USD."""
    preview: Path | None = None
    """Folder for pictures of ten stages of the run."""
    options: Annotated[RefineOptions, tyro.conf.arg(name="")] = field(default_factory=RefineOptions)
    """How to refine."""
    hub: bool = False
    """Look for the weights on the Hugging Face Hub, by a name such as OWNER/NAME; nothing else ever asks a network."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to compute."""
    resume: bool = True
    """Go on from the checkpoint of a run that was stopped."""
    overwrite: bool = False
    """Replace what nfldm3d wrote there before and nobody has changed."""

    def run(self) -> None:
        """Refines, saves and shows."""
        device = open_device(self.device)
        check_target(self.out)
        if self.mesh is not None:
            check_output(self.mesh, suffixes=MESH_SUFFIXES)
        if self.preview is not None:
            check_output(self.preview, folder=True)
        if self.method == "restore" and (self.like is not None or self.prompt is not None):
            raise ValueError("--like and --prompt need --method sds: a restorer knows one look alone")
        sheet = self.out.with_name(f"{self.out.stem}.refined.png")
        beside = [] if self.mesh is None else [self.mesh, *name_companions(self.mesh, textured=False)]
        checkpoint = self.out.with_name(f".{self.out.name}.checkpoint.safetensors")
        with writing(self.out, sheet, *beside, overwrite=self.overwrite or is_under_way(checkpoint)):
            self._refine(device, checkpoint, sheet)
        remove_checkpoint(checkpoint)

    def _refine(self, device: torch.device, checkpoint: Path, sheet: Path) -> None:
        from nfldm3d.export import export_mesh
        from nfldm3d.pipelines.refining import RefinementStopped, refine

        scene, model = Scene.load(self.scene, device=device), self._open_model(device)
        if not self.resume:
            remove_checkpoint(checkpoint)
        start = time.monotonic()
        try:
            refined = refine(
                scene, model, options=self.options, like=self._read_look(), checkpoint=checkpoint, preview=self._show
            )
        except RefinementStopped as stop:
            kept = self.out.with_name(f"{self.out.stem}.last_good.nfld")
            stop.scene.to("cpu").save(kept)
            raise ValueError(f"{stop}; the scene before that step is in {kept}") from stop
        seconds = time.monotonic() - start
        refined.to("cpu").save(self.out)
        figures = compare_scenes(scene, refined, sheet)
        if self.mesh is not None:
            export_mesh(refined.to("cpu"), self.mesh)
        print(json.dumps({"seconds": round(seconds, 1), **figures, "out": str(self.out)}))  # noqa: T201

    def _open_model(self, device: torch.device):
        from nfldm3d.guidance import load_prior
        from nfldm3d.models.priors.restorer import Restorer

        load = Restorer.from_pretrained if self.method == "restore" else load_prior
        return load(self.weights, device, hub=self.hub)

    def _read_look(self) -> Tensor | list[str] | None:
        if self.prompt is not None:
            return [self.prompt]
        if self.like is not None:
            return read_look(self.like)
        beside = find_weights(self.weights, hub=self.hub) / PHOTOGRAPHS
        return read_look(beside) if self.method == "sds" and beside.is_dir() else None

    def _show(self, step, scene: Scene) -> None:
        if self.preview is None or scene.cameras is None:
            return
        from nfldm3d.pictures import contact_sheet, save_image
        from nfldm3d.pipelines.refining.cameras import square
        from nfldm3d.rendering import render

        self.preview.mkdir(parents=True, exist_ok=True)
        camera = square(scene.cameras.reshape(-1), 128)[:4]
        page = contact_sheet({f"step {step.number}": render(scene, camera).image})
        save_image(page, self.preview / f"step_{step.number:05d}.png")


def read_look(folder: Path) -> Tensor:
    """Pictures in a folder, in the order of their names, as squares of 64 pixels or more: (views 3 size size).

    Raises:
        DataFormatError: the folder holds no pictures, or one cannot be read.
    """
    from nfldm3d.data.image_files import SUFFIXES, map_parallel, read_image
    from nfldm3d.guidance.latent_prior import resize

    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not paths:
        raise DataFormatError(folder, f"holds no pictures ({', '.join(SUFFIXES)}); give a folder of pictures")
    read = map_parallel(lambda path: read_image(path, (0.0, 0.0, 0.0)), paths)
    squares = [image[:, : min(image.shape[1:]), : min(image.shape[1:])] for image in read]
    size = max(64, min(len(image[0]) for image in squares))
    return torch.cat([resize(image[None], size) for image in squares])


def compare_scenes(before: Scene, after: Scene, sheet: Path) -> dict[str, float]:
    """Writes what the scene's own cameras see of both; returns how sharp and how true the new one is."""
    from nfldm3d.evaluation.metrics import psnr, sharpness
    from nfldm3d.pictures import save_contact_sheet
    from nfldm3d.pipelines.refining.cameras import square
    from nfldm3d.pipelines.refining.guides import coarse
    from nfldm3d.rendering import prepare

    assert before.cameras is not None
    camera = square(before.cameras.reshape(-1), 128)
    camera = camera[:: max(1, len(camera) // 8)][:8]
    with torch.no_grad():
        old, new = (prepare(scene).render(camera).image.cpu() for scene in (before, after))
    save_contact_sheet({"before": old, "after": new}, sheet)
    return {
        "sharpness_gain": round(float(sharpness(new, old)), 3),
        "coarse_psnr": round(float(psnr(coarse(new), coarse(old))), 2),
    }
