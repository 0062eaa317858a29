"""Text files of numbers that strangers wrote: matrices, one row or all of it on a line."""

import math
from pathlib import Path

from nfldm3d._types import PathName
from nfldm3d.files import DataFormatError, read_lines

MAX_BYTES = 64 * 2**20
"""Some 200,000 poses."""
LONGEST_LENGTH = 1e9
"""Of whatever unit; more is no length of a thing, and sums of squares would leave single precision."""


def parse_length(text: str, source: PathName, what: str) -> float:
    """A finite number below ``LONGEST_LENGTH`` out of a text; a DataFormatError names ``what`` it is of ``source``."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= LONGEST_LENGTH:
        raise DataFormatError(source, f"{what} is {text[:40]!r}; write a number below {LONGEST_LENGTH:g}")
    return value


def read_rows(path: Path) -> list[tuple[int, list[float]]]:
    """The numbers of each line that is not empty, with the line's own number from 1.

    Raises:
        DataFormatError: it cannot be read, is too long, or holds something else than numbers. NaN is a number.
    """
    lines = read_lines(path, MAX_BYTES, "restore the file")
    return [(number, _parse(path, number, line)) for number, line in enumerate(lines, 1) if line.strip()]


def _parse(path: Path, number: int, line: str) -> list[float]:
    try:
        return [float(word) for word in line.split()]
    except ValueError as error:
        raise DataFormatError(path, f"line {number}: {error}; write numbers") from error
