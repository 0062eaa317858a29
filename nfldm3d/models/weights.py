"""Networks from folders: ``config.json`` beside one safetensors file, read strictly."""

import inspect
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers.configuration_utils import ConfigMixin
from torch import Tensor, nn

from nfldm3d._types import PathName
from nfldm3d.files import DataFormatError, read_json

CONFIG = "config.json"
NAMES = ("diffusion_pytorch_model.safetensors", "model.safetensors")
"""What ``save_pretrained`` and ``export_weights`` call the weights."""

Network = TypeVar("Network", bound=nn.Module)


def load_network(cls: type[Network], folder: PathName) -> Network:
    """The network that ``save_pretrained`` or ``export_weights`` wrote, in single precision and evaluation mode.

    Unlike ``from_pretrained``, which makes up what is missing, it takes nothing but a complete set of weights.

    Raises:
        DataFormatError: a file is missing or damaged, or belongs to another class, version or architecture.
    """
    folder = Path(folder)
    arguments = _read_arguments(cls, folder)
    path = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if path is None:
        raise DataFormatError(folder, f"holds no weights; copy {NAMES[0]} into it")
    tensors = _read_tensors(path)
    with torch.random.fork_rng([]):  # the random weights that are about to be replaced cost the caller nothing
        try:
            network = cls(**arguments)
        except (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError) as error:
            raise DataFormatError(folder / CONFIG, f"describes no {cls.__name__}: {error}") from error
    _require_same(tensors, network.state_dict(), path, cls.__name__)
    network.load_state_dict(tensors)
    return network.eval()


def take_over(network: nn.Module, other: nn.Module) -> list[str]:
    """Copies weights of another network where names and shapes agree; returns the names of those that stay as they are.

    Raises:
        ValueError: nothing fits.
    """
    own, given = network.state_dict(), other.state_dict()
    fitting = {name: given[name] for name, value in own.items() if name in given and given[name].shape == value.shape}
    if own and not fitting:
        raise ValueError(
            f"no weight of this {type(other).__name__} fits into a {type(network).__name__} of these options"
        )
    network.load_state_dict(fitting, strict=False)
    return sorted(set(own) - set(fitting))


def _read_arguments(cls: type[nn.Module], folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise DataFormatError(folder, f"holds no {CONFIG}; give a folder that holds a {cls.__name__}")
    config = read_json(path)
    if not isinstance(config, dict):
        raise DataFormatError(path, "is not a table of options; copy the file again")
    found = config.get("_class_name", cls.__name__)
    if found != cls.__name__:
        raise DataFormatError(path, f"describes a {found}, not a {cls.__name__}; give another folder")
    options = {name: value for name, value in config.items() if not name.startswith("_")}
    known = set(inspect.signature(cls).parameters) if issubclass(cls, ConfigMixin) else set(options)
    if unknown := sorted(set(options) - known):
        raise DataFormatError(
            path,
            f"has options that this nfldm3d does not know: {', '.join(unknown)}; upgrade with pip install -U nfldm3d",
        )
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataFormatError(path, f"is damaged or truncated ({error}); copy the file again") from error
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise DataFormatError(path, f"{name} holds NaN or infinity; copy the file again")
    return tensors


def _require_same(found: dict[str, Tensor], wanted: dict[str, Tensor], path: Path, network: str) -> None:
    problems = [f"{name} is missing" for name in sorted(set(wanted) - set(found))]
    problems += [f"{name} is unexpected" for name in sorted(set(found) - set(wanted))]
    problems += [
        f"{name} is {tuple(found[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in sorted(set(found) & set(wanted))
        if found[name].shape != wanted[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        raise DataFormatError(path, f"is not of this {network}: {shown}; copy the file that belongs to {CONFIG}")
