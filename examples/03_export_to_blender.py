"""One scene to every program: a coloured mesh, a textured one, points, a volume, cameras.

    python examples/03_export_to_blender.py out/points/torus.nfld --out out/export

Open scene.glb, scene.usdc or points.ply in Blender; density.vdb is a volume in 1/metre.
"""

import argparse
from pathlib import Path

from nfldm3d import MeshOptions, Scene, export_mesh, export_points, export_volume, extract_mesh
from nfldm3d.export import export_cameras


def main(scene_file: Path, out: Path, faces: int) -> None:
    scene = Scene.load(scene_file)
    mesh = extract_mesh(scene)  # vertices (n 3) in metres, faces (m 3), colors (n 3) in sRGB
    print(mesh)
    export_mesh(mesh, out / "scene.glb")
    export_mesh(mesh, out / "scene.usdc")
    export_mesh(scene, out / "textured.obj", options=MeshOptions(max_faces=faces, texture_size=512))
    export_points(scene, out / "points.ply")
    export_volume(scene, out / "density.vdb")
    if scene.cameras is not None:
        export_cameras(scene.cameras, out / "cameras.usda")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/export"))
    parser.add_argument("--faces", type=int, default=10_000)
    arguments = parser.parse_args()
    main(arguments.scene, arguments.out, arguments.faces)
