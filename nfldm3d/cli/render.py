"""``nfldm3d render``: pictures and a video of a scene along a path."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from nfldm3d.camera import Camera
from nfldm3d.cli.devices import open_device
from nfldm3d.files import check_output
from nfldm3d.pictures import require_picture_size
from nfldm3d.rendering.paths import make_path
from nfldm3d.rendering.video import render_video
from nfldm3d.scene import Scene
from nfldm3d.written_files import writing


@dataclass(frozen=True)
class Render:
    """Renders a scene along a path to a video."""

    scene: Annotated[Path, tyro.conf.Positional]
    """A .nfld file or a scene folder."""
    out: Path
    """Folder for the video."""
    path: str = "orbit"
    """``orbit`` around the scene, ``panorama`` from its middle, ``fly`` past its own cameras, or a .json file with
    cameras (transforms.json, or nerfstudio's camera_path.json)."""
    views: int = 90
    """Number of frames (not for .json files)."""
    width: int = 512
    """Width of the pictures in pixels."""
    height: int = 384
    """Height of the pictures in pixels."""
    fps: float = 30.0
    """Frames a second."""
    format: Literal["mp4", "gif"] = "mp4"
    """File format of the video."""
    restorer: str | None = None
    """Weights of a restorer, such as driving, a folder or a run of nfldm3d train, which draws over each picture what a
    photograph would show: for generated scenes of the world that it knows. nfldm3d refine makes that part of them."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to render."""

    def run(self) -> None:
        """Renders and saves."""
        video = self.out / f"{Path(self.path).stem}.{self.format}"
        require_picture_size(self.width, self.height, self.views)
        device = open_device(self.device)
        check_output(video)
        with writing(video, overwrite=True), torch.no_grad():
            scene = Scene.load(self.scene, device=device)
            cameras: Camera = make_path(scene, self.path, views=self.views, width=self.width, height=self.height)
            render_video(scene, cameras, video, fps=self.fps, draw=self._find_drawing(device))

    def _find_drawing(self, device: torch.device):
        if self.restorer is None:
            return None
        from nfldm3d.models.priors.restorer import Restorer

        return Restorer.from_pretrained(self.restorer, device).draw
