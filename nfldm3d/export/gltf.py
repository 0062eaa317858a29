"""Writes meshes as binary glTF 2.0 (GLB): y up, metres, linear 16-bit vertex colours.

COLOR_0 is linear light by the specification; 16 bits keep sRGB bytes exact, 8 would band in the shadows.
"""

import json
import struct

import numpy as np
from torch import Tensor

from nfldm3d.export.mesh import Mesh, linear_from_srgb, y_up
from nfldm3d.export.textures import encode_png

FLOAT, USHORT, UINT = 5126, 5123, 5125
VERTEX_DATA, INDEX_DATA = 34962, 34963
LINEAR, LINEAR_MIPMAP_LINEAR, CLAMP = 9729, 9987, 33071


def encode_glb(mesh: Mesh, name: str, *, lit: bool = False) -> bytes:
    """The file's content; unlit unless ``lit``, because captured colours have their light in them already."""
    writer = _Writer()
    attributes = {
        "POSITION": writer.add_vertices(_array(y_up(mesh.vertices)), bounds=True),
        "NORMAL": writer.add_vertices(_array(y_up(mesh.normals))),
    }
    material: dict[str, object] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    document: dict[str, object] = {}
    if mesh.colors is not None:
        color = np.full((len(mesh.vertices), 4), 65535, dtype="<u2")  # RGBA: each vertex must start at 4 bytes
        color[:, :3] = np.rint(_array(linear_from_srgb(mesh.colors)) * 65535)
        attributes["COLOR_0"] = writer.add_vertices(color)
    if mesh.texture is not None and mesh.uv is not None:
        uv = _array(mesh.uv) * np.array([1, -1], dtype="<f4") + np.array([0, 1], dtype="<f4")  # v counts down
        attributes["TEXCOORD_0"] = writer.add_vertices(uv)
        material["baseColorTexture"] = {"index": 0}
        document["textures"] = [{"source": 0, "sampler": 0}]
        document["images"] = [{"bufferView": writer.add_bytes(encode_png(mesh.texture)), "mimeType": "image/png"}]
        document["samplers"] = [
            {"magFilter": LINEAR, "minFilter": LINEAR_MIPMAP_LINEAR, "wrapS": CLAMP, "wrapT": CLAMP}
        ]
    indices = writer.add_indices(_array(mesh.faces, "<u4").reshape(-1))
    surface = {"name": name, "pbrMetallicRoughness": material, "doubleSided": not mesh.single_sided}
    if not lit:
        surface["extensions"] = {"KHR_materials_unlit": {}}
        document["extensionsUsed"] = ["KHR_materials_unlit"]
    document |= {
        "asset": {"version": "2.0", "generator": "nfldm3d"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name}],
        "meshes": [{"name": name, "primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
        "materials": [surface],
    }
    return writer.finish(document)


def _array(tensor: Tensor, dtype: str = "<f4") -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype=dtype)


class _Writer:
    """Collects the binary chunk and the accessors that describe it."""

    def __init__(self):
        self.chunks: list[bytes] = []
        self.views: list[dict[str, int]] = []
        self.accessors: list[dict[str, object]] = []
        self.length = 0

    def add_bytes(self, data: bytes, target: int | None = None) -> int:
        view = {"buffer": 0, "byteOffset": self.length, "byteLength": len(data)}
        self.views.append(view if target is None else view | {"target": target})
        padded = data + bytes(-len(data) % 4)
        self.chunks.append(padded)
        self.length += len(padded)
        return len(self.views) - 1

    def add_vertices(self, values: np.ndarray, *, bounds: bool = False) -> int:
        accessor: dict[str, object] = {
            "bufferView": self.add_bytes(values.tobytes(), VERTEX_DATA),
            "componentType": FLOAT if values.dtype.kind == "f" else USHORT,
            "count": len(values),
            "type": f"VEC{values.shape[1]}",
        }
        if values.dtype.kind == "u":
            accessor["normalized"] = True
        if bounds and len(values):
            accessor |= {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def add_indices(self, values: np.ndarray) -> int:
        view = self.add_bytes(values.tobytes(), INDEX_DATA)
        self.accessors.append({"bufferView": view, "componentType": UINT, "count": len(values), "type": "SCALAR"})
        return len(self.accessors) - 1

    def finish(self, document: dict[str, object]) -> bytes:
        document |= {
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [{"byteLength": self.length}],
        }
        text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        total = 12 + 8 + len(text) + 8 + self.length
        head = struct.pack("<4sII", b"glTF", 2, total) + struct.pack("<I4s", len(text), b"JSON")
        return b"".join((head, text, struct.pack("<I4s", self.length, b"BIN\0"), *self.chunks))
