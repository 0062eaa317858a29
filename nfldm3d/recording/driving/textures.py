"""Textures of TORCS's models: PNG and SGI pictures, found by name in several folders."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from nfldm3d.data.image_files import open_picture

LARGEST = 512
"""Pixels along a side: more is not seen in small pictures."""
SOLID = 128
"""Alpha from which on a pixel is drawn."""


def find_texture(name: str, folders: Sequence[Path]) -> Path | None:
    """The picture called ``name`` in the first folder that has it."""
    if "/" in name or "\\" in name:
        return None
    return next((folder / name for folder in folders if os.path.isfile(folder / name)), None)


def read_texture(path: Path, largest: int = LARGEST) -> UInt8[np.ndarray, "height width 4"]:
    """Red, green, blue and alpha, row 0 on top, at most ``largest`` pixels high and wide.

    Raises:
        DataFormatError: it is no picture.
    """
    from PIL import Image

    with open_picture(path, ("PNG", "SGI")) as image:
        picture = image.convert("RGBA")
    if max(picture.size) > largest:
        smaller = (min(largest, picture.width), min(largest, picture.height))
        picture = picture.resize(smaller, Image.Resampling.BOX)
    return np.array(picture)


def has_holes(pixels: UInt8[np.ndarray, "height width 4"]) -> bool:
    """Whether some of a texture is not drawn."""
    return bool((pixels[..., 3] < SOLID).any())
