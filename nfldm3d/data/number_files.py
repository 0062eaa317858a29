"""Text files of numbers that strangers wrote: matrices, one row or all of it on a line."""

from pathlib import Path

from nfldm3d.files import DataFormatError, read_lines

MAX_BYTES = 64 * 2**20
"""Some 200,000 poses."""


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
