"""Writes one small scene in every format that Blender reads, and what Blender should find: write_exports.py FOLDER."""

import json
import sys
from pathlib import Path

import torch

from nfldm3d.appearance import Rgb
from nfldm3d.camera import Camera
from nfldm3d.export import MeshOptions, export_mesh, export_points, export_volume, extract_mesh
from nfldm3d.fields import VoxelField
from nfldm3d.geometry import Box
from nfldm3d.scene import Scene

BOX = Box((-1.0, 2.0, 0.5), (1.5, 5.0, 2.5))
CENTER, RADII = (0.3, 3.4, 1.4), (0.8, 1.0, 0.6)


def make_scene() -> Scene:
    """An ellipsoid off centre in a box off centre; its colour says where in the box it is."""
    blank = VoxelField.zeros(BOX, (40, 48, 32), 3)
    centers = blank.voxel_centers()
    distance = ((centers - torch.tensor(CENTER)) / torch.tensor(RADII)).norm(dim=-1)
    color = (centers - torch.tensor(BOX.lower)) / torch.tensor(BOX.size)
    return Scene(VoxelField(((1 - distance) * 40).clamp(0, 1) * 200, color, BOX), Rgb())


def main(folder: Path) -> None:
    """Writes the files and expected.json."""
    scene = make_scene()
    cameras = Camera.look_at((6.0, 0.0, 4.0), CENTER, width=320, height=200, horizontal_fov_degrees=40.0)
    cameras = cameras.reshape(1)
    mesh = extract_mesh(scene)
    for name in ("mesh.glb", "mesh.obj", "mesh.ply"):
        export_mesh(mesh, folder / name)
    export_mesh(mesh, folder / "mesh.usdc", cameras=cameras)
    textured = extract_mesh(scene, options=MeshOptions(texture_size=256, max_faces=2000))
    for name in ("textured.glb", "textured.obj", "textured.usdz"):
        export_mesh(textured, folder / name)
    export_points(scene, folder / "points.ply")
    export_volume(scene, folder / "volume.vdb")
    leaves = (scene.field.density > 0).nonzero() // 8  # Blender bounds a volume by its leaves
    size, lower = torch.tensor(scene.field.voxel_size), torch.tensor(BOX.lower)
    pixels, depth = cameras[0].project(mesh.vertices[:1])
    expected = {
        "vertices": mesh.vertices.tolist(),
        "colors": mesh.colors.tolist() if mesh.colors is not None else None,
        "faces": len(mesh.faces),
        "textured_faces": len(textured.faces),
        "textured_box": [textured.vertices.amin(0).tolist(), textured.vertices.amax(0).tolist()],
        "volume_box": [(lower + 8 * leaf * size).tolist() for leaf in (leaves.amin(0), leaves.amax(0) + 1)],
        "first_vertex_in_view": [pixels[0, 0].item() / 320, pixels[0, 1].item() / 200, depth[0].item()],
    }
    (folder / "expected.json").write_text(json.dumps(expected), encoding="utf-8")
    print(f"wrote {len(list(folder.iterdir()))} files to {folder}")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    main(target)
