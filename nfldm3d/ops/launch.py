"""Runs Warp kernels on torch tensors: over all cores on the CPU, on torch's current stream on CUDA."""

import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from copy import copy
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    import warp

UNLOADED = "Failed to find"
"""What Warp says when a module of kernels could not be compiled or loaded."""
RANGES_PER_THREAD = 4
"""More ranges balance the load better; each costs a launch of some 50 microseconds."""


def launch(kernel: Any, size: int, inputs: Sequence[Any], device: torch.device, *, grain: int = 256) -> None:
    """Runs ``kernel`` for the indices 0 to ``size`` - 1; returns when the CPU is done, at once on CUDA.

    The kernel's first parameter is the index of its first thread (its thread n works on that + ``wp.tid()``), the
    others are ``inputs``: numbers, tuples or tensors (contiguous ones, if the kernel takes them for plain memory); the
    dtype that arrays of ``Any`` leave open is that of the first tensor. CPU threads run ranges of at least ``grain``
    indices at the same time and Warp's atomics are plain additions there, so no two indices may write to one place.
    """
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"the kernels run on CPU and CUDA, not on {device}: move what they take with .to('cpu')")
    if size == 0:
        return
    warp = quiet_warp()
    if kernel.is_generic:
        kernel = kernel_for(kernel, next(value.dtype for value in inputs if isinstance(value, Tensor)))
    wanted = [argument.type for argument in kernel.adj.args[1:]]
    values = [_warp_value(value, kind) for value, kind in zip(inputs, wanted, strict=True)]
    if device.type == "cuda":
        stream = warp.stream_from_torch(torch.cuda.current_stream(device))
        warp.launch(kernel, size, [0, *values], stream=stream, record_tape=False)
        return
    try:
        command = warp.launch(kernel, size, [0, *values], device="cpu", record_tape=False, record_cmd=True)
    except RuntimeError as error:
        if UNLOADED not in str(error):
            raise
        cache = warp.config.kernel_cache_dir
        raise OSError(f"kernels in {cache} cannot be loaded ({error}); free memory, or make room there") from error
    assert isinstance(command, warp.Launch)
    threads = torch.get_num_threads()
    ranges = min(max(size // grain, 1), RANGES_PER_THREAD * threads)
    if ranges == 1 or threads == 1:
        command.launch()
        return
    bounds = [size * number // ranges for number in range(ranges + 1)]
    remaining = iter(list(pairwise(bounds)))

    def run() -> None:
        for first, end in remaining:
            _part(command, first, end).launch()

    others = [_pool(os.getpid(), threads).submit(run) for _ in range(min(threads, ranges) - 1)]
    run()
    for other in others:
        other.result()


def _part(command: "warp.Launch", first: int, end: int) -> "warp.Launch":
    """A recorded launch of a range only; the arguments, whose packing takes most of a launch's time, are shared."""
    part = copy(command)
    part.params = list(command.params)
    part.set_param_at_index(0, first)
    part.set_dim(end - first)
    return part


def launch_scatter(kernel: Any, count: int, inputs: Sequence[Any], device: torch.device) -> None:
    """Runs a kernel that adds ``count`` records into shared outputs; its results do not depend on the threads.

    Its parameters are (offset, owners, count, *inputs). On the CPU each of ``owners`` threads goes through all records
    in order, but adds only to the voxels that are its own. On CUDA there are no owners, but a thread per record and
    atomic additions, in any order.
    """
    owners = 0 if device.type == "cuda" else min(torch.get_num_threads(), count // 64 + 1)
    launch(kernel, owners or count, [owners, count, *inputs], device, grain=1)


@cache
def quiet_warp():
    """The module ``warp``, started without its banner.

    Raises:
        OSError: its cache of compiled kernels cannot be written, as in containers that run with ``--user``.
    """
    import warp

    warp.config.log_level = max(warp.config.log_level, warp.LOG_WARNING)
    try:
        with nullcontext() if torch.cuda.is_available() else _silent_stderr():
            warp.init()
        with tempfile.TemporaryFile(dir=warp.config.kernel_cache_dir):
            return warp
    except OSError as error:
        raise OSError(
            f"cannot write the cache of compiled kernels, {warp.config.kernel_cache_dir} ({error.strerror}); set "
            "WARP_CACHE_PATH to a folder that can be written"
        ) from error


@contextmanager
def _silent_stderr():
    """Swallows what C code writes to stderr: without a GPU, Warp tells there that it found no driver."""
    if sys.stderr is not None:  # closed by whoever started us
        sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _warp_value(value: Any, kind: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    value = value.detach() if value.requires_grad else value
    return quiet_warp().from_torch(value, kind.dtype, requires_grad=False, return_ctype=True)


@cache
def kernel_for(kernel: "warp.Kernel", scalar: torch.dtype) -> "warp.Kernel":
    """The kernel for fields of this dtype, which some of its parameters leave open."""
    warp = quiet_warp()
    dtype, result = warp.dtype_from_torch(scalar), kernel
    # All kernels of the module in one go: each new overload compiles the module again.
    for other in list(kernel.module.kernels.values()):
        open_types = {
            argument.label: warp.array(dtype=dtype, ndim=argument.type.ndim)
            for argument in other.adj.args
            if getattr(argument.type, "dtype", None) is Any
        }
        if open_types:
            overload = warp.overload(other, open_types)
            result = overload if other is kernel else result
    return result


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """The threads of a process; a forked child does not inherit its parent's, hence the process as a key."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"nfldm3d-{process}")
