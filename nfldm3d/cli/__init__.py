"""The command line: ``nfldm3d COMMAND``, see ``nfldm3d --help``; every option is a field of a dataclass.

Exit codes: 0 done, 2 wrong usage, 3 bad data, 130 interrupted, 141 output closed by its reader, 143 terminated.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

from nfldm3d.files import DataFormatError
from nfldm3d.messages import to_one_line
from nfldm3d.signals import end_for
from nfldm3d.temporary_files import find_disk_problem

__all__ = ["main"]

USAGE, BAD_DATA, INTERRUPTED, OUTPUT_CLOSED, TERMINATED = 2, 3, 130, 141, 143
ENDINGS = {INTERRUPTED: "interrupted", TERMINATED: "terminated"}
NO_MEMORY = (
    "allocate memory",
    "not enough memory",
    "Failed to allocate",
    "out of memory",
    "start new thread",
    "Invalid thread pool",
)
"""What torch, Warp and Python say, in errors of all kinds, when there is no memory left."""
UNMADE = "could not create a primitive"
"""What oneDNN says then, and of processors that it does not know."""
LITTLE = 2**30
"""Bytes: with less, it was memory."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; errors are one line on stderr, with ``--debug`` a traceback."""
    _fill_streams()
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
        _flush()
    except BrokenPipeError:  # whoever read our output, such as head, has seen enough
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())  # Python flushes once more when it ends
        return OUTPUT_CLOSED
    return code


def _fill_streams() -> None:
    """What whoever started us has closed leads nowhere from now on: else the next file that is opened takes its number,
    and C code writes its messages there."""
    for name in ("stdin", "stdout", "stderr"):  # the lowest free number is taken first
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115 - for good


def _run(arguments: list[str]) -> int:
    debug, wish = "--debug" in arguments, _Wish()
    try:
        _require_current_folder()
        with _hearing(partial(_leave, sys.stderr), signal.SIGINT, signal.SIGTERM):
            from nfldm3d.cli.commands import parse

            command = parse([argument for argument in arguments if argument != "--debug"])
        with _hearing(wish.hear, signal.SIGINT, signal.SIGTERM):
            command.run()
    except BrokenPipeError:
        raise
    except BaseException as error:
        code = 128 + wish.number if wish.number else _find_code(error)
        told = ENDINGS.get(code) or _describe(error)
        if isinstance(error, SystemExit) and code not in ENDINGS:
            _flush()
        if code == 0 or told is None or (debug and not isinstance(error, SystemExit)):
            raise
        _say(told)
        if isinstance(error, SystemExit) and code == USAGE:
            raise SystemExit(USAGE) from error
        return code
    return 0


def _require_current_folder() -> None:
    """Raises a ValueError where it was deleted: libraries such as MKL end the process there."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise ValueError("the current folder was deleted; change to another one") from error


class _Wish:
    """Ends what runs when a signal comes, and remembers that, as libraries may turn the exception into others."""

    def __init__(self):
        self.number = 0

    def hear(self, number: int, frame: FrameType | None) -> None:
        """The signals' handler."""
        self.number = number
        end_for(number)


def _find_code(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else USAGE if error.code else 0
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return BAD_DATA if isinstance(error, DataFormatError) else USAGE


@contextmanager
def _hearing(handler: Callable[[int, FrameType | None], None], *numbers: int) -> Iterator[None]:
    """Calls ``handler`` for signals that come while the block runs."""
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def _leave(stream: Any, number: int, frame: FrameType | None) -> None:
    """Ends a program that has begun nothing; an exception would end up in the middle of somebody's import."""
    _say(ENDINGS[128 + number], stream)
    os._exit(128 + number)


def _describe(error: BaseException) -> str | None:
    """What a user can do something about; None for an error of ours."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{os.fspath(error.filename)}: {error.strerror}"
    if isinstance(error, MemoryError) or _tells_of_memory(text):
        return f"not enough memory ({text.splitlines()[0]}); ask for less, such as fewer voxels, pixels or processes"
    if find_disk_problem(error) and "make room" not in text:
        return f"{text}; make room or choose another disk"
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, str) else None
    return text if isinstance(error, ValueError | ImportError | OSError) else None


def _tells_of_memory(text: str) -> bool:
    if UNMADE in text:
        import torch

        from nfldm3d.memory import free_memory

        return free_memory(torch.device("cpu")) < LITTLE
    return any(words in text for words in NO_MEMORY)


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _say(text: str, stream: Any = None) -> None:
    stream = sys.stderr if stream is None else stream
    if stream is not None:  # closed by whoever started us
        stream.write(f"nfldm3d: {to_one_line(text)}\n")
        stream.flush()
