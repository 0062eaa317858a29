"""A stage small enough for tests: a line through noisy points, with dropout and a buffer; also a program of its own.

    python tests/toy_stage.py FOLDER STEPS BATCH [--resume] [--kill-at STEP] [--signal NUMBER] [--plain]

trains it; ``--kill-at`` makes the process send itself a signal (9 unless given) in the middle of that step.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nfldm3d.training import Evaluation, TrainingOptions, train


class Line(nn.Module):
    """Two linear layers, dropout between, and a count of calls as a buffer."""

    def __init__(self, width: int = 5, dropout: float = 0.25):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, width), nn.Dropout(dropout), nn.Linear(width, 2))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, points: Tensor) -> Tensor:
        if self.training:
            self.calls.add_(1)
        return self.layers(points)


class Points:
    """Random points and a linear image of them; the draw adds noise."""

    def __init__(self, count: int = 23, noise: float = 0.1):
        generator = torch.Generator().manual_seed(5)
        self.noise = noise
        self.points = torch.randn(count, 3, generator=generator)
        self.targets = self.points @ torch.randn(3, 2, generator=generator)

    def __len__(self) -> int:
        return len(self.points)

    def sample(self, index: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self.points[index] + self.noise * torch.randn(3, generator=generator), self.targets[index]

    def collate(self, samples: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        return {
            "points": torch.stack([point for point, _ in samples]),
            "targets": torch.stack([target for _, target in samples]),
        }


class ToyStage:
    """Fits a ``Line`` to ``Points``."""

    name = "toy"
    optional_parameters = False

    def __init__(self, *, width: int = 5, plain: bool = False, before_loss: Callable[[int], None] | None = None):
        with torch.random.fork_rng([]):
            torch.manual_seed(11)
            self.model = Line(width, 0.0 if plain else 0.25)
        self.source = Points(noise=0.0 if plain else 0.1)
        self.plain = plain
        self.before_loss = before_loss
        self.seen: list[Tensor] = []
        self.calls = 0
        self.factor = 1.0

    def config(self) -> dict[str, Any]:
        return {"width": self.model.layers[0].out_features}

    def to(self, device: torch.device) -> None:
        self.model.to(device)

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        self.calls += 1
        if self.before_loss is not None:
            self.before_loss(self.calls)
        self.seen.append(batch["points"])
        noise = torch.zeros(2) if self.plain else torch.randn(2, generator=generator) * 0.01
        error = (self.model(batch["points"]) + noise.to(batch["targets"]) - batch["targets"]).square().mean()
        return self.factor * error, {"error": error}

    def evaluate(self, generator: torch.Generator) -> Evaluation:
        points = torch.randn(7, 3, generator=generator).to(self.model.calls)
        error = float((self.model(points) - points[:, :2]).square().mean())
        assert not self.model.training
        torch.rand(3)  # whoever looks uses up random numbers; the training must not notice
        return Evaluation(-error, {"error": error}, {"noise": torch.rand(2, 3, 4, 6, generator=generator)})


def main(arguments: list[str]) -> None:
    """Trains as the command line says."""
    folder, steps, batch = arguments[0], int(arguments[1]), int(arguments[2])

    def value(name: str, default: int) -> int:
        return int(arguments[arguments.index(name) + 1]) if name in arguments else default

    fatal, number = value("--kill-at", -1), value("--signal", signal.SIGKILL)

    def strike(call: int) -> None:
        if call == fatal:
            os.kill(os.getpid(), number)

    stage = ToyStage(plain="--plain" in arguments, before_loss=strike)
    options = TrainingOptions(
        steps=steps,
        batch_size=batch,
        save_every=10,
        evaluate_every=5,
        warmup_steps=3,
        ema_decay=0.9,
        learning_rate=0.01,
        precision="fp32",
    )
    train(stage, Path(folder), options=options, resume="--resume" in arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
