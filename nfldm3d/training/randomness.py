"""Randomness that is a function of where the training stands, so that there is no state to lose."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(*parts: int | str) -> int:
    """A seed of 63 bits; two different lists of parts have unrelated ones."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def derive_generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded with ``derive_seed(*parts)``."""
    return torch.Generator().manual_seed(derive_seed(*parts))


@contextmanager
def borrowed_generators(device: torch.device) -> Iterator[None]:
    """Lets the block seed torch's and Python's global generators, and puts them back as they were."""
    devices = [device] if device.type == "cuda" else []
    python = random.getstate()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)


def seed_globally(*parts: int | str) -> None:
    """Seeds torch's and Python's global generators; use it inside ``borrowed_generators``."""
    seed = derive_seed(*parts)
    torch.manual_seed(seed)
    random.seed(seed)
