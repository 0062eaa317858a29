"""Volume files: OpenVDB re-read by a small independent reader, NanoVDB by Warp."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from nfldm3d.appearance import Rgb
from nfldm3d.export import export_volume
from nfldm3d.export.mesh import linear_from_srgb
from nfldm3d.field import VoxelField
from nfldm3d.geometry import Box
from nfldm3d.scene import Scene

CUBES = Box((-1.0, 2.0, 0.5), (0.3, 3.1, 1.9))  # 13 x 11 x 14 voxels of 0.1 m
RESOLUTION = (13, 11, 14)


def make_scene(box: Box, resolution: tuple[int, int, int], generator: torch.Generator) -> Scene:
    density = torch.rand(resolution, generator=generator) * 30
    density[density < 20] = 0
    density[8:] = 0  # leaves that stay away
    density[-1, -1, -1] = 7.0
    return Scene(VoxelField(density, torch.rand(*resolution, 3, generator=generator), box), Rgb())


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


def test_vdb_gives_back_every_voxel_at_its_place(tmp_path: Path, generator: torch.Generator) -> None:
    scene = make_scene(CUBES, RESOLUTION, generator)
    export_volume(scene, tmp_path / "a.vdb")
    grids = VdbReader(tmp_path / "a.vdb").grids()
    assert set(grids) == {"density", "color"}
    active = scene.field.density.nonzero()
    for name, expected in (
        ("density", scene.field.density[..., None]),
        ("color", linear_from_srgb(scene.field.features)),
    ):
        voxels = grids[name]["voxels"]
        assert set(voxels) == {tuple(index) for index in active.tolist()}
        assert all(np.allclose(voxels[i], expected[i], atol=1e-6) for i in voxels)
    assert all(grids["density"]["voxels"][i][0] == scene.field.density[i] for i in map(tuple, active.tolist()))
    metadata = grids["density"]["metadata"]
    assert metadata["class"] == b"fog volume" and metadata["name"] == b"density"
    assert struct.unpack("<q", metadata["file_voxel_count"]) == (len(active),)
    assert struct.unpack("<3i", metadata["file_bbox_min"]) == tuple(active.amin(0).tolist())
    assert struct.unpack("<3i", metadata["file_bbox_max"]) == tuple(active.amax(0).tolist())


@pytest.mark.parametrize(
    ("box", "kind"),
    [(CUBES, "UniformScaleTranslateMap"), (Box((-1.0, 2.0, 0.5), (0.3, 4.2, 3.3)), "ScaleTranslateMap")],
)
def test_vdb_indices_stand_at_voxel_centres(tmp_path: Path, generator: torch.Generator, box: Box, kind: str) -> None:
    scene = make_scene(box, RESOLUTION, generator)
    export_volume(scene, tmp_path / "a.vdb", color=False)
    grids = VdbReader(tmp_path / "a.vdb").grids()
    assert list(grids) == ["density"] and grids["density"]["map"] == kind
    origin, scale, size, inverse, square, half = grids["density"]["numbers"].reshape(6, 3)
    index = np.array([3, 7, 5])
    assert origin + scale * index == pytest.approx(scene.field.voxel_centers()[3, 7, 5].numpy(), abs=1e-6)
    assert np.array_equal(size, scale)
    for found, expected in ((inverse, 1 / scale), (square, 1 / scale**2), (half, 0.5 / scale)):
        assert found == pytest.approx(expected)


def test_trees_reach_over_several_nodes(tmp_path: Path) -> None:
    density = torch.zeros(140, 9, 150)
    places = [(0, 0, 0), (7, 8, 149), (139, 3, 127), (128, 0, 128), (127, 8, 1)]
    for number, place in enumerate(places):
        density[place] = number + 1.0
    field = VoxelField(density, torch.zeros(*density.shape, 3), Box((0.0, 0.0, 0.0), (14.0, 0.9, 15.0)))
    export_volume(Scene(field, Rgb()), tmp_path / "a.vdb")
    voxels = VdbReader(tmp_path / "a.vdb").grids()["density"]["voxels"]
    assert {place: float(value[0]) for place, value in voxels.items()} == {p: n + 1 for n, p in enumerate(places)}


def test_nvdb_is_read_by_warp_at_the_right_places(tmp_path: Path, generator: torch.Generator) -> None:
    wp = pytest.importorskip("warp")
    scene = make_scene(CUBES, RESOLUTION, generator)
    export_volume(scene, tmp_path / "a.nvdb")
    with open(tmp_path / "a.nvdb", "rb") as file:
        volume = wp.Volume.load_from_nvdb(file, device="cpu")
    info = volume.get_grid_info()
    assert info.name == "density" and np.asarray(info.translation) == pytest.approx((-0.95, 2.05, 0.55))
    assert volume.get_voxel_size() == pytest.approx((0.1, 0.1, 0.1), abs=1e-6)
    assert b"density\0" in (tmp_path / "a.nvdb").read_bytes()
    index = volume.get_voxels().numpy()
    values = np.zeros(volume.get_voxel_count(), dtype=np.float32)
    assert len(index) % 512 == 0 and len(values) == len(index)  # whole leaves
    density = np.zeros((16, 16, 16), dtype=np.float32)
    density[:13, :11, :14] = scene.field.density.numpy()
    found = read_nvdb(volume, index)
    assert np.array_equal(found, density[tuple(index.T)])
    assert {tuple(i) for i in index[found > 0]} == {tuple(i) for i in scene.field.density.nonzero().tolist()}


def read_nvdb(volume, index: np.ndarray) -> np.ndarray:
    """Values of voxels, straight from NanoVDB's leaf nodes: 96 bytes of head, 512 floats."""
    data = volume.array().numpy()
    tree = 672
    leaf_start = tree + int(data[tree : tree + 8].view(np.int64)[0])
    leaves = data[leaf_start : leaf_start + len(index) // 512 * 2144].reshape(-1, 2144)
    corners = leaves[:, :12].copy().view(np.int32)
    values = leaves[:, 96:].copy().view(np.float32)
    number = {tuple(corner): leaf for leaf, corner in enumerate((corners & ~7).tolist())}
    return np.array(
        [values[number[tuple((i & ~7).tolist())], (i[0] & 7) << 6 | (i[1] & 7) << 3 | i[2] & 7] for i in index]
    )


@pytest.mark.parametrize("suffix", [".vdb", ".nvdb"])
def test_a_box_selects_voxels_by_their_centres(tmp_path: Path, generator: torch.Generator, suffix: str) -> None:
    scene = make_scene(CUBES, RESOLUTION, generator)
    crop = Box((-0.76, 2.0, 0.5), (-0.33, 3.1, 1.9))  # centres of x from -0.75 to -0.35: voxels 2 to 6
    export_volume(scene, tmp_path / f"a{suffix}", box=crop)
    if suffix == ".vdb":
        voxels = VdbReader(tmp_path / "a.vdb").grids()["density"]["voxels"]
        assert {i[0] for i in voxels} == {2, 3, 4, 5, 6}
        assert len(voxels) == int((scene.field.density[2:7] > 0).sum())
    with pytest.raises(ValueError, match="the field is empty from"):
        export_volume(scene, tmp_path / f"b{suffix}", box=Box((-1.0, 2.0, 0.5), (-0.99, 2.01, 0.51)))
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


def test_senseless_volumes_are_refused(tmp_path: Path) -> None:
    empty = Scene(VoxelField.zeros(CUBES, RESOLUTION, 3), Rgb())
    with pytest.raises(ValueError, match=r"unknown volume format '.raw'; use \.vdb or \.nvdb"):
        export_volume(empty, tmp_path / "a.raw")
    with pytest.raises(ValueError, match="the field is empty: there is no density to export"):
        export_volume(empty, tmp_path / "a.vdb")
    assert not list(tmp_path.iterdir())


def test_files_of_one_scene_are_equal(tmp_path: Path, generator: torch.Generator) -> None:
    scene = make_scene(CUBES, RESOLUTION, generator)
    for name in ("a.vdb", "b.vdb"):
        export_volume(scene, tmp_path / name)
    assert (tmp_path / "a.vdb").read_bytes() == (tmp_path / "b.vdb").read_bytes()
