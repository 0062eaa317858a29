"""Long jobs that fill a folder piece by piece: they note their options there, go on after a stop, and are shared.

Several processes share a job without a word between them: process r of n makes pieces r, r + n, r + 2 n and so on. Each
piece appears whole or not at all and is left alone if it is there, so nobody waits, a process that dies costs its own
pieces only, and starting again, with as many processes as one likes, makes what is missing.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nfldm3d._types import PathName
from nfldm3d.file_names import compose, is_reserved
from nfldm3d.files import DataFormatError, atomic_write, read_json

LONGEST_SHOWN = 60
LONGEST_NAME = 200
"""Bytes of a name, which leaves room for suffixes."""


@dataclass(frozen=True)
class Share:
    """Which pieces of a job this process makes."""

    number: int = 0
    """Of this process, from 0."""
    processes: int = 1

    def __post_init__(self):
        if not 0 <= self.number < self.processes:
            raise ValueError(f"process {self.number} is not one of 0 to {self.processes - 1}")

    @classmethod
    def from_launcher(cls) -> "Share":
        """What ``torchrun`` says in RANK and WORLD_SIZE; everything if there are none."""
        values = [os.environ.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"))]
        try:
            return cls(*(int(value) for value in values))
        except ValueError as error:
            raise ValueError(f"RANK={values[0]} and WORLD_SIZE={values[1]} do not fit; start with torchrun") from error

    def of(self, count: int) -> range:
        """The numbers of this process's pieces among ``count``."""
        return range(self.number, count, self.processes)


def claim_folder(folder: PathName, record: str, options: Mapping[str, object], *, what: str, pieces: str) -> None:
    """Notes the options of a job in the file ``record`` of its folder, or makes sure that they are those noted there.

    Args:
        what: that the folder holds, for messages.
        pieces: a glob pattern of what the job makes: there is none before its options are noted.

    Raises:
        ValueError: the folder holds a job with other options; the message says which, and what to do.
        DataFormatError: the record is damaged, or pieces are there without one.
    """
    folder, wanted = Path(folder), json.loads(json.dumps(options))
    path = folder / record
    begun = folder.is_dir() and any(folder.glob(pieces))  # before the look at the record, which another may just write
    if path.exists():
        found = read_json(path)
        found = found if isinstance(found, dict) else {}
        different = [name for name in wanted | found if found.get(name) != wanted.get(name)]
        if different:
            shown = ", ".join(f"{name} {_show(found, name)}, not {_show(wanted, name)}" for name in different)
            raise ValueError(
                f"{folder} holds {what} with {shown}; repeat its options to go on with it, or choose another folder"
            )
        return
    if begun:
        raise DataFormatError(folder, f"holds {what} but no {record}; choose another folder")
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(wanted, indent=1), encoding="utf-8")


def require_file_names(names: Sequence[str], source: PathName) -> None:
    """Makes sure that names (as they stand in ``source``) can begin names of files in one folder, on any system.

    Raises:
        DataFormatError: a name leads elsewhere, or is one that Windows reserves; or two differ in case only.
    """
    folded: dict[str, str] = {}
    for name in names:
        plain = name.isprintable() and not set(name) & set('/\\:*?"<>|') and name == name.strip(". ")
        if not plain or not 0 < len(name.encode("utf-8", errors="replace")) <= LONGEST_NAME:
            raise DataFormatError(source, f"{name[:99]!r} cannot be the name of a file; use letters, digits, '-', '_'")
        if is_reserved(name):
            raise DataFormatError(source, f"{name!r} is a name that Windows reserves; choose another")
        other = folded.setdefault(compose(name).casefold(), name)
        if other != name:
            raise DataFormatError(source, f"{other!r} and {name!r} are one file on some systems; rename one of them")


def _show(options: Mapping[str, object], name: str) -> str:
    text = repr(options[name]) if name in options else "missing"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
