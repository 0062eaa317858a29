"""Reads changed files in a process of its own, which may use two gigabytes more and five seconds each, and counts."""

import json
import logging
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from campaign.formats import Format
from campaign.readers import FORMATS, mutate

MEMORY = 2 * 2**30
SECONDS = 5.0
"""Of a processor, as others may use the machine."""
LONGEST = 500
FORBIDDEN = ("/etc/passwd", "/dev/zero", "/dev/stdin", "/tmp/outside")


@dataclass
class Tally:
    """What came of the mutants of one format."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: dict[str, tuple[int, str]] = field(default_factory=dict)
    """The first mutant and message of each kind of fault."""

    def note(self, number: int, outcome: str, told: str = "") -> None:
        """Counts one; ``outcome`` is 'value', 'refused' or a kind of fault."""
        self.counts[outcome.split(":")[0]] += 1
        if outcome not in ("value", "refused"):
            self.faults.setdefault(outcome, (number, told))


def judge(folder: Path, format: Format) -> tuple[str, str]:
    """Reads a folder; tells 'value', 'refused' or what is wrong with the answer, and the message."""
    from nfldm3d.files import DataFormatError

    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        try:
            format.read(folder)
            outcome, told = "value", ""
        except DataFormatError as error:
            outcome, told = "refused", str(error)
            if len(told) > LONGEST or not told.isprintable():
                outcome = f"long: {_place(error)}"
        except MemoryError as error:
            outcome, told = f"memory: {_place(error)}", repr(error)[:300]
        except BaseException as error:  # panics of Rust are no Exceptions
            outcome, told = f"other: {type(error).__name__} {_place(error)}", repr(error)[:300]
    leaked = [warning for warning in leaked if not _is_ours(warning)]
    if leaked and outcome in ("value", "refused"):
        return f"warning: {leaked[0].filename}:{leaked[0].lineno}", str(leaked[0].message)[:300]
    return outcome, told


def _is_ours(warning: warnings.WarningMessage) -> bool:
    """Whether it tells a user, in a line, what is left out."""
    from nfldm3d.files import DataWarning

    told = str(warning.message)
    return issubclass(warning.category, DataWarning) and len(told) <= LONGEST and told.isprintable()


def _place(error: BaseException) -> str:
    """Where of our own code an error came from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/nfldm3d/" in frame.filename]
    return f"{frames[-1].filename.rpartition('/nfldm3d/')[2]}:{frames[-1].lineno}" if frames else "?"


def attack(name: str, numbers: range, seconds: float) -> Tally:
    """Judges the mutants of these numbers, as far as the time goes."""
    format, tally, end = FORMATS[name], Tally(), time.monotonic() + seconds
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        root = Path(place)
        (root / "whole").mkdir()
        format.make(root / "whole")
        (root / "outside").mkdir()
        (root / "outside" / "secret").write_bytes(b"not yours")
        outcome, told = judge(root / "whole", format)
        assert outcome == "value", (name, outcome, told)
        number = numbers.start
        while number < numbers.stop and time.monotonic() < end:
            number = _run_worker(name, root, range(number, numbers.stop), end, tally)
        if (root / "outside" / "secret").read_bytes() != b"not yours" or len(list((root / "outside").iterdir())) != 1:
            tally.note(number, "outside: written")
    return tally


def _run_worker(name: str, root: Path, numbers: range, end: float, tally: Tally) -> int:
    """Forks a process that judges until it dies or is done; returns the number of the next mutant."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process == 0:
        status = 1
        try:
            os.close(reading)
            _work(name, root, numbers, end, writing)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    number = numbers.start
    with os.fdopen(reading, encoding="utf-8") as lines:
        for line in lines:
            outcome, told = json.loads(line)
            tally.note(number, outcome, told)
            number += 1
    status = os.waitpid(process, 0)[1]
    if status == 0:
        return number if time.monotonic() < end else numbers.stop
    cause = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "the worker itself failed"
    tally.note(number, f"{'hang' if cause == 'SIGPROF' else 'crash'}: {cause} {number}", "")
    return number + 1


def _work(name: str, root: Path, numbers: range, end: float, writing: int) -> None:
    format, opened = FORMATS[name], list[str]()
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    sys.addaudithook(lambda event, items: _watch(root, opened, event, items))
    log = _Log()
    logging.getLogger("nfldm3d").addHandler(log)
    logging.getLogger("nfldm3d").propagate = False
    said = os.open(root / "said", os.O_CREAT | os.O_RDWR | os.O_TRUNC)
    for handle in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDONLY) if handle == 0 else said, handle)
    for number in numbers:
        if time.monotonic() > end:
            return
        folder = root / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(root / "whole", folder, symlinks=True)
        mutate(folder, format, random.Random(f"{name} {number}"))
        os.ftruncate(said, 0)
        opened.clear()
        log.lines.clear()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        outcome, told = judge(folder, format)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.flush()
        sys.stderr.flush()
        if outcome in ("value", "refused") and opened:
            outcome, told = "outside: read", opened[0]
        if outcome in ("value", "refused") and os.fstat(said).st_size:
            outcome, told = "warning: printed", os.pread(said, 300, 0).decode(errors="replace")
        if outcome in ("value", "refused") and log.too_long():
            outcome, told = "long: logged", log.too_long()[:300]
        os.write(writing, (json.dumps([outcome, told]) + "\n").encode())


class _Log(logging.Handler):
    """Keeps what is logged, such as scenes that are left out."""

    def __init__(self):
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def too_long(self) -> str:
        """The first line that nobody would read, or that steers a terminal."""
        return next((line for line in self.lines if len(line) > 2 * LONGEST or not line.isprintable()), "")


def _watch(root: Path, opened: list[str], event: str, items: tuple[object, ...]) -> None:
    if event == "open" and isinstance(items[0], str | bytes | os.PathLike):
        path = os.path.realpath(os.fsdecode(items[0]))
        if path.startswith((str(root / "outside"), *FORBIDDEN)):
            opened.append(path)
