"""Reads scenes from shards in any order, and in a shuffled order that can be taken up again after any batch.

``SceneDataset`` is map-style: scene i is one read at a known place, so the data may be larger than memory and any
number of processes may read it. ``SceneLoader`` puts torchdata's ``StatefulDataLoader`` around it.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from nfldm3d._types import PathName
from nfldm3d.data.scene_sample import SceneSample, decode_scene
from nfldm3d.data.scene_shards import INDEX_NAME, SceneEntry, ShardIndex, read_index, read_members
from nfldm3d.files import DataFormatError

MAX_BAD_SHARE = 0.05
"""Above this share of bad scenes a data set is not worth reading on."""
TRIES = 8
"""Scenes that follow a bad one and are tried in its place."""

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


class SceneOrder:
    """A shuffled order of ``length`` numbers per epoch, of which each of several processes gets its share.

    A ``StatefulDataLoader`` that has it as ``sampler`` goes on in the middle of an epoch; every ``iter`` of it is one
    epoch, the first that is not finished.
    """

    def __init__(self, length: int, *, seed: int = 0, rank: int = 0, ranks: int = 1, shuffle: bool = True):
        """Args:
        seed: decides on the order of every epoch.
        rank: which of the ``ranks`` processes this is; all get equally many numbers, and what is left over after
            that differs from epoch to epoch.
        shuffle: without it every epoch counts up.
        """
        if not 0 <= rank < ranks or length < ranks:
            raise ValueError(f"need 0 <= rank < ranks <= number of scenes, got {rank}, {ranks} and {length}")
        self.length, self.seed, self.rank, self.ranks, self.shuffle = length, seed, rank, ranks, shuffle
        self.epoch = 0
        """The next to begin."""

    def __len__(self) -> int:
        return self.length // self.ranks

    def __iter__(self) -> "_Epoch":
        return _Epoch(self, self.epoch)

    def numbers(self, epoch: int) -> list[int]:
        """This process's share of an epoch."""
        order = torch.arange(self.length)
        if self.shuffle:
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
            order = torch.randperm(self.length, generator=generator)
        return order[self.rank : len(self) * self.ranks : self.ranks].tolist()


class _Epoch:
    """One pass; its state is what torchdata keeps."""

    def __init__(self, order: SceneOrder, epoch: int):
        self.order = order
        self._begin(epoch, 0)

    def _begin(self, epoch: int, position: int) -> None:
        self.epoch, self.position, self.numbers = epoch, position, self.order.numbers(epoch)
        self.order.epoch = epoch + (position >= len(self.numbers))

    def __iter__(self) -> "_Epoch":
        return self

    def __next__(self) -> int:
        if self.position >= len(self.numbers):
            self.order.epoch = self.epoch + 1
            raise StopIteration
        self.position += 1
        return self.numbers[self.position - 1]

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position, "length": self.order.length, "ranks": self.order.ranks}

    def load_state_dict(self, state: dict[str, int]) -> None:
        wanted = self.state_dict()
        for name, what in (("length", "scenes"), ("ranks", "processes")):
            if state[name] != wanted[name]:
                raise ValueError(f"the state is of {state[name]} {what}, not {wanted[name]}; go on with as many")
        self._begin(state["epoch"], state["position"])


class SceneLoader:
    """Batches of scenes in shuffled order, one epoch per ``iter``; goes on exactly where ``state_dict`` was taken.

    A bad scene is replaced by the one that follows it in the data set, and reported; above 5 % it stops.
    """

    def __init__(
        self,
        dataset: SceneDataset,
        *,
        batch_size: int = 4,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
        workers: int = 0,
        shuffle: bool = True,
    ):
        """Args:
        batch_size: of each process; the last batch of an epoch is left out if it is smaller.
        rank: which of ``ranks`` training processes this is.
        workers: processes that read ahead; a state must be taken up with as many.
        """
        order = SceneOrder(len(dataset), seed=seed, rank=rank, ranks=ranks, shuffle=shuffle)
        if not 1 <= batch_size <= len(order):
            raise ValueError(
                f"batch_size must lie between 1 and the {len(order)} scenes of a process, got {batch_size}"
            )
        self.dataset, self.problems = dataset, dict(dataset.problems)
        self.loader = _make_loader(_Patient(dataset), order, batch_size, workers)

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.loader)

    def __iter__(self) -> Iterator[list[SceneSample]]:
        for drawn in self.loader:
            for problem in (problem for _, problems in drawn for problem in problems.items()):
                self._report(*problem)
            samples = [sample for sample, _ in drawn if sample is not None]
            if len(samples) < len(drawn):
                raise DataFormatError(self.dataset.folder, f"{TRIES} scenes in a row cannot be used; record it again")
            yield samples

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, as plain values."""
        return {"loader": self.loader.state_dict(), "problems": dict(self.problems)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there at the next ``iter``."""
        self.problems = dict(state["problems"])
        self.loader.load_state_dict(state["loader"])

    def _report(self, key: str, problem: str) -> None:
        if key in self.problems:
            return
        self.problems[key] = problem
        logger.warning("a scene is left out: %s", problem)
        check_share(self.dataset.folder, self.problems, len(self.dataset) + len(self.dataset.problems))


class _Patient:
    """A data set whose bad scenes are replaced by the next good ones; says which."""

    def __init__(self, dataset: SceneDataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[SceneSample | None, dict[str, str]]:
        problems: dict[str, str] = {}
        for number in range(index, index + min(TRIES, len(self.dataset))):
            try:
                return self.dataset[number % len(self.dataset)], problems
            except DataFormatError as error:
                problems[self.dataset.scenes[number % len(self.dataset)].key] = str(error)
        return None, problems


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


def _make_loader(dataset: _Patient, order: SceneOrder, batch_size: int, workers: int) -> Any:
    try:
        from torchdata.stateful_dataloader import StatefulDataLoader
    except ImportError as error:
        raise ImportError("loading scenes for training needs torchdata: pip install nfldm3d[train]") from error
    with warnings.catch_warnings():  # torchdata 0.11 calls it, torch 2.15 has no use for it
        warnings.filterwarnings("ignore", message="'set_vital' is deprecated")
        return StatefulDataLoader(
            dataset,  # type: ignore[arg-type]
            batch_size=batch_size,
            sampler=order,
            num_workers=workers,
            collate_fn=list,
            drop_last=True,
            multiprocessing_context="spawn" if workers else None,  # threads of torch and Warp do not survive a fork
            persistent_workers=bool(workers),
        )
