"""Arrays of numbers out of .npy files that strangers wrote.

The header is read here: numpy's reader runs it through a parser of Python, takes .zip and pickles for arrays, and
allocates whatever a header asks for.
"""

import math
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nfldm3d._types import PathName
from nfldm3d.files import DataFormatError, refuse_special

MAGIC = b"\x93NUMPY"
LONGEST_START = 4096
"""Bytes within which the numbers must begin; numpy's own files have 128."""
HEADER = re.compile(
    r"\s*\{\s*'descr'\s*:\s*'(?P<kind>[<>|=]?(?:f[248]|[iu][1248]))'\s*,"
    r"\s*'fortran_order'\s*:\s*(?P<columns>True|False)\s*,"
    r"\s*'shape'\s*:\s*\((?P<shape>[0-9 ,]*)\)\s*,?\s*\}\s*"
)


class _Layout(NamedTuple):
    kind: np.dtype
    shape: tuple[int, ...]
    order: str
    offset: int


def map_array(path: PathName) -> np.ndarray:
    """The numbers of a file, which are read from the disk as they are needed; a DataFormatError if it is no .npy."""
    refuse_special(path)
    try:
        with open(path, "rb") as file:
            layout = _read_layout(file.read(LONGEST_START), os.fstat(file.fileno()).st_size, path)
    except OSError as error:
        raise DataFormatError(path, f"is no readable .npy array ({error.strerror}); check the name") from error
    kind, shape, order, offset = layout
    if 0 in shape:
        return np.zeros(shape, kind)
    return np.memmap(Path(path), kind, "r", offset, shape, order)  # type: ignore[call-overload]


def parse_array(content: bytes, source: PathName) -> np.ndarray:
    """As ``map_array``, of a file's content, which came from ``source``."""
    kind, shape, order, offset = _read_layout(content[:LONGEST_START], len(content), source)
    return np.frombuffer(content, kind, math.prod(shape), offset).reshape(shape, order=order)  # type: ignore[call-overload]


def _read_layout(start: bytes, size: int, source: PathName) -> _Layout:
    """What a header says, if the file holds as many numbers."""
    width = 2 if start[6:7] == b"\x01" else 4  # bytes of the header's length; versions 2 and 3 have longer ones
    length = int.from_bytes(start[8 : 8 + width], "little")
    offset = 8 + width + length
    if not start.startswith(MAGIC) or start[6:7] not in (b"\x01", b"\x02", b"\x03") or offset > len(start):
        raise _problem(source, "it does not begin as one")
    found = HEADER.fullmatch(start[8 + width : offset].decode("latin-1"))
    digits = [] if found is None else [part.strip() for part in found["shape"].split(",") if part.strip()]
    if found is None or not all(part.isdigit() and len(part) < 16 for part in digits) or len(digits) > 8:
        raise _problem(source, f"its header is {start[8 + width : offset][:80]!r}, not of numbers")
    kind, shape = np.dtype(found["kind"]), tuple(int(part) for part in digits)
    needed = math.prod(shape) * kind.itemsize
    if needed > size - offset:
        raise _problem(source, f"shape {shape} of {kind} takes {needed} bytes, {size - offset} are there")
    return _Layout(kind, shape, "F" if found["columns"] == "True" else "C", offset)


def _problem(source: PathName, what: str) -> DataFormatError:
    return DataFormatError(source, f"is no readable .npy array ({what}); write it again with numpy.save")
