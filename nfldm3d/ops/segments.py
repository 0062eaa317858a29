"""Running sums and products over the segments of a packed vector, such as the samples of each ray."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nfldm3d.ops.checks import require
from nfldm3d.ops.launch import launch

ELEMENTS = 1 << 20
"""How many a thread should get at least: they take half a millisecond, and to wake a thread and wait for it a third."""
HALVES = (torch.float16, torch.bfloat16)
"""Computed in single precision and rounded back."""


def running_sum(
    values: Float[Tensor, " n"],
    starts: Int64[Tensor, " segments"],
    counts: Int64[Tensor, " segments"],
    *,
    exclusive: bool = False,
    reverse: bool = False,
    normalize: bool = False,
) -> Float[Tensor, " n"]:
    """Sums of each segment up to and including, or (exclusive) before, each element; zero outside all segments.

    ``reverse`` sums from the segment's end, which is the gradient. ``normalize`` divides by the segment's sum.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together, or (on the CPU) a segment reaches beyond the vector.
    """
    from nfldm3d.ops import segment_kernels as kernels

    inputs, results = _prepare(values, starts, counts)
    launch(
        kernels.sum_segments,
        len(starts),
        [*inputs, exclusive, reverse, normalize, results],
        values.device,
        grain=_grain(values, starts),
    )
    return results.to(values.dtype)


def running_product(
    values: Float[Tensor, " n"],
    starts: Int64[Tensor, " segments"],
    counts: Int64[Tensor, " segments"],
    *,
    exclusive: bool = False,
) -> Float[Tensor, " n"]:
    """Products of each segment up to and including, or (exclusive) before, each element; zero outside all segments.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together, or (on the CPU) a segment reaches beyond the vector.
    """
    from nfldm3d.ops import segment_kernels as kernels

    inputs, results = _prepare(values, starts, counts)
    launch(
        kernels.multiply_segments,
        len(starts),
        [*inputs, exclusive, results],
        values.device,
        grain=_grain(values, starts),
    )
    return results.to(values.dtype)


def running_product_adjoint(
    values: Float[Tensor, " n"],
    starts: Int64[Tensor, " segments"],
    counts: Int64[Tensor, " segments"],
    grads: Float[Tensor, " n"],
    *,
    exclusive: bool = False,
) -> Float[Tensor, " n"]:
    """The gradient of ``running_product``'s values, given that of its results; right where values are zero, too.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together, or (on the CPU) a segment reaches beyond the vector.
    """
    from nfldm3d.ops import segment_kernels as kernels

    require("grad_outputs", grads, (len(values),), values.device, values.dtype)
    inputs, results = _prepare(values, starts, counts)
    grads = grads.detach().to(results.dtype).contiguous()
    launch(kernels.multiply_segments_adjoint, len(starts), [*inputs, exclusive, grads, results], values.device)
    return results.to(values.dtype)


def _grain(values: Tensor, starts: Tensor) -> int:
    """The number of segments that are worth a thread."""
    return max(len(starts) * ELEMENTS // max(len(values), 1), 1)


def _prepare(values: Tensor, starts: Tensor, counts: Tensor) -> tuple[list[Tensor], Tensor]:
    """The tensors that every kernel takes first, and where its results go: zeros, unless all of them are written."""
    covered = _check(values, starts, counts)
    values = values.detach().to(torch.float32 if values.dtype in HALVES else values.dtype).contiguous()
    # To fill five megabytes that the kernel writes anyway would take a third of its time.
    results = torch.empty_like(values) if covered else torch.zeros_like(values)  # noqa: TID251
    return [values, starts, counts], results


def _check(values: Tensor, starts: Tensor, counts: Tensor) -> bool:
    """Whether the segments follow one another and cover all values; on a GPU the answer would have to be waited for."""
    device = values.device
    require("inputs", values, ("n",), device, torch.float32, torch.float64, *HALVES)
    require("chunk_starts", starts, ("segments",), device, torch.int64)
    require("chunk_cnts", counts, (len(starts),), device, torch.int64)
    if device.type != "cpu" or len(starts) == 0:
        return False
    ends = starts + counts
    if int((starts | counts).min()) < 0 or int(ends.max()) > len(values):
        raise ValueError(
            f"packed_info must describe segments of the {len(values)} inputs, but one starts or ends outside: "
            f"starts {int(starts.min())} to {int(starts.max())}, ends up to {int(ends.max())}"
        )
    return int(starts[0]) == 0 and int(ends[-1]) == len(values) and torch.equal(starts[1:], ends[:-1])
