"""How a network is trained: one flat record that the command line and the run folder share."""

import math
from dataclasses import dataclass
from typing import Literal

from nfldm3d._types import LARGEST_SEED

POSITIVE = ("steps", "batch_size", "accumulate", "learning_rate", "save_every", "keep_last", "log_every")
POSITIVE += ("max_bad_steps", "clip_norm")
NOT_NEGATIVE = ("warmup_steps", "weight_decay", "workers", "evaluate_every", "seed")


@dataclass(frozen=True)
class TrainingOptions:
    """Options of ``train``; the defaults suit a laptop."""

    steps: int = 10_000
    """Optimiser steps at most."""
    time_budget: float | None = None
    """Seconds at most, or None; the schedule is stretched over whichever limit comes first."""
    batch_size: int = 4
    """Samples in each part of a step, in each process."""
    accumulate: int = 1
    """Parts of a step: gradients of so many batches are added up."""
    learning_rate: float = 3e-4
    """Largest step size."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the step size falls after the warm-up: to a fiftieth along half a cosine, or not."""
    warmup_steps: int = 200
    """Steps in which the step size rises."""
    weight_decay: float = 0.01
    """Decay of matrices and kernels; biases, gains and other vectors have none."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Memory of AdamW's two moments."""
    clip_norm: float = 1.0
    """Longest gradient; longer ones are shortened. ``inf`` never shortens."""
    ema_decay: float = 0.999
    """Memory of the averaged weights, which are evaluated and exported; 0 does without them."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Numbers of the forward pass; ``auto`` is bf16 on devices that are faster with it, else fp32."""
    device: Literal["auto", "cpu"] = "auto"
    """``auto`` takes CUDA where there is any."""
    seed: int = 0
    """Seeds the order of the samples and every step."""
    workers: int = 0
    """Processes that read samples, for each process that trains; 0 reads between the steps."""
    save_every: int = 500
    """Steps between two checkpoints."""
    keep_last: int = 2
    """Checkpoints that are kept, besides the best."""
    evaluate_every: int = 500
    """Steps between two evaluations; 0 evaluates at the end only."""
    log_every: int = 20
    """Steps between two entries in the logs."""
    max_bad_steps: int = 20
    """Steps with an infinite or NaN loss or gradient are skipped; so many in a row end the run."""

    def __post_init__(self):
        for name in POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in NOT_NEGATIVE:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a finite number, not below 0, got {getattr(self, name)}")
        if self.seed > LARGEST_SEED:
            raise ValueError(f"seed must be at most {LARGEST_SEED}, got {self.seed}")
        if self.time_budget is not None and not self.time_budget > 0:
            raise ValueError(f"time_budget must be a number of seconds above 0, got {self.time_budget}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be at least 0 and below 1, got {self.ema_decay}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be at least 0 and below 1, got {self.betas}")

    def rate(self, step: int, share: float) -> float:
        """The step size of step ``step`` when ``share`` (0 to 1) of the schedule is over."""
        warm = min(1.0, (step + 1) / (self.warmup_steps + 1))
        if self.schedule == "constant":
            return self.learning_rate * warm
        cosine = 0.5 + 0.5 * math.cos(math.pi * min(max(share, 0.0), 1.0))
        return self.learning_rate * warm * (FINAL_RATE + (1 - FINAL_RATE) * cosine)

    def share(self, step: int, seconds: float) -> float:
        """How much of the schedule is over, 0 to 1."""
        by_time = 0.0 if self.time_budget is None else seconds / self.time_budget
        return min(1.0, max(by_time, step / self.steps))


FINAL_RATE = 0.02
"""Share of the largest step size that is left at the end of a cosine."""
