"""``make campaign``: mutants of every format, kills, signals, full disks and little memory, in a bounded time.

``python tests/campaign --seconds 600 --only mutants,kills --format shards --first 0 --mutants 5000`` runs a part; the
numbers of mutants say all about them, so that what was found can be tried again.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]
os.environ.setdefault("OMP_NUM_THREADS", "1")

MIB = 2**20
COLUMNS = ("value", "refused", "long", "other", "warning", "hang", "memory", "crash", "outside")


def main() -> int:
    """Runs what is asked for, prints tables, and returns how many kinds of faults there were, at most 100."""
    options = _parse()
    import torch

    torch.set_num_threads(1)
    end, faults = time.monotonic() + options.seconds, 0
    parts = options.only.split(",")
    if "mutants" in parts:
        faults += _attack(options, end)
    if {"kills", "signals", "disks"} & set(parts):
        faults += _stop(options, parts, end)
    return min(faults, 100)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="all together")
    parser.add_argument("--only", default="mutants,kills,signals,disks")
    parser.add_argument("--format", default="", help="formats, with commas; all by default")
    parser.add_argument("--command", default="", help="commands, with commas; all by default")
    parser.add_argument("--mutants", type=int, default=5000, help="of each format")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--kills", type=int, default=10, help="and signals, of each command")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of kills and signals")
    return parser.parse_args()


def _attack(options: argparse.Namespace, end: float) -> int:
    from campaign.mutants import Tally, attack
    from campaign.readers import FORMATS

    names = options.format.split(",") if options.format else list(FORMATS)
    share = 1.0 if options.only == "mutants" else 0.6
    print(f"{'format':<16} {'mutants':>8} " + " ".join(f"{column:>8}" for column in COLUMNS))
    tallies: dict[str, Tally] = {}
    for place, name in enumerate(names):
        seconds = share * (end - time.monotonic()) / (len(names) - place)
        tally = tallies[name] = attack(name, range(options.first, options.first + options.mutants), seconds)
        counts = " ".join(f"{tally.counts[column]:>8}" for column in COLUMNS)
        print(f"{name:<16} {sum(tally.counts.values()):>8} {counts}", flush=True)
        for kind, (number, told) in tally.faults.items():
            print(f"    {kind} (number {number}): {told}", flush=True)
    return sum(len(tally.faults) for tally in tallies.values())


def _stop(options: argparse.Namespace, parts: list[str], end: float) -> int:
    from campaign import stops
    from campaign.commands import COMMANDS, make_data

    names = options.command.split(",") if options.command else list(COMMANDS)
    faults = 0
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        make_data(root)
        deeds: dict[str, Callable[[str], tuple[Counter[str], list[str]]]] = {
            "kills": lambda name: stops.kill(root, name, options.kills, random.Random(f"{options.seed} {name}")),
            "signals": lambda name: stops.interrupt(root, name, options.kills, random.Random(f"{options.seed} {name}")),
            "disks": lambda name: stops.starve(root, name, _limits(root)),
        }
        for part, deed in deeds.items():
            for name in names if part in parts else ():
                if time.monotonic() > end:
                    print(f"{part:<8} {name:<12} left out: the time is over")
                    continue
                counts, problems = deed(name)
                print(f"{part:<8} {name:<12} {dict(counts)} {len(problems)} problems", flush=True)
                faults += len(problems)
                for problem in problems[:5]:
                    print(f"    {problem}", flush=True)
    return faults


def _limits(root: Path) -> list[Callable[[], None]]:
    from campaign import stops

    limits = [stops.files_up_to(size) for size in (0, 100, 5000, 100_000)]
    limits += [stops.memory_up_to(size) for size in (32 * MIB, 64 * MIB, 128 * MIB, 512 * MIB)]
    if stops.may_mount():
        limits += [stops.read_only(root)] + [stops.small_disk(root, size) for size in (4096, 65536, MIB)]
    return limits


if __name__ == "__main__":
    sys.exit(main())
