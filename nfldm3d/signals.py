"""Ctrl-C and SIGTERM ask for an orderly end; a second one, a moment later, ends at once."""

import signal
import threading
import time
from types import FrameType

PATIENCE = 1.0
"""Seconds in which further signals count as the same wish: a terminal and a launcher both pass on one Ctrl-C."""


class Interruption:
    """Collects signals while its block runs. ``wanted`` is the number of the first one, or 0."""

    def __init__(self):
        self.wanted = 0
        self.since = 0.0
        self.previous = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers there only
            self.previous = {number: signal.signal(number, self.notice) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def notice(self, number: int, frame: FrameType | None) -> None:
        """The signals' handler."""
        if not self.wanted:
            self.wanted, self.since = number, time.monotonic()
        elif time.monotonic() - self.since > PATIENCE:
            end_for(number)


def end_for(number: int) -> None:
    """Raises what ends a program after a signal: ``KeyboardInterrupt`` (exit code 130) or ``SystemExit`` (143)."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
