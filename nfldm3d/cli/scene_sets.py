"""Data sets of scenes, whichever layout they have on disk."""

from collections.abc import Callable
from pathlib import Path

from nfldm3d.data import PosedImages, read_posed_images
from nfldm3d.data.layouts import find_layout
from nfldm3d.data.logs import LogCut, find_log
from nfldm3d.data.scene_dataset import SceneDataset
from nfldm3d.data.scene_folder import SceneFolder, Side
from nfldm3d.data.scene_shards import INDEX_NAME

VIEWS = 24
"""At most so many of each capture, unless more are asked for."""


def open_scenes(
    path: Path,
    split: Side,
    *,
    whole: bool = False,
    views: int = VIEWS,
    read: Callable[[Path], PosedImages] = read_posed_images,
    cut: LogCut | None = None,
) -> SceneDataset | SceneFolder:
    """Tar shards, a folder of captures, a single capture, or a log of real drives.

    Args:
        whole: a single capture has no sides; all of it is taken. Not where one is trained on and another judged by.
        views: at most so many of a capture; shards hold what they hold.
        read: how a capture is read.
        cut: how a log becomes scenes.
    """
    if find_log(path) is None and ((path / INDEX_NAME).is_file() or any(path.glob("*.tar"))):
        return SceneDataset(path, split=split)
    return SceneFolder(path, split="all" if whole and find_layout(path) else split, views=views, read=read, cut=cut)
