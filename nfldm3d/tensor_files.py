"""Tensors in files: the one way to read and write safetensors, and to read other people's without running code."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from nfldm3d._types import PathName
from nfldm3d.files import DataFormatError, refuse_special

Tensors = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]
COPY = "copy the file again"
UnpicklingError = torch.serialization.pickle.UnpicklingError  # what torch.load raises for anything but tensors
PLAIN = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool)
"""Numbers that networks are kept in; others, such as float8, need a scale that the file does not tell."""

MOST_AXES = 16


def write_tensors(
    path: PathName, tensors: Mapping[str, Shaped[Tensor, "..."]], head: dict[str, str] | None = None
) -> None:
    """Writes a safetensors file, with text by name in its head; tied tensors once for each of their names."""
    from safetensors.torch import save_file

    save_file(_separate(tensors), path, head)


def _separate(tensors: Mapping[str, Shaped[Tensor, "..."]]) -> Tensors:
    """Tensors that do not share memory, which safetensors refuses to write; copies just of those that do."""
    separate: Tensors = {}
    held: set[int] = set()
    for name, value in tensors.items():
        value = value.detach().cpu().contiguous()
        memory = value.untyped_storage()
        if memory.data_ptr() in held or memory.nbytes() != value.nbytes:  # tied to another one, or a part of one
            value = value.clone()
        held.add(value.untyped_storage().data_ptr())
        separate[name] = value
    return separate


def read_tensors(path: PathName, *, remedy: str = COPY) -> Tensors:
    """The tensors of a safetensors file.

    Args:
        remedy: what to do about a file that is no whole one, for the message.

    Raises:
        DataFormatError: the file is missing, cut off or something else.
    """
    return read_tensors_and_head(path, remedy=remedy)[0]


def read_tensors_and_head(path: PathName, *, remedy: str = COPY) -> tuple[Tensors, dict[str, str]]:
    """As ``read_tensors``, and the text in the file's head, by name."""
    with _opened(path, remedy) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def read_head(path: PathName, *, remedy: str = COPY) -> dict[str, str]:
    """The text in the head of a safetensors file, without its tensors; raises as ``read_tensors``."""
    with _opened(path, remedy) as file:
        return file.metadata() or {}


def read_shapes(path: PathName, *, remedy: str = COPY) -> Shapes:
    """The shapes of the tensors of a safetensors file, from its head alone; raises as ``read_tensors``."""
    with _opened(path, remedy) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


@contextmanager
def _opened(path: PathName, remedy: str) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    refuse_special(path)
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                _require_shape(name, file.get_slice(name).get_shape())
            yield file
    except FileNotFoundError as error:
        raise DataFormatError(path, f"does not exist; {remedy}") from error
    except (SafetensorError, OSError, ValueError, LookupError) as error:
        raise DataFormatError(path, f"is no whole safetensors file ({error}); {remedy}") from error


def _require_shape(name: str, shape: Sequence[int]) -> None:
    """Raises a ValueError for what torch cannot hold or compute with."""
    if len(shape) > MOST_AXES or max(shape, default=0) >= 2**63:
        raise ValueError(f"{name} has {len(shape)} axes, the longest of {max(shape, default=0)}")


def unpack_tensors(data: bytes, source: PathName, *, remedy: str = COPY) -> Tensors:
    """The tensors of a safetensors file's content, which came from ``source``; raises a DataFormatError."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
        for name, value in tensors.items():
            _require_shape(name, value.shape)
        return tensors
    except (SafetensorError, ValueError, LookupError, RuntimeError, TypeError) as error:
        raise DataFormatError(source, f"is no whole safetensors file ({error}); {remedy}") from error


def read_state(path: PathName, *, remedy: str = COPY) -> Tensors:
    """A state dictionary that others published: safetensors, or a PyTorch file of which only tensors are read.

    Raises:
        DataFormatError: the file is missing, damaged, or holds something else.
    """
    if Path(path).suffix == ".safetensors":
        return read_tensors(path, remedy=remedy)
    refuse_special(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles of another protocol; what they give is checked below
            found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataFormatError(path, f"does not exist; {remedy}") from error
    except (
        OSError,
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        EOFError,
        UnpicklingError,
    ) as error:
        raise DataFormatError(path, f"is no PyTorch file of tensors ({_first_line(error)}); {remedy}") from error
    if not (isinstance(found, dict) and all(isinstance(value, Tensor) for value in found.values())):
        raise DataFormatError(path, f"holds something else than named tensors; {remedy}")
    return dict(found)


def require_tensors(tensors: Mapping[str, object], names: Iterable[str], source: PathName, remedy: str) -> None:
    """Raises a DataFormatError that names the first tensor that is not there."""
    for name in names:
        if name not in tensors:
            raise DataFormatError(source, f"lacks the tensor {name}; {remedy}")


def require_finite(tensors: Mapping[str, Shaped[Tensor, "..."]], source: PathName, remedy: str = COPY) -> None:
    """Raises a DataFormatError that names the first tensor with NaN, infinity or numbers of a rare kind."""
    for name, value in tensors.items():
        if value.dtype not in PLAIN:
            raise DataFormatError(source, f"{name} is kept as {value.dtype}; save it as torch.float32 or torch.float16")
        if not bool(torch.isfinite(value).all()):
            raise DataFormatError(source, f"{name} holds NaN or infinity; {remedy}")


def require_floats(name: str, value: Shaped[Tensor, "..."]) -> None:
    """Raises a ValueError for anything but floating-point numbers to compute with."""
    if value.dtype not in PLAIN[:4]:
        raise ValueError(f"{name} holds {value.dtype}, not floating-point numbers; save them as torch.float32")


def plan_network(build: Callable[[], nn.Module], held: int) -> Shapes:
    """Names and shapes of a network's weights, without the memory for them.

    Args:
        held: how many weights, as tensors, a file holds for it.

    Raises:
        ValueError: the network has far more than those, perhaps without end.
    """
    count, most = 0, 4 * held + 256

    def add(module: nn.Module, name: str, value: nn.Parameter | None) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise ValueError(f"asks for more than {most} weights, but the file holds {held}")

    hook = register_module_parameter_registration_hook(add)
    try:
        with torch.random.fork_rng([]), torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of layers without numbers, which no file holds
            return {name: tuple(value.shape) for name, value in build().state_dict().items()}
    finally:
        hook.remove()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
