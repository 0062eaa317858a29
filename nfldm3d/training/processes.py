"""One process or many: devices, mixed precision and the exchange of gradients, which ``accelerate`` does."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nfldm3d.training.run_options import TrainingOptions
from nfldm3d.training.stage import Pace, Stage

if TYPE_CHECKING:
    from accelerate import Accelerator

PATIENCE = timedelta(hours=2)
"""How long other processes wait while the first one evaluates."""


def start_processes(options: TrainingOptions, optional_parameters: bool) -> "Accelerator":
    """Finds the device and the other processes.

    Raises:
        ValueError: if the device does not know the precision.
    """
    try:
        import tensorboard  # noqa: F401 - missed here rather than after the model is built
        from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
        from accelerate.state import AcceleratorState, PartialState
    except ImportError as error:
        raise ImportError("training needs accelerate and tensorboard: pip install nfldm3d[train]") from error
    on_cpu = options.device == "cpu" or not torch.cuda.is_available()
    precision = options.precision
    if on_cpu and precision == "fp16":
        raise ValueError("precision fp16 needs a CUDA device; use bf16 or fp32 on a CPU")
    if precision == "auto":
        precision = "bf16" if _computes_bf16(on_cpu) else "fp32"
    # A process alone may train on another device and in another precision than the last time; several stay together.
    alone = not PartialState._shared_state or PartialState().num_processes == 1
    AcceleratorState._reset_state(reset_partial_state=alone)
    parallel = DistributedDataParallelKwargs(find_unused_parameters=optional_parameters)
    return Accelerator(
        cpu=on_cpu,
        mixed_precision="no" if precision == "fp32" else precision,
        kwargs_handlers=[parallel, InitProcessGroupKwargs(timeout=PATIENCE)],
    )


def _computes_bf16(on_cpu: bool) -> bool:
    """Whether the device multiplies in bfloat16 faster than in single precision: CPUs with AMX do, by 4 to 5 times."""
    if on_cpu:
        capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # since torch 2.12
        return bool(capabilities.get("amx_bf16", False))
    return torch.cuda.is_bf16_supported(including_emulation=False)


class StageLoss(nn.Module):
    """The stage's loss as the forward pass of a module: several processes exchange gradients of what it calls."""

    def __init__(self, stage: Stage):
        super().__init__()
        self.model = stage.model
        self.loss = stage.loss

    def forward(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        return self.loss(batch, generator)


def make_optimizer(
    model: nn.Module, options: TrainingOptions, paces: Mapping[str, Pace] | None = None
) -> torch.optim.Optimizer:
    """AdamW over whatever can be learned; vectors do not decay.

    Args:
        paces: see ``Paced``; a group of parameters keeps the factor on its step size as ``rate_factor``.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            pace = next((pace for start, pace in (paces or {}).items() if name.startswith(start)), Pace())
            groups.setdefault((pace.rate, parameter.ndim <= 1 or not pace.decays), []).append(parameter)
    ordered: list[dict[str, Any]] = [
        {"params": groups[key], "weight_decay": 0.0 if key[1] else options.weight_decay, "rate_factor": key[0]}
        for key in sorted(groups)
    ]
    return torch.optim.AdamW(ordered, lr=options.learning_rate, betas=options.betas, fused=True)


def largest(accelerator: "Accelerator", values: Sequence[float]) -> list[float]:
    """The largest of each value over all processes."""
    if accelerator.num_processes == 1:
        return list(values)
    shared = torch.tensor(values, dtype=torch.float64, device=accelerator.device)
    torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
    return shared.tolist()
