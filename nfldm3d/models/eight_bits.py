"""Weights kept in 8 bits each, with a scale for each output channel; they are computed with as any others.

A weight matrix W becomes round(W / s) with s = max |W| / 127 along each row (symmetric per-channel quantisation; Nagel
et al. 2021, "A White Paper on Neural Network Quantization", section 2). For about normal weights the error is a
hundredth of their deviation; files are half as large as in fp16.
"""

from pathlib import Path

import torch
from jaxtyping import Shaped
from torch import Tensor

from nfldm3d._types import PathName
from nfldm3d.files import DataFormatError
from nfldm3d.tensor_files import Shapes, Tensors, read_tensors, write_tensors

SCALE = ".int8_scale"
"""Ends the names of the scales."""
LEAST = 4096
"""Numbers in a tensor that is worth it."""
LEVELS = 127
EXACT = "scaling.factor"
"""Ends the names of what correlates numbers: what differs by centimetres would be lost."""


def pack_weights(tensors: dict[str, Shaped[Tensor, "..."]]) -> Tensors:
    """Large tensors of floating-point numbers as int8, and their scales as fp16; the others as they are.

    Raises:
        ValueError: a tensor holds NaN or infinity.
    """
    packed: Tensors = {}
    for name, value in tensors.items():
        exact = name.endswith(EXACT)
        if exact or value.dim() < 2 or value.numel() < LEAST or not value.is_floating_point():
            packed[name] = value
            continue
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} holds NaN or infinity; train it again")
        rows = value.detach().float().flatten(1)
        scale = (rows.abs().amax(1) / LEVELS).clamp(min=2.0**-14).half()  # above 0 in fp16
        steps = (rows / scale.float()[:, None]).round().clamp(-LEVELS, LEVELS)
        packed[name] = steps.to(torch.int8).view(value.shape)
        packed[f"{name}{SCALE}"] = scale
    return packed


def unpack_weights(tensors: dict[str, Shaped[Tensor, "..."]], source: PathName) -> Tensors:
    """The weights that ``pack_weights`` was given, about, in single precision; others stay as they are.

    Raises:
        DataFormatError: scales are missing, or fit no tensor.
    """
    scales = {name: value for name, value in tensors.items() if name.endswith(SCALE)}
    plain = {name: value for name, value in tensors.items() if name not in scales}
    for name, scale in scales.items():
        of = name.removesuffix(SCALE)
        value = plain.get(of)
        if value is None or value.dtype != torch.int8 or value.dim() < 2 or scale.shape != value.shape[:1]:
            raise DataFormatError(source, f"{name} fits no tensor of 8-bit weights; copy the file again")
        plain[of] = value.float() * scale.float().view(-1, *(1 for _ in value.shape[1:]))
    return plain


def drop_scales(shapes: Shapes) -> Shapes:
    """The shapes of weights without those of scales."""
    return {name: shape for name, shape in shapes.items() if not name.endswith(SCALE)}


def pack_file(path: Path) -> None:
    """Keeps the weights of a file of ours in 8 bits."""
    write_tensors(path, pack_weights(read_tensors(path)), {"format": "pt"})
