"""The state of a run in one safetensors file, written whole or not at all, with the one before it beside it.

Its head holds a sum over everything in it: a flipped bit in a safetensors file would otherwise load silently.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nfldm3d._types import PathName
from nfldm3d.files import DataFormatError, atomic_write, flush_file, parse_json
from nfldm3d.tensor_files import read_head, read_tensors_and_head, require_finite, require_tensors, write_tensors

logger = logging.getLogger(__name__)

VERSION = "3"
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
        """Writes the state of a run after so many steps and seconds, and keeps the checkpoint before.

        Raises:
            OSError, ValueError: it cannot be written; what was there before is untouched.
        """
        content = dict(tensors)
        if generator is not None:
            content[GENERATOR] = generator.get_state()
        counters = json.dumps({"number": number, "seconds": seconds})
        head = {"version": VERSION, "identity": json.dumps(self.identity), "counters": counters}
        head["sha256"] = _digest(content, head)
        path = Path(self.path)
        with atomic_write(path) as temporary:
            write_tensors(temporary, content, head)
            flush_file(temporary)
            if path.exists():
                os.replace(path, before(path))

    def load(self, generator: torch.Generator | None = None) -> Saved | None:
        """What was saved, if anything was, and the generator as it was then; what is damaged gives way to the
        checkpoint before.

        Raises:
            DataFormatError: the file is damaged and there is none before it, or it belongs to another run.
        """
        there = [path for path in (Path(self.path), before(self.path)) if os.path.lexists(path)]
        for path in there:
            try:
                tensors, head = _read_whole(path)
            except DataFormatError as error:
                if path == there[-1]:
                    raise
                logger.warning("%s; going on from the checkpoint before", error)
                continue
            if path != Path(self.path):  # it takes the place of the damaged one, which is never rotated over it
                if Path(self.path).is_dir():
                    raise DataFormatError(Path(self.path), "is a folder; move it away")
                os.replace(path, self.path)
                path = Path(self.path)
            return self._take(path, tensors, head, generator)
        return None

    def _take(
        self, path: Path, tensors: dict[str, Tensor], head: dict[str, str], generator: torch.Generator | None
    ) -> Saved:
        identity, counters = (parse_json(head.get(name, "null"), path) for name in ("identity", "counters"))
        if not isinstance(identity, dict) or not all(isinstance(group, dict) for group in identity.values()):
            raise DataFormatError(path, f"does not say of which run it is; {ANEW}")
        problem = _find_difference(identity, json.loads(json.dumps(self.identity)))
        if problem is not None:
            raise DataFormatError(path, f"is the checkpoint of another run, {problem}, or {ANEW}")
        if generator is not None:
            require_tensors(tensors, [GENERATOR], path, ANEW)
            try:
                generator.set_state(tensors.pop(GENERATOR))
            except (RuntimeError, TypeError) as error:
                raise DataFormatError(path, f"{GENERATOR} is no state of a generator; {ANEW}") from error
        return Saved(tensors, **_require_counters(counters, path))


def before(path: PathName) -> Path:
    """Where the checkpoint before the one at ``path`` is."""
    path = Path(path)
    return path.with_name(f"{path.stem}.before{path.suffix}")


def is_under_way(path: PathName) -> bool:
    """Whether a run has left its state there: what it has written before is its own."""
    return any(os.path.lexists(found) for found in (path, before(path)))


def remove_checkpoint(path: PathName) -> None:
    """Deletes a checkpoint and the one before it, if they are there; a DataFormatError if a file is something else."""
    there = [path for path in (Path(path), before(path)) if os.path.lexists(path)]
    for found in there:
        if "identity" not in read_head(found, remedy="move it away"):
            raise DataFormatError(found, "is not the checkpoint of a run; move it away")
    for found in there:
        found.unlink()


def _read_whole(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and head of a file that is as it was written."""
    tensors, head = read_tensors_and_head(path, remedy=ANEW)
    if head.get("version") != VERSION:
        raise DataFormatError(path, f"is no checkpoint of this version; {ANEW}")
    require_finite(tensors, path, ANEW)
    if head.pop("sha256", None) != _digest(tensors, head):
        raise DataFormatError(path, f"is damaged (its sha256 differs); {ANEW}")
    return tensors, head


def _digest(tensors: Mapping[str, Tensor], head: Mapping[str, str]) -> str:
    """SHA-256 of names, kinds, shapes and numbers of tensors, and of the texts beside them."""
    digest = hashlib.sha256(json.dumps(sorted(head.items())).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _require_counters(counters: Any, path: Path) -> dict[str, Any]:
    if isinstance(counters, dict) and set(counters) == {"number", "seconds"}:
        number, seconds = counters["number"], counters["seconds"]
        if type(number) is int and type(seconds) in (int, float) and number >= 0 and seconds >= 0:
            return counters
    raise DataFormatError(path, f"does not say how far the run was; {ANEW}")


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
