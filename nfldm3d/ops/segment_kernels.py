# pyright: basic, reportInvalidTypeForm=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
"""Warp kernels for running sums and products over segments of a packed vector: one thread a segment.

All sums and products run in double precision, in an order that does not depend on threads: the CPU takes eight elements
of single precision at a time, in vector registers, and adds what came before to their own running sums.
"""

import typing
from typing import Any

import warp as wp

wp.set_module_options({"enable_backward": False})

# Element i of a segment lies at in[i * step]; step -1 walks it from behind. Exclusive results belong one place later.
# Products of eight doubles, but not of eight floats, might overflow on the way to a result that does not. The sum's
# NO_CHANGE is -0.0 because clang moves zeros into vectors by slower instructions.
_SCAN = """
    const int64_t step = reverse ? -1 : 1, late = exclusive ? step : 0;
    const auto* __restrict in = values.data + start + (reverse ? count - 1 : 0);
    auto* __restrict out = results.data + start + (reverse ? count - 1 : 0);
    double total = NEUTRAL;
    int64_t i = 0;
    if (exclusive) out[0] = NEUTRAL;
    #if !defined(__CUDA_ARCH__)
    const auto one = *in;
    if (sizeof(one) == sizeof(float)) {
        typedef decltype(one + one) block __attribute__((ext_vector_type(8)));
        typedef double wide __attribute__((ext_vector_type(8)));
        const int64_t end = exclusive ? count - 1 : count;
        const wide neutral = NO_CHANGE;
        wide before = NEUTRAL;
        block raw;
        const auto scan = [=](wide x) __attribute__((always_inline)) -> wide {
            x = x OP __builtin_shufflevector(neutral, x, 0, 8, 9, 10, 11, 12, 13, 14);
            x = x OP __builtin_shufflevector(neutral, x, 0, 1, 8, 9, 10, 11, 12, 13);
            return x OP __builtin_shufflevector(neutral, x, 0, 1, 2, 3, 8, 9, 10, 11);
        };
        if (reverse) {
            for (; i + 8 <= end; i += 8) {
                __builtin_prefetch(in - i - 256);
                __builtin_prefetch(out - i - 256, 1);
                __builtin_memcpy(&raw, in - i - 7, sizeof(raw));
                raw = __builtin_shufflevector(raw, raw, 7, 6, 5, 4, 3, 2, 1, 0);
                BLOCK
                raw = __builtin_shufflevector(raw, raw, 7, 6, 5, 4, 3, 2, 1, 0);
                __builtin_memcpy(out - i - 7 + late, &raw, sizeof(raw));
            }
        } else {
            for (; i + 8 <= end; i += 8) {
                __builtin_prefetch(in + i + 256);
                __builtin_prefetch(out + i + 256, 1);
                __builtin_memcpy(&raw, in + i, sizeof(raw));
                BLOCK
                __builtin_memcpy(out + i + late, &raw, sizeof(raw));
            }
        }
        total = before[0];
    }
    #endif
    for (; i < count; ++i) {
        total = total OP (double)in[i * step];
        if (i + 1 < count || !exclusive) out[i * step + late] = total;
    }
""".replace(
    "BLOCK",
    """
                const wide x = scan(__builtin_convertvector(raw, wide));
                raw = __builtin_convertvector(before OP x, block);
                before = before OP __builtin_shufflevector(x, x, 7, 7, 7, 7, 7, 7, 7, 7);
    """,
)

_SUM = (
    _SCAN.replace("OP", "+").replace("NEUTRAL", "0.0").replace("NO_CHANGE", "-0.0")
    + """
    if (normalize) {
        const double divisor = total > 1e-10 ? total : 1e-10;
        for (int64_t j = 0; j < count; ++j) out[j * step] /= divisor;
    }
"""
)

_PRODUCT = "const bool reverse = false;" + _SCAN.replace("OP", "*").replace("NEUTRAL", "1.0").replace(
    "NO_CHANGE", "1.0"
)

_PRODUCT_ADJOINT = """
    const auto* __restrict in = values.data + start;
    const auto* __restrict grad = grads.data + start;
    auto* __restrict out = results.data + start;
    double before = 1.0;
    for (int64_t i = 0; i < count; ++i) {
        out[i] = before;
        before *= (double)in[i];
    }
    double behind = 0.0;
    for (int64_t i = count - 1; i >= 0; --i) {
        if (!exclusive) behind += (double)grad[i];
        out[i] = (double)out[i] * behind;
        behind = exclusive ? (double)grad[i] + (double)in[i] * behind : (double)in[i] * behind;
    }
"""


@wp.func_native(_SUM)
@typing.no_type_check
def sum_segment(
    values: wp.array(dtype=Any),
    results: wp.array(dtype=Any),
    start: wp.int64,
    count: wp.int64,
    exclusive: bool,
    reverse: bool,
    normalize: bool,
):
    """Running sums of a segment; normalised ones are divided by the sum of all, or 1e-10 if that is less."""
    ...


@wp.func_native(_PRODUCT)
@typing.no_type_check
def multiply_segment(
    values: wp.array(dtype=Any), results: wp.array(dtype=Any), start: wp.int64, count: wp.int64, exclusive: bool
):
    """Running products of a segment."""
    ...


@wp.func_native(_PRODUCT_ADJOINT)
@typing.no_type_check
def multiply_segment_adjoint(
    values: wp.array(dtype=Any),
    grads: wp.array(dtype=Any),
    results: wp.array(dtype=Any),
    start: wp.int64,
    count: wp.int64,
    exclusive: bool,
):
    """Gradient of running products p_j: of element i, it is (product before i) * (sum of dL/dp_j * p_j / p_i).

    The sum runs over the products with i and follows from the next element's, so nothing is divided by.
    """
    ...


@wp.func
@typing.no_type_check
def is_within(start: wp.int64, count: wp.int64, size: int) -> bool:
    """Whether a segment is one of a vector of this size, and not empty."""
    return start >= wp.int64(0) and count > wp.int64(0) and count <= wp.int64(size) - start


@wp.kernel(grid_stride=False)
@typing.no_type_check
def sum_segments(
    offset: int,
    values: wp.array(dtype=Any),
    starts: wp.array(dtype=wp.int64),
    counts: wp.array(dtype=wp.int64),
    exclusive: bool,
    reverse: bool,
    normalize: bool,
    results: wp.array(dtype=Any),
):
    """Running sums of segment ``offset`` + tid, from its end if ``reverse``."""
    segment = offset + wp.tid()
    start = starts[segment]
    count = counts[segment]
    if is_within(start, count, values.shape[0]):
        sum_segment(values, results, start, count, exclusive, reverse, normalize)


@wp.kernel(grid_stride=False)
@typing.no_type_check
def multiply_segments(
    offset: int,
    values: wp.array(dtype=Any),
    starts: wp.array(dtype=wp.int64),
    counts: wp.array(dtype=wp.int64),
    exclusive: bool,
    results: wp.array(dtype=Any),
):
    """Running products of segment ``offset`` + tid."""
    segment = offset + wp.tid()
    start = starts[segment]
    count = counts[segment]
    if is_within(start, count, values.shape[0]):
        multiply_segment(values, results, start, count, exclusive)


@wp.kernel(grid_stride=False)
@typing.no_type_check
def multiply_segments_adjoint(
    offset: int,
    values: wp.array(dtype=Any),
    starts: wp.array(dtype=wp.int64),
    counts: wp.array(dtype=wp.int64),
    exclusive: bool,
    grads: wp.array(dtype=Any),
    results: wp.array(dtype=Any),
):
    """The gradient of ``multiply_segments`` for segment ``offset`` + tid."""
    segment = offset + wp.tid()
    start = starts[segment]
    count = counts[segment]
    if is_within(start, count, values.shape[0]):
        multiply_segment_adjoint(values, grads, results, start, count, exclusive)
