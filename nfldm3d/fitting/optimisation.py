"""The loop of everything that has a gradient: photographs, priors, or whatever a loss can say.

It draws no data and knows no scene: a loss is a function of where the run is, and what moves is a dictionary of tensors
and modules, or anything with the three methods of ``Parameters``.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

from nfldm3d._types import PathName
from nfldm3d.files import DataFormatError
from nfldm3d.fitting.checkpoint import ANEW, Checkpoint
from nfldm3d.fitting.parameters import TensorParameters
from nfldm3d.fitting.schedule import OptimisationError, Schedule, Step
from nfldm3d.messages import to_one_line
from nfldm3d.signals import Interruption, end_for

logger = logging.getLogger(__name__)

BAR = "{desc} {percentage:3.0f}% |{bar}| {elapsed}{postfix}"
SHOWN_EVERY = 10
"""Steps between two texts in the progress bar."""


@runtime_checkable
class Parameters(Protocol):
    """What a run changes."""

    def advance(self, step: Step) -> None:
        """Takes a step of size ``step.rate`` against the gradients that the loss has left, and clears them."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All that a resumed run needs."""
        ...

    def restore(self, state: dict[str, Tensor]) -> None:
        """Puts what ``state`` gave in place of what is there.

        Raises:
            ValueError: it is the state of something else; nothing has changed.
        """
        ...


Loss: TypeAlias = Callable[[Step], Tensor | Mapping[str, Tensor]]
"""What is to become small: one number, or several by name, whose sum counts."""
Callback: TypeAlias = Callable[[Step], str | None]
"""Is told of every step after it was taken; what it returns stands in the progress bar."""


def optimise(
    parameters: Parameters | Mapping[str, Tensor | nn.Module],
    loss: Loss,
    schedule: Schedule | None = None,
    *,
    checkpoint: Checkpoint | PathName | None = None,
    generator: torch.Generator | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Step:
    """Makes a loss small by steps against its gradient; what moves is changed in place.

    Args:
        parameters: tensors and modules by name, which Adam moves, or anything that moves itself.
        checkpoint: a file that keeps the state once a minute; if it exists, the run goes on from there, on a CPU bit
            for bit as if it had never stopped, given a schedule of steps alone. Ctrl-C and SIGTERM let the step
            finish, save, and raise ``KeyboardInterrupt`` or ``SystemExit(143)``. It stays when the run has ended:
            delete it once the result is safe. One that cannot be written is told to the log, and the run goes on.
        generator: what the loss draws from; its state goes into the checkpoint.
        callbacks: called after every step.
        progress: whether a bar is shown.

    Raises:
        OptimisationError: a loss or gradient is not finite; it names the step.
        DataFormatError: the checkpoint is damaged, belongs to another run, or holds other tensors.
    """
    moving = TensorParameters(parameters) if isinstance(parameters, Mapping) else parameters
    schedule, step = schedule or Schedule(), Step()
    kept = checkpoint if checkpoint is None or isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
    if kept is not None and (found := kept.load(generator)) is not None:
        try:
            moving.restore(found.tensors)
        except ValueError as error:
            raise DataFormatError(kept.path, f"is the state of something else: {error}; {ANEW}") from error
        step.number, step.seconds = found.number, found.seconds
    keeper = None if kept is None else _Keeper(kept, moving, generator, step.seconds)
    clock = time.monotonic() - step.seconds
    with nullcontext() if keeper is None else keeper.interruption, _open_bar(schedule.name, progress) as bar:
        while (share := schedule.share(step.number, step.seconds)) < 1 and not step.stopped:
            step.share, step.rate = share, schedule.rate_at(step.number, share)
            step.losses = _descend(loss, step)
            moving.advance(step)
            step.number += 1
            step.seconds = time.monotonic() - clock
            _show(bar, step, [text for callback in callbacks if (text := callback(step))])
            if keeper is not None:
                keeper.look(step, bar)
        bar.n = bar.n if step.stopped else 100
        if keeper is not None:
            keeper.finish(step, bar)
    if keeper is not None and keeper.interruption.wanted:
        end_for(keeper.interruption.wanted)
    return step


class _Keeper:
    """Writes checkpoints when they are due, and before a run that a signal asks to end does so."""

    def __init__(self, checkpoint: Checkpoint, moving: Parameters, generator: torch.Generator | None, seconds: float):
        self.checkpoint, self.moving, self.generator = checkpoint, moving, generator
        self.saved_at, self.interruption = seconds, Interruption()

    def look(self, step: Step, bar: Any) -> None:
        """Saves after a step, if it is time to."""
        if self.interruption.wanted or step.seconds - self.saved_at > self.checkpoint.every_seconds:
            self._save(step, bar)

    def finish(self, step: Step, bar: Any) -> None:
        """Saves the end of a run, so that nothing is lost before the result is safe."""
        if self.saved_at < step.seconds:
            self._save(step, bar)

    def _save(self, step: Step, bar: Any) -> None:
        signal = self.interruption.wanted
        try:
            self.checkpoint.save(self.moving.state(), step.number, step.seconds, self.generator)
        except (OSError, ValueError) as error:
            bar.clear()
            then = "" if signal else "; going on without it: make room, or stop and choose another disk"
            logger.warning("cannot keep the state of step %d (%s)%s", step.number, to_one_line(str(error)), then)
        self.saved_at = step.seconds
        if signal:
            end_for(signal)


def _descend(loss: Loss, step: Step) -> dict[str, float]:
    """Leaves the gradient of the loss, and returns its parts; nothing has moved yet if it raises."""
    value = loss(step)
    parts = {"loss": value} if isinstance(value, Tensor) else dict(value)
    total = sum(parts.values())
    if not isinstance(total, Tensor) or total.dim() != 0 or not total.requires_grad:
        raise ValueError(
            f"step {step.number + 1}: a loss must be a scalar that depends on the parameters, got {total}; "
            "return the mean, and do not detach it"
        )
    figures = dict(zip(parts, torch.stack([part.detach() for part in parts.values()]).tolist(), strict=True))
    for name, figure in figures.items():
        if not math.isfinite(figure):
            raise OptimisationError(
                f"step {step.number + 1}: {name} is {figure}; lower the rate ({step.rate:.3g} now), or look for the "
                "input that is not finite"
            )
    total.backward()
    return figures


def _open_bar(name: str, progress: bool) -> AbstractContextManager[Any]:
    from tqdm.auto import tqdm

    return tqdm(total=100, unit="%", desc=name, disable=not progress, bar_format=BAR)


def _show(bar: Any, step: Step, texts: list[str]) -> None:
    bar.n = int(100 * step.share)
    if texts:
        bar.set_postfix_str(", ".join(texts))
    elif step.number % SHOWN_EVERY == 0:
        losses = ", ".join(f"{name} {figure:.4g}" for name, figure in step.losses.items())
        bar.set_postfix_str(f"{losses}, step {step.number}")
