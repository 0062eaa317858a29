"""Long work behind the page: one task at a time, with progress, a way to stop it, and its error in one line."""

import threading
from collections.abc import Callable

import torch

FAILURES = (ValueError, ImportError, OSError, MemoryError, RuntimeError, torch.OutOfMemoryError)
"""What a task may raise without the page suffering; anything else is a mistake in this program."""


class Cancelled(Exception):
    """Somebody has stopped the task."""


class Progress:
    """What a task tells while it works, and is told."""

    def __init__(self, tell: Callable[[float], None]):
        self._tell, self._stopped = tell, threading.Event()

    def __call__(self, share: float) -> None:
        """Tells how much is done, 0 to 1; raises ``Cancelled`` if the task has been stopped."""
        if self._stopped.is_set():
            raise Cancelled
        self._tell(min(max(share, 0.0), 1.0))

    def stop(self) -> None:
        """Lets the task end at its next step."""
        self._stopped.set()


class TaskRunner:
    """Runs one task at a time in a thread of its own."""

    def __init__(self, say: Callable[[str], None], tell: Callable[[float | None], None]):
        """Nothing runs yet.

        Args:
            say: shows one line.
            tell: shows the share that is done; None while nothing runs.
        """
        self._say, self._tell = say, tell
        self._lock, self._progress = threading.Lock(), None
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether a task runs."""
        return self._progress is not None

    def start(self, name: str, work: Callable[[Progress], str]) -> None:
        """Begins a task, which returns the line that is shown when it is done.

        Raises:
            ValueError: another one runs.
        """
        with self._lock:
            if self._progress is not None:
                raise ValueError("something is being made already: wait for it, or cancel it")
            progress = self._progress = Progress(self._tell)
        self._tell(0.0)
        self._say(f"{name} ...")
        self._thread = threading.Thread(target=self._run, args=(name, work, progress), name=name, daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Stops the task at its next step."""
        progress = self._progress
        if progress is not None:
            progress.stop()
            self._say("stopping ...")

    def wait(self, seconds: float) -> None:
        """Until nothing runs any more, but no longer than so."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _run(self, name: str, work: Callable[[Progress], str], progress: Progress) -> None:
        line = f"{name} failed"
        try:
            line = work(progress)
        except Cancelled:
            line = f"{name}: cancelled"
        except FAILURES as error:
            line = f"{name} failed: {' '.join(str(error).split()) or type(error).__name__}"
        finally:
            self._say(line)  # first, lest it stands in the place of what the next task says
            self._progress = None
            self._tell(None)
