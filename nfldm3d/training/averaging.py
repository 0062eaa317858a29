"""Weights averaged over the last steps, which are better than those of any one step."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class AveragedWeights:
    """An exponential moving average of a network's state; what is not a floating-point parameter is copied."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.tensors = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Takes in the weights after step ``step``; the memory is short at first: min(decay, (1 + n) / (10 + n))."""
        decay = min(self.decay, (1 + step) / (10 + step))
        learned = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        averages, values = [], []
        for name, value in model.state_dict().items():
            if name in learned and value.is_floating_point():
                averages.append(self.tensors[name])
                values.append(value)
            else:
                self.tensors[name].copy_(value)
        torch._foreach_lerp_(averages, values, 1 - decay)

    @contextmanager
    def lent_to(self, model: nn.Module) -> Iterator[None]:
        """Gives the network the averaged weights for the length of the block."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.tensors)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Takes averages that were saved."""
        for name, value in self.tensors.items():
            value.copy_(tensors[name])
