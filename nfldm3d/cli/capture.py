"""``nfldm3d capture``: record posed images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class Capture:
    """Records views of a Freedoom map with exact depth, classes and a bird's-eye map, as a transforms.json capture."""

    source: Annotated[Literal["vizdoom"], tyro.conf.Positional]
    """What to record from."""
    out: Path
    """Folder for the capture."""
    map: str = "MAP01"
    """Freedoom map, MAP01 to MAP32 or E1M1 to E4M9."""
    views: int = 60
    """Number of views."""
    size: int = 128
    """Width and height of the pictures in pixels."""
    seed: int = 0
    """Seeds the choice of views."""
    walk: bool = False
    """Walk along a path instead of scattering the views."""
    overwrite: bool = False
    """Replace a capture that is already there."""

    def run(self) -> None:
        """Records and saves."""
        from nfldm3d.data.vizdoom import CaptureOptions, record_vizdoom

        options = CaptureOptions(views=self.views, size=self.size, seed=self.seed, walk=self.walk)
        record_vizdoom(self.map, options=options).save(self.out, overwrite=self.overwrite)
