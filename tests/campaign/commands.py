"""Commands that make something, on data so small that each takes a second, and what of their results stays the same."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm
from tqdm.auto import tqdm as auto_tqdm

from campaign import newer_commands

LONGEST = 300.0
"""Seconds after which a command hangs."""
HANG = 124
"""Its status then."""
FIT = ["--steps", "60", "--rays-per-step", "64", "--voxels", "1000", "--surroundings", "0", "--degree", "0"]
GENERATE = ["--weights", "weights", "--steps", "2", "--frames", "0", "--no-mesh", "--width", "8", "--height", "6"]
TRAIN = ["train", "denoiser", "--level", "g", "--latents", "latents", "--held-out", "latents", "--out", "new"]
TRAIN += ["--device", "cpu", "--resume"]
COMMANDS: Mapping[str, list[str]] = {
    "fit": ["fit", "capture", "--out", "new/fit.nfld", *FIT, "--device", "cpu"],
    "export": ["export", "ball.nfld", "--mesh", "new/a.glb", "--points", "new/a.ply", "--volume", "new/a.vdb"],
    "export usd": ["export", "ball.nfld", "--mesh", "new/a.usda"],
    "render": [
        "render",
        "ball.nfld",
        "--out",
        "new",
        "--views",
        "3",
        "--width",
        "32",
        "--height",
        "24",
        "--device",
        "cpu",
    ],
    "encode": ["encode", "shards", "--weights", "weights", "--out", "new", "--turns", "0", "1", "--device", "cpu"],
    "generate": ["generate", "--out", "new", "--scenes", "3", *GENERATE, "--device", "cpu"],
    "assemble": ["assemble", "--out", "new/weights", "--latents", "latents", "--parts", "weights"],
    "train": [*TRAIN, "--steps", "6", "--save-every", "2", "--evaluate-every", "3", "--batch-size", "2"],
    "capture": ["capture", "vizdoom", "--out", "new/capture", "--views", "4", "--size", "16"],
    **newer_commands.COMMANDS,
}


def make_data(root: Path) -> None:
    """Fills a folder with what the commands take."""
    from small_fits import ball_scene, views_of
    from small_rooms import labelled, scene_generator

    from nfldm3d.cli import main
    from nfldm3d.data.scene_shards import ShardIndex, write_index, write_shard

    ball_scene().save(root / "ball.nfld")
    views_of(ball_scene(), count=3, size=(12, 10)).save(root / "capture")
    torch.manual_seed(0)
    scene_generator().save_pretrained(root / "weights")
    (root / "shards").mkdir()
    shard, scenes = write_shard(
        root / "shards" / "train-000000.tar", [replace(labelled(n), key=f"train_{n}", split="train") for n in range(4)]
    )
    write_index(root / "shards", ShardIndex((shard,), scenes))
    given = ["--weights", str(root / "weights"), "--keep", "latents", "--turns", "0", "--device", "cpu"]
    assert main(["encode", str(root / "shards"), "--out", str(root / "latents"), *given]) == 0
    newer_commands.make_data(root)


@dataclass(frozen=True)
class Ending:
    """How a command ended."""

    status: int
    """Exit code, or minus the number of the signal that killed it."""
    said: str
    """On stderr."""
    seconds: float

    @property
    def told(self) -> list[str]:
        """Lines on stderr that are no progress bars."""
        lines = self.said.replace("\r", "\n").splitlines()
        return [line for line in lines if line.startswith("nfldm3d: ") or "Traceback" in line or "Error" in line]


def run(
    root: Path,
    arguments: list[str],
    *,
    number: int | None = None,
    after: float = 0.0,
    before: Callable[[], None] | None = None,
) -> Ending:
    """Runs a command in a fork of this process, which has imported all there is; perhaps it gets a signal.

    Args:
        after: seconds until the signal ``number`` comes.
        before: called in the new process.
    """
    said, start = root / "said", time.monotonic()
    ready, begun = os.pipe()
    with said.open("wb") as file:  # through a process for which no limit of files holds
        keeper = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file)
    assert keeper.stdin is not None
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process == 0:
        status = 70
        try:
            os.setsid()
            os.chdir(root)
            for target in (0, 1):
                os.dup2(os.open(os.devnull, os.O_RDWR), target)
            os.dup2(keeper.stdin.fileno(), 2)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for bar in (tqdm, auto_tqdm):  # its own is shared with forks, and one that was killed may have it
                bar.set_lock(threading.RLock())
            if before is not None:
                before()
            os.write(begun, b"!")
            status = _main(arguments)
        except BaseException:  # of ours, such as a disk that could not be mounted: the command never began
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(begun)
    keeper.stdin.close()
    os.read(ready, 1)
    os.close(ready)
    if number is not None:
        _wait(process, after) or os.kill(process, number)
    hangs = not _wait(process, LONGEST)
    if hangs:
        os.kill(process, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    try:
        keeper.wait(10)
    except subprocess.TimeoutExpired:  # workers of what was killed may still hold its stderr
        keeper.kill()
        keeper.wait()
    if hangs:
        return Ending(HANG, f"hangs for {LONGEST:.0f} seconds", time.monotonic() - start)
    return Ending(status, said.read_text(encoding="utf-8", errors="replace"), time.monotonic() - start)


def _main(arguments: list[str]) -> int:
    """As the installed command ends."""
    from nfldm3d.cli import main

    try:
        return main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _wait(process: int, seconds: float) -> bool:
    """Whether a process has ended within so many seconds; it stays to be waited for."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
            return True
        time.sleep(0.002)
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def leftovers(root: Path) -> list[str]:
    """What should not be there when a command has ended well."""
    hidden = [path for path in root.rglob(".*") if path.name not in (".nfldm3d.json",)]
    return sorted(str(path.relative_to(root)) for path in hidden)


def digest(root: Path) -> dict[str, str]:
    """What must be the same in results: numbers, not when they were made."""
    sums = {}
    for path in sorted((root / "new").rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.suffix == ".nfld":
            from nfldm3d import Scene, VoxelField

            field = Scene.load(path).field
            assert isinstance(field, VoxelField)
            sums[name] = _sum(field.density.numpy().tobytes() + field.features.numpy().tobytes())
        elif path.suffix in (".safetensors", ".png", ".glb", ".ply", ".vdb", ".usda") and "contact" not in name:
            sums[name] = _sum(path.read_bytes())
    return sums


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
