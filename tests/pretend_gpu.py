"""A GPU for machines without one: with it, tests marked ``cuda`` run on the CPU and find what only devices show.

    with pretend_gpu() as device:
        torch.zeros(3, device=device) + torch.zeros(3)  # RuntimeError, as on CUDA

What it tells: tensors left on the CPU or brought back to it, generators and arrays of the wrong device, memory nobody
filled, gradients on another device than their tensor, kernels given memory of the CPU. Warp's kernels run on the CPU,
from the branches that launch them on CUDA. What it does not: races of atomics, streams, TF32, and memory limits.
"""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
import torch._dynamo  # looks at torch.cuda when it is first imported, which shall be the real one
from pretend_tensors import GPU, GpuTensor, PlacedGenerator, RunOperators, SayMeta
from torch import Tensor

from nfldm3d.ops import launch

FREE, TOTAL = 8 << 30, 16 << 30
ANSWERS: dict[str, Any] = {
    "is_available": True,
    "is_initialized": True,
    "device_count": 1,
    "current_device": 0,
    "get_device_name": "pretended",
    "is_bf16_supported": True,
    "mem_get_info": (FREE, TOTAL),
    "memory_allocated": 0,
    "memory_reserved": 0,
    "max_memory_allocated": 0,
}
"""Of functions of torch.cuda."""
SILENT = (
    "_lazy_init", "synchronize", "current_stream", "empty_cache", "manual_seed", "manual_seed_all", "set_device",
    "set_rng_state", "reset_peak_memory_stats",
)  # fmt: skip
"""Functions of torch.cuda that have nothing to do."""


class PretendWarp:
    """Warp that takes tensors of the pretended device, and does its launches on CUDA on the CPU."""

    def __init__(self, warp: Any):
        self._warp = warp
        self._taken: list[bool] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._warp, name)

    def from_torch(self, tensor: Tensor, *arguments: Any, **options: Any) -> Any:
        self._taken.append(isinstance(tensor, GpuTensor))
        return self._warp.from_torch(getattr(tensor, "held", tensor), *arguments, **options)

    def stream_from_torch(self, stream: None) -> str:
        return "a stream"

    def launch(self, kernel: Any, size: int, inputs: list[Any], *, stream: Any = None, **options: Any) -> Any:
        taken, self._taken = self._taken, []
        if any(on_gpu != (stream is not None) for on_gpu in taken):
            raise RuntimeError(f"CUDA error: an illegal memory access was encountered ({kernel.key})")
        return self._warp.launch(kernel, size, inputs, **(options | {"device": "cpu"}))


@contextmanager
def pretend_gpu() -> Iterator[torch.device]:
    """Inside, torch has one CUDA device."""
    stubs = {name: _answer(value) for name, value in (ANSWERS | dict.fromkeys(SILENT)).items()}
    stubs["get_rng_state"] = lambda *_: torch.get_rng_state()
    warp = PretendWarp(launch.quiet_warp())
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "'pin_memory' argument is set as true")
        for name, stub in stubs.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, stub))
        stack.enter_context(mock.patch.object(torch.accelerator, "is_available", _answer(False)))
        stack.enter_context(mock.patch.object(torch.accelerator, "current_accelerator", _answer(None)))
        stack.enter_context(mock.patch.object(torch, "Generator", PlacedGenerator))
        stack.enter_context(mock.patch.object(launch, "quiet_warp", lambda: warp))
        stack.enter_context(mock.patch.object(torch.autograd.Function, "apply", _guarded_apply()))
        stack.enter_context(RunOperators())
        stack.enter_context(SayMeta())
        yield GPU


def _answer(value: Any) -> Any:
    return lambda *_, **__: value


def _guarded_apply() -> Any:
    """``apply`` of custom autograd functions that lets gradients on another device than their input's fail.

    C++ checks this for plain tensors only.
    """
    original = vars(torch.autograd.Function)["apply"]

    def apply(cls: type, *inputs: Any) -> Any:
        results = original.__get__(None, cls)(*inputs)
        _guard_gradients(inputs, results if isinstance(results, tuple) else (results,))
        return results

    return classmethod(apply)


def _guard_gradients(inputs: tuple[Any, ...], results: tuple[Any, ...]) -> None:
    wanted = [value.device if isinstance(value, Tensor) else None for value in inputs]
    first = next((result for result in results if isinstance(result, Tensor) and result.grad_fn is not None), None)

    def check(gradients: tuple[Tensor | None, ...], _: Any) -> None:
        for number, (gradient, device) in enumerate(zip(gradients, wanted, strict=False)):
            if gradient is not None and gradient.device != device:
                raise RuntimeError(f"gradient {number} is on {gradient.device}, expected {device}")

    if first is not None:
        first.grad_fn.register_hook(check)
