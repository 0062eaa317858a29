"""``nfldm3d capture rooms``: furnished rooms."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nfldm3d.cli.values import require_at_least
from nfldm3d.files import check_output
from nfldm3d.jobs import Share


@dataclass(frozen=True)
class CaptureRooms:
    """Furnished rooms, put together from Sweet Home 3D's furniture (package sweethome3d-furniture): a walk and views
    from anywhere, with captions, exact depth, classes, normals and a bird's-eye map. A stopped recording goes on if it
    is started again."""

    out: Path
    """Folder for the shards or captures."""
    scenes: int = 332
    """Number of rooms."""
    test_scenes: int = 32
    """How many of these are of furniture that no other room has."""
    layout: Literal["shards", "captures"] = "shards"
    """Tar shards for training, or a transforms.json capture for each room."""
    data: Path | None = None
    """Folder of the package, installed by default, or of the unpacked package."""
    textures: Path | None = None
    """Folder of the unpacked package sweethome3d, whose textures cover floors and walls; else they are painted."""
    size: int = 64
    """Width and height of the pictures in pixels."""
    box: tuple[float, float, float] = (6.4, 6.4, 3.2)
    """Extents of a scene in metres; rooms of all sizes lie within."""
    walk: int = 8
    """Views along a walk through the room."""
    free: int = 24
    """Views from anywhere in it."""
    seed: int = 0
    """Decides on rooms and views."""
    workers: int | None = None
    """Processes, by default as many as there are cores; the result does not depend on it."""

    def run(self) -> None:
        """Records and saves."""
        from nfldm3d.recording.rooms import RoomOptions, RoomShape, record_rooms

        check_output(self.out, folder=True)
        if self.workers is not None:
            require_at_least(self, workers=1)
        shape = RoomShape(size=self.size, box=self.box, walk=self.walk, free=self.free)
        options = RoomOptions(self.scenes, self.test_scenes, self.seed, self.layout, shape)
        share = Share.from_launcher()
        report = record_rooms(
            self.out, options, data=self.data, textures=self.textures, workers=self.workers, share=share
        )
        print(json.dumps(report.figures()))  # noqa: T201 - the command's result
