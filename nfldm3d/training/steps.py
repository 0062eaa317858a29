"""One optimiser step: read, compute, guard against what is not finite, descend, average."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from nfldm3d.signals import Interruption
from nfldm3d.training.processes import largest
from nfldm3d.training.randomness import derive_generator, seed_globally
from nfldm3d.training.run_options import TrainingOptions
from nfldm3d.training.sample_stream import Batch
from nfldm3d.training.saved_state import TrainingState

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer

logger = logging.getLogger(__name__)

BROKEN_SHARE = 0.05
"""Share of broken samples above which a run stops."""
BROKEN_START = 100
"""Samples that this share is taken of at least: one broken sample early on is no reason to stop."""


class DivergenceError(ValueError):
    """Losses or gradients were not finite for too many steps in a row."""


class Agreement(NamedTuple):
    """What all processes know after a step."""

    bad: float
    """1 if the step was not finite anywhere."""
    signal: float
    """Number of the signal that some process received, or 0."""
    seconds: float
    """Time spent, by the clock of the first process."""


class Means:
    """Means of figures since they were last taken."""

    def __init__(self):
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, figures: Mapping[str, Tensor]) -> None:
        """Adds one value of each figure; they stay on their device."""
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach().float()
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The means; what follows is a new window."""
        means = {name: float(value) / self.counts[name] for name, value in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means


class BatchReader:
    """Reads batches onto the device, and counts broken samples."""

    def __init__(self, batches: Iterator[Batch], size: int, device: torch.device):
        self.batches, self.size, self.device = batches, size, device
        self.read = self.broken = 0

    def next(self) -> Any:
        """The next batch.

        Raises:
            ValueError: if too many samples are broken.
        """
        from accelerate.utils import send_to_device

        content, problems = next(self.batches)
        self.read += self.size
        self.broken += len(problems)
        for problem in problems:
            logger.warning("takes another sample in the place of a broken one: %s", problem)
        if content is None or self.broken > BROKEN_SHARE * max(self.read, BROKEN_START):
            raise ValueError(
                f"{self.broken} of the {self.read} samples read are broken, which is too many; the last one: "
                f"{problems[-1] if problems else 'see the log'}; repair or remove them"
            )
        return send_to_device(content, self.device)


class Stepper:
    """Makes steps; all processes come to the same decisions."""

    def __init__(
        self,
        state: TrainingState,
        options: TrainingOptions,
        accelerator: "Accelerator",
        loss: nn.Module,
        optimizer: "AcceleratedOptimizer",
    ):
        self.state, self.options, self.accelerator = state, options, accelerator
        self.loss, self.optimizer = loss, optimizer
        self.means = Means()

    def step(
        self, reader: BatchReader, rate: float, interruption: Interruption, clock: Callable[[], float]
    ) -> Agreement:
        """One step with step size ``rate``; ``clock`` tells the seconds spent so far.

        Raises:
            DivergenceError: if this was one bad step too many.
        """
        progress, options, accelerator = self.state.progress, self.options, self.accelerator
        buffers = {name: value.clone() for name, value in self.state.model.named_buffers()}
        self.state.model.train()
        loss, figures = self._gradients(reader)
        parameters = [parameter for group in self.state.optimizer.param_groups for parameter in group["params"]]
        norm = torch.as_tensor(accelerator.clip_grad_norm_(parameters, options.clip_norm))
        bad = not torch.isfinite(loss) or (not torch.isfinite(norm) and self._scale() <= 1)
        seconds = clock() if accelerator.is_main_process else 0.0
        agreed = Agreement(*largest(accelerator, [float(bad), float(interruption.wanted), seconds]))
        if agreed.bad:
            for name, value in self.state.model.named_buffers():
                value.copy_(buffers[name])
            if self.state.scaler is not None:
                self.state.scaler.update()
        else:
            for group in self.state.optimizer.param_groups:
                group["lr"] = rate * group["rate_factor"]
            self.optimizer.step()
            if torch.isfinite(norm):  # or else fp16 still looks for its scale
                self.means.add({"loss": loss, "gradient_norm": norm} | figures)
        self.optimizer.zero_grad()
        progress.samples += options.batch_size * options.accumulate * accelerator.num_processes
        progress.step += 1
        progress.seconds = agreed.seconds
        self._count(bool(agreed.bad))
        if self.state.ema is not None and not agreed.bad:
            self.state.ema.update(self.state.model, progress.step)
        return agreed

    def _gradients(self, reader: BatchReader) -> tuple[Tensor, dict[str, Tensor]]:
        """Adds up the gradients of the step's parts; returns the mean loss and the last part's figures."""
        step, options, process = self.state.progress.step, self.options, self.accelerator.process_index
        seed_globally(options.seed, "step", step, process)
        total, figures = torch.zeros((), device=self.accelerator.device), {}
        for part in range(options.accumulate):
            batch = reader.next()
            generator = derive_generator(options.seed, "loss", step, part, process)
            last = part == options.accumulate - 1
            with nullcontext() if last else self.accelerator.no_sync(self.loss):
                loss, figures = self.loss(batch, generator)
                self.accelerator.backward(loss / options.accumulate)
            total = total + loss.detach() / options.accumulate
        return total, figures

    def _scale(self) -> float:
        """The loss scale; while fp16 still looks for the right one, infinite gradients are no misfortune."""
        return 1.0 if self.state.scaler is None else self.state.scaler.get_scale()

    def _count(self, bad: bool) -> None:
        progress = self.state.progress
        progress.skipped += bad
        progress.skipped_in_row = progress.skipped_in_row + 1 if bad else 0
        if bad:
            logger.warning("step %d is skipped: its loss or gradient is not finite", progress.step)
        if progress.skipped_in_row >= self.options.max_bad_steps:
            raise DivergenceError(
                f"the losses or gradients of {progress.skipped_in_row} steps in a row, up to step {progress.step}, are "
                "not finite; lower learning_rate or clip_norm, or use precision fp32, and go on with --resume"
            )
