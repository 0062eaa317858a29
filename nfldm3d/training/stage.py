"""What the loop asks of whoever wants to be trained: a network, samples, a loss and a judgement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Evaluation:
    """How good a network is on what it was not trained on."""

    score: float
    """Higher is better; the checkpoint with the best score is kept."""
    scalars: Mapping[str, float] = field(default_factory=dict)
    """Figures to log, by name."""
    images: Mapping[str, Tensor] = field(default_factory=dict)
    """Pictures to log, by name: (channels height width) or (views channels height width), sRGB in [0, 1]."""


@runtime_checkable
class SampleSource(Protocol):
    """The training data, read by index; with workers it lives in several processes."""

    def __len__(self) -> int: ...

    def sample(self, index: int, generator: torch.Generator) -> Any:
        """One sample; whatever is random about it comes from ``generator``, which is new for each draw.

        Raises:
            DataFormatError: if this sample is broken; the loop takes the next one and counts.
        """
        ...

    def collate(self, samples: Sequence[Any]) -> Any:
        """The batch of several samples: tensors on the CPU in lists, dicts or objects with a method ``to``."""
        ...


@runtime_checkable
class Stage(Protocol):
    """One kind of training.

    ``loss`` may use ``model`` in any way and call it more than once. Randomness comes from the generator that it is
    given, a CPU generator, or from torch's global one, which the loop seeds before each step.
    """

    name: str
    """What is trained, e.g. ``scene-autoencoder``."""
    optional_parameters: bool
    """Whether a step may leave parameters without a gradient; several processes need to know."""

    @property
    def model(self) -> nn.Module:
        """What is trained, saved and averaged; networks that stay as they are live elsewhere in the stage."""
        ...

    @property
    def source(self) -> SampleSource:
        """The training data."""
        ...

    def config(self) -> dict[str, Any]:
        """What rebuilds ``model``: JSON values; a run goes on only with the same ones."""
        ...

    def to(self, device: torch.device) -> None:
        """Moves the model, and all else that ``loss`` and ``evaluate`` compute with."""
        ...

    def loss(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to descend (a mean over the batch), and figures to log; the batch is on the model's device."""
        ...

    def evaluate(self, generator: torch.Generator) -> Evaluation:
        """Judges ``model``, which holds averaged weights and is in evaluation mode; only the first process asks.

        The generator is the same each time.
        """
        ...


@dataclass(frozen=True)
class Pace:
    """How some weights learn, beside all others."""

    rate: float = 1.0
    """Factor on the step size."""
    decays: bool = True
    """Whether weight decay counts for them."""


@runtime_checkable
class Paced(Protocol):
    """A stage some of whose weights learn in a way of their own."""

    def paces(self) -> dict[str, Pace]:
        """By how the names of weights in ``model`` begin; the first that fits counts."""
        ...
