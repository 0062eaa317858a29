"""Records one object: set in the middle, seen from all around."""

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from jaxtyping import Float

from nfldm3d.camera import Camera
from nfldm3d.data.scene_sample import SKY_LABEL, SceneSample
from nfldm3d.data.srn import SRN_FOCAL
from nfldm3d.geometry import Box
from nfldm3d.recording.gallery import Gallery, Lens, Light, Pictures
from nfldm3d.recording.meshes import Mesh
from nfldm3d.recording.objects.sources import ObjectFile
from nfldm3d.recording.objects.views import Sphere, name_view

LIGHT = Light((0.45, 0.35, 0.82, 0.0), (0.52, 0.5, 0.47), (0.52, 0.53, 0.55), (0.34, 0.33, 0.32))
"""A high lamp before the left shoulder, under a bright sky: no side is black."""
LABEL_NAMES = (SKY_LABEL, "object")
"""Of pixels: behind an object there is nothing."""
LABEL_PALETTE = ((255, 255, 255), (60, 110, 180))
ROOM = 1.02
"""The box of a scene reaches so many radii, so that cameras are in it."""


@dataclass(frozen=True)
class ObjectShape:
    """What is recorded of each object."""

    views: int = 50
    size: int = 64
    """Width and height of the pictures in pixels."""
    sphere: Sphere = field(default_factory=Sphere)
    supersampling: int = 3
    cameras: tuple[tuple[float, ...], ...] = ()
    """Given poses instead of the sphere's, sixteen numbers each, in diagonals of the object's box."""
    focal: float = SRN_FOCAL
    """In widths of a picture."""

    def __post_init__(self):
        if not 8 <= self.size <= 1024:
            raise ValueError(f"size must lie between 8 and 1024 pixels, got {self.size}")
        if not 2 <= self.views <= 1000:
            raise ValueError(f"views must lie between 2 and 1000, got {self.views}")
        if not self.focal > 0:
            raise ValueError(f"focal must be more than 0 widths of a picture, got {self.focal}")

    def poses(self, turn: float) -> Float[np.ndarray, "views 4 4"]:
        """Of all cameras; the sphere's begin at an azimuth of ``turn`` radians."""
        if self.cameras:
            return np.array(self.cameras).reshape(-1, 4, 4)
        return self.sphere.poses(self.views, turn)

    @property
    def reach(self) -> float:
        """Of the farthest camera from the middle."""
        if not self.cameras:
            return self.sphere.radius
        return float(np.linalg.norm(np.array(self.cameras).reshape(-1, 4, 4)[:, :3, 3], axis=1).max())


def center(mesh: Mesh) -> tuple[Mesh, float]:
    """The mesh in the middle of a box whose diagonal is 1, and its former diagonal."""
    low, high = mesh.bounds()
    diagonal = float(np.linalg.norm(high - low))
    pose = np.diag((1 / diagonal, 1 / diagonal, 1 / diagonal, 1.0))
    pose[:3, 3] = -(low + high) / 2 / diagonal
    return mesh.moved(pose), diagonal


def draw_object(mesh: Mesh, poses: Float[np.ndarray, "views 4 4"], shape: ObjectShape) -> Pictures:
    """Pictures of an object that ``center`` has set."""
    gallery = _gallery(shape.size, len(poses), shape.supersampling)
    gallery.show([(mesh, 1)], LIGHT)
    degrees = 2 * np.degrees(np.arctan(0.5 / shape.focal))
    return gallery.draw(poses, Lens(float(degrees), 0.02, shape.reach + 0.6))


def record_object(thing: ObjectFile, key: str, split: str, shape: ObjectShape, seed: int) -> SceneSample:
    """All views of an object, with what is known about it.

    Raises:
        DataFormatError: its file cannot be read or drawn.
    """
    generator = np.random.default_rng((seed, *key.encode()))
    poses = shape.poses(0.0 if split == "test" else float(generator.uniform(0, 2 * np.pi)))
    mesh, diagonal = center(thing.read())
    drawn = draw_object(mesh, poses, shape)
    low, high = mesh.bounds()
    size, count, room = float(shape.size), len(poses), 2 * ROOM * max(shape.reach, 0.5)
    camera = Camera(
        torch.from_numpy(poses).float(),
        torch.full((count, 2), shape.focal * size),
        torch.full((count, 2), size / 2),
        shape.size,
        shape.size,
    )
    return SceneSample(
        key=key,
        images=torch.from_numpy(before_white(drawn)).permute(0, 3, 1, 2).contiguous(),
        depth=torch.from_numpy(drawn.depth),
        camera=camera,
        box=Box.from_center((0.0, 0.0, 0.0), (room, room, room)),
        labels=torch.from_numpy(drawn.labels.copy()),
        map=thing.source,
        split=split,
        kinds=("scattered",) * count,
        metadata=_describe(thing, mesh, diagonal, poses, (low, high)),
        metric=False,
        alpha=torch.from_numpy(drawn.colors[..., 3].copy()),
        normals=torch.from_numpy(np.where(drawn.mask[..., None], drawn.normals, 0)),
    )


def before_white(drawn: Pictures) -> np.ndarray:
    """Red, green and blue of pictures laid over white."""
    opacity = drawn.colors[..., 3:].astype(np.float32) / 255
    return (drawn.colors[..., :3] * opacity + 255 * (1 - opacity) + 0.5).astype(np.uint8)


def _describe(
    thing: ObjectFile,
    mesh: Mesh,
    diagonal: float,
    poses: Float[np.ndarray, "views 4 4"],
    bounds: tuple[np.ndarray, np.ndarray],
) -> dict[str, object]:
    views = [name_view(pose) for pose in poses]
    return {
        "caption": thing.caption,
        "name": thing.name,
        **thing.details,
        "view_names": [name for name, _, _ in views],
        "azimuth_degrees": [round(azimuth, 2) for _, azimuth, _ in views],
        "elevation_degrees": [round(elevation, 2) for _, _, elevation in views],
        "units_per_length": round(diagonal, 6),
        "object_box": [[round(float(value), 5) for value in corner] for corner in bounds],
        "triangles": mesh.count_triangles(),
        "label_names": list(LABEL_NAMES),
        "label_palette": [list(color) for color in LABEL_PALETTE],
        "view_dependent": False,
    }


@cache
def _gallery(size: int, views: int, supersampling: int) -> Gallery:
    return Gallery(size, views, supersampling=supersampling)
