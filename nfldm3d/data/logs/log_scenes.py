"""Which log a folder holds, and its drives."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from nfldm3d.data.logs.drive import Drive
from nfldm3d.data.logs.kitti360 import is_kitti360, open_kitti360
from nfldm3d.data.logs.nuscenes import NuScenes, is_nuscenes
from nfldm3d.files import DataFormatError

Log = Literal["nuscenes", "kitti360"]
NAMES: dict[Log, str] = {"nuscenes": "nuScenes", "kitti360": "KITTI-360"}


def find_log(path: Path) -> Log | None:
    """Which set a folder holds, from the names in it alone; None if it is no log."""
    if is_nuscenes(path):
        return "nuscenes"
    return "kitti360" if is_kitti360(path) else None


def open_log(path: Path) -> Sequence[Drive]:
    """The drives of a log, in its order; tables and poses are read, pictures are not.

    Raises:
        DataFormatError: it is no log, or tables, poses or calibration are missing or cannot be used.
    """
    log = find_log(path)
    if log is None:
        raise DataFormatError(path, "holds no log of a vehicle; give the folder of nuScenes or KITTI-360")
    drives = NuScenes.open(path).drives() if log == "nuscenes" else open_kitti360(path)
    if not drives:
        raise DataFormatError(path, f"holds no drive of {NAMES[log]}; unpack the tables again")
    return drives
