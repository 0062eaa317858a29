"""What the page gives away: scenes in every format, pictures, and films along key frames."""

import io
import json
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from nfldm3d import placement
from nfldm3d.camera import Camera
from nfldm3d.rendering import Renderer
from nfldm3d.rendering.video import render_video
from nfldm3d.scene import Scene
from nfldm3d.viewer.frames import Look, draw
from nfldm3d.viewer.page_camera import vertical_fov

FORMATS = ("scene.nfld", "mesh.glb", "mesh.ply", "mesh.usdz", "splats.ply", "density.vdb")
"""Names of the files that the page offers."""
MAX_PIXELS = 4096 * 4096
MAX_FRAMES = 3000


def encode_scene(scene: Scene, name: str) -> bytes:
    """The content of one of the ``FORMATS``.

    Raises:
        ValueError: the name is none of them, or the scene holds nothing that could be written.
        ImportError: the extra ``export`` is missing.
    """
    if name not in FORMATS:
        raise ValueError(f"cannot write {name!r}; choose one of {', '.join(FORMATS)}")
    with tempfile.TemporaryDirectory(prefix="nfldm3d-") as folder, torch.no_grad():
        path = Path(folder) / name
        if name == "scene.nfld":
            scene.to("cpu").save(path)
        elif name == "splats.ply":
            from nfldm3d.export import export_splats

            export_splats(scene.to("cpu"), path)
        else:
            scene.to("cpu").export(path)
        return path.read_bytes()


def encode_png(image: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """A PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def screenshot(renderer: Renderer, camera: Camera, look: Look) -> bytes:
    """What a camera sees, as a PNG of the camera's size."""
    require_size(camera.width, camera.height)
    return encode_png(draw(renderer, camera, look).numpy())


def require_size(width: int, height: int) -> None:
    """Raises a ValueError for pictures that nobody needs."""
    if min(width, height) < 1 or width * height > MAX_PIXELS:
        raise ValueError(f"a picture of {width} x {height} pixels is too small or too large; choose up to 4096 x 4096")


@dataclass(frozen=True)
class Film:
    """A flight past key frames."""

    keys: tuple[Camera, ...] = ()
    seconds: float = 6.0
    fps: int = 24

    @property
    def frames(self) -> int:
        """How many pictures it has."""
        count = max(2, round(self.seconds * self.fps))
        if count > MAX_FRAMES:
            raise ValueError(f"{count} frames are too many; choose fewer seconds or frames a second")
        return count

    def cameras(self, width: int, height: int) -> Camera:
        """The camera of each picture.

        Raises:
            ValueError: there are fewer than two key frames.
        """
        if len(self.keys) < 2:
            raise ValueError("a film needs at least two key frames: look from somewhere and press 'Add key frame'")
        require_size(width, height)
        return Camera.cat([resize(key, width, height).reshape(1) for key in self.keys]).interpolated(self.frames)

    def encode(self, scene: Scene, width: int, height: int, tell: Callable[[float], None]) -> bytes:
        """An .mp4 file; ``tell`` hears which share is done, and may raise to stop."""
        cameras = self.cameras(width - width % 2, height - height % 2)
        with tempfile.TemporaryDirectory(prefix="nfldm3d-") as folder:
            path = Path(folder) / "film.mp4"
            render_video(scene, cameras.to(scene.device), path, fps=self.fps, progress=False, tell=tell)
            return path.read_bytes()

    def describe(self, scene: Scene, width: int, height: int) -> str:
        """The text of nerfstudio's camera_path.json, in the scene's own world, which it tells."""
        path = self.cameras(width, height)
        keys = [resize(key, width, height) for key in self.keys]
        content = {
            "keyframes": [
                {"matrix": json.dumps(_matrix(key)), "fov": _degrees(key), "aspect": width / height} for key in keys
            ],
            "camera_type": "perspective",
            "render_height": height,
            "render_width": width,
            "camera_path": [
                {"camera_to_world": _matrix(camera), "fov": _degrees(camera), "aspect": width / height}
                for camera in path
            ],
            "fps": self.fps,
            "seconds": self.seconds,
            "smoothness_value": 0.5,
            "is_cycle": False,
            "crop": None,
            **placement.keep_motion(scene.metadata),
        }
        return json.dumps(content, indent=1)


def resize(camera: Camera, width: int, height: int) -> Camera:
    """A single camera with another picture, of the same vertical field of view and square pixels."""
    focal = height / 2 / math.tan(vertical_fov(camera) / 2)
    principal = camera.principal.new_tensor((width / 2, height / 2))
    return Camera(camera.world_from_camera, camera.focal.new_tensor((focal, focal)), principal, width, height)


def _matrix(camera: Camera) -> Sequence[float]:
    return camera.world_from_camera.flatten().tolist()


def _degrees(camera: Camera) -> float:
    return math.degrees(vertical_fov(camera))
