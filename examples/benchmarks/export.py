"""How long exports take: a 256^3 field to a coloured GLB, and marching cubes alone against Warp's.

The field holds 40 soft-edged balls (9 % of the voxels), spherical harmonics of degree 1 as features, and 48 capture
cameras, from which every vertex is looked at. The peer of the mesh is what one would write by hand: scikit-image's
marching cubes, grid_sample at the vertices, colours along the normals, trimesh's GLB.

    python examples/benchmarks/export.py [--resolution 256] [--json]
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from nfldm3d.appearance import SphericalHarmonics
from nfldm3d.camera import Camera
from nfldm3d.export import MeshOptions, export_mesh, export_points, export_volume
from nfldm3d.export.marching_cubes import marching_cubes
from nfldm3d.fields import VoxelField, surface_density
from nfldm3d.geometry import Box
from nfldm3d.ops.launch import quiet_warp
from nfldm3d.scene import Scene


def make_scene(count: int) -> Scene:
    """Balls with edges two voxels wide in a cube of 8 m."""
    generator = torch.Generator().manual_seed(0)
    axis = torch.linspace(-1, 1, count)
    density = torch.zeros(count, count, count)
    for x, y, z, size in torch.rand(40, 4, generator=generator).tolist():
        squares = [(axis - 1.6 * place + 0.8).square() for place in (x, y, z)]
        distance = (squares[0][:, None, None] + squares[1][:, None] + squares[2]).sqrt()
        depth = (0.05 + 0.2 * size - distance) * count / 2
        density = torch.maximum(density, (depth / 2 + 0.5).clamp(0, 1) * 300)
    features = torch.rand(count, count, count, 12, generator=generator) * 0.4 - 0.2
    field = VoxelField(density, features, Box((-4.0, -3.0, 0.0), (4.0, 5.0, 8.0)))
    return Scene(field, SphericalHarmonics(1), cameras=Camera.orbit((0.0, 1.0, 4.0), 12.0, views=48))


def export_by_hand(scene: Scene, path: Path) -> None:
    """The peer: everything dense, one library call after the other."""
    import trimesh
    from skimage.measure import marching_cubes as skimage_marching_cubes

    field = scene.field
    level = surface_density(field.voxel_size)
    vertices, faces, normals, _ = skimage_marching_cubes(field.density.numpy(), level, gradient_direction="ascent")
    place = torch.from_numpy(vertices.copy())
    grid = (place + 0.5) / torch.tensor(field.resolution) * 2 - 1
    volume = field.features.permute(3, 2, 1, 0)[None]  # (1 channels z y x)
    sampled = torch.nn.functional.grid_sample(volume, grid[None, None, None], align_corners=False, mode="bilinear")
    features = sampled[0, :, 0, 0].T.contiguous()
    outward = torch.from_numpy(normals.copy())
    colors = scene.appearance.point_color(features, -outward, outward)
    world = torch.tensor(field.box.lower) + (place + 0.5) * torch.tensor(field.voxel_size)
    bytes_rgb = (colors * 255).round().byte().numpy()
    mesh = trimesh.Trimesh(world.numpy(), faces, vertex_normals=normals, vertex_colors=bytes_rgb, process=False)
    path.write_bytes(mesh.export(file_type="glb"))


def warp_marching_cubes(values: torch.Tensor, level: float) -> None:
    """Warp's kernels on the same grid."""
    from warp.geometry import IsoSurfaceMarchingCubes

    IsoSurfaceMarchingCubes.extract(quiet_warp().from_torch(values), level)


def measure(action: Callable[[], object], repeats: int) -> tuple[float, float]:
    """The shortest of some runs in seconds, and the memory in MB that the process needed beyond what it held before."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak (Linux)
    before = peak_mb()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return min(seconds), peak_mb() - before


def peak_mb() -> float:
    """The process' peak of resident memory."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024


def main(resolution: int) -> list[dict[str, object]]:
    """The rows of the table."""
    scene = make_scene(resolution)
    density, level = scene.field.density, surface_density(scene.field.voxel_size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        textured = MeshOptions(texture_size=1024)
        jobs: list[tuple[str, Callable[[], object], Callable[[], object] | None]] = [
            ("mesh_glb", lambda: export_mesh(scene, folder / "a.glb"), lambda: export_by_hand(scene, folder / "b.glb")),
            ("marching_cubes", lambda: marching_cubes(density, level), lambda: warp_marching_cubes(density, level)),
            ("textured_glb", lambda: export_mesh(scene, folder / "t.glb", options=textured), None),
            ("points_ply", lambda: export_points(scene, folder / "p.ply", count=1_000_000), None),
            ("volume_vdb", lambda: export_volume(scene, folder / "v.vdb"), None),
        ]
        rows = []
        for label, ours, peer in jobs:
            seconds, extra = measure(ours, 1 if peer is None else 3)
            other = None if peer is None else measure(peer, 3)[0]
            ratio = None if other is None else round(other / seconds, 2)
            row = {"name": label, "ours_s": round(seconds, 3), "peer_s": other and round(other, 3), "ratio": ratio}
            rows.append(row | {"extra_mb": round(extra), "max_error": None})
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    options = parser.parse_args()
    table = main(options.resolution)
    if not options.json:
        print(f"{options.resolution}^3 field      ours s    peer s     ratio  extra MB")
    for row in table:
        if options.json:
            print(json.dumps(row))
        else:
            cells = ["-" if row[key] is None else str(row[key]) for key in ("ours_s", "peer_s", "ratio", "extra_mb")]
            print(f"{row['name']:16}" + "".join(f"{cell:>10}" for cell in cells))
