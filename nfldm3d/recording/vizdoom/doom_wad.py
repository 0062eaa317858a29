"""Doom's WAD files: a directory of named lumps, and a map as a run of lumps behind its name."""

import struct
from pathlib import Path

from nfldm3d.files import DataFormatError, atomic_write, read_content

HEADER = struct.Struct("<4sii")
ENTRY = struct.Struct("<ii8s")
MAP_LUMPS = ("THINGS", "LINEDEFS", "SIDEDEFS", "VERTEXES", "SEGS", "SSECTORS", "NODES", "SECTORS", "REJECT", "BLOCKMAP")
"""What follows the name of a map, in this order."""
MAX_BYTES = 2**30


def read_map_lumps(path: Path, name: str) -> dict[str, bytes]:
    """The lumps of the map ``name``, by name."""
    content = read_content(path, MAX_BYTES, "check the file's name")
    directory = _read_directory(path, content)
    names = [entry[2] for entry in directory]
    if name not in names:
        raise DataFormatError(path, f"holds no map {name!r}; check the file and the name")
    start = names.index(name) + 1
    entries = [entry for entry in directory[start : start + len(MAP_LUMPS)] if entry[2] in MAP_LUMPS]
    lumps = {lump: content[offset : offset + size] for offset, size, lump in entries}
    missing = [lump for lump in ("THINGS", "LINEDEFS", "SIDEDEFS", "VERTEXES", "SECTORS") if lump not in lumps]
    if missing:
        raise DataFormatError(path, f"has no {missing} for {name}; only maps in Doom's binary format can be read")
    return lumps


def write_wad(path: Path, lumps: list[tuple[str, bytes]]) -> None:
    """A patch WAD of the given lumps in their order; it overrides the game's own of the same names."""
    offset, directory = HEADER.size, b""
    for name, data in lumps:
        directory += ENTRY.pack(offset, len(data), name.encode("ascii"))
        offset += len(data)
    body = b"".join(data for _, data in lumps)
    with atomic_write(path) as temporary:
        temporary.write_bytes(HEADER.pack(b"PWAD", len(lumps), offset) + body + directory)


def _read_directory(path: Path, content: bytes) -> list[tuple[int, int, str]]:
    """Offset, size and name of each lump."""
    header = content[: HEADER.size]
    if len(header) != HEADER.size or header[:4] not in (b"IWAD", b"PWAD"):
        raise DataFormatError(path, "is no WAD file: it begins with neither IWAD nor PWAD; check the name")
    _, count, offset = HEADER.unpack(header)
    file_size = len(content)
    if count < 0 or offset < 0 or offset + count * ENTRY.size > file_size:
        raise DataFormatError(path, f"is {file_size} bytes, too short for its {count} lumps; copy the file again")
    entries = list(ENTRY.iter_unpack(content[offset : offset + count * ENTRY.size]))
    if any(start < 0 or size < 0 or start + size > file_size for start, size, _ in entries):
        raise DataFormatError(path, "has a lump that lies outside the file; copy the file again")
    return [(start, size, name.split(b"\0")[0].decode("latin-1").upper()) for start, size, name in entries]
