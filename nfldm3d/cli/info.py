"""``nfldm3d info``: what a scene file holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from nfldm3d.scene import Scene


@dataclass(frozen=True)
class Info:
    """Prints what a scene holds: shapes, extents, occupied fraction, memory."""

    scene: Annotated[Path, tyro.conf.Positional]
    """A .nfld file or a scene folder."""

    def run(self) -> None:
        """Prints it."""
        print(Scene.load(self.scene))  # noqa: T201 - the command's purpose
