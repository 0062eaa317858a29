"""What readers share about the files of a capture: their order, the missing ones, and that their sizes fit."""

import re
from collections.abc import Sequence
from pathlib import Path

from nfldm3d.data import image_files
from nfldm3d.data.frame import Frame
from nfldm3d.files import DataFormatError, warn_of


def natural_key(name: str) -> list[str | int]:
    """Sorts ``r_2`` before ``r_10``."""
    parts = re.split("([0-9]{1,18})", name)  # numbers at the odd places
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]


def is_file(path: Path) -> bool:
    """Whether there is such a file; False for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def find_present(source: Path, paths: Sequence[Path]) -> list[int]:
    """Indices of the pictures that exist; warns once with the count of the others, refuses when they are above half.

    Published captures often lack the pictures that were held back or too large.
    """
    present = [number for number, path in enumerate(paths) if is_file(path)]
    missing = len(paths) - len(present)
    if missing:
        first = next(path for path in paths if not is_file(path))
        report = f"{missing} of {len(paths)} pictures are missing, the first is {first}"
        if missing > len(paths) / 2:
            raise DataFormatError(source, f"{report}; restore the pictures or remove their frames")
        warn_of(source, f"{report}; their frames are left out", level=4)
    return present


def check_files(frames: Sequence[Frame]) -> bool:
    """Raises unless every file opens and fits its frame; tells whether any picture lets a background through."""

    def check(frame: Frame) -> Path | None:
        veiled = None
        for path in (frame.image, frame.depth, frame.mask, frame.labels):
            if isinstance(path, Path):
                width, height, has_alpha = image_files.probe(path)
                frame.check_size(path, width, height)
                veiled = path if has_alpha and path is frame.image else veiled
        return veiled

    veiled = [path for path in image_files.map_parallel(check, frames) if path is not None]
    # an alpha channel tells nothing, its values do: the first picture mostly settles it, else all must be looked at
    return any(map(image_files.is_transparent, veiled[:1])) or any(
        image_files.map_parallel(image_files.is_transparent, veiled[1:])
    )
