"""Volume files: OpenVDB re-read by a small independent reader, NanoVDB by Warp."""

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from vdb_reader import VdbReader

from nfldm3d.appearance import Rgb
from nfldm3d.export import export_volume, volumes
from nfldm3d.export.mesh import linear_from_srgb
from nfldm3d.fields import SparseField, VoxelField
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


def test_sparse_fields_are_written_brick_by_brick(
    tmp_path: Path, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_scene(CUBES, RESOLUTION, generator)
    sparse = replace(scene, field=SparseField.from_dense(scene.field))
    part = Box((-1.0, 2.0, 0.5), (-0.2, 2.7, 1.5))
    export_volume(scene, tmp_path / "dense.vdb", box=part)
    monkeypatch.setattr(volumes, "voxelize", None)  # nobody asks for all voxels
    for path in ("sparse.vdb", "sparse.nvdb"):
        export_volume(sparse, tmp_path / path, box=part)
    assert (tmp_path / "sparse.vdb").read_bytes() == (tmp_path / "dense.vdb").read_bytes()


def test_what_a_pool_holds_beyond_its_grid_is_left_out(
    tmp_path: Path, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_scene(CUBES, RESOLUTION, generator)
    sparse = SparseField.from_dense(scene.field)
    monkeypatch.setattr(volumes, "AT_ONCE", 1)
    export_volume(replace(scene, field=sparse), tmp_path / "a.vdb")
    beyond = torch.where(sparse.inside, sparse.density, 5.0)
    assert bool((beyond != sparse.density).any())
    export_volume(replace(scene, field=replace(sparse, density=beyond)), tmp_path / "b.vdb")
    assert (tmp_path / "a.vdb").read_bytes() == (tmp_path / "b.vdb").read_bytes()


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
