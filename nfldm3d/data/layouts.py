"""Which layout a folder has, and the reader that belongs to it."""

from pathlib import Path
from typing import Literal

from nfldm3d._types import PathName, Vector
from nfldm3d.data.colmap import LOOKED_IN, list_models, read_colmap
from nfldm3d.data.driving_rig import read_driving_rig
from nfldm3d.data.logs import find_log
from nfldm3d.data.posed_images import WHITE, PosedImages
from nfldm3d.data.replica import is_replica, read_replica
from nfldm3d.data.rig_file import RIG_FILE
from nfldm3d.data.srn import is_srn, read_srn
from nfldm3d.data.transforms_json import Split, read_transforms_json
from nfldm3d.files import DataFormatError
from nfldm3d.placement import Up

Layout = Literal["transforms_json", "driving_rig", "replica", "srn", "colmap"]
NAMES: dict[Layout, str] = {
    "transforms_json": "transforms.json capture",
    "driving_rig": "driving rig",
    "replica": "Replica room",
    "srn": "SRN object",
    "colmap": "COLMAP model",
}


def find_layout(path: Path) -> Layout | None:
    """The layout of a capture, from the names of its files alone; None if there is none."""
    if path.name == RIG_FILE or (path / RIG_FILE).is_file():
        return "driving_rig"
    if path.is_file() or any(path.glob("transforms*.json")):
        return "transforms_json"
    if is_replica(path):
        return "replica"
    if is_srn(path):
        return "srn"
    return "colmap" if list_models(path) else None


def read_posed_images(
    path: PathName,
    *,
    split: Split | None = None,
    background: Vector = WHITE,
    images: PathName | None = None,
    up: Up = "auto",
) -> PosedImages:
    """Views of a capture in whichever layout it is, in a world near its origin with z up (see ``placement``).

    Known are ``transforms.json`` and its dialects, COLMAP models, Replica as NICE-SLAM renders it, objects as
    SRN's data sets hold them, and driving rigs.

    Args:
        path: the folder of the capture, or its JSON file.
        split: see ``read_transforms_json``.
        background: the sRGB colour that pictures with transparent pixels are laid over.
        images: the folder of the pictures of a COLMAP model, if it is not called ``images``.
        up: the direction of the capture's world that points upwards; ``auto`` asks the cameras where that is not known.

    Raises:
        DataFormatError: no known layout is there, or what is there cannot be used.
    """
    path = Path(path)
    layout = find_layout(path)
    if layout is None:
        raise DataFormatError(path, _explain_missing(path))
    if images is not None and layout != "colmap":
        raise ValueError(f"{path} is a {NAMES[layout]}, which names its pictures itself; leave images out")
    if layout == "transforms_json":
        return read_transforms_json(path, split=split, background=background, up=up)
    if split is not None:
        problem = f"has no split {split!r}; read all and use split(holdout_every=8)"
        raise ValueError(f"{path} is a {NAMES[layout]}, which {problem}")
    if layout == "colmap":
        return read_colmap(path, images=images, background=background, up=up)
    if layout == "replica":
        return read_replica(path, background=background, up=up)
    if up not in ("auto", "z"):  # of both that are left
        raise ValueError(f"{path} is a {NAMES[layout]}, whose z is up by definition; leave up={up!r} out")
    return (read_srn if layout == "srn" else read_driving_rig)(path, background=background)


def _explain_missing(path: Path) -> str:
    """Why a folder is no capture."""
    if find_log(path) is not None:
        return (
            "is a log of many drives, no single capture; nfldm3d encode, nfldm3d capture log and data.SceneFolder cut "
            "it into scenes"
        )
    return (
        f"{'holds' if path.is_dir() else 'does not exist or holds'} no capture; looked for transforms.json, "
        f"transforms_train.json, COLMAP's cameras.bin or cameras.txt in {LOOKED_IN}, "
        f"Replica's traj.txt beside results, SRN's rgb beside pose, and {RIG_FILE}"
    )
