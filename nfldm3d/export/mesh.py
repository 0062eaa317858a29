"""The shapes that exporters write: ``Mesh`` and ``PointCloud``, in world metres with z up and sRGB colours."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh, coloured at its vertices or by a texture."""

    vertices: Float[Tensor, "vertices 3"]
    """Positions in world metres."""
    faces: Int[Tensor, "faces 3"]
    """Vertex numbers, counter-clockwise seen from outside."""
    normals: Float[Tensor, "vertices 3"]
    """Unit vectors out of the matter."""
    colors: Float[Tensor, "vertices 3"] | None = None
    """sRGB in [0, 1]."""
    uv: Float[Tensor, "vertices 2"] | None = None
    """Texture coordinates: (0, 0) is the lower left corner of the texture, (1, 1) the upper right one."""
    texture: Float[Tensor, "3 height width"] | None = None
    """sRGB in [0, 1], row 0 on top."""
    single_sided: bool = False
    """Whether faces show from their front only: programs that cull back faces then look through walls from behind."""

    def __post_init__(self):
        count = len(self.vertices)
        if not bool(torch.isfinite(self.vertices).all()):
            raise ValueError("mesh vertices hold NaN or infinity; repair the source before exporting")
        if self.faces.numel() and not 0 <= int(self.faces.min()) <= int(self.faces.max()) < count:
            raise ValueError(
                f"faces name vertices {int(self.faces.min())} to {int(self.faces.max())}, the mesh has {count}"
            )
        for name in ("normals", "colors", "uv"):
            value = getattr(self, name)
            if value is not None and len(value) != count:
                raise ValueError(f"mesh has {count} vertices but {len(value)} {name}; give one for each vertex")
        if (self.uv is None) != (self.texture is None):
            raise ValueError("a textured mesh needs both uv and texture")

    def __str__(self) -> str:
        color = "without colour"
        if self.colors is not None:
            color = "coloured at its vertices"
        elif self.texture is not None:
            color = f"with a texture of {self.texture.shape[2]}x{self.texture.shape[1]} pixels"
        return f"Mesh of {len(self.vertices)} vertices and {len(self.faces)} faces, {color}"


@dataclass(frozen=True)
class PointCloud:
    """Points on surfaces."""

    points: Float[Tensor, "points 3"]
    """Positions in world metres."""
    normals: Float[Tensor, "points 3"]
    """Unit vectors out of the matter."""
    colors: Float[Tensor, "points 3"]
    """sRGB in [0, 1]."""

    def __post_init__(self):
        if not self.points.shape == self.normals.shape == self.colors.shape:
            raise ValueError(
                "a point cloud needs points, normals and colors of one shape, got "
                f"{tuple(self.points.shape)}, {tuple(self.normals.shape)} and {tuple(self.colors.shape)}"
            )
        if not bool(torch.isfinite(self.points).all()):
            raise ValueError("points hold NaN or infinity; repair the source before exporting")

    def __str__(self) -> str:
        return f"PointCloud of {len(self.points)} points"


def vertex_normals(vertices: Float[Tensor, "vertices 3"], faces: Int[Tensor, "faces 3"]) -> Float[Tensor, "vertices 3"]:
    """Unit normals from the faces around each vertex, weighted by area; zero where no face has any."""
    a, b, c = vertices[faces].unbind(1)
    doubled_area = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices)
    for corner in faces.unbind(1):
        total.index_add_(0, corner, doubled_area)
    return torch.nn.functional.normalize(total, dim=-1)


def linear_from_srgb(color: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Linear light in [0, 1] of sRGB colours (IEC 61966-2-1)."""
    color = color.clamp(0, 1)
    return torch.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def y_up(vectors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Positions or normals in the axes of glTF and OBJ, x right and y up, of ours: (x, y, z) becomes (x, z, -y)."""
    x, y, z = vectors.unbind(-1)
    return torch.stack((x, z, 0 - y), dim=-1)  # no minus zeros
