"""``nfldm3d views``: an object from one picture or a text, seen from all around, and as a scene and a mesh."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import torch
import tyro

from nfldm3d.cli.devices import open_device
from nfldm3d.cli.values import require_at_least
from nfldm3d.data.image_files import SUFFIXES
from nfldm3d.export.mesh_files import MESH_SUFFIXES
from nfldm3d.files import atomic_write, check_output, read_content
from nfldm3d.scene_file import check_target
from nfldm3d.written_files import require_free, writing

if TYPE_CHECKING:
    from nfldm3d.camera import Camera
    from nfldm3d.data import PosedImages
    from nfldm3d.pipelines.views import ObjectPicture

    Drawn: TypeAlias = tuple[ObjectPicture | None, Camera, torch.Tensor, bool]
    """The given picture, other cameras and their pictures, and whether these show what is around the object."""

VIDEO = "views.mp4"
SHOWN = 256
"""Pixels along each side of the video, at least."""


@dataclass(frozen=True)
class Views:
    """Draws an object from elsewhere, given one picture of it (3DiM) or a text (ViewDiff), and fits a scene to that.

    The folder is a capture (transforms.json) with a video, which nfldm3d fit takes, too."""

    what: Annotated[str, tyro.conf.Positional]
    """PNG or WebP with the object cut out, or any picture beside --mask (for weights that learned with surroundings,
    without it, too); for viewdiff also a text: 'a wooden chair'."""
    weights: str
    """Weights of nfldm3d train view-diffusion, or for viewdiff of nfldm3d train multiview: a run or a folder."""
    out: Path
    """Folder for transforms.json, the pictures and the video."""
    model: Literal["3dim", "viewdiff"] = "3dim"
    """3dim draws view after view, viewdiff all together."""
    text: str = ""
    """For viewdiff: what a picture shows."""
    mask: Path | None = None
    """A picture that is black where the object is not."""
    camera: Path | None = None
    """transforms.json with the camera, pose and lens, that has taken the picture (the frame of that name, or the first
    one), of an object in the middle with a diagonal of 1; by default the object is cut out, and a camera aimed at it is
    assumed."""
    elevation: float = 20.0
    """Degrees above the horizon of the camera that is assumed."""
    azimuth: float = 0.0
    """Its azimuth in degrees, which tells only networks that were trained with --no-relative."""
    path: str = "orbit"
    """From where to draw: orbit (once round, at the picture's height; of a text from the front on), sphere (all around
    and above), or a .json file with cameras."""
    views: int = 24
    """Number of views (not for .json files)."""
    steps: int | None = None
    """Of the sampler: by default what the weights say for each view of 3dim, or 256, and 10 of viewdiff."""
    guidance_scale: float | None = None
    """How much more the picture counts for 3dim (by default what the weights say, or 2), or the text for viewdiff (7.5,
    and 1 beside a picture), than in training."""
    window: int = 8
    """Views that viewdiff draws together: more need more memory."""
    conditioning: Literal["stochastic", "first", "markov"] | None = None
    """Which view each step goes by: any that is there (stochastic, the default of weights that say nothing), the
    picture alone, or the last one."""
    eta: float | None = None
    """Noise that steps add: 1 as published, 0 for few steps; by default what the weights say."""
    scene: Path | None = None
    """.nfld: fit a scene to the views."""
    mesh: Path | None = None
    """.glb, .obj, .ply, .usd ...: fit, and write the mesh."""
    fit_steps: int = 1500
    """Of the fit."""
    fps: float = 12.0
    """Frames a second of the video."""
    seed: int = 0
    """Of the noise."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to draw and fit."""
    hub: bool = False
    """Look for the weights on the Hugging Face Hub, by a name such as OWNER/NAME; nothing else ever asks a network."""
    overwrite: bool = False
    """Replace what nfldm3d wrote there before and nobody has changed."""

    def run(self) -> None:
        """Draws, saves and fits."""
        require_at_least(self, views=1, fit_steps=1, seed=0, window=2)
        if self.steps is not None:
            require_at_least(self, steps=1)
        device = open_device(self.device)
        if not 0 < self.fps <= 1000:
            raise ValueError(f"--fps must lie between 0 and 1000, got {self.fps}")
        check_output(self.out, folder=True)
        mark = self.out.with_name(f".{self.out.name}.checkpoint")  # of a run whose results are not whole yet
        overwrite = self.overwrite or (mark.is_file() and read_content(mark, 2**16, "move it away") == self._describe())
        require_free(self.out, overwrite=overwrite)
        if self.scene is not None:
            check_target(self.scene)
        if self.mesh is not None:
            check_output(self.mesh, suffixes=MESH_SUFFIXES)
        with writing(self.scene, self.mesh, overwrite=overwrite):
            figures = self._draw(device, mark, overwrite=overwrite)
        mark.unlink(missing_ok=True)
        print(json.dumps(figures))  # noqa: T201 - the command's result

    def _describe(self) -> bytes:
        """What tells this command from others: only the same one may replace what it has not ended."""
        return repr(self).encode()

    def _draw(self, device: torch.device, mark: Path, *, overwrite: bool) -> dict[str, object]:
        from nfldm3d.pipelines.views.object_fitting import as_capture

        start = time.monotonic()
        with _progress("draw") as tell:
            draw = self._draw_together if self.model == "viewdiff" else self._draw_one_by_one
            given, wanted, images, surroundings = draw(device, tell)
        cameras, pictures = (wanted, images) if given is None else _join(given, wanted, images)
        name = Path(self.what).stem if given is not None else self.what
        capture = as_capture(pictures, cameras, name, surroundings=surroundings)
        with atomic_write(mark) as temporary:
            temporary.write_bytes(self._describe())
        capture.save(self.out, overwrite=overwrite)
        self._film(images)
        figures: dict[str, object] = {"views": len(images), "seconds": round(time.monotonic() - start, 1)}
        return figures if self.scene is None and self.mesh is None else figures | self._fit(capture, device)

    def _draw_one_by_one(self, device: torch.device, tell: Callable[[float], None]) -> "Drawn":
        from nfldm3d.pipelines.views import ViewSynthesizer, make_view_path

        model = ViewSynthesizer.from_pretrained(self.weights, device, hub=self.hub)
        how = {"conditioning": self.conditioning, "eta": self.eta}
        sampling = model.sampling_with(steps=self.steps, guidance=self.guidance_scale, **how)
        given = self._read(model.image_size)
        wanted, draws = make_view_path(self.path, given.camera, self.views), torch.Generator().manual_seed(self.seed)
        images = model.draw(given.image[None], given.camera, wanted, sampling, generator=draws, tell=tell)
        return given, wanted, images.cpu(), False

    def _draw_together(self, device: torch.device, tell: Callable[[float], None]) -> "Drawn":
        from nfldm3d.pipelines.views import make_view_path
        from nfldm3d.pipelines.views.multiview import KnownViews, MultiViewGenerator, MultiViewSampling

        is_picture = Path(self.what).suffix.lower() in SUFFIXES
        alone = 7.5 if self.guidance_scale is None else self.guidance_scale
        beside = alone if is_picture and self.guidance_scale is not None else 1.0  # as windows that go on do without
        sampling = MultiViewSampling(self.steps or 10, alone, beside, self.window, max(1, self.window // 2))
        model = MultiViewGenerator.from_pretrained(self.weights, device, hub=self.hub)
        given = self._read(model.image_size, surroundings=model.surroundings) if is_picture else None
        seen = self._assume(model.image_size) if given is None else given.camera
        wanted = make_view_path(self.path, seen, self.views, given=is_picture)
        draws = torch.Generator().manual_seed(self.seed)
        known = None if given is None else KnownViews(given.image[None], given.camera)
        text = self.text if is_picture else self.what
        images = model.draw_along(text, wanted, sampling, known=known, generator=draws, tell=tell)
        return given, wanted, images, model.surroundings

    def _assume(self, size: int) -> "Camera":
        from nfldm3d.pipelines.views.object_pictures import assume_camera

        return assume_camera(size, azimuth_degrees=self.azimuth, elevation_degrees=self.elevation)

    def _read(self, size: int, *, surroundings: bool = False) -> "ObjectPicture":
        from nfldm3d.pipelines.views import read_object, read_object_camera

        camera = None if self.camera is None else read_object_camera(self.camera, self.what)
        found = read_object(self.what, size, mask=self.mask, camera=camera, surroundings=surroundings)
        return found if camera is not None else replace(found, camera=self._assume(size))

    def _film(self, images: torch.Tensor) -> None:
        """The views in their order, enlarged for players."""
        from nfldm3d.rendering.video import write_video

        times = max(1, -(-SHOWN // images.shape[-1]))
        size = images.shape[-1] * times
        frames = torch.nn.functional.interpolate(images, size=(size, size), mode="bicubic").clamp(0, 1)
        with writing(self.out / VIDEO, overwrite=True):
            write_video(iter(frames), self.out / VIDEO, size=(size, size), count=len(frames), fps=self.fps)

    def _fit(self, capture: "PosedImages", device: torch.device) -> dict[str, object]:
        from nfldm3d.export import export_mesh
        from nfldm3d.pipelines.views.object_fitting import FIT, fit_object

        start = time.monotonic()
        scene = fit_object(capture, replace(FIT, steps=self.fit_steps), device=device)
        figures: dict[str, object] = {"fit_seconds": round(time.monotonic() - start, 1)}
        if self.scene is not None:
            scene.save(self.scene)
        if self.mesh is not None:
            figures["faces"] = len(export_mesh(scene, self.mesh).faces)
        return figures


def _join(given: "ObjectPicture", wanted: "Camera", images: torch.Tensor) -> "tuple[Camera, torch.Tensor]":
    """The picture and what was drawn, in one batch."""
    from nfldm3d.camera import Camera

    return Camera.cat([given.camera.to("cpu"), wanted.to("cpu")]), torch.cat((given.image[None], images))


@contextmanager
def _progress(name: str) -> Iterator[Callable[[float], None]]:
    """A bar that hears which share is done."""
    from tqdm.auto import tqdm

    with tqdm(total=1.0, desc=name, bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed}") as bar:

        def tell(share: float) -> None:
            bar.n = share
            bar.refresh()

        yield tell
