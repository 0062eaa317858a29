"""Where a run is, how long it goes on, and how its step size changes."""

import math
from dataclasses import dataclass, field


class OptimisationError(ValueError):
    """A step that would have ruined the parameters: a loss or a gradient that is not finite; they are as before it."""


@dataclass
class Step:
    """Where a run is; the loss, the parameters and the callbacks are told."""

    number: int = 0
    """Steps that have been taken."""
    seconds: float = 0.0
    """Since the run began, over all its parts if it was resumed."""
    share: float = 0.0
    """Of the schedule, 0 to 1."""
    rate: float = 0.0
    """Step size of now."""
    losses: dict[str, float] = field(default_factory=dict)
    """What the loss was in the step that has just been taken, by its parts."""
    stopped: bool = False
    """Set by a callback to end the run after this step."""


@dataclass(frozen=True)
class Schedule:
    """How long a run goes on, and how its step size changes."""

    steps: int = 1000
    """Steps at most."""
    time_budget: float | None = None
    """Seconds at most, or None; the schedule is stretched over whichever limit comes first."""
    rate: float = 0.01
    """Step size at the beginning."""
    final_rate: float = 0.1
    """Share of it that is left at the end; it falls exponentially."""
    warm_up: int = 0
    """Steps over which it grows from nothing."""
    name: str = "optimise"
    """What the progress bar says."""

    def __post_init__(self):
        if self.steps < 1 or self.warm_up < 0:
            raise ValueError(f"a run needs at least one step and a warm_up from 0, got {self.steps}, {self.warm_up}")
        if self.time_budget is not None and not self.time_budget > 0:
            raise ValueError(f"time_budget must be a number of seconds above 0, got {self.time_budget}")
        if not (0 < self.rate < math.inf and 0 < self.final_rate < math.inf):
            raise ValueError(f"rate and final_rate must be numbers above 0, got {self.rate} and {self.final_rate}")

    def share(self, number: int, seconds: float) -> float:
        """How much is done after so many steps and seconds, 0 to 1."""
        by_time = 0.0 if self.time_budget is None else seconds / self.time_budget
        return min(1.0, max(by_time, number / self.steps))

    def rate_at(self, number: int, share: float) -> float:
        """The step size after so many steps, which are a share of the schedule."""
        return self.rate * self.final_rate**share * min(1.0, (number + 1) / (self.warm_up + 1))
