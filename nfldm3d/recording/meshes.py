"""Textured triangles in memory, whatever file they come from: what recorders of objects and rooms draw."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int, UInt8

WHITE = (255, 255, 255, 255)
CREASE = 0.64
"""Cosine of the angle (50 degrees) between triangles beyond which they meet in an edge rather than go round."""
MOST_AROUND = 24
"""Triangles at a corner that are compared with each other."""
WELD = 1e-4
"""Corners nearer to each other than this share of the extent are one."""
SIGNATURE_STEPS = 256
"""Of the extent along each axis: coarser than the rounding of files, finer than what makes a shape another."""


@dataclass(frozen=True, eq=False)
class Patch:
    """Triangles that share a texture, or have none."""

    positions: Float[np.ndarray, "corners 3"]
    normals: Float[np.ndarray, "corners 3"]
    uv: Float[np.ndarray, "corners 2"]
    """From 0 at the left and at the bottom of the texture, which repeats."""
    colors: UInt8[np.ndarray, "corners 4"]
    """Red, green, blue and opacity, multiplied with the texture's."""
    triangles: Int[np.ndarray, "triangles 3"]
    texture: UInt8[np.ndarray, "height width 4"] | None = None
    """Row 0 on top."""

    @classmethod
    def of(
        cls,
        positions: Float[np.ndarray, "corners 3"],
        triangles: Int[np.ndarray, "triangles 3"],
        *,
        normals: Float[np.ndarray, "corners 3"] | None = None,
        uv: Float[np.ndarray, "corners 2"] | None = None,
        color: tuple[int, int, int, int] = WHITE,
        texture: UInt8[np.ndarray, "height width 4"] | None = None,
    ) -> "Patch":
        """Triangles of one colour; without ``normals`` they are round where they meet at less than 50 degrees."""
        triangles = triangles.astype(np.int64)
        if normals is None:
            corners = triangles.ravel()
            positions, uv = positions[corners], None if uv is None else uv[corners]
            triangles = np.arange(len(corners)).reshape(-1, 3)
            normals = round_normals(positions)
        uv = np.zeros((len(positions), 2)) if uv is None else uv
        return cls(positions, normals, uv, np.tile(np.array(color, np.uint8), (len(positions), 1)), triangles, texture)

    def moved(self, transform: Float[np.ndarray, "4 4"]) -> "Patch":
        """The patch after an affine motion, with normals that stay upright on it."""
        linear = transform[:3, :3]
        normals = self.normals @ np.linalg.inv(linear)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        return replace(self, positions=self.positions @ linear.T + transform[:3, 3], normals=normals)


@dataclass(frozen=True, eq=False)
class Mesh:
    """All patches of a thing."""

    patches: tuple[Patch, ...]

    def count_triangles(self) -> int:
        """Of all patches."""
        return sum(len(patch.triangles) for patch in self.patches)

    def bounds(self) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:
        """The smallest and the largest coordinates of all corners of triangles."""
        points = self.points()
        return points.min(0), points.max(0)

    def points(self) -> Float[np.ndarray, "points 3"]:
        """All corners of triangles, as often as triangles have them."""
        return np.concatenate([patch.positions[patch.triangles.ravel()] for patch in self.patches])

    def moved(self, transform: Float[np.ndarray, "4 4"]) -> "Mesh":
        """The mesh after an affine motion."""
        return Mesh(tuple(patch.moved(transform) for patch in self.patches))

    def signature(self) -> str:
        """Equal for equal shapes, whatever their size, their textures and colours, and the order in their files."""
        points = self.points()
        low, extent = points.min(0), np.maximum(np.ptp(points, axis=0), 1e-12)
        steps = np.round((points - low) / extent * SIGNATURE_STEPS).astype(np.int64)
        return hashlib.sha256(np.unique(_pack(steps)).tobytes()).hexdigest()[:16]


def join_meshes(meshes: Sequence[Mesh]) -> Mesh:
    """Several things as one, their patches with equal textures joined: fewer are drawn faster."""
    groups: dict[int, list[Patch]] = {}
    for mesh in meshes:
        for patch in mesh.patches:
            groups.setdefault(id(patch.texture), []).append(patch)
    return Mesh(tuple(_join(patches) for patches in groups.values()))


def round_normals(corners: Float[np.ndarray, "corners 3"]) -> Float[np.ndarray, "corners 3"]:
    """Normals of triangles, three corners each, that are round where they meet at less than 50 degrees."""
    if not len(corners):
        return corners
    first, second, third = corners.reshape(-1, 3, 3).transpose(1, 0, 2)
    weighted = np.cross(second - first, third - first)
    flat = weighted / np.maximum(np.linalg.norm(weighted, axis=1, keepdims=True), 1e-20)
    step = max(float(np.ptp(corners, axis=0).max()) * WELD, 1e-12)
    _, index = np.unique(_pack(np.round((corners - corners.min(0)) / step).astype(np.int64)), return_inverse=True)
    order = np.argsort(index.reshape(-1), kind="stable")
    vertex, own, each = (
        index.reshape(-1)[order],
        np.repeat(flat, 3, axis=0)[order],
        np.repeat(weighted, 3, axis=0)[order],
    )
    total = each.copy()
    for apart in range(1, MOST_AROUND):  # corners of one vertex lie side by side
        pairs = np.nonzero(vertex[apart:] == vertex[:-apart])[0]
        if not len(pairs):
            break
        pairs = pairs[(own[pairs] * own[pairs + apart]).sum(1) > CREASE]
        total[pairs] += each[pairs + apart]
        total[pairs + apart] += each[pairs]
    normals = np.zeros_like(total)
    normals[order] = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-20)
    return normals


def _pack(steps: Int[np.ndarray, "corners 3"]) -> Int[np.ndarray, " corners"]:
    """One number for each three below 2^20, which sorts several times faster."""
    return (steps[:, 0] << 40) + (steps[:, 1] << 20) + steps[:, 2]


def _join(patches: Sequence[Patch]) -> Patch:
    if len(patches) == 1:
        return patches[0]
    starts = np.cumsum([0] + [len(patch.positions) for patch in patches[:-1]])
    return Patch(
        np.concatenate([patch.positions for patch in patches]),
        np.concatenate([patch.normals for patch in patches]),
        np.concatenate([patch.uv for patch in patches]),
        np.concatenate([patch.colors for patch in patches]),
        np.concatenate([patch.triangles + start for patch, start in zip(patches, starts, strict=True)]),
        patches[0].texture,
    )
