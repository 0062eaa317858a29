"""``nfldm3d generate``, ``edit`` and ``grow``: new scenes, parts of scenes made anew, and larger worlds."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from nfldm3d.cli.devices import open_device
from nfldm3d.cli.values import require_at_least, require_at_most
from nfldm3d.files import check_output
from nfldm3d.jobs import Share, claim_folder
from nfldm3d.models.weight_folders import DEFAULT
from nfldm3d.pictures import require_picture_size
from nfldm3d.scene import Scene
from nfldm3d.scene_file import check_target
from nfldm3d.written_files import atomic_folder, require_free, writing

RECORD = "generation.json"
BATCH = 8
"""Scenes that are sampled at once."""
MOST_SCENES = 1_000_000
SchedulerName = Literal["default", "ddim", "ddpm", "dpm++", "unipc"]


@dataclass(frozen=True)
class Generate:
    """Samples scenes; each lands in a folder of its own with a turntable, a flight along its own path, a mesh, pictures
    and the scene file."""

    out: Path
    """Folder for the folders scene_000, scene_001 and so on; finished ones are left as they are, and a folder of scenes
    that were made with other options is refused."""
    weights: str = DEFAULT
    """Weights of a scene generator: a name of those that nfldm3d comes with, or a folder."""
    hub: bool = False
    """Look for the weights on the Hugging Face Hub, by a name such as OWNER/NAME; nothing else ever asks a network."""
    scenes: int = 1
    """How many."""
    seed: int = 0
    """The same seed gives the same scenes."""
    bev: Path | None = None
    """Bird's-eye map to follow: a picture in the palette of the weights, transparent where anything may be."""
    embedding: Path | None = None
    """Of a class or a text, for weights that were trained with such: a .safetensors file with one tensor."""
    guidance_scale: float = 8.0
    """How much more map and embedding count than in training."""
    path_guidance_scale: float = 2.0
    """The same of the camera path, which lies in the open; 1 is faster, but cameras may stand in walls."""
    steps: int = 40
    """Steps of each level."""
    scheduler: SchedulerName = "default"
    """``default`` is that of the weights."""
    frames: int = 96
    """Of each video; 0 makes none."""
    width: int = 320
    """Of the pictures, in pixels."""
    height: int = 240
    """Of the pictures, in pixels."""
    mesh: bool = True
    """Whether scene.glb is written."""
    refine: bool = False
    """Sharpen each scene by the restorer of the weights: refined.nfld lies beside scene.nfld, which can be edited, and
    pictures, videos and mesh are of it. The restorer also draws over the pictures along the path."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to sample and render."""

    def run(self) -> None:
        """Samples a few scenes at a time and finishes them one by one."""
        check_output(self.out, folder=True)
        from nfldm3d.data.encoded_scenes import read_embedding
        from nfldm3d.pipelines import SceneGenerator

        require_at_least(self, scenes=1, seed=0, steps=1, frames=0, width=1, height=1)
        require_at_most(self, scenes=MOST_SCENES)
        require_picture_size(self.width, self.height, self.frames)
        device = open_device(self.device)
        embedding = None if self.embedding is None else read_embedding(self.embedding)
        pipeline = SceneGenerator.from_pretrained(self.weights, device, hub=self.hub)
        restorer = self._load_restorer(device)
        scheduler = make_scheduler(pipeline, self.scheduler)
        claim_folder(self.out, RECORD, self._describe(pipeline, restorer), what="scenes", pieces="scene_*/scene.nfld")
        folders = [self.out / f"scene_{number:03d}" for number in range(self.scenes)]
        own = Share.from_launcher().of(self.scenes)
        missing = {number for number in own if not (folders[number] / "scene.nfld").is_file()}
        for number in sorted(missing):
            require_free(folders[number], overwrite=True)
        start, sampling = time.monotonic(), 0.0
        for first in range(0, len(own), BATCH):  # whole batches always: in others, sums are rounded otherwise
            part, begun = list(own[first : first + BATCH]), time.monotonic()
            if missing.isdisjoint(part):
                continue
            made = pipeline.generate(
                self.scenes,
                self.bev,
                numbers=part,
                embedding=embedding,
                guidance_scale=self.guidance_scale,
                path_guidance_scale=self.path_guidance_scale,
                num_inference_steps=self.steps,
                scheduler=scheduler,
                generator=torch.Generator().manual_seed(self.seed),
            )
            sampling += time.monotonic() - begun
            for number, scene in zip(part, made.scenes, strict=True):
                if number not in missing:
                    continue
                with atomic_folder(folders[number]) as temporary:
                    self._finish(pipeline, scene, self._sharpen(scene, restorer, temporary), restorer, temporary)
        seconds = {"sampling": round(sampling, 1), "all": round(time.monotonic() - start, 1)}
        figures = {"scenes": self.scenes, "made": len(missing), "seconds": seconds, "out": str(self.out)}
        print(json.dumps(figures))  # noqa: T201

    def _load_restorer(self, device: torch.device):
        from nfldm3d.models.priors.restorer import Restorer

        return Restorer.from_pretrained(self.weights, device, hub=self.hub) if self.refine else None

    def _sharpen(self, scene: Scene, restorer, folder: Path) -> Scene:
        """The scene that is shown; a refined one is saved."""
        from nfldm3d.pipelines.refining import RefineOptions, refine

        if restorer is None:
            return scene
        refined = refine(scene, restorer, options=RefineOptions(seed=self.seed))
        refined.save(folder / "refined.nfld")
        return refined

    def _describe(self, pipeline, restorer) -> dict[str, object]:
        """Whatever makes other scenes or other files of them."""
        from nfldm3d.files import measure_file
        from nfldm3d.pipelines.encoding import fingerprint

        described = ("seed", "guidance_scale", "path_guidance_scale", "steps", "scheduler")
        described += ("frames", "width", "height", "mesh", "refine")
        if self.bev is not None:
            pipeline.read_map(self.bev, self.scenes)  # tells what is wrong with it
        files = {"bev": self.bev, "embedding": self.embedding}
        parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
        parts += [] if restorer is None else [restorer.network]
        return {
            "weights": [fingerprint(part) for part in parts],
            **{name: getattr(self, name) for name in described},
            **{name: None if path is None else measure_file(path)["sha256"] for name, path in files.items()},
        }

    def _finish(self, pipeline, scene: Scene, shown: Scene, restorer, folder: Path) -> None:
        from nfldm3d.export import export_mesh
        from nfldm3d.pictures import save_image
        from nfldm3d.pipelines.showing import open_top, picture_from_above, picture_sheet
        from nfldm3d.rendering import render
        from nfldm3d.rendering.paths import make_path
        from nfldm3d.rendering.video import render_video

        size = {"width": self.width, "height": self.height}
        scene.save(folder / "scene.nfld")
        save_image(picture_from_above(pipeline, scene, self.bev), folder / "bev.png")
        with torch.no_grad():
            flight, draw = make_path(shown, "fly", views=8, **size), None if restorer is None else restorer.draw
            pictures = render(shown, flight).image if draw is None else draw(shown, flight)
            save_image(picture_sheet(pictures, columns=4), folder / "views.png")
            if self.frames:
                path = make_path(shown, "fly", views=self.frames, **size)
                render_video(shown, path, folder / "flight.mp4", draw=draw)
                top = open_top(shown)
                around = make_path(top, "orbit", views=self.frames, **size)
                render_video(top, around, folder / "turntable.mp4")
        if self.mesh:
            export_mesh(shown.to("cpu"), folder / "scene.glb")


@dataclass(frozen=True)
class Edit:
    """Samples a part of a scene again, and keeps the rest."""

    scene: Annotated[Path, tyro.conf.Positional]
    """A .nfld file or a scene folder; one that was not generated is encoded from pictures of it first."""
    box: tuple[float, float, float, float, float, float]
    """The part to make anew, in world metres: x, y and z of the lowest corner, then of the highest."""
    out: Path
    """Where the edited scene is written."""
    weights: str = DEFAULT
    """Weights of a scene generator: a name of those that nfldm3d comes with, or a folder."""
    hub: bool = False
    """Look for the weights on the Hugging Face Hub, by a name such as OWNER/NAME; nothing else ever asks a network."""
    seed: int = 0
    """Other seeds give other contents."""
    steps: int = 40
    """Steps of each level."""
    rounds: int = 1
    """How often each step is taken; more make what is new fit better, and take longer. They need ddim or ddpm."""
    scheduler: SchedulerName = "default"
    """``default`` is that of the weights."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to sample."""
    overwrite: bool = False
    """Replace what nfldm3d wrote there before and nobody has changed."""

    def run(self) -> None:
        """Samples and saves."""
        check_target(self.out)
        require_at_least(self, seed=0, steps=1, rounds=1)
        with writing(self.out, overwrite=self.overwrite):
            self._edit(open_device(self.device)).to("cpu").save(self.out)

    def _edit(self, device: torch.device) -> Scene:
        from nfldm3d.geometry import Box
        from nfldm3d.pipelines import SceneGenerator

        pipeline = SceneGenerator.from_pretrained(self.weights, device, hub=self.hub)
        return pipeline.edit(
            Scene.load(self.scene, device=device),
            Box(self.box[:3], self.box[3:]),
            generator=torch.Generator().manual_seed(self.seed),
            num_inference_steps=self.steps,
            rounds=self.rounds,
            scheduler=make_scheduler(pipeline, self.scheduler),
        )


@dataclass(frozen=True)
class Grow:
    """Samples one world larger than a scene, from windows that overlap by half."""

    out: Path
    """Where the world is written: a .nfld file or a folder."""
    windows: tuple[int, int] = (3, 3)
    """Along x and y."""
    scene: Path | None = None
    """A scene that becomes the middle of the world."""
    weights: str = DEFAULT
    """Weights of a scene generator: a name of those that nfldm3d comes with, or a folder."""
    hub: bool = False
    """Look for the weights on the Hugging Face Hub, by a name such as OWNER/NAME; nothing else ever asks a network."""
    seed: int = 0
    """The same seed gives the same world."""
    steps: int = 40
    """Steps of each level."""
    scheduler: SchedulerName = "default"
    """``default`` is that of the weights."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to sample."""
    overwrite: bool = False
    """Replace what nfldm3d wrote there before and nobody has changed."""

    def run(self) -> None:
        """Samples and saves."""
        check_target(self.out)
        require_at_least(self, seed=0, steps=1)
        with writing(self.out, overwrite=self.overwrite):
            self._grow(open_device(self.device)).to("cpu").save(self.out)

    def _grow(self, device: torch.device) -> Scene:
        from nfldm3d.pipelines import SceneGenerator

        pipeline = SceneGenerator.from_pretrained(self.weights, device, hub=self.hub)
        return pipeline.grow(
            self.windows,
            scene=None if self.scene is None else Scene.load(self.scene, device=device),
            generator=torch.Generator().manual_seed(self.seed),
            num_inference_steps=self.steps,
            scheduler=make_scheduler(pipeline, self.scheduler),
        )


def make_scheduler(pipeline, name: SchedulerName):
    """One of diffusers' schedulers with the noise of the weights; None for the one they come with."""
    from nfldm3d.pipelines import schedulers

    return schedulers.make_scheduler(pipeline.scheduler, name)
