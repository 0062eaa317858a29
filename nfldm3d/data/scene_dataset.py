"""Reads scenes from shards in any order: scene i is one read at a known place.

The data may be larger than memory, and any number of processes may read it.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from nfldm3d._types import PathName
from nfldm3d.data.sample_files import decode_scene
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.data.scene_shards import INDEX_NAME, SceneEntry, ShardIndex, read_index, read_members
from nfldm3d.data.scenes import hash_content
from nfldm3d.files import DataFormatError

MAX_BAD_SHARE = 0.05
"""Above this share of bad scenes a data set is not worth reading on."""

logger = logging.getLogger(__name__)


class SceneDataset:
    """The scenes of a folder of shards: ``len(dataset)``, ``dataset[i]``; can be sent to other processes."""

    def __init__(
        self,
        folder: PathName,
        *,
        split: Literal["train", "test", "all"] = "train",
        maps: Sequence[str] | None = None,
    ):
        """Reads the index.

        Args:
            folder: holds ``index.json`` and its shards.
            split: ``all`` for both.
            maps: only scenes of these worlds.

        Raises:
            DataFormatError: there is no index, it does not belong to the shards, there are no such scenes, or more
                than 5 % of them lie in missing or truncated shards; up to that they are left out and reported.
        """
        self.folder = Path(folder)
        self.problems: dict[str, str] = {}
        """What is wrong with the scenes that were left out, by key."""
        index = read_index(self.folder)
        chosen = [scene for scene in index.scenes if split in ("all", scene.split) and (not maps or scene.map in maps)]
        if not chosen:
            there = sorted({(scene.split, scene.map) for scene in index.scenes})
            within = f" of maps {', '.join(maps)}" if maps else ""
            raise DataFormatError(
                self.folder / INDEX_NAME,
                f"has no {split} scenes{within}, but {len(index.scenes)} others such as {there[:3]}; choose of these",
            )
        self.problems = _find_lost(self.folder, index, chosen)
        self.scenes = tuple(scene for scene in chosen if scene.key not in self.problems)
        for problem in self.problems.values():
            logger.warning("a scene is left out: %s", problem)
        check_share(self.folder, self.problems, len(chosen))
        sums = {shard.name: shard.sha256 for shard in index.shards}
        self.fingerprint = hash_content([(scene.key, sums[scene.shard]) for scene in self.scenes])
        """Tells these scenes from others: a sha256 of their names and of the sha256 of their shards."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the scenes."""
        return tuple(scene.key for scene in self.scenes)

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> SceneSample:
        """Scene ``index``; a DataFormatError says what makes it useless."""
        scene = self.scenes[index]
        return decode_scene(scene.key, read_members(self.folder, scene), self.folder / scene.shard)


def check_share(folder: Path, problems: dict[str, str], scenes: int) -> None:
    """Raises a DataFormatError if more than 5 % of the scenes of a folder are bad."""
    if len(problems) > MAX_BAD_SHARE * scenes:
        first = next(iter(problems.values()))
        raise DataFormatError(
            folder,
            f"{len(problems)} of {scenes} scenes cannot be used, above 5 % it stops; repair, remove or record them "
            f"again; the first: {first}",
        )


def _find_lost(folder: Path, index: ShardIndex, scenes: Sequence[SceneEntry]) -> dict[str, str]:
    """The scenes that lie beyond the end of their shards, and what is wrong."""
    sizes: dict[str, int] = {}
    for shard in index.shards:
        path = folder / shard.name
        sizes[shard.name] = path.stat().st_size if path.is_file() else -1
        if sizes[shard.name] > shard.size:
            raise DataFormatError(
                path, f"has {sizes[shard.name]} bytes, the index says {shard.size}; run rebuild_index(folder)"
            )
    lost = {}
    for scene in scenes:
        end = max(offset + size for offset, size in scene.members.values())
        if end > sizes[scene.shard]:
            there = "is missing" if sizes[scene.shard] < 0 else f"ends at byte {sizes[scene.shard]}"
            lost[scene.key] = f"{folder / scene.shard}: {there}, scene {scene.key} at {end}; copy the shard again"
    return lost
