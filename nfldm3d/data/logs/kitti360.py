"""Reads KITTI-360 as it is published: long drives through Karlsruhe, two cameras ahead, two fisheyes aside, a lidar.

    calibration/...                                                  see ``kitti360_calibration``
    data_poses/2013_05_28_drive_0000_sync/poses.txt                  frame number and 3x4, vehicle to world, a line each
    data_2d_raw/2013_05_28_drive_0000_sync/image_00/data_rect/0000000250.png        also image_01
    data_2d_raw/2013_05_28_drive_0000_sync/image_02/data_rgb/0000000250.png         fisheye, also image_03
    data_3d_raw/2013_05_28_drive_0000_sync/velodyne_points/data/0000000250.bin      4 float32 a point, ten a second
    data_3d_bboxes/train/2013_05_28_drive_0000_sync.xml              boxes and ground, see ``kitti360_boxes``

Frames where the vehicle stands have no pose, so moments are keyed by number. The vehicle's axes are x ahead, y right, z
down, the world's z is up. What is missing but pictures, poses and calibration of the cameras ahead is left out: fisheye
views, depth, map. Read from http://www.cvlibs.net/datasets/kitti-360/documentation.php. Sweeps are taken as they are,
whereas the vehicle moves during a turn, by a metre at 36 km/h.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.data.logs.drive import GroundArea, LogObject, LogView
from nfldm3d.data.logs.kitti360_boxes import KittiBoxes
from nfldm3d.data.logs.kitti360_calibration import KittiCalibration
from nfldm3d.data.logs.sweeps import read_sweep
from nfldm3d.files import DataFormatError, read_lines
from nfldm3d.geometry import find_pose_problem, flip_opencv, transform_points

SWEEP_COLUMNS = 4
"""x, y, z, reflectance."""
VEHICLE_RADIUS = 2.5
"""Metres around the lidar in which it sees nothing but its own vehicle."""
MAX_TEXT_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Kitti360Drive:
    """One sequence; see ``drive.Drive``."""

    root: Path
    name: str
    calibration: KittiCalibration
    frames: tuple[int, ...]
    poses: Float[Tensor, "moments 4 4"]

    @classmethod
    def open(cls, root: Path, name: str, calibration: KittiCalibration) -> "Kitti360Drive":
        """Reads the poses of a sequence.

        Raises:
            DataFormatError: they are missing or cannot be used, or there are no pictures of the camera ahead.
        """
        frames, poses = read_poses(root / "data_poses" / name / "poses.txt")
        pictures = root / "data_2d_raw" / name / calibration.cameras[0].folder
        if next(pictures.glob("*.png"), None) is None:
            raise DataFormatError(pictures, f"holds no pictures of {name}; unpack the perspective images there")
        return cls(root, name, calibration, frames, poses)

    @property
    def route(self) -> str:
        """The sequence: hardly any two pass the same place."""
        return self.name

    @property
    def source(self) -> Path:
        """The data set's folder."""
        return self.root

    def vehicle_poses(self) -> Float[Tensor, "moments 4 4"]:
        """Of the frames that have one."""
        return self.poses

    def views(self, moment: int) -> list[LogView]:
        """The cameras ahead, then two views of each fisheye camera that was unpacked."""
        number, pose = self.frames[moment], self.poses[moment]
        pictures = self.root / "data_2d_raw" / self.name
        return [
            LogView(
                camera.name,
                pictures / camera.folder / f"{number:010d}.png",
                camera.lens,
                flip_opencv(pose @ camera.vehicle_from_camera),
                self._times.get(camera.folder, {}).get(number),
                camera.wide,
            )
            for camera in self.calibration.cameras
            if camera.wide is None or (pictures / camera.folder).is_dir()
        ]

    def sweep(self, moment: int) -> Float[Tensor, "points 3"] | None:
        """What the lidar on the roof saw."""
        folder = self.root / "data_3d_raw" / self.name / "velodyne_points" / "data"
        if self.calibration.vehicle_from_lidar is None or not folder.is_dir():
            return None
        points = read_sweep(folder / f"{self.frames[moment]:010d}.bin", SWEEP_COLUMNS, VEHICLE_RADIUS)
        return transform_points(self.poses[moment] @ self.calibration.vehicle_from_lidar, points)

    def objects(self, moment: int) -> list[LogObject]:
        """What stands around, and what moves in this frame."""
        if self._boxes is None:
            return []
        return self._boxes.objects(self.frames[moment], self.poses[moment, :2, 3].numpy())

    def ground(self, lower: tuple[float, float], upper: tuple[float, float]) -> list[GroundArea] | None:
        """Roads, pavements and terrain of the boxes' file."""
        return None if self._boxes is None else self._boxes.areas(lower, upper)

    @cached_property
    def _boxes(self) -> KittiBoxes | None:
        files = [self.root / "data_3d_bboxes" / kind / f"{self.name}.xml" for kind in ("train_full", "train")]
        return next((KittiBoxes.read(file) for file in files if file.is_file()), None)

    @cached_property
    def _times(self) -> dict[str, dict[int, float]]:
        """Seconds by frame of each folder of pictures that has them."""
        folders = {camera.folder for camera in self.calibration.cameras}
        pictures = self.root / "data_2d_raw" / self.name
        files = {folder: pictures / folder.partition("/")[0] / "timestamps.txt" for folder in folders}
        return {folder: read_times(file) for folder, file in files.items() if file.is_file()}


def is_kitti360(path: Path) -> bool:
    """Whether a folder is laid out as KITTI-360."""
    return (path / "data_2d_raw").is_dir() or (path / "data_poses").is_dir()


def open_kitti360(root: Path) -> list[Kitti360Drive]:
    """The sequences of which poses and pictures are there.

    Raises:
        DataFormatError: there is none, or what is there cannot be used.
    """
    missing = [name for name in ("calibration", "data_poses", "data_2d_raw") if not (root / name).is_dir()]
    if missing:
        raise DataFormatError(root, f"lacks {' and '.join(missing)}; unpack these parts of KITTI-360 there")
    posed, pictured = (
        {folder.name for folder in (root / part).iterdir() if folder.is_dir()} for part in ("data_poses", "data_2d_raw")
    )
    names = sorted(posed & pictured)
    if not names:
        raise DataFormatError(
            root,
            f"has poses of {', '.join(sorted(posed)) or 'nothing'} and pictures of "
            f"{', '.join(sorted(pictured)) or 'nothing'}; unpack both of one drive",
        )
    calibration = KittiCalibration.read(root / "calibration")
    return [Kitti360Drive.open(root, name, calibration) for name in names]


def read_poses(path: Path) -> tuple[tuple[int, ...], Float[Tensor, "moments 4 4"]]:
    """Numbers of frames and the vehicle's float64 poses, in the file's order."""
    rows = [_to_row(path, number, line) for number, line in enumerate(_read_lines(path), 1) if line.strip()]
    if not rows:
        raise DataFormatError(path, "holds no poses; unpack them again")
    numbers = [int(row[0]) for row in rows]
    if any(after <= before for before, after in pairwise(numbers)):
        raise DataFormatError(path, "its frame numbers do not rise from line to line; unpack the poses again")
    poses = torch.eye(4, dtype=torch.float64).repeat(len(rows), 1, 1)
    poses[:, :3] = torch.from_numpy(np.array(rows)[:, 1:].reshape(-1, 3, 4))
    turns = poses[:, :3, :3]
    off = (turns @ turns.mT - torch.eye(3)).abs().amax((1, 2))
    for number in ((off > 1e-4) | ~torch.isfinite(off) | (torch.linalg.det(turns) < 0)).nonzero()[:, 0].tolist():
        problem = find_pose_problem(poses[number])  # asked of these alone, since there are thousands
        if problem:
            raise DataFormatError(path, f"the pose of frame {numbers[number]} {problem}; unpack the poses again")
    return tuple(numbers), poses


def read_times(path: Path) -> dict[int, float]:
    """Seconds by frame: line n holds the date and time of frame n, with nanoseconds; float64 keeps microseconds."""
    times: dict[int, float] = {}
    for number, line in enumerate(_read_lines(path)):
        found = re.fullmatch(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(\.\d{1,9})?", line.strip())
        try:
            whole = None if found is None else datetime.fromisoformat(f"{found[1]}+00:00")
        except ValueError:  # a day that no month has
            whole = None
        if found is None or whole is None:
            raise DataFormatError(path, f"line {number + 1} is {line[:40]!r}, no date and time; restore the file")
        times[number] = whole.timestamp() + float(found[2] or 0)
    return times


def _to_row(path: Path, number: int, line: str) -> Sequence[float]:
    try:
        values = [float(word) for word in line.split()]
    except ValueError as error:
        raise DataFormatError(path, f"line {number}: {error}; write a frame number and 12 numbers") from error
    if len(values) != 13 or not values[0].is_integer() or not 0 <= values[0] < 2**31:
        raise DataFormatError(path, f"line {number} is {line[:40]!r}; write a frame number and the 12 of a 3x4 matrix")
    return values


def _read_lines(path: Path) -> list[str]:
    return read_lines(path, MAX_TEXT_BYTES, "restore the file")
