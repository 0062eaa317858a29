"""Files and folders that are not whole yet: beside their target, under hidden names that say whose they are.

Whoever writes one holds a lock on it, which the system frees with the process; so what a killed process left is known,
and the next one that writes the same target removes it. Where there are no such locks, leftovers stay.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

MARK = ".nfldm3d-"
"""Begins the names of what is not whole yet."""
RETIRED = ".nfldm3d-retired"
"""Folder, within a temporary one, of a target that makes room for a new one."""
WRITERS = 8
"""Processes that may write one target at the same time and leave something there for the next to remove."""
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Errors of disks that are full or must not be written to."""


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """A new empty file beside ``path``, of the same suffix, which is gone after the block unless it was renamed.

    Raises:
        ValueError: the folder is not writable.
    """
    claim = _claim(path, folder=False)
    try:
        yield claim.name
    finally:
        claim.end()


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A new empty folder beside ``path``, which is gone after the block unless it was renamed; raises as above.

    What was moved into its folder ``RETIRED`` goes back beside it, if nothing has taken its place there.
    """
    claim = _claim(path, folder=True)
    try:
        yield claim.name
    finally:
        claim.end()


def sweep(folder: Path) -> None:
    """Removes what killed processes left in a folder that nobody else writes to at the moment."""
    for left in folder.glob(f"{MARK}*"):
        _clear(left)


def is_temporary(path: Path) -> bool:
    """Whether a name is one of those given here."""
    return path.name.startswith(MARK)


@contextmanager
def telling_of_disks(path: Path) -> Iterator[None]:
    """Errors of a full or read-only disk in the block, in which ``path`` is written, name it and say what to do."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = find_disk_problem(error)
        if reason is None:
            raise
        raise OSError(f"cannot write {path}: {reason}; make room or choose another disk") from error


def find_disk_problem(error: BaseException) -> str | None:
    """What is wrong with the disk, if that is the error; safetensors and ffmpeg tell it in their texts alone."""
    for number in DISK:
        told = (f"(os error {number})", os.strerror(number))
        if getattr(error, "errno", None) == number or any(words in str(error) for words in told):
            return os.strerror(number)
    return None


@dataclass(frozen=True)
class _Claim:
    """A file or folder that is this process's own."""

    name: Path
    made: os.stat_result
    handle: int | None
    """Of the lock on it."""

    def end(self) -> None:
        """Removes it, unless it has another name by now: then the name may be another process's."""
        try:
            if os.path.samestat(self.made, os.lstat(self.name)):
                _clear(self.name)
            else:  # whoever wrote it put another in its place
                _remove_stale(self.name)
        except FileNotFoundError:
            pass
        finally:
            if self.handle is not None:
                with suppress(OSError):
                    os.close(self.handle)


def _claim(path: Path, *, folder: bool) -> _Claim:
    """A name that no other process uses, and a lock on it; what killed processes left under such names is removed."""
    names = (_name(path, number, folder) for number in count())
    try:
        os.path.abspath(path)  # raises in a folder that was deleted, which else looks like an empty one
        claimed = next(claim for name in names if (claim := _make(name, folder)) is not None)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}; choose another folder") from error
    for number in range(WRITERS):
        _remove_stale(_name(path, number, folder))
    return claimed


def _name(path: Path, number: int, folder: bool) -> Path:
    stem = (path.name if folder else path.stem).encode(errors="surrogateescape")[:64].decode(errors="ignore")
    return path.with_name(f"{MARK}{stem}.{number}{'' if folder else path.suffix}")


def _make(name: Path, folder: bool) -> _Claim | None:
    """The file or folder of this name, made and locked; None if another process has it."""
    _remove_stale(name)
    try:
        if folder:
            name.mkdir()
        else:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        handle = None if os.name == "nt" else _lock(name)
        return _Claim(name, os.lstat(name), handle)
    except (FileExistsError, FileNotFoundError, BlockingIOError) as error:
        if isinstance(error, FileNotFoundError) and not name.parent.is_dir():
            raise
        return None  # another process has it, or has taken it for a leftover


def _remove_stale(name: Path) -> None:
    """Removes what a process left that is no more, unless it is somebody else's."""
    if os.name == "nt" or not os.path.lexists(name):
        return
    try:
        handle = _lock(name)
    except BlockingIOError:
        return
    if handle is None:
        return
    try:
        _clear(name)
    finally:
        os.close(handle)


def _clear(name: Path) -> None:
    """Removes a file or folder as far as that is allowed; what had been moved away goes back to its place."""
    with suppress(OSError):
        if not name.is_dir() or name.is_symlink():
            name.unlink()
            return
        retired = name / RETIRED
        for old in () if retired.is_symlink() else retired.glob("*"):  # a link may lead to what was never ours
            if not os.path.lexists(target := name.with_name(old.name)):
                os.replace(old, target)
        shutil.rmtree(name, ignore_errors=True)


def _lock(name: Path) -> int | None:
    """A handle that keeps others from taking the file or folder of this name for a leftover; None if it is no such
    thing, or the file system knows no locks.

    Raises:
        BlockingIOError: another process has the lock.
    """
    import fcntl

    try:
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), os.lstat(name)):
            return handle
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:
        pass
    os.close(handle)
    return None
