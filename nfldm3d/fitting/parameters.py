"""Tensors and modules that a run moves by Adam, and that can be written down."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from nfldm3d.fitting.schedule import OptimisationError, Step

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What Adam keeps of a tensor, in its shape."""


class TensorParameters:
    """Tensors and modules by name, moved by Adam."""

    def __init__(
        self,
        parts: Mapping[str, Tensor | nn.Module],
        *,
        rates: Mapping[str, float] | None = None,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-15,
    ):
        """Takes them as they are; tensors are changed in place.

        Args:
            rates: factors on the run's step size, by the names of ``parts``; 1 for others.

        Raises:
            ValueError: nothing to move, a name of ``rates`` that is no part, or a tensor that is computed from others.
        """
        rates = {} if rates is None else rates
        if unknown := sorted(set(rates) - set(parts)):
            raise ValueError(f"rates name {', '.join(unknown)}, but the parameters are {', '.join(sorted(parts))}")
        self.parts, groups = dict(parts), []
        for name, part in self.parts.items():
            tensors = list(part.parameters()) if isinstance(part, nn.Module) else [part]
            if isinstance(part, Tensor):
                if not part.is_leaf:
                    raise ValueError(f"{name} is computed from other tensors; give those, or {name}.detach()")
                part.requires_grad_()
            tensors = [tensor for tensor in tensors if tensor.requires_grad]
            if tensors:
                groups.append({"params": tensors, "factor": rates.get(name, 1.0), "name": name})
        if not groups:
            raise ValueError("there is nothing to optimise; give at least one tensor or module with parameters")
        self.adam = torch.optim.Adam(groups, lr=1.0, betas=betas, eps=eps)
        self.adam.zero_grad()

    def advance(self, step: Step) -> None:
        """One step of Adam; see ``Parameters``."""
        self.require_finite(step)
        for group in self.adam.param_groups:
            group["lr"] = step.rate * group["factor"]
        self.adam.step()
        self.adam.zero_grad()

    def state(self) -> dict[str, Tensor]:
        """Values and moments; a tensor that has had no gradient yet has no moments."""
        return self._values() | {
            f"adam.{name}.{key}": value
            for name, tensor in self._moving().items()
            for key, value in self.adam.state.get(tensor, {}).items()
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """See ``Parameters``."""
        expected = self._values()
        for name, value in self._moving().items():
            expected |= {f"adam.{name}.{key}": value for key in MOMENTS} | {f"adam.{name}.step": torch.zeros(())}
        require_alike(state, expected, optional=[name for name in expected if name.startswith("adam.")])
        self._require_whole_moments(state)
        with torch.no_grad():
            for name, tensor in self._values().items():
                tensor.copy_(state[name])
        for name, tensor in self._moving().items():
            prefix = f"adam.{name}."
            moments = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            if moments:
                self.adam.state[tensor] = {
                    key: value if key == "step" else value.to(tensor.device) for key, value in moments.items()
                }

    def _require_whole_moments(self, state: Mapping[str, Tensor]) -> None:
        """Raises a ValueError unless each parameter has all that Adam keeps of it, or nothing."""
        for name in self._moving():
            kept = [key for key in (*MOMENTS, "step") if f"adam.{name}.{key}" in state]
            if kept and (len(kept) < 3 or state[f"adam.{name}.step"] < 1):
                raise ValueError(f"the moments of {name} are not whole")

    def _values(self) -> dict[str, Tensor]:
        """Tensors, and what modules keep, by name; shares memory."""
        values = {}
        for name, part in self.parts.items():
            if isinstance(part, nn.Module):
                values |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
            else:
                values[name] = part.detach()
        return values

    def _moving(self) -> dict[str, Tensor]:
        """The parameters themselves, by name."""
        moving = {}
        for name, part in self.parts.items():
            if isinstance(part, nn.Module):
                moving |= {f"{name}.{key}": value for key, value in part.named_parameters()}
            else:
                moving[name] = part
        return moving

    def require_finite(self, step: Step) -> None:
        """Raises an OptimisationError, and drops the gradients, if one of them is not finite."""
        gradients = {name: tensor.grad for name, tensor in self._moving().items() if tensor.grad is not None}
        if not gradients:
            return
        norms = torch.stack([gradient.norm().float() for gradient in gradients.values()])
        if not bool(torch.isfinite(norms).all()):
            name = list(gradients)[int((~torch.isfinite(norms)).nonzero()[0])]
            self.adam.zero_grad()
            raise OptimisationError(
                f"step {step.number + 1}: the gradient of {name} is not finite; lower the rate ({step.rate:.3g} now), "
                "or look for a division by zero in the loss"
            )


def require_alike(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, optional: Collection[str] = ()
) -> None:
    """Raises a ValueError that names the first tensor which is missing from a state, or has another shape."""
    for name, value in expected.items():
        if name not in state:
            if name in optional:
                continue
            raise ValueError(f"it lacks {name} of shape {tuple(value.shape)}")
        if state[name].shape != value.shape:
            raise ValueError(f"{name} has shape {tuple(state[name].shape)}, not {tuple(value.shape)}")
        if state[name].dtype != value.dtype:
            raise ValueError(f"{name} holds {state[name].dtype}, not {value.dtype}")
