"""Writes meshes and point clouds as binary PLY: z up, metres, sRGB bytes."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

POSITION, NORMAL, COLOR = ("x", "y", "z"), ("nx", "ny", "nz"), ("red", "green", "blue")


def encode_ply(
    positions: Float[Tensor, "points 3"],
    normals: Float[Tensor, "points 3"],
    colors: Float[Tensor, "points 3"] | None,
    faces: Int[Tensor, "faces 3"] | None = None,
) -> bytes:
    """The file's content; a point cloud without ``faces``."""
    fields = [(name, "<f4") for name in (*POSITION, *NORMAL)]
    if colors is not None:
        fields += [(name, "u1") for name in COLOR]
    vertices = np.zeros(len(positions), dtype=fields)
    for names, values in ((POSITION, positions), (NORMAL, normals), (COLOR, srgb_bytes(colors))):
        if values is not None:
            for name, column in zip(names, values.detach().cpu().numpy().T, strict=True):
                vertices[name] = column
    header = ["ply", "format binary_little_endian 1.0", "comment nfldm3d: z up, metres, sRGB"]
    header.append(f"element vertex {len(vertices)}")
    header += [f"property {'float' if kind == '<f4' else 'uchar'} {name}" for name, kind in fields]
    body = vertices.tobytes()
    if faces is not None:
        triangles = np.zeros(len(faces), dtype=[("count", "u1"), ("vertex", "<i4", 3)])
        triangles["count"], triangles["vertex"] = 3, faces.detach().cpu().numpy()
        header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
        body += triangles.tobytes()
    return ("\n".join([*header, "end_header", ""])).encode("ascii") + body


def srgb_bytes(colors: Float[Tensor, "*batch"] | None) -> Tensor | None:
    """Colours in [0, 1] as bytes."""
    return None if colors is None else (colors.clamp(0, 1) * 255).round().to(torch.uint8)
