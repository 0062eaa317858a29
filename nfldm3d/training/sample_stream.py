"""Which samples make which batch: a function of the seed and of how many samples were drawn before.

The stream of samples is one shuffled epoch after another. Step, part and process only say which stretch of the stream
is read, so a run that goes on reads exactly what it would have read, with any number of workers or processes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from nfldm3d.files import DataFormatError
from nfldm3d.training.randomness import derive_generator, derive_seed
from nfldm3d.training.stage import SampleSource

TRIES = 8
"""Neighbours tried in the place of a broken sample."""


class Batch(NamedTuple):
    """What a loader yields."""

    content: Any
    """The collated samples, or None if too many were broken."""
    problems: list[str]
    """What was wrong with broken samples, each replaced by its neighbour."""


class SampleStream(Dataset):
    """The endless stream of samples, by position."""

    def __init__(self, source: SampleSource, seed: int):
        self.source = source
        self.seed = seed
        self.epoch = -1
        self.order = torch.zeros(0, dtype=torch.int64)

    def index(self, position: int) -> int:
        """Which sample stands at ``position``."""
        epoch, place = divmod(position, len(self.source))
        if epoch != self.epoch:
            self.order = torch.randperm(len(self.source), generator=derive_generator(self.seed, "order", epoch))
            self.epoch = epoch
        return int(self.order[place])

    def __getitem__(self, position: int) -> tuple[list[Any], list[str]]:
        index, problems = self.index(position), []
        for number in range(TRIES):
            generator = derive_generator(self.seed, "sample", position, number)
            try:
                return [self.source.sample((index + number) % len(self.source), generator)], problems
            except DataFormatError as error:  # an error would lose its message on the way out of a worker
                problems.append(str(error))
        return [], problems

    def collate(self, drawn: list[tuple[list[Any], list[str]]]) -> Batch:
        """Puts samples together."""
        samples = [sample for found, _ in drawn for sample in found]
        problems = [problem for _, found in drawn for problem in found]
        return Batch(self.source.collate(samples) if len(samples) == len(drawn) else None, problems)


@dataclass(frozen=True)
class Positions:
    """The stretches of the stream that one of several processes reads, without end."""

    start: int
    size: int
    """Positions in a stretch."""
    process: int
    processes: int

    def __iter__(self) -> Iterator[list[int]]:
        first = self.start + self.process * self.size
        while True:
            yield list(range(first, first + self.size))
            first += self.size * self.processes


def open_stream(stream: SampleStream, positions: Positions, workers: int, device: torch.device) -> Iterator[Batch]:
    """Reads batches, in this process or in ``workers`` others."""
    loader = DataLoader(
        stream,
        batch_sampler=positions,
        collate_fn=stream.collate,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=_ignore_signals if workers else None,
        generator=torch.Generator().manual_seed(derive_seed(stream.seed, "loader")),
    )
    return iter(loader)


def _ignore_signals(worker: int) -> None:
    """A Ctrl-C reaches every process of the terminal, but the step that it interrupts still needs its samples."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
