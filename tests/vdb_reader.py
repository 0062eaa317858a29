"""Reads .vdb files as OpenVDB does, to check ours."""

import struct
from pathlib import Path

import numpy as np


class VdbReader:
    """Reads trees 5-4-3 of version 224 as the format's description has it; written apart from the writer."""

    def __init__(self, path: Path):
        self.data, self.place = path.read_bytes(), 0
        assert self.take("<q") == 0x56444220
        assert self.take("<I") == 224
        assert self.take("<I") == 10 and self.take("<I") == 0
        assert self.take("<B") == 1  # offsets to the grids are there
        self.place += 36  # uuid
        self.metadata()

    def take(self, kind: str):
        values = struct.unpack_from(kind, self.data, self.place)
        self.place += struct.calcsize(kind)
        return values[0] if len(values) == 1 else values

    def text(self) -> str:
        size = self.take("<I")
        self.place += size
        return self.data[self.place - size : self.place].decode()

    def metadata(self) -> dict[str, bytes]:
        found = {}
        for _ in range(self.take("<I")):
            name, _kind = self.text(), self.text()
            found[name] = self.text().encode("latin1") if _kind == "string" else self.raw()
        return found

    def raw(self) -> bytes:
        size = self.take("<I")
        self.place += size
        return self.data[self.place - size : self.place]

    def mask(self, count: int) -> np.ndarray:
        """The numbers of the bits that are set; each word of 64 bits counts from its lowest."""
        words = [self.take("<Q") for _ in range(count // 64)]
        return np.array([64 * w + b for w, word in enumerate(words) for b in range(64) if word >> b & 1], dtype=int)

    def grids(self) -> dict[str, dict]:
        return dict(self.grid() for _ in range(self.take("<I")))

    def grid(self) -> tuple[str, dict]:
        name, tree, parent = self.text(), self.text(), self.text()
        assert parent == ""
        start, blocks, end = self.take("<qqq")
        assert self.place == start
        assert self.take("<I") == 2  # active values only, no zip
        metadata, map_kind = self.metadata(), self.text()
        numbers = np.array(self.take("<18d"))
        self.width = {"Tree_float_5_4_3": 1, "Tree_vec3s_5_4_3": 3}[tree]
        assert self.take("<I") == 1
        background, tiles, children = self.take(f"<{4 * self.width}s"), self.take("<I"), self.take("<I")
        assert background == bytes(4 * self.width) and tiles == 0
        leaves = [leaf for _ in range(children) for leaf in self.root_child()]
        assert self.place == blocks
        voxels = {}
        for origin, active in leaves:
            assert np.array_equal(self.mask(512), active) and self.take("<B") == 0
            values = np.frombuffer(self.data, "<f4", len(active) * self.width, self.place)
            self.place += values.nbytes
            for voxel, value in zip(active, values.reshape(-1, self.width), strict=True):
                place = origin + np.array((voxel >> 6, voxel >> 3 & 7, voxel & 7))
                voxels[tuple(place.tolist())] = value
        assert self.place == end
        return name, {"voxels": voxels, "map": map_kind, "numbers": numbers, "metadata": metadata}

    def root_child(self) -> list[tuple[np.ndarray, np.ndarray]]:
        origin, leaves = np.array(self.take("<3i")), []
        for child in self.inner_node(32**3):
            middle = origin + 128 * np.array([child >> 10, child >> 5 & 31, child & 31])
            for leaf in self.inner_node(16**3):
                corner = middle + 8 * np.array([leaf >> 8, leaf >> 4 & 15, leaf & 15])
                leaves.append((corner, self.mask(512)))
        return leaves

    def inner_node(self, slots: int) -> np.ndarray:
        children, tiles = self.mask(slots), self.mask(slots)
        assert len(tiles) == 0 and self.take("<B") == 0
        return children
