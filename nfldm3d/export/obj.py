"""Writes meshes as Wavefront OBJ, with MTL and PNG when textured: y up, as its readers assume.

OBJ knows no vertex colours; ``v x y z r g b`` in sRGB is the extension that Blender, MeshLab and others read.
"""

import re
from pathlib import Path

import numpy as np

from nfldm3d.export.mesh import Mesh, y_up
from nfldm3d.export.textures import encode_png


def encode_obj(mesh: Mesh, file_name: str) -> dict[str, bytes]:
    """The files' contents by file name: ``file_name``, and a .mtl and a .png beside it for a textured mesh."""
    name = name_companion(Path(file_name))
    vertices = y_up(mesh.vertices).cpu().numpy()
    if mesh.colors is not None:
        vertices = np.hstack((vertices, mesh.colors.cpu().numpy()))
    lines = ["# nfldm3d: y up, metres, sRGB\n", f"o {name}\n"]
    files: dict[str, bytes] = {}
    corner = "{0}//{0}"
    position = " %.9g" * 3  # all that a 32-bit number holds: decimals of a metre would merge vertices of tiny scenes
    texts = [_rows("v" + position + " %.6f" * (vertices.shape[1] - 3), vertices)]
    if mesh.uv is not None and mesh.texture is not None:
        lines.append(f"mtllib {name}.mtl\n")
        files[f"{name}.png"] = encode_png(mesh.texture)
        files[f"{name}.mtl"] = _material(name).encode(errors="surrogateescape")
        texts += [_rows("vt %.6f %.6f", mesh.uv.cpu().numpy()), f"usemtl {name}\n"]
        corner = "{0}/{0}/{0}"
    texts.insert(1, _rows("vn %.4f %.4f %.4f", y_up(mesh.normals).cpu().numpy()))
    pattern = "f " + " ".join([corner.replace("{0}", "%d")] * 3)
    repeated = np.repeat(mesh.faces.cpu().numpy() + 1, corner.count("{0}"), axis=1)
    return {**files, file_name: "".join([*lines, *texts, _rows(pattern, repeated)]).encode(errors="surrogateescape")}


def name_companion(path: Path) -> str:
    """What the files beside an OBJ file of this name are called, but for their suffixes: a blank ends a name in OBJ."""
    return re.sub(r"\s+", "_", path.stem)


def _rows(pattern: str, values: np.ndarray) -> str:
    return (pattern + "\n") * len(values) % tuple(values.reshape(-1).tolist())


def _material(name: str) -> str:
    return f"newmtl {name}\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {name}.png\n"
