"""The command line: ``nfldm3d COMMAND``, see ``nfldm3d --help``; every option is a field of a dataclass.

Exit codes: 0 done, 2 wrong usage, 3 bad data, 130 interrupted, 141 output closed by its reader, 143 terminated.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from nfldm3d.files import DataFormatError
from nfldm3d.messages import to_one_line
from nfldm3d.signals import end_for
from nfldm3d.temporary_files import find_disk_problem

__all__ = ["main"]

USAGE, BAD_DATA, INTERRUPTED, OUTPUT_CLOSED, TERMINATED = 2, 3, 130, 141, 143
ENDINGS = {INTERRUPTED: "interrupted", TERMINATED: "terminated"}
NO_MEMORY = ("allocate memory", "not enough memory", "Failed to allocate", "out of memory", "start new thread")
"""What torch, Warp and Python say, in errors of all kinds, when there is no memory left."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; errors are one line on stderr, with ``--debug`` a traceback."""
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
        _flush()
    except BrokenPipeError:  # whoever read our output, such as head, has seen enough
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())  # Python flushes once more when it ends
        return OUTPUT_CLOSED
    return code


def _run(arguments: list[str]) -> int:
    debug = "--debug" in arguments
    try:
        with _hearing(_leave, signal.SIGINT, signal.SIGTERM):
            from nfldm3d.cli.commands import parse

            command = parse([argument for argument in arguments if argument != "--debug"])
        with _hearing(lambda number, frame: end_for(number), signal.SIGTERM):
            command.run()
    except BrokenPipeError:
        raise
    except (ValueError, ImportError, OSError, MemoryError, RuntimeError) as error:
        told = _describe(error)
        if debug or told is None:
            raise
        _say(told)
        return BAD_DATA if isinstance(error, DataFormatError) else USAGE
    except (KeyboardInterrupt, SystemExit) as stop:
        code = INTERRUPTED if isinstance(stop, KeyboardInterrupt) else stop.code
        if code in ENDINGS and not debug:
            _say(ENDINGS[code])
            return code
        _flush()
        if not isinstance(code, str):
            raise
        _say(code)
        raise SystemExit(USAGE) from stop
    return 0


@contextmanager
def _hearing(handler: Callable[[int, FrameType | None], None], *numbers: int) -> Iterator[None]:
    """Calls ``handler`` for signals that come while the block runs."""
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def _leave(number: int, frame: FrameType | None) -> None:
    """Ends a program that has begun nothing; an exception would end up in the middle of somebody's import."""
    _say(ENDINGS[128 + number])
    os._exit(128 + number)


def _describe(error: Exception) -> str | None:
    """What a user can do something about; None for an error of ours."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{os.fspath(error.filename)}: {error.strerror}"
    if isinstance(error, MemoryError) or any(words in text for words in NO_MEMORY):
        return f"not enough memory ({text.splitlines()[0]}); ask for less, such as fewer voxels, pixels or processes"
    if find_disk_problem(error) and "make room" not in text:
        return f"{text}; make room or choose another disk"
    return None if isinstance(error, RuntimeError) else text


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _say(text: str) -> None:
    if sys.stderr is not None:  # closed by whoever started us
        sys.stderr.write(f"nfldm3d: {to_one_line(text)}\n")
        sys.stderr.flush()
