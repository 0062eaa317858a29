"""``nfldm3d capture objects``: objects seen from everywhere."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nfldm3d.cli.values import require_at_least
from nfldm3d.files import check_output
from nfldm3d.jobs import Share


@dataclass(frozen=True)
class CaptureObjects:
    """Objects of any folder of meshes (GLB, OBJ, PLY, AC3D ...), or of the packages sweethome3d-furniture,
    flightgear-data-ai and torcs-data, seen from all around: colour with opacity, depth, normals, mask, camera and
    caption. One in ten shapes is for tests, in all its liveries. A stopped recording goes on if it is started again."""

    from_: Annotated[tuple[str, ...], tyro.conf.arg(name="from")]
    """Folders of meshes, unpacked packages, or names of installed ones."""
    out: Path
    """Folder for the recording."""
    views: int = 50
    """Views of each object."""
    size: int = 64
    """Width and height of the pictures in pixels."""
    layout: Literal["srn", "captures", "shards"] = "srn"
    """Scene Representation Networks' layout, a transforms.json for each object, or tar shards for training."""
    radius: float = 1.3
    """Distance of the cameras in diagonals of an object's box: 1.3 as SRN's cars, 2 as its chairs."""
    elevation: tuple[float, float] = (-10.0, 80.0)
    """Lowest and highest camera, degrees above the horizon."""
    cameras: Path | None = None
    """A camera path (transforms.json) to use instead, around an object whose box has a diagonal of 1."""
    up: Literal["y", "z"] = "y"
    """Which axis is up in meshes of plain folders; AC3D knows its own."""
    seed: int = 0
    """Turns each object's cameras."""
    workers: int | None = None
    """Processes, by default as many as there are cores; the result does not depend on it."""

    def run(self) -> None:
        """Records and saves."""
        from nfldm3d.recording.objects import ObjectOptions, ObjectShape, Sphere, record_objects

        check_output(self.out, folder=True)
        if self.workers is not None:
            require_at_least(self, workers=1)
        sphere = Sphere(self.radius, self.elevation)
        shape = ObjectShape(views=self.views, size=self.size, sphere=sphere)
        if self.cameras is not None:
            shape = self._along(self.cameras)
        options = ObjectOptions(self.from_, layout=self.layout, seed=self.seed, up=self.up, shape=shape)
        report, problems = record_objects(self.out, options, workers=self.workers, share=Share.from_launcher())
        figures = report.figures() | {"problems": sorted(set(problems))}
        print(json.dumps(figures))  # noqa: T201 - the command's result

    def _along(self, path: Path):
        """The cameras of a file, which must see a square."""
        from nfldm3d.recording.objects import ObjectShape
        from nfldm3d.rendering.paths import read_camera_path

        cameras = read_camera_path(path, width=self.size, height=self.size)
        focal = cameras.focal / self.size
        if float((focal - focal[0, 0]).abs().max()) > 1e-4:
            raise ValueError(f"{path} has cameras of several focal lengths; objects are drawn by one lens: give one")
        poses = tuple(tuple(pose.flatten().tolist()) for pose in cameras.world_from_camera.double())
        return ObjectShape(views=len(poses), size=self.size, cameras=poses, focal=float(focal[0, 0]))
