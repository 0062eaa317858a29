"""Commands that are killed, asked to end, or short of disk or memory: what stays, and whether they go on."""

import ctypes
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from campaign import newer_commands
from campaign.commands import COMMANDS, Ending, digest, leftovers, run

NEW_MOUNTS = 0x20000
"""CLONE_NEWNS of Linux."""
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def reference(root: Path, name: str) -> tuple[dict[str, str], float]:
    """What a command makes if nobody disturbs it, and how long it takes."""
    shutil.rmtree(root / "new", ignore_errors=True)
    ending = run(root, COMMANDS[name])
    assert ending.status == 0, (name, ending)
    assert not leftovers(root), leftovers(root)
    return digest(root), ending.seconds


def kill(root: Path, name: str, times: int, rng: random.Random) -> tuple[Counter[str], list[str]]:
    """Kills a command again and again, lets it end, and compares."""
    wanted, seconds = reference(root, name)
    counts, problems = Counter[str](), list[str]()
    while counts["killed"] < times:
        shutil.rmtree(root / "new", ignore_errors=True)
        for _ in range(rng.choice((1, 1, 2, 3))):
            ending = run(root, COMMANDS[name], number=signal.SIGKILL, after=rng.uniform(0, seconds))
            counts["killed" if ending.status == -signal.SIGKILL else "ended before"] += 1
            if ending.status == 0:  # what it has made is whole, and is not made again
                shutil.rmtree(root / "new", ignore_errors=True)
        ending = run(root, COMMANDS[name])
        problem = _find_problem(ending, root, wanted)
        counts["went on" if problem is None else "failed"] += 1
        problems += [] if problem is None else [f"{name}: {problem}"]
        if counts["ended before"] > 20 + 3 * times:
            break
    return counts, problems


def _find_problem(ending: Ending, root: Path, wanted: dict[str, str]) -> str | None:
    """What is wrong with a command that went on; which checkpoints a run has kept depends on when it was stopped."""
    if ending.status != 0:
        return f"exit code {ending.status}: {ending.said[-300:]}"
    if left := leftovers(root):
        return f"leaves {left[:3]}"
    found = digest(root)
    different = [path for path in found.keys() | wanted if found.get(path) != wanted.get(path)]
    different = [path for path in different if "/checkpoints/" not in path or path in found.keys() & wanted.keys()]
    return f"other results: {different[:3]}" if different else None


def interrupt(root: Path, name: str, times: int, rng: random.Random) -> tuple[Counter[str], list[str]]:
    """Asks a command to end at random times: one line, the right code, and it goes on."""
    wanted, seconds = reference(root, name)
    counts, problems = Counter[str](), list[str]()
    for _ in range(times):
        shutil.rmtree(root / "new", ignore_errors=True)
        number = rng.choice((signal.SIGINT, signal.SIGTERM))
        ending = run(root, COMMANDS[name], number=number, after=rng.uniform(0, seconds))
        if ending.status == 0:
            counts["ended before"] += 1
            continue
        counts["stopped"] += 1
        told = [f"nfldm3d: {'interrupted' if number == signal.SIGINT else 'terminated'}"]
        if ending.status != CODES[number] or ending.told != told or "Traceback" in ending.said:
            problems.append(f"{name}: signal {number}, code {ending.status}: {ending.said[-400:]}")
            continue
        hidden = [path for path in leftovers(root) if "checkpoint" not in path]
        if hidden:
            problems.append(f"{name}: signal {number} leaves {hidden[:3]}")
        problem = _find_problem(run(root, COMMANDS[name]), root, wanted)
        problems += [] if problem is None else [f"{name} after signal {number}: {problem}"]
    return counts, problems


def starve(root: Path, name: str, limits: list[Callable[[], None]]) -> tuple[Counter[str], list[str]]:
    """Runs a command short of something, over results that are there already: one line, and these are whole."""
    wanted, _ = reference(root, name)
    counts, problems = Counter[str](), list[str]()
    for limit in limits:
        ending = run(root, [*COMMANDS[name], *overwriting(name)], before=limit)
        if ending.status == 0:
            counts["enough"] += 1
        elif ending.status in (2, 3) and len(ending.told) == 1 and "Traceback" not in ending.said:
            counts["told"] += 1
        else:
            problems.append(f"{name}: code {ending.status}: {ending.said[-500:]}")
        found = digest(root)
        changed = [path for path in wanted if found.get(path) != wanted[path]]
        if changed and name not in ("encode", "generate"):
            problems.append(f"{name}: changed {changed[:3]}")
        shutil.rmtree(root / "new", ignore_errors=True)
        problem = _find_problem(run(root, COMMANDS[name]), root, wanted)
        problems += [] if problem is None else [f"{name} without a limit: {problem}"]
    return counts, problems


def overwriting(name: str) -> list[str]:
    """What lets a command write over its results."""
    return ["--overwrite"] if name in ("fit", "assemble", "capture", *newer_commands.OVERWRITES) else []


def files_up_to(size: int) -> Callable[[], None]:
    """No file may be longer, as on a disk that is full."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def memory_up_to(more: int) -> Callable[[], None]:
    """So many bytes more than now may be asked for."""

    def limit() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more,) * 2)

    return limit


def read_only(root: Path) -> Callable[[], None]:
    """The folder of the results may not be written to (a mount of its own, as root writes everywhere)."""
    return lambda: _mount(root, "ro")


def small_disk(root: Path, size: int) -> Callable[[], None]:
    """The folder of the results is a disk of so many bytes, with nothing on it."""
    return lambda: _mount(root, f"size={size}")


def _mount(root: Path, options: str) -> None:
    _unshare()
    (root / "new").mkdir(exist_ok=True)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(root / "new")], check=True)


def may_mount() -> bool:
    """Whether this process may have mounts of its own."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    process = os.fork()
    if process == 0:
        try:
            _unshare()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(process, 0)[1] == 0


def _unshare() -> None:
    """Gives this process mounts of its own (Python has a function for it from 3.12 on)."""
    if ctypes.CDLL(None, use_errno=True).unshare(NEW_MOUNTS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
