"""Notes of what this program wrote: nothing of other people's is replaced.

A file ``.nfldm3d.json`` notes size and SHA-256 of what this program wrote beside it, and only what still agrees with
that note may be overwritten, if the user asks for it.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nfldm3d._types import PathName
from nfldm3d.file_locks import locked
from nfldm3d.files import (
    NOTING,
    DataFormatError,
    atomic_write,
    flush_file,
    flush_folder,
    make_parent,
    measure_file,
    read_json,
    refuse_outside,
)
from nfldm3d.temporary_files import RETIRED, is_temporary, telling_of_disks, temporary_folder

NOTE = ".nfldm3d.json"
LOCK = ".nfldm3d.lock"
NOTE_FORMAT = "nfldm3d.written"


def require_free(path: PathName, *, overwrite: bool = False) -> None:
    """Makes sure, before the work, that a file or folder can be written to ``path`` and that nothing is lost by it.

    Raises:
        ValueError: if the place cannot be written, or something is there: without ``overwrite`` anything but an empty
            folder, with it anything that this program has not written itself (see ``note_written``).
    """
    path = Path(path)
    make_parent(path)
    with temporary_folder(path):  # puts back, too, what a killed process had just moved away
        pass
    if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
        if not overwrite:
            raise ValueError(
                f"cannot write {path}: it is there already; choose another name, or set overwrite (--overwrite)"
            )
        if foreign := _find_foreign(path):
            raise ValueError(
                f"cannot replace {path}: {foreign} was not written by nfldm3d, or has changed since; move it away or "
                "choose another name"
            )


def note_written(*paths: PathName) -> None:
    """Notes that this program wrote these files or folders as they are, so that it may replace them."""
    for path in map(Path, paths):
        folder, files = (path, _files_below(path)) if path.is_dir() else (path.parent, [path])
        _add_to_note(folder, {file.relative_to(folder).as_posix(): measure_file(file) for file in files})


@contextmanager
def writing(*paths: PathName | None, overwrite: bool) -> Iterator[None]:
    """Asks ``require_free`` for each path before the block that writes it, and notes each file before it takes its
    name, and all others after the block, new ones even if it fails: what a stopped command has written is ours too."""
    targets = [Path(path) for path in paths if path is not None]
    for number, target in enumerate(targets):
        if target.resolve() in (other.resolve() for other in targets[:number]):
            raise ValueError(f"cannot write {target} twice: give each output a name of its own")
        require_free(target, overwrite=overwrite)
    before, noted = {target for target in targets if target.exists()}, set[Path]()

    def note(new: Path, path: Path) -> None:
        if path in targets:
            noted.add(path)
            sums = measure_file(new)
            if path.is_file():  # which is there until then
                sums["before"] = measure_file(path)
            _add_to_note(path.parent, {path.name: sums})

    token = NOTING.set(note)
    try:
        yield
        before.clear()  # all of them are written
    finally:
        NOTING.reset(token)
        note_written(*(target for target in targets if target not in noted | before and target.exists()))


@contextmanager
def atomic_folder(path: PathName, *, noted: bool = True) -> Iterator[Path]:
    """An empty temporary folder beside ``path`` that takes its place, old content included, if the block succeeds.

    Args:
        noted: notes the files in the folder, and replaces only what such a note knows. Without it, the caller has made
            sure that the old content is its own.

    Raises:
        ValueError: if the folder cannot be written, or holds what this program has not written.
        OSError: if the disk is full.
    """
    path = Path(path)
    if noted:
        require_free(path, overwrite=True)
    parent = make_parent(path)
    with telling_of_disks(path), temporary_folder(path) as temporary:
        yield temporary
        if noted:
            note_written(temporary)
        for file in temporary.rglob("*"):
            if file.is_file():
                flush_file(file)
        if noted:
            require_free(path, overwrite=True)  # somebody may have put a file there meanwhile
        if path.exists():
            with temporary_folder(path) as retired:
                (retired / RETIRED).mkdir()
                os.replace(path, retired / RETIRED / path.name)  # comes back if the next line is not reached
                os.replace(temporary, path)
        else:
            os.replace(temporary, path)
        flush_folder(parent)


def _find_foreign(path: Path) -> Path | None:
    """The first file at or below ``path`` that no note knows as it is, or None."""
    folder, files = (path, _files_below(path)) if path.is_dir() else (path.parent, [path])
    if path.is_symlink():
        return path
    known = _read_note(folder)
    for file in files:
        expected = known.get(file.relative_to(folder).as_posix())
        if file.is_symlink() or not file.is_file() or not isinstance(expected, dict):
            return file
        sums = measure_file(file)
        if sums not in ({name: expected.get(name) for name in sums}, expected.get("before")):
            return file
    return None


def _files_below(folder: Path) -> list[Path]:
    """Everything but folders, and empty ones too, without the note, its lock and what is not whole yet."""
    own = (folder / NOTE, folder / LOCK)
    inner = (path for path in sorted(folder.rglob("*")) if path not in own and not is_temporary(path))
    return [path for path in inner if path.is_symlink() or not path.is_dir() or not any(path.iterdir())]


def _read_note(folder: Path) -> dict[str, Any]:
    path = folder / NOTE
    if not path.exists():
        return {}
    refuse_outside(folder, path)
    content = read_json(path)
    files = content.get("files") if isinstance(content, dict) and content.get("format") == NOTE_FORMAT else None
    if not isinstance(files, dict):
        raise DataFormatError(path, "is not a note of what nfldm3d wrote; move it away")
    return files


def _add_to_note(folder: Path, sums: dict[str, Any]) -> None:
    with locked(folder / LOCK), atomic_write(folder / NOTE) as temporary:  # other commands write beside this one
        content = {"format": NOTE_FORMAT, "files": _read_note(folder) | sums}
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
