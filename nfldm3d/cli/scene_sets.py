"""Data sets of scenes, whichever layout they have on disk."""

from pathlib import Path
from typing import Literal

from nfldm3d.data.scene_dataset import SceneDataset
from nfldm3d.data.scene_folder import SceneFolder
from nfldm3d.data.scene_shards import INDEX_NAME


def open_scenes(path: Path, split: Literal["train", "test"]) -> SceneDataset | SceneFolder:
    """Tar shards, a folder of captures, or a single capture."""
    shards = (path / INDEX_NAME).is_file() or any(path.glob("*.tar"))
    return SceneDataset(path, split=split) if shards else SceneFolder(path, split=split)
