"""The state of a run in one safetensors file, written whole or not at all."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nfldm3d._types import PathName
from nfldm3d.files import DataFormatError, atomic_write
from nfldm3d.tensor_files import read_head, read_tensors_and_head, require_tensors, write_tensors

VERSION = "2"
GENERATOR = "generator"
"""Name of the tensor that holds the state of what is drawn from."""
ANEW = "delete it to start anew"
SHORT = 12
"""Values up to so many characters are shown when they differ."""


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds."""

    tensors: dict[str, Tensor]
    number: int
    """Steps that had been taken."""
    seconds: float


@dataclass(frozen=True)
class Checkpoint:
    """Where a run keeps its state, and which run it is."""

    path: PathName
    identity: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """What a resumed run must have in common with the one that was stopped, as plain JSON values in named groups, such
    as ``{"options": {"steps": 100}}``; the message of a refusal names what differs."""
    every_seconds: float = 60.0

    def save(
        self, tensors: Mapping[str, Tensor], number: int, seconds: float, generator: torch.Generator | None = None
    ) -> None:
        """Writes the state of a run after so many steps and seconds."""
        content = dict(tensors)
        if generator is not None:
            content[GENERATOR] = generator.get_state()
        counters = json.dumps({"number": number, "seconds": seconds})
        head = {"version": VERSION, "identity": json.dumps(self.identity), "counters": counters}
        with atomic_write(self.path) as temporary:
            write_tensors(temporary, content, head)

    def load(self, generator: torch.Generator | None = None) -> Saved | None:
        """What was saved, if anything was, and the generator as it was then.

        Raises:
            DataFormatError: the file is damaged or belongs to another run.
        """
        path = Path(self.path)
        if not path.exists():
            return None
        tensors, head = read_tensors_and_head(path, remedy=ANEW)
        if head.get("version") != VERSION:
            raise DataFormatError(path, f"is no checkpoint of this version; {ANEW}")
        problem = _find_difference(json.loads(head["identity"]), json.loads(json.dumps(self.identity)))
        if problem is not None:
            raise DataFormatError(path, f"is the checkpoint of another run, {problem}, or {ANEW}")
        if generator is not None:
            require_tensors(tensors, [GENERATOR], path, ANEW)
            generator.set_state(tensors.pop(GENERATOR))
        return Saved(tensors, **json.loads(head["counters"]))


def remove_checkpoint(path: PathName) -> None:
    """Deletes a checkpoint, if there is one; raises DataFormatError if the file is something else."""
    path = Path(path)
    if not path.exists():
        return
    if "identity" not in read_head(path, remedy="move it away"):
        raise DataFormatError(path, "is not the checkpoint of a fit; move it away")
    path.unlink()


def _find_difference(saved: dict[str, dict[str, Any]], wanted: dict[str, dict[str, Any]]) -> str | None:
    """In which group two identities differ, with the first name, and what to do; None if they are the same."""
    for group in [*wanted, *(name for name in saved if name not in wanted)]:
        old, new = saved.get(group, {}), wanted.get(group, {})
        names = [name for name in [*new, *(name for name in old if name not in new)] if old.get(name) != new.get(name)]
        if not names:
            continue
        first = names[0]
        values = [str(side.get(first, "missing")) for side in (old, new)]
        shown = f" ({values[0]}, now {values[1]})" if max(map(len, values)) <= SHORT else ""
        more = f" and {len(names) - 1} more of {len(old.keys() | new)}" if len(names) > 1 else ""
        return f"with other {group}: {first}{shown}{more} changed since; restore what it was"
    return None
