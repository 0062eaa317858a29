"""Bird's-eye maps that users give: class numbers, maps of a data set, or pictures painted in the palette's colours."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor

from nfldm3d._types import PathName
from nfldm3d.data.bev_map import BevMap, from_rows
from nfldm3d.data.image_files import FORMATS, open_picture

PAINTED = ("BMP", "GIF")
"""What painting programs write besides the usual formats."""

BevInput: TypeAlias = Tensor | np.ndarray | BevMap | PathName


def read_classes(
    bev: BevInput, names: Sequence[str], palette: Sequence[Sequence[int]], size: int
) -> Int64[Tensor, "maps x y"]:
    """Class numbers; the number ``len(names)`` leaves a cell open.

    Raises:
        ValueError: the map has another size, unknown colours or numbers, or is all void.
        DataFormatError: the file is no picture.
    """
    if isinstance(bev, BevMap):
        where, classes = "the BEV map", bev.classes
        if tuple(bev.class_names) != tuple(names):
            raise ValueError(
                f"{where} has classes of another world ({', '.join(bev.class_names)}); these weights know "
                f"{', '.join(names)}: take a map, or weights, of one world"
            )
    elif isinstance(bev, Tensor | np.ndarray):
        where, classes = "the BEV map", torch.as_tensor(bev)
    else:
        where, classes = str(bev), _read_picture(Path(bev), palette)
    if classes.is_floating_point() or classes.dtype == torch.bool:
        raise ValueError(f"{where} must hold class numbers as integers, got {classes.dtype}")
    classes = classes.long()
    classes = classes[None] if classes.dim() == 2 else classes
    if classes.dim() != 3 or classes.shape[1:] != (size, size):
        found = " x ".join(map(str, classes.shape[1:] if classes.dim() == 3 else classes.shape))
        raise ValueError(f"{where} has {found} cells, not {size} x {size}; resample it without mixing colours")
    low, high = int(classes.min()), int(classes.max())
    if low < 0 or high > len(names):
        raise ValueError(
            f"{where} holds class {low if low < 0 else high}, but classes go from 0 to {len(names) - 1} "
            f"({', '.join(names)}), and {len(names)} for cells that are left open"
        )
    if "void" in names and bool((classes == list(names).index("void")).all()):
        raise ValueError(f"{where} is void everywhere: there would be nothing; paint some floor")
    return classes


def read_map(
    bev: BevInput, names: Sequence[str], palette: Sequence[Sequence[int]], size: int, scenes: int
) -> Int64[Tensor, "scenes x y"]:
    """Class numbers for each scene, from one map for all or one for each; see ``read_classes``.

    Args:
        size: cells of the maps that the weights were trained with; 0 for none.

    Raises:
        ValueError: the weights take no maps, or others, or there are not as many as scenes.
        DataFormatError: the file is no picture.
    """
    if not size:
        raise ValueError("these weights were trained without maps; leave out bev, or take other weights")
    classes = read_classes(bev, names, palette, size)
    if len(classes) not in (1, scenes):
        raise ValueError(f"got {len(classes)} maps for {scenes} scenes; give one for all, or one for each")
    return classes.expand(scenes, -1, -1)


def _read_picture(path: Path, palette: Sequence[Sequence[int]]) -> Shaped[Tensor, "x y"]:
    """Class numbers by colour; transparent pixels are left open."""
    if not path.exists():
        raise ValueError(f"{path} does not exist; give the path of a picture")
    with open_picture(path, (*FORMATS, *PAINTED)) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGBA")))
    return classes_of_colors(pixels, palette, str(path))


def classes_of_colors(
    pixels: UInt8[Tensor, "height width 4"], palette: Sequence[Sequence[int]], where: str
) -> Int64[Tensor, "x y"]:
    """Class numbers of a picture, north up, by colour; transparent pixels are left open.

    Raises:
        ValueError: ``where`` has colours that are not in the palette.
    """
    colors = torch.tensor([list(color) for color in palette], dtype=torch.uint8)
    same = (pixels[..., None, :3] == colors).all(-1)
    transparent = pixels[..., 3] == 0
    unknown = ~same.any(-1) & ~transparent
    if bool(unknown.any()):
        found = pixels[unknown][:, :3].unique(dim=0).tolist()
        shown = ", ".join("#{:02x}{:02x}{:02x}".format(*color) for color in found[:5])
        rest = f" and {len(found) - 5} more" if len(found) > 5 else ""
        known = ", ".join("#{:02x}{:02x}{:02x}".format(*color) for color in palette)
        raise ValueError(f"{where} has unknown colours: {shown}{rest}; paint with {known}, or leave pixels transparent")
    classes = torch.where(transparent, len(palette), same.int().argmax(-1))
    return from_rows(classes)
