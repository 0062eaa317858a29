"""Captures in and out: posed images and one reader per layout."""

from pathlib import Path

from nfldm3d._types import PathName, Vector
from nfldm3d.data.bev_map import BevMap
from nfldm3d.data.colmap import MODEL_FOLDERS, find_model, read_colmap
from nfldm3d.data.posed_images import WHITE, Frame, PosedImages
from nfldm3d.data.transforms_json import Split, read_transforms_json
from nfldm3d.files import DataFormatError

__all__ = ["BevMap", "Frame", "PosedImages", "read_colmap", "read_posed_images", "read_transforms_json"]


def read_posed_images(path: PathName, *, split: Split | None = None, background: Vector = WHITE) -> PosedImages:
    """Views of a capture in whichever layout it is: ``transforms.json`` and its dialects, or a COLMAP model.

    Args:
        path: the folder of the capture, or its JSON file.
        split: see ``read_transforms_json``.
        background: the sRGB colour that pictures with an alpha channel are laid over.

    Raises:
        DataFormatError: no known layout is there, or what is there cannot be used.
    """
    path = Path(path)
    if path.is_file() or any(path.glob("transforms*.json")):
        return read_transforms_json(path, split=split, background=background)
    if find_model(path) is None:
        raise DataFormatError(
            path,
            f"{'holds' if path.is_dir() else 'does not exist or holds'} no capture; looked for transforms.json, "
            f"transforms_train.json, and COLMAP's cameras.bin or cameras.txt in {', '.join(MODEL_FOLDERS)}",
        )
    if split is not None:
        raise ValueError(
            f"{path} is a COLMAP model, which has no split {split!r}; read all and use split(holdout_every=8)"
        )
    return read_colmap(path, background=background)
