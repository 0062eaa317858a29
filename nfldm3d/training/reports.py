"""What a run says while it goes on: a progress bar, TensorBoard, a log of JSON lines, pictures."""

import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from nfldm3d.files import DataFormatError, atomic_write
from nfldm3d.pictures import save_contact_sheet
from nfldm3d.temporary_files import telling_of_disks
from nfldm3d.training.stage import Evaluation

logger = logging.getLogger(__name__)

SHOWN = 8
"""Pictures of a kind at most."""
SPEED_MEMORY = 0.95
"""Share of the speed shown that stays from one step to the next."""


class Reports:
    """Writes a run's figures; use it as a context. Entries of a former sitting after ``step`` are dropped."""

    def __init__(self, folder: Path, name: str, step: int, steps: int):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.folder, self.logs = folder, folder / "logs"
        self.steps = steps
        self.log = folder / "log.jsonl"
        _forget_after(self.log, step)
        self.first = step + 1
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"))
        columns += (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
        self.bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=False)
        self.task = self.bar.add_task(name, total=1.0, note="")
        self.note = ""
        self.speed = 0.0
        self.before = time.monotonic()
        self.thread_hook = threading.excepthook

    def __enter__(self) -> "Reports":
        from torch.utils.tensorboard.writer import SummaryWriter

        threading.excepthook = self._hear
        try:
            with telling_of_disks(self.logs):
                self.board = SummaryWriter(str(self.logs), purge_step=self.first)
        except BaseException:
            threading.excepthook = self.thread_hook
            raise
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()
        try:
            with telling_of_disks(self.logs):
                self.board.close()
        finally:
            threading.excepthook = self.thread_hook

    def _hear(self, failure: threading.ExceptHookArgs) -> None:
        """TensorBoard's thread need not print why it ended: it tells whoever writes next."""
        if not type(failure.thread).__module__.startswith("tensorboard."):
            self.thread_hook(failure)

    def advance(self, step: int, share: float) -> None:
        """Shows that a step is done; ``share`` of the schedule is over."""
        now = time.monotonic()
        speed = 1 / max(now - self.before, 1e-9)
        self.speed = SPEED_MEMORY * self.speed + (1 - SPEED_MEMORY) * speed if self.speed else speed
        self.before = now
        self.bar.update(self.task, completed=share, note=f"step {step}  {self.speed:.2f} steps/s  {self.note}")

    def scalars(self, step: int, values: Mapping[str, float], group: str) -> None:
        """Logs figures under ``group/name``."""
        with telling_of_disks(self.logs):
            for name, value in values.items():
                self.board.add_scalar(f"{group}/{name}", value, step)
        with telling_of_disks(self.log), open(self.log, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "group": group} | dict(values)) + "\n")
        if "loss" in values:
            self.note = f"loss {values['loss']:.4g}"
        logger.info(
            "step %d of %d, %s: %s", step, self.steps, group, " ".join(f"{k} {v:.4g}" for k, v in values.items())
        )

    def evaluation(self, step: int, evaluation: Evaluation) -> None:
        """Logs an evaluation, and its pictures as PNG files in ``images/`` too."""
        self.scalars(step, {"score": evaluation.score} | dict(evaluation.scalars), "evaluation")
        for name, picture in evaluation.images.items():
            pictures = as_pictures(picture)
            with telling_of_disks(self.logs):
                self.board.add_images(name, pictures, step)
            save_contact_sheet({name: pictures}, self.folder / "images" / f"{name.replace('/', '-')}.png")
        with telling_of_disks(self.logs):
            self.board.flush()
        self.before = time.monotonic()


def as_pictures(picture: Tensor) -> Tensor:
    """Some of the pictures as (views 3 height width) on the CPU, within [0, 1]."""
    pictures = picture.detach().float().cpu().reshape(-1, *picture.shape[-3:])[:SHOWN].clamp(0, 1)
    return pictures.expand(-1, 3, -1, -1) if pictures.shape[1] == 1 else pictures


def _forget_after(log: Path, step: int) -> None:
    """Removes lines of steps that will be done again, and a last line that was cut off."""
    if not os.path.lexists(log):
        return
    if log.is_symlink() or not log.is_file():
        raise DataFormatError(log, "is a link or no file, and what it leads to is not ours to write; remove it")
    kept = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        done = entry.get("step") if isinstance(entry, dict) else None
        if isinstance(done, int) and done <= step:
            kept.append(line + "\n")
    with atomic_write(log) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
