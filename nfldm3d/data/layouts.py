"""Which layout a folder has, and the reader that belongs to it."""

from pathlib import Path
from typing import Literal

from nfldm3d._types import PathName, Vector
from nfldm3d.data.colmap import MODEL_FOLDERS, find_model, read_colmap
from nfldm3d.data.driving_rig import read_driving_rig
from nfldm3d.data.posed_images import WHITE, PosedImages
from nfldm3d.data.replica import is_replica, read_replica
from nfldm3d.data.rig_file import RIG_FILE
from nfldm3d.data.transforms_json import Split, read_transforms_json
from nfldm3d.files import DataFormatError

Layout = Literal["transforms_json", "driving_rig", "replica", "colmap"]


def find_layout(path: Path) -> Layout | None:
    """The layout of a capture, from the names of its files alone; None if there is none."""
    if path.name == RIG_FILE or (path / RIG_FILE).is_file():
        return "driving_rig"
    if path.is_file() or any(path.glob("transforms*.json")):
        return "transforms_json"
    if is_replica(path):
        return "replica"
    return None if find_model(path) is None else "colmap"


def read_posed_images(path: PathName, *, split: Split | None = None, background: Vector = WHITE) -> PosedImages:
    """Views of a capture in whichever layout it is.

    Known are ``transforms.json`` and its dialects, COLMAP models, Replica as NICE-SLAM renders it, and driving rigs.

    Args:
        path: the folder of the capture, or its JSON file.
        split: see ``read_transforms_json``.
        background: the sRGB colour that pictures with an alpha channel are laid over.

    Raises:
        DataFormatError: no known layout is there, or what is there cannot be used.
    """
    path = Path(path)
    layout = find_layout(path)
    if layout is None:
        raise DataFormatError(
            path,
            f"{'holds' if path.is_dir() else 'does not exist or holds'} no capture; looked for transforms.json, "
            f"transforms_train.json, COLMAP's cameras.bin or cameras.txt in {', '.join(MODEL_FOLDERS)}, "
            f"Replica's traj.txt beside results, and {RIG_FILE}",
        )
    if layout == "transforms_json":
        return read_transforms_json(path, split=split, background=background)
    if split is not None:
        name = {"colmap": "COLMAP model", "replica": "Replica room", "driving_rig": "driving rig"}[layout]
        raise ValueError(f"{path} is a {name}, which has no split {split!r}; read all and use split(holdout_every=8)")
    read = {"colmap": read_colmap, "replica": read_replica, "driving_rig": read_driving_rig}[layout]
    return read(path, background=background)
