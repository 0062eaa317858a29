"""Tensors of a GPU that is not there: they say "cuda:0", hold their numbers in CPU memory, and refuse as CUDA does.

Every operator of torch passes through ``run``, which looks at where its tensors say they are, raises if CUDA would, and
then computes on their memory. C++ believes that these tensors are on "meta", the one device whose autograd asks for no
driver and starts no threads; ``SayMeta`` translates wherever Python says "cuda".
"""

import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

GPU, CPU, META = torch.device("cuda:0"), torch.device("cpu"), torch.device("meta")
aten = torch.ops.aten

COPIES = {aten.copy_.default, aten._to_copy.default, aten._foreach_copy_.default}
"""The only operators that reach from one device to another."""
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
"""Their indices may lie on the CPU."""
SCALARS_TOO = {aten.fill_.Tensor, aten.masked_fill.Tensor, aten.masked_fill_.Tensor, aten.where.self}
"""Besides pointwise operators, these take single numbers from the CPU."""
UNFILLED = {aten.empty.memory_format, aten.empty_strided.default, aten.empty_like.default, aten.new_empty.default}
FROM_DATA = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor}
"""They read Python's numbers, which "meta" would drop."""
HALVED = {
    "linear", "matmul", "__matmul__", "mm", "bmm", "addmm", "baddbmm", "einsum", "conv1d", "conv2d", "conv3d",
    "conv_transpose2d", "conv_transpose3d", "scaled_dot_product_attention", "multi_head_attention_forward",
}  # fmt: skip
"""What autocast computes in half precision on CUDA."""


ON_GPU: "weakref.WeakValueDictionary[int, torch.Generator]" = weakref.WeakValueDictionary()
"""Generators by their address, which is all that comes out of C++ again."""


def names_gpu(value: object) -> bool:
    """Whether a value is the name of the pretended device, in Python's words or in those of C++."""
    return isinstance(value, str | torch.device) and str(value).partition(":")[0] in ("cuda", "meta")


class GpuTensor(Tensor):
    """A tensor on the pretended device; ``held`` is its memory."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, requires_grad: bool = False):
        layout = held.shape, held.stride(), held.storage_offset()
        made = Tensor._make_wrapper_subclass(cls, *layout, dtype=held.dtype, device=META)  # type: ignore[attr-defined]
        made.held = held.detach()
        return made.requires_grad_(requires_grad)

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return GPU

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @property
    def is_meta(self) -> bool:  # type: ignore[override]
        return False

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        return Tensor.data.__get__(self)  # type: ignore[attr-defined]

    @data.setter
    def data(self, value: "GpuTensor") -> None:
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.held = value.held

    def numpy(self, *_: Any, **__: Any):  # type: ignore[override]
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    __array__ = numpy  # type: ignore[assignment]

    def tolist(self):
        return self.held.tolist()

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"GpuTensor({self.held})"

    def __format__(self, spec: str) -> str:
        return format(self.held.item() if self.dim() == 0 else repr(self), spec)

    def __reduce_ex__(self, protocol):
        return _restore, (self.held, self.requires_grad, isinstance(self, torch.nn.Parameter))


def _restore(held: Tensor, requires_grad: bool, is_parameter: bool) -> Tensor:
    made = GpuTensor(held)
    return torch.nn.Parameter(made, requires_grad) if is_parameter else made.requires_grad_(requires_grad)


class PlacedGenerator(torch.Generator):
    """``torch.Generator`` that knows which device it was made for."""

    def __new__(cls, device: torch.device | str = "cpu"):
        made = super().__new__(cls)
        if names_gpu(device):
            ON_GPU[made._cdata] = made  # type: ignore[attr-defined]
        return made

    def __init__(self, device: torch.device | str = "cpu"):
        pass

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return GPU if self._cdata in ON_GPU else CPU  # type: ignore[attr-defined]


def run(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Runs an operator of torch's dispatcher on the memory of its tensors."""
    tensors: list[Tensor] = []
    inner, options = _hold(args, tensors), {name: _hold(value, tensors) for name, value in kwargs.items()}
    here = _is_result_here(func, args, tensors, kwargs.get("device"))
    if any((value._cdata in ON_GPU) != here for value in kwargs.values() if isinstance(value, torch._C.Generator)):
        raise RuntimeError(f"Expected a generator on {'cuda' if here else 'cpu'}, but found one elsewhere ({func})")
    if func is aten.is_pinned.default or func is aten._fused_sdp_choice.default:
        return func is not aten.is_pinned.default and 0
    if func is aten._pin_memory.default:
        return args[0]
    if names_gpu(options.get("device")):
        options["device"] = CPU
    if options.get("pin_memory"):
        options["pin_memory"] = False
    result = func(*inner, **options)
    if here and func in UNFILLED:
        _spoil(result)
    if torch.Tag.inplace_view in func.tags:  # the outer tensor changes its shape, too
        with no_dispatch():
            func(*args, **kwargs)
    known = {id(t.held if isinstance(t, GpuTensor) else t): t for t in tensors}  # what was changed in place comes back
    return _give(result, known, here)


def _hold(value: Any, tensors: list[Tensor]) -> Any:
    """An argument with the memory of its tensors in their place; these are listed."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return value.held if isinstance(value, GpuTensor) else value
    return type(value)(_hold(item, tensors) for item in value) if type(value) in (list, tuple) else value


def _give(value: Any, known: dict[int, Tensor], here: bool) -> Any:
    if isinstance(value, Tensor):
        return known.get(id(value)) if id(value) in known else GpuTensor(value) if here else value
    return type(value)(_give(item, known, here) for item in value) if type(value) in (list, tuple) else value


def _spoil(fresh: Tensor) -> None:
    """What nobody fills shall show."""
    kind = fresh.dtype
    fresh.fill_(math.nan if kind.is_floating_point else 0 if kind == torch.bool else torch.iinfo(kind).max)


def _is_result_here(func: Any, args: Sequence[Any], tensors: Sequence[Tensor], wanted: Any) -> bool:
    """Whether the result is on the pretended device; raises where CUDA would refuse to mix."""
    if func in COPIES:
        return tensors[0].is_cuda if wanted is None else names_gpu(wanted)
    bound = tensors
    if func in INDEXING and args[0].is_cuda:
        bound = [args[0], *(value for value in args[2:3] if value.dim())]
    elif torch.Tag.pointwise in func.tags or func in SCALARS_TOO:
        bound = [tensor for tensor in tensors if tensor.is_cuda or tensor.dim()]
    if len({tensor.is_cuda for tensor in bound}) > 1:
        found = ", ".join(f"{tuple(tensor.shape)} on {tensor.device}" for tensor in tensors)
        raise RuntimeError(f"Expected all tensors to be on the same device, but got {found} ({func})")
    return any(tensor.is_cuda for tensor in bound) if wanted is None else names_gpu(wanted)


class RunOperators(TorchDispatchMode):
    """Sees the operators that no tensor of the device takes part in, too: factories and copies."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


class SayMeta(TorchFunctionMode):
    """Tells C++ "meta" where Python says "cuda", so that nothing looks for a driver."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.device, torch.get_device_module):
            return func(*args, **kwargs)
        if func is Tensor.cuda:
            return args[0].to(META)
        if func in FROM_DATA and not isinstance(args[0 if func is not Tensor.new_tensor else 1], Tensor):
            return _from_data(func, args, kwargs)
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            args = (args[0], _indices(args[1]), *args[2:])
        if torch.is_autocast_enabled("cuda") and getattr(func, "__name__", "") in HALVED:
            args, kwargs = tree_map(_halved, (args, kwargs))
        args = [META if names_gpu(value) else value for value in args]
        return func(*args, **{name: META if names_gpu(value) else value for name, value in kwargs.items()})


def _from_data(func: Callable, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    """A tensor of numbers: made on the CPU, then moved."""
    if func is Tensor.new_tensor:
        kwargs = {"dtype": args[0].dtype, "device": args[0].device} | kwargs
        func, args = torch.tensor, args[1:]
    device, grad = kwargs.pop("device", None), kwargs.pop("requires_grad", False)
    made = func(*args, **kwargs)
    return (made.to(META) if names_gpu(device) else made).requires_grad_(grad)


def _indices(index: Any) -> Any:
    """Lists as tensors of the CPU: C++ would make them on "meta", without numbers."""
    if isinstance(index, tuple):
        return tuple(map(_indices, index))
    return torch.tensor(index, dtype=None if index else torch.int64) if isinstance(index, list | range) else index


def _halved(value: Any) -> Any:
    if not isinstance(value, GpuTensor) or not value.is_floating_point() or value.dtype.itemsize > 4:
        return value
    return value.to(torch.get_autocast_dtype("cuda"))
