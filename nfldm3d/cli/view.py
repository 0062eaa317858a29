"""``nfldm3d view``: scenes live in a browser, and the place to make, paint and keep them."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from nfldm3d.cli.devices import open_device
from nfldm3d.scene import Scene


@dataclass(frozen=True)
class View:
    """Shows scenes in a browser; with weights it makes new ones there, too."""

    scenes: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """.nfld files or scene folders."""
    weights: str | None = None
    """Weights of a scene generator, to make scenes in the page: a name of those that nfldm3d comes with (vizdoom), or a
    folder."""
    prior: str | None = None
    """A model of pictures by texts, to dream of objects in the page: as --prior of nfldm3d dream."""
    hub: bool = False
    """Look for weights and prior on the Hugging Face Hub, by names such as OWNER/NAME; nothing else ever asks a
    network."""
    port: int = 8080
    """Where the page is; 0 takes a port that is free."""
    host: str = "127.0.0.1"
    """The address to listen at. By default only this machine reaches the page; whoever reaches it may use all of it."""
    origin: tuple[str, ...] = ()
    """Addresses such as https://hub.example.org under which a proxy shows the page; other sites' pages are refused."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to render and sample."""

    def run(self) -> None:
        """Shows the page until it is interrupted."""
        if not 0 <= self.port < 2**16:
            raise ValueError(f"--port must lie between 0 and 65535, got {self.port}")
        if not self.scenes and self.weights is None and self.prior is None:
            raise ValueError("nothing to show: give a .nfld file, or --weights vizdoom to make scenes in the page")
        viewer = self.open()
        try:
            while True:
                time.sleep(3600)
        finally:
            viewer.close()

    def open(self):
        """Opens the page and says where it is."""
        from nfldm3d.viewer.same_origin import LOOPBACK
        from nfldm3d.viewer.viewer import Viewer

        device, pipeline, restorer, prior = open_device(self.device), None, None, None
        scenes = [(path.stem or str(path), Scene.load(path, device=device)) for path in self.scenes]
        if self.weights is not None:
            from nfldm3d.models.priors.restorer import Restorer
            from nfldm3d.pipelines import SceneGenerator

            pipeline = SceneGenerator.from_pretrained(self.weights, device, hub=self.hub)
            restorer = Restorer.find(self.weights, device, hub=self.hub)
        if self.prior is not None:
            from nfldm3d.guidance import load_prior

            prior = load_prior(self.prior, device, **({"hub": True} if self.hub else {}))
        makers = {"restorer": restorer, "prior": prior}
        viewer = Viewer(scenes, pipeline, **makers, host=self.host, port=self.port, origins=self.origin)
        print(f"Open {viewer.url} in a browser; Ctrl+C ends it.", flush=True)  # noqa: T201
        if self.host not in LOOPBACK:
            print(f"Anyone who reaches {self.host} can use this page, files and all.", flush=True)  # noqa: T201
        return viewer
