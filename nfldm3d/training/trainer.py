"""The loop: step, log, judge and save on schedule, and end in good order."""

import logging
import math
import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nfldm3d._types import PathName
from nfldm3d.signals import Interruption, end_for
from nfldm3d.training.averaging import AveragedWeights
from nfldm3d.training.processes import StageLoss, largest, make_optimizer, start_processes
from nfldm3d.training.randomness import borrowed_generators, derive_generator, seed_globally
from nfldm3d.training.reports import Reports
from nfldm3d.training.run_folder import RunFolder
from nfldm3d.training.run_options import TrainingOptions
from nfldm3d.training.sample_stream import Positions, SampleStream, open_stream
from nfldm3d.training.saved_state import Progress, TrainingState, load_checkpoint
from nfldm3d.training.stage import Evaluation, Paced, Stage
from nfldm3d.training.steps import BatchReader, Stepper

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """What came out of a run."""

    step: int
    """Steps done."""
    seconds: float
    """Time spent, over all sittings."""
    skipped: int
    """Steps whose loss or gradient was not finite."""
    evaluation: Evaluation | None
    """The last one; None in all processes but the first."""
    best_step: int
    """Step of the best evaluation, whose checkpoint is kept."""
    best_score: float


def train(
    stage: Stage, folder: PathName, *, options: TrainingOptions | None = None, resume: bool = False
) -> TrainingResult:
    """Trains ``stage.model`` and keeps checkpoints, logs and configuration in the run folder ``folder``.

    Runs in this process alone, or in as many as ``torchrun`` started (``accelerate launch`` starts several on GPUs, but
    only one on a CPU); all of them need to see the same folder. With ``resume`` a run goes on from its newest whole
    checkpoint, on a CPU bit for bit as if it had never stopped, given the same options and number of processes; if
    there is none, it begins. Ctrl-C and SIGTERM let the step finish, save, and raise ``KeyboardInterrupt`` or
    ``SystemExit(143)``.

    Raises:
        ValueError: if the options do not fit this machine, the folder is in use by another process or holds a run
            that was not meant to be resumed, or too many samples are broken.
        DataFormatError: if the folder holds a run of another network, or only damaged checkpoints.
        DivergenceError: if the losses or gradients of too many steps in a row were not finite.
        OSError: if a checkpoint cannot be written; the one before stays.
    """
    options = options or TrainingOptions()
    if len(stage.source) == 0:
        raise ValueError(f"{stage.name} has no samples to train on; check the data folder and the split")
    accelerator = start_processes(options, stage.optional_parameters)
    run = RunFolder(Path(folder))
    with ExitStack() as stack:
        if accelerator.is_main_process:
            stack.enter_context(run.locked())
        stack.enter_context(borrowed_generators(accelerator.device))
        session = _Session(stage, run, options, accelerator)
        session.begin(resume)
        if accelerator.is_main_process:
            reports = Reports(run.path, stage.name, session.state.progress.step, options.steps)
            session.reports = stack.enter_context(reports)
        interruption = stack.enter_context(Interruption())
        result = session.finish(signal := session.run_steps(interruption))
    if accelerator.device.type != "cpu":  # whose memory needs no look at every object of the process
        accelerator.free_memory()
    if accelerator.num_processes > 1:
        accelerator.end_training()
    if signal or interruption.wanted:  # the latter during the last evaluation
        end_for(signal or interruption.wanted)
    return result


class _Session:
    """One sitting of a run."""

    def __init__(self, stage: Stage, run: RunFolder, options: TrainingOptions, accelerator: "Accelerator"):
        self.stage, self.run, self.options, self.accelerator = stage, run, options, accelerator
        stage.to(accelerator.device)
        optimizer = make_optimizer(stage.model, options, stage.paces() if isinstance(stage, Paced) else None)
        loss, prepared = accelerator.prepare(StageLoss(stage), optimizer)
        ema = AveragedWeights(stage.model, options.ema_decay) if options.ema_decay else None
        self.state = TrainingState(stage.model, optimizer, ema, accelerator.scaler, Progress())
        self.stepper = Stepper(self.state, options, accelerator, loss, prepared)
        self.reports: Reports | None = None
        self.evaluation: Evaluation | None = None
        self.evaluated = self.saved = -1

    def begin(self, resume: bool) -> None:
        """Begins a run folder or goes on with it."""
        step = -1
        if self.accelerator.is_main_process:
            step = self._claim_folder(resume)
        step = int(largest(self.accelerator, [float(step)])[0])
        if step >= 0:
            load_checkpoint(self.run.checkpoint(step), self.state)
            self.saved = step
            logger.info("goes on from step %d in %s", step, self.run.path)

    def _claim_folder(self, resume: bool) -> int:
        """The step to go on from, or -1."""
        name, config, steps = self.stage.name, self.stage.config(), self.run.steps()
        newest = None
        if steps:
            if not resume:
                raise ValueError(
                    f"{self.run.path} holds a run (step {steps[-1]}); add --resume or choose another folder"
                )
            self.run.require_same_run(name, config, self.options)
            newest = self.run.newest()
        self.run.write_config(name, config, self.options)
        return -1 if newest is None else newest

    def run_steps(self, interruption: Interruption) -> int:
        """Steps until the schedule is over or a signal came, whose number is returned."""
        progress, options = self.state.progress, self.options
        reader, start = self._open_reader(), time.monotonic() - progress.seconds
        share, signal = options.share(progress.step, progress.seconds), 0
        while share < 1 and not signal:
            rate = options.rate(progress.step, share)
            agreed = self.stepper.step(reader, rate, interruption, lambda: time.monotonic() - start)
            share, signal = options.share(progress.step, agreed.seconds), int(agreed.signal)
            self._report(share, rate)
            if options.evaluate_every and progress.step % options.evaluate_every == 0 and not signal:
                self._evaluate()
            if progress.step % options.save_every == 0 or progress.best_step == progress.step:
                self._save()
        return signal

    def finish(self, signal: int) -> TrainingResult:
        """Saves, after a last look unless a signal came."""
        progress = self.state.progress
        if not signal and self.evaluated != progress.step:
            self._evaluate()
        if self.saved != progress.step or progress.best_step == progress.step:
            self._save()
        if signal:
            logger.warning("stopped by signal %d after step %d; go on with --resume", signal, progress.step)
        return TrainingResult(
            progress.step,
            progress.seconds,
            progress.skipped,
            self.evaluation,
            progress.best_step,
            progress.best_score,
        )

    def _open_reader(self) -> BatchReader:
        options, accelerator = self.options, self.accelerator
        positions = Positions(
            self.state.progress.samples, options.batch_size, accelerator.process_index, accelerator.num_processes
        )
        stream = SampleStream(self.stage.source, options.seed)
        batches = open_stream(stream, positions, options.workers, accelerator.device)
        return BatchReader(batches, options.batch_size, accelerator.device)

    def _report(self, share: float, rate: float) -> None:
        progress = self.state.progress
        if self.reports is None:
            return
        self.reports.advance(progress.step, share)
        if progress.step % self.options.log_every == 0:
            figures = self.stepper.means.take()
            figures |= {"rate": rate, "steps_per_second": self.reports.speed, "skipped": float(progress.skipped)}
            self.reports.scalars(progress.step, figures, "train")

    def _evaluate(self) -> None:
        """Judges the averaged weights, in the first process only."""
        progress, model = self.state.progress, self.stage.model
        self.evaluated = progress.step
        if self.reports is None:
            return
        seed_globally(self.options.seed, "evaluation")
        model.eval()
        with torch.no_grad(), self.state.ema.lent_to(model) if self.state.ema is not None else nullcontext():
            self.evaluation = self.stage.evaluate(derive_generator(self.options.seed, "evaluation"))
        score = float(self.evaluation.score)
        if math.isfinite(score) and (progress.best_step < 0 or score > progress.best_score):
            progress.best_step, progress.best_score = progress.step, score
        self.reports.evaluation(progress.step, self.evaluation)

    def _save(self) -> None:
        self.saved = self.state.progress.step
        if self.accelerator.is_main_process:
            self.run.save(self.state, self.options.keep_last)
