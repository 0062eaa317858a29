"""Reading what strangers wrote and writing what must not be lost: safe paths, bounded JSON, atomic writes."""

import hashlib
import json
import math
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from itertools import takewhile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from nfldm3d import file_names
from nfldm3d._types import PathName
from nfldm3d.messages import to_one_line
from nfldm3d.temporary_files import telling_of_disks, temporary_file

MAX_JSON_BYTES = 256 * 2**20
MAX_JSON_DEPTH = 64
"""Lists within lists; more would overflow the stack of whoever walks through them."""


class DataFormatError(ValueError):
    """A file that cannot be used; the message names the file, the field, the value and the remedy, in one line."""

    def __init__(self, path: PathName, problem: str):
        super().__init__(os.fspath(path), problem)  # both, so that the error can travel between processes

    def __str__(self) -> str:
        return to_one_line(f"{self.args[0]}: {self.args[1]}")


class DataWarning(UserWarning):
    """What is left out of what a file says, since there is enough to go on without it."""


def warn_of(path: PathName, problem: str, *, level: int) -> None:
    """Warns, in one line, of something that is left out; ``level`` counts the callers up to whom it is told."""
    warnings.warn(to_one_line(f"{path}: {problem}"), DataWarning, level + 1)


def refuse_special(path: PathName) -> None:
    """Raises a DataFormatError for devices and pipes, also behind links: some never end, others never begin."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # whoever opens it says what is wrong
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DataFormatError(path, "is a device or a pipe; give a file")


def refuse_outside(root: Path, *paths: Path) -> None:
    """Raises a DataFormatError for files of a folder that are links to what does not lie in it."""
    for path in paths:
        if path.is_symlink() and not _lies_in(path, root):
            raise DataFormatError(path, f"is a link that leads outside {root}; copy the file into the folder")


def _lies_in(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (ValueError, OSError, RuntimeError):  # names that the system cannot spell, links in circles
        return False


def resolve_inside(root: Path, name: str, *, source: Path) -> Path:
    """The path ``name`` (as written in the file ``source``) below ``root``; refuses names that lead outside.

    Absolute names of files below ``root`` are taken; other systems' spellings are found, see ``file_names``.
    """
    parts = _parts_below(root, name)
    if parts is None:
        raise DataFormatError(source, f"path {name!r} leads outside {root}; use a path relative to that folder")
    path = file_names.find_spelling(root, parts)
    try:
        inside = path.resolve().is_relative_to(root.resolve())
        path.is_file()  # may be too long a name
    except (ValueError, OSError, RuntimeError) as error:  # names that the system cannot spell, links in circles
        raise DataFormatError(source, f"path {name!r} cannot be followed ({error}); rename the file") from error
    if not inside:
        raise DataFormatError(
            source, f"path {name!r} is a link that leads outside {root}; copy the file into the folder"
        )
    return path


def _parts_below(root: Path, name: str) -> tuple[str, ...] | None:
    """The parts of a relative name, or of an absolute one that begins with the folder's own; None if it leads away."""
    slashed = name.replace("\\", "/")
    parts = PurePosixPath(slashed).parts
    if not name or "\0" in name or ".." in parts:
        return None
    if not slashed.startswith("/") and not PureWindowsPath(name).drive:
        return parts
    for base in (Path(os.path.abspath(root)), root.resolve()):
        if Path(name).is_absolute() and Path(name).is_relative_to(base):
            return Path(name).relative_to(base).parts
    return None


def read_content(path: PathName, most: int, remedy: str) -> bytes:
    """What a file holds.

    Args:
        most: bytes that such a file can have.
        remedy: what to do about a file that cannot be read, for the message.

    Raises:
        DataFormatError: it cannot be read, is too large, or is a device or a pipe.
    """
    refuse_special(path)
    try:
        size = os.stat(path).st_size
        if size > most:
            raise DataFormatError(path, f"has {size} bytes, more than {most}; {remedy}")
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, DataFormatError):
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DataFormatError(path, f"cannot be read ({reason}); {remedy}") from error


def read_lines(path: PathName, most: int, remedy: str) -> list[str]:
    """The lines of a text in UTF-8; arguments and errors are those of ``read_content``."""
    try:
        return read_content(path, most, remedy).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataFormatError(path, f"cannot be read as text ({error.reason}); {remedy}") from error


def read_json(path: PathName) -> Any:
    """The content of a JSON file; refuses files above 256 MiB and what ``parse_json`` refuses."""
    content = read_content(path, MAX_JSON_BYTES, "check the name and its permissions")
    try:
        return parse_json(content.decode("utf-8-sig"), path)  # Windows' editors begin files with a byte order mark
    except UnicodeDecodeError as error:
        raise DataFormatError(path, f"is not UTF-8 text ({error.reason}); save it as UTF-8") from error


def parse_json(text: str, source: PathName) -> Any:
    """The content of JSON text that came from ``source``.

    Refuses bad syntax, NaN and infinite numbers, and what is nested more than ``MAX_JSON_DEPTH`` deep.
    """

    endless: list[str] = []

    def convert(literal: str) -> float:
        value = float(literal)
        if not math.isfinite(value):
            endless.append(literal)
        return value

    def convert_whole(literal: str) -> float | int:
        return int(literal) if len(literal) < 20 else convert(literal)  # no later float() may overflow

    try:
        content = json.loads(text, parse_float=convert, parse_int=convert_whole, parse_constant=convert)
        deep = _is_deep(content)
        place = _find_endless(content) if endless and not deep else None
    except (ValueError, RecursionError) as error:
        raise DataFormatError(source, f"is not valid JSON ({error}); write it again") from error
    if deep:
        raise DataFormatError(source, f"nests lists more than {MAX_JSON_DEPTH} deep; write it with fewer levels")
    if endless:
        raise DataFormatError(source, f"{place or 'a field'} is {endless[0][:40]}; write a finite number")
    return content


def _is_deep(content: Any) -> bool:
    level = [content] if isinstance(content, dict | list) else []
    for _ in range(MAX_JSON_DEPTH):
        inner = (item for outer in level for item in (outer.values() if isinstance(outer, dict) else outer))
        level = [item for item in inner if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def _find_endless(value: Any, place: str = "") -> str | None:
    """Where the first NaN or infinite number is, e.g. ``frames[3].w``."""
    if isinstance(value, float):
        return None if math.isfinite(value) else place
    inner = [(f"{place}.{key}".lstrip("."), item) for key, item in value.items()] if isinstance(value, dict) else []
    inner += [(f"{place}[{number}]", item) for number, item in enumerate(value)] if isinstance(value, list) else []
    return next((found for where, item in inner if (found := _find_endless(item, where)) is not None), None)


def check_output(path: PathName, *, suffixes: Sequence[str] = (), folder: bool = False) -> None:
    """Finds out before long work whether its result can be written to ``path``; leaves nothing behind.

    Args:
        suffixes: the ones that a file may have; empty allows any.
        folder: whether ``path`` is to be a folder, which may be there already.

    Raises:
        ValueError: if the suffix is none of them, a folder stands where a file is wanted or the other way round, or
            the place is not writable.
    """
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(f"cannot write {path}: unknown suffix {path.suffix!r}; choose {' or '.join(suffixes)}")
    if path.name in ("", ".."):
        if folder and path.is_dir():
            return  # such as "." or "/", in which something is written under a name of its own
        raise ValueError(f"cannot write {path}: it has no name of its own; give it one")
    if folder and os.path.lexists(path) and not os.path.isdir(path):
        raise ValueError(f"cannot write {path}: it is a file; give a folder")
    missing = list(takewhile(lambda parent: not os.path.lexists(parent), (path, *path.parents)[not folder :]))
    try:
        with _new_temporary(path / "probe" if folder else path):
            pass
    finally:
        for made in missing:  # those that were not there before, inner ones first
            with suppress(OSError):
                made.rmdir()


NOTING: ContextVar[Callable[[Path, Path], None] | None] = ContextVar("NOTING", default=None)
"""Is told of a new file that is whole and of the name it takes next, see ``written_files.writing``."""


@contextmanager
def atomic_write(path: PathName) -> Iterator[Path]:
    """A temporary file name beside ``path``, with the same suffix, that takes its place only if the block succeeds.

    Raises:
        ValueError: if the folder does not exist and cannot be made, or is not writable.
        OSError: if the disk is full.
    """
    path = Path(path)
    with telling_of_disks(path), _new_temporary(path) as temporary:
        yield temporary
        flush_file(temporary)
        if (note := NOTING.get()) is not None:
            note(temporary, path)
        os.replace(temporary, path)


def _new_temporary(path: Path) -> AbstractContextManager[Path]:
    if os.path.isdir(path):
        raise ValueError(f"cannot write {path}: it is a folder; give a file name")
    _writable_parent(path)
    return temporary_file(path)


def measure_file(path: Path) -> dict[str, Any]:
    """Size and checksum of a file."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
        return {"bytes": file.tell(), "sha256": digest.hexdigest()}


def flush_file(path: Path) -> None:
    """Makes sure that the content is on the disk before a name points to it."""
    with open(path, "r+b" if os.name == "nt" else "rb") as file:  # Windows flushes only what may be written
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Makes sure that a new name in the folder outlives a power cut, where folders can be opened (not on Windows)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_parent(path: Path) -> Path:
    """The folder in which a file or folder of this name is to be, made if it is not there."""
    if path.name in ("", ".."):
        raise ValueError(f"cannot write {path}: it has no name of its own; give the folder a name")
    return _writable_parent(path)


def _writable_parent(path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            os.lstat(path)  # finds names that are too long before the work is done
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}; choose another folder") from error
    return path.parent
