"""The folder of a run: who uses it, what it trains, and its checkpoints.

config.json             stage, network, options, versions
checkpoints/step-00001000/
logs/                   TensorBoard
log.jsonl               the same figures, one line each
images/                 the last evaluation's pictures
"""

import errno
import json
import logging
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from nfldm3d.file_locks import locked
from nfldm3d.files import DataFormatError, atomic_write, read_json, refuse_outside
from nfldm3d.messages import to_one_line
from nfldm3d.temporary_files import sweep
from nfldm3d.training.run_options import TrainingOptions
from nfldm3d.training.saved_state import TrainingState, find_damage, read_progress, remove_checkpoint, save_checkpoint

logger = logging.getLogger(__name__)

VERSION = 1
EXACTNESS = ("batch_size", "accumulate", "learning_rate", "schedule", "warmup_steps", "weight_decay", "betas")
EXACTNESS += ("clip_norm", "ema_decay", "precision", "seed", "steps", "time_budget")
"""Options that must stay as they are for a run to go on as if it had never stopped."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.path / "checkpoints"

    def checkpoint(self, step: int) -> Path:
        """The checkpoint of one step."""
        return self.checkpoints / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, whole or not, in ascending order."""
        names = [path.name.removeprefix("step-") for path in self.checkpoints.glob("step-*")]
        return sorted(int(name) for name in names if name.isdigit())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes out for the length of the block; the system frees the folder if this process dies.

        Raises:
            ValueError: if another process uses the folder, or it holds something else than a run.
        """
        self.require_own()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"cannot write {self.path}: {error.strerror}; choose another folder") from error
        with locked(self.path / "lock", wait=False):
            self._refuse_links()
            sweep(self.checkpoints)
            yield

    def _refuse_links(self) -> None:
        refuse_outside(
            self.path, self.path / "config.json", self.checkpoints, *(self.checkpoint(step) for step in self.steps())
        )

    def require_own(self) -> None:
        """Raises ValueError if the folder holds anything but a run, which is known by its config: nobody's config.json,
        log.jsonl or lock is written over."""
        others = {path.name for path in self.path.iterdir()} - {"lock"} if self.path.is_dir() else set()
        if others:
            refuse_outside(self.path, self.path / "config.json")
            config = read_json(self.path / "config.json") if "config.json" in others else None
            if not isinstance(config, dict) or not {"version", "stage", "options"} <= config.keys():
                raise ValueError(f"{self.path} holds {min(others)}, but no training run; choose another folder")

    def write_config(self, stage: str, model: dict[str, Any], options: TrainingOptions) -> None:
        """Says what the run trains, and how."""
        import accelerate
        import safetensors

        versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
        versions |= {"accelerate": accelerate.__version__, "safetensors": safetensors.__version__}
        config = {"version": VERSION, "stage": stage, "model": model, "options": asdict(options), "versions": versions}
        with atomic_write(self.path / "config.json") as temporary:
            temporary.write_text(json.dumps(config, indent=1), encoding="utf-8")

    def read_config(self) -> dict[str, Any]:
        """What ``write_config`` wrote.

        Raises:
            DataFormatError: if it is missing, damaged, or of another version.
        """
        config = read_json(self.path / "config.json")
        if not isinstance(config, dict) or config.get("version") != VERSION:
            raise DataFormatError(self.path / "config.json", f"is not of version {VERSION}; choose another run folder")
        for name in ("model", "options"):
            if not isinstance(config.get(name, {}), dict | None):
                raise DataFormatError(self.path / "config.json", f"{name} is no table; choose another run folder")
        return config

    def require_same_run(self, stage: str, model: dict[str, Any], options: TrainingOptions) -> None:
        """Raises DataFormatError unless the folder holds a run of the same network; other options are logged."""
        config = self.read_config()
        model = json.loads(json.dumps(model))
        known = config.get("model") or {}
        differing = [key for key in sorted({*model, *known}) if model.get(key) != known.get(key)]
        if config.get("stage") != stage:
            raise DataFormatError(
                self.path / "config.json", f"is a run of {config.get('stage')}, not {stage}; choose another run folder"
            )
        if differing:
            shown = ", ".join(f"{key} {known.get(key)}, not {model.get(key)}" for key in differing[:4])
            raise DataFormatError(
                self.path / "config.json", f"trains another network: {shown}; use its options or another run folder"
            )
        before, now = config.get("options") or {}, json.loads(json.dumps(asdict(options)))
        changed = [f"{name} {before.get(name)} -> {now[name]}" for name in EXACTNESS if before.get(name) != now[name]]
        if changed:
            told = to_one_line(", ".join(changed))
            logger.warning("goes on with other options, not as if it had never stopped: %s", told)

    def newest(self) -> int | None:
        """The step of the newest whole checkpoint, or None if there is none at all; damaged ones are set aside.

        Raises:
            DataFormatError: if there are checkpoints, but all are damaged.
        """
        damage = None
        for step in reversed(self.steps()):
            folder = self.checkpoint(step)
            damage = find_damage(folder)
            if damage is None:
                return step
            told = to_one_line(damage)
            logger.warning("%s is damaged (%s); falling back to the checkpoint before", folder, told)
            shutil.rmtree(aside := folder.with_name(f"{folder.name}.damaged"), ignore_errors=True)
            os.replace(folder, aside)
        if damage is not None:
            raise DataFormatError(self.checkpoints, f"holds damaged checkpoints only ({damage}); start anew elsewhere")
        return None

    def save(self, state: TrainingState, keep_last: int) -> None:
        """Writes a checkpoint and removes those no longer needed: all but the newest few and the best.

        Raises:
            OSError: if it cannot be written; the message says which checkpoint is left.
        """
        kept = self.steps()
        try:
            _require_space(self.path, state)
            save_checkpoint(self.checkpoint(state.progress.step), state)
        except OSError as error:
            left = f"the checkpoint of step {kept[-1]} is whole" if kept else "there is no earlier checkpoint"
            remedy = f"{left}; make room and go on with --resume"
            raise OSError(f"cannot save step {state.progress.step} in {self.path} ({error}); {remedy}") from error
        for step in self.steps()[:-keep_last]:
            if step != state.progress.best_step:
                remove_checkpoint(self.checkpoint(step))

    def find(self, which: str) -> Path:
        """The ``newest`` or ``best`` checkpoint.

        Raises:
            DataFormatError: if there is none that is whole.
        """
        self._refuse_links()
        step = next((step for step in reversed(self.steps()) if find_damage(self.checkpoint(step)) is None), None)
        if step is None:
            raise DataFormatError(self.path, "has no whole checkpoint; give the folder of a run that has saved one")
        best = self.checkpoint(read_progress(self.checkpoint(step)).best_step)
        if which == "best" and best.is_dir() and find_damage(best) is None:
            return best
        return self.checkpoint(step)


def _require_space(folder: Path, state: TrainingState) -> None:
    """Raises OSError if a checkpoint of this state does not fit on the disk."""
    weights = sum(value.numel() * value.element_size() for value in state.model.state_dict().values())
    needed, free = 4 * weights + 2**20, shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{needed / 2**20:.0f} MiB are needed, {free / 2**20:.0f} MiB are free")
