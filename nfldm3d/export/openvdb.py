"""Writes sparse grids as OpenVDB files (.vdb), version 224, trees of the standard 5-4-3 shape.

The format is that of OpenVDB's own ``io/`` and ``tree/`` sources; JangaFX, "VDB: a deep dive", describes it. A tree
has a root, nodes of 32^3 children (4096 voxels wide), nodes of 16^3 children (128 voxels wide), and leaves of 8^3
voxels. Values are not zipped; inactive ones are left out (flag COMPRESS_ACTIVE_MASK), which every reader knows.
"""

import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nfldm3d._types import Vector

MAGIC, VERSION, LIBRARY = 0x56444220, 224, (10, 0)
ACTIVE_MASK = 2
"""Compression flag: only active values are stored."""
ALL_INACTIVE_ARE_BACKGROUND = 0
LEAF, LOWER, UPPER = 8, 128, 4096
"""Voxels along the edge of each kind of node."""


@dataclass(frozen=True)
class Grid:
    """A sparse grid: leaves of 8x8x8 voxels."""

    name: str
    starts: np.ndarray
    """(leaves 3) int: the first voxel of each leaf, multiples of 8."""
    values: np.ndarray
    """(leaves 8 8 8) of scalars or (leaves 8 8 8 3) of vectors, float32."""
    active: np.ndarray
    """(leaves 8 8 8) bool."""
    origin: Vector
    """World position of the centre of voxel (0, 0, 0)."""
    voxel_size: Vector
    kind: str = "unknown"
    """OpenVDB's grid class, e.g. "fog volume"."""


def encode_vdb(grids: list[Grid]) -> bytes:
    """The file's content."""
    identity = str(uuid.UUID(int=0)).encode()  # nothing reads it; a constant keeps files reproducible
    parts = [struct.pack("<qIIIB", MAGIC, VERSION, *LIBRARY, 1), identity]
    parts += [_encode_metadata({"creator": "nfldm3d"}), struct.pack("<I", len(grids))]
    position = sum(map(len, parts))
    for grid in grids:
        head = _string(grid.name) + _string(f"Tree_{'float' if grid.values.ndim == 4 else 'vec3s'}_5_4_3") + _string("")
        top = _encode_head(grid) + b"".join(_encode_topology(grid))
        leaves = b"".join(_encode_leaves(grid))
        start = position + len(head) + 24  # three offsets stand between
        offsets = struct.pack("<qqq", start, start + len(top), start + len(top) + len(leaves))
        parts += [head, offsets, top, leaves]
        position = start + len(top) + len(leaves)
    return b"".join(parts)


def _encode_head(grid: Grid) -> bytes:
    """Compression flag, metadata and transform."""
    used = grid.starts[:, None, :] + np.argwhere(np.ones((LEAF,) * 3))[None]  # (leaves 512 3)
    used = used[grid.active.reshape(len(grid.starts), -1)]
    low, high = (used.min(0), used.max(0)) if len(used) else (np.zeros(3, int), np.zeros(3, int))
    metadata = {
        "class": grid.kind,
        "file_bbox_max": tuple(high.tolist()),
        "file_bbox_min": tuple(low.tolist()),
        "file_voxel_count": int(grid.active.sum()),
        "is_saved_as_half_float": False,
        "name": grid.name,
    }
    size = grid.voxel_size
    uniform = max(size) - min(size) <= 1e-6 * max(size)
    kind = "UniformScaleTranslateMap" if uniform else "ScaleTranslateMap"
    scale = (size[0],) * 3 if uniform else size
    inverse = [1 / value for value in scale]
    numbers = [*grid.origin, *scale, *scale, *inverse, *(v * v for v in inverse), *(v / 2 for v in inverse)]
    return struct.pack("<I", ACTIVE_MASK) + _encode_metadata(metadata) + _string(kind) + struct.pack("<18d", *numbers)


def _encode_topology(grid: Grid) -> Iterator[bytes]:
    """Which nodes exist and which voxels are active, depth first."""
    width = 1 if grid.values.ndim == 4 else 3
    upper = list(_split(grid.starts, np.arange(len(grid.starts)), UPPER))
    yield struct.pack("<I", 1) + bytes(4 * width) + struct.pack("<II", 0, len(upper))  # background 0, no tiles
    for start, leaves in upper:
        lower = list(_split(grid.starts, leaves, LOWER))
        yield struct.pack("<3i", *start) + _encode_node([child for child, _ in lower], LOWER, UPPER // LOWER)
        for _, inner in lower:
            yield _encode_node(grid.starts[inner], LEAF, LOWER // LEAF)
            yield from (_bits(grid.active[leaf]) for leaf in inner)


def _encode_leaves(grid: Grid) -> Iterator[bytes]:
    """The values of the active voxels, in the order of the topology."""
    values = np.ascontiguousarray(grid.values, dtype="<f4")
    for _, leaves in _split(grid.starts, np.arange(len(grid.starts)), UPPER):
        for _, inner in _split(grid.starts, leaves, LOWER):
            for leaf in inner:
                mask = grid.active[leaf]
                yield _bits(mask) + bytes([ALL_INACTIVE_ARE_BACKGROUND]) + values[leaf][mask].tobytes()


def _split(starts: np.ndarray, leaves: np.ndarray, width: int) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """The leaves of each node of ``width`` voxels, both in the order in which nodes keep their children."""
    nodes = starts[leaves] // width
    order = np.lexsort((*starts[leaves].T[::-1], *nodes.T[::-1]))
    nodes, leaves = nodes[order], leaves[order]
    changes = np.flatnonzero((np.diff(nodes, axis=0) != 0).any(1)) + 1
    for group in np.split(np.arange(len(leaves)), changes):
        if len(group):
            yield tuple((nodes[group[0]] * width).tolist()), leaves[group]


def _encode_node(children: list[tuple[int, ...]] | np.ndarray, width: int, count: int) -> bytes:
    """Masks of an inner node of ``count``^3 slots of ``width`` voxels; it has children only, no active tiles."""
    slots = np.zeros((count,) * 3, dtype=bool)
    slots[tuple((np.asarray(children) // width % count).T)] = True
    return _bits(slots) + bytes(slots.size // 8) + bytes([ALL_INACTIVE_ARE_BACKGROUND])


def _bits(mask: np.ndarray) -> bytes:
    return np.packbits(mask.reshape(-1), bitorder="little").tobytes()


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<I", len(data)) + data


def _encode_metadata(values: dict[str, object]) -> bytes:
    parts = [struct.pack("<I", len(values))]
    for name, value in values.items():
        match value:
            case bool():
                kind, data = "bool", struct.pack("<B", value)
            case int():
                kind, data = "int64", struct.pack("<q", value)
            case str():
                kind, data = "string", value.encode()
            case (int(), int(), int()):
                kind, data = "vec3i", struct.pack("<3i", *value)
            case other:
                raise TypeError(f"no metadata type for {other!r}")
        parts += [_string(name), _string(kind), struct.pack("<I", len(data)), data]
    return b"".join(parts)
