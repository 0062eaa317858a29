"""Locks between processes: one at a time changes what several of them share."""

import errno
import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from nfldm3d._types import PathName

LOCKED_BYTE = 2**30
"""Far behind the text, which others may read (Windows locks bytes)."""
LONGEST_OWNER = 200
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
"""What file systems without locks answer, such as some clusters'; work goes on there, and nobody is kept out."""


@contextmanager
def locked(path: PathName, *, wait: bool = True) -> Iterator[None]:
    """Keeps other processes that lock the file ``path`` out for the length of the block.

    The file says who is in, and is gone afterwards; the system frees the lock if this process dies.

    Args:
        wait: until it is free. Otherwise a lock that another process holds is an error.

    Raises:
        ValueError: if the folder is in use by another process or not writable, or a link or anything but a file has
            the lock's name.
    """
    path = Path(path)
    with _open_locked(path, wait) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        file.flush()
        try:
            yield
        finally:
            with suppress(OSError):  # Windows removes no open file
                path.unlink()


def _open_locked(path: Path, wait: bool) -> BinaryIO:
    """The open lock file. It may have been removed by its last owner just before the lock came: then again."""
    while True:
        file, owner = _open(path), b""
        try:
            owner = file.read(LONGEST_OWNER)
            _take(file, wait)
            if _is_at(file, path):
                file.seek(0)
                return file
        except (BlockingIOError, PermissionError) as error:
            file.close()
            shown = owner.decode(errors="replace") or "another process"
            raise ValueError(f"{path.parent} is in use by {shown}; stop it or choose another folder") from error
        except BaseException:
            file.close()
            raise
        file.close()


def _open(path: Path) -> BinaryIO:
    """Opens the lock file, or makes it; never what a link points to, which is not ours."""
    flags = os.O_RDWR | os.O_CREAT
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):  # as far as the system knows them
        flags |= getattr(os, name, 0)
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        reason = "it is a link" if path.is_symlink() else error.strerror
        raise ValueError(f"cannot write {path}: {reason}; remove it or choose another folder") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ValueError(f"cannot write {path}: it is no file; remove it or choose another folder")
    return os.fdopen(handle, "r+b")


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(path))
    except FileNotFoundError:
        return False


def _take(file: BinaryIO, wait: bool) -> None:
    """Takes the lock on an open file, which the system frees with the process."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(LOCKED_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))  # processes that read samples lack it
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
