"""Point positions as PLY, the format of nerfstudio's ``ply_file_path`` and of every viewer."""

import re
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.files import DataFormatError, read_content

MAX_BYTES = 4 * 2**30
TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
HEADER = re.compile(
    rb"ply\r?\nformat (ascii|binary_little_endian|binary_big_endian) 1\.0\r?\n"
    rb"(?:(?:comment|obj_info)[^\n]*\n)*element vertex ([0-9]{1,9})\r?\n((?:property [a-z0-9]+ [A-Za-z0-9_]+\r?\n)+)"
    rb"(?:[^\n]*\n)*?end_header\r?\n"
)


def read_points(path: Path) -> Float[Tensor, "points 3"]:
    """Positions of the vertices of a PLY file, ASCII or binary, float64; vertices must be its first element."""
    content = read_content(path, MAX_BYTES, "restore the file")
    header = HEADER.match(content[:65536])
    names = [line.split() for line in header[3].decode().splitlines()] if header else []
    if (
        not header
        or not {"x", "y", "z"} <= {name for _, _, name in names}
        or any(kind not in TYPES for _, kind, _ in names)
    ):
        raise DataFormatError(path, "is no PLY file that begins with vertices x, y, z; write the points again")
    order = ">" if header[1] == b"binary_big_endian" else "<"
    count, body = int(header[2]), content[header.end() :]
    try:
        if header[1] == b"ascii":
            if len(body) < 2 * len(names) * count - 1:  # digits and blanks, before rows are made of too few
                raise ValueError(f"{len(body)} bytes")
            lines = body.split(b"\n", count)[:count]
            rows = np.array([line.split()[: len(names)] for line in lines], dtype=np.float64)
            columns = [rows[:, [name for _, _, name in names].index(axis)] for axis in "xyz"]
        else:
            vertex = np.dtype([(name, order + TYPES[kind]) for _, kind, name in names])
            table = np.frombuffer(body, vertex, count)
            columns = [table[axis] for axis in "xyz"]
        with np.errstate(all="ignore"):  # numbers that are none are refused below
            points = torch.from_numpy(np.stack(columns, axis=-1).astype(np.float64))
    except (ValueError, IndexError) as error:
        raise DataFormatError(path, f"is truncated or damaged ({error}); write the points again") from error
    if len(points) != count or not bool(torch.isfinite(points).all()):
        raise DataFormatError(path, f"does not hold the {count} finite points it announces; write the points again")
    return points


def write_points(path: Path, points: Float[Tensor, "points 3"]) -> None:
    """A binary PLY file of positions."""
    properties = "".join(f"property float {axis}\n" for axis in "xyz")
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{properties}end_header\n"
    path.write_bytes(header.encode() + points.float().contiguous().numpy().astype("<f4").tobytes())
