"""KITTI-360's boxes: an XML file of what stands, moves and lies on the ground along a drive.

    <opencv_storage><object1><index>1</index><semanticId>13</semanticId><instanceId>7</instanceId>
      <timestamp>-1</timestamp> <start_frame>..</start_frame> <end_frame>..</end_frame>
      <transform type_id="opencv-matrix"><rows>4</rows><cols>4</cols><dt>f</dt><data>16 numbers</data></transform>
      <vertices ...>corners, moved by the transform, which may scale</vertices><faces ...>numbers of corners</faces>

``semanticId`` counts as below, not as Cityscapes does; ``timestamp`` is the frame of a thing that moves, else -1.
"""

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from jaxtyping import Float, Int

from nfldm3d.data.logs.drive import GroundArea, LogObject
from nfldm3d.data.xml_files import read_xml
from nfldm3d.files import DataFormatError

MAX_BYTES = 2**30
NEAR = 100.0
"""Metres from the vehicle within which things are looked at."""
FLAT = {1: "road", 2: "parking", 3: "sidewalk", 4: "terrain", 10: "terrain"}
GROUND_ORDER = ("terrain", "parking", "sidewalk", "road")
"""Later ones on top."""
STANDING = {
    5: ("vegetation", "tree"),
    6: ("gate", "building"),
    7: ("wall", "building"),
    8: ("fence", "building"),
    11: ("building", "building"),
    12: ("garage", "building"),
    13: ("car", "vehicle"),
    14: ("truck", "vehicle"),
    15: ("trailer", "vehicle"),
    16: ("caravan", "vehicle"),
    17: ("motorcycle", "vehicle"),
    18: ("bicycle", "vehicle"),
    19: ("person", "person"),
    20: ("rider", "person"),
    21: ("pole", "object"),
    22: ("smallpole", "object"),
    23: ("traffic light", "object"),
    24: ("traffic sign", "object"),
    25: ("lamp", "object"),
    26: ("trash bin", "object"),
    27: ("vending machine", "object"),
    28: ("box", "object"),
    29: ("stop", "object"),
    30: ("guard rail", "building"),
    33: ("train", "vehicle"),
    34: ("bus", "vehicle"),
    35: ("unknown construction", "building"),
    36: ("unknown vehicle", "vehicle"),
    37: ("unknown object", "object"),
}
OVERHEAD = {9: "sky", 31: "bridge", 32: "tunnel"}
"""What has no place on a map of the ground."""


@dataclass(frozen=True, eq=False)
class KittiBox:
    """One element of the file."""

    name: str
    semantic: int
    frame: int
    """-1 for what does not move."""
    heading: float
    vertices: Float[np.ndarray, "corners 3"]
    """In the world."""
    faces: Int[np.ndarray, "faces _"]

    def as_object(self) -> LogObject:
        """The upright box around its corners."""
        kind, map_class = STANDING[self.semantic]
        cosine, sine = np.cos(self.heading), np.sin(self.heading)
        turn = np.array(((cosine, -sine, 0), (sine, cosine, 0), (0, 0, 1)))
        local = self.vertices @ turn
        low, high = local.min(0), local.max(0)
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3], pose[:3, 3] = torch.from_numpy(turn), torch.from_numpy(turn @ ((low + high) / 2))
        length, width, height = np.maximum(high - low, 1e-3).tolist()
        return LogObject(self.name, kind, map_class, pose, (length, width, height), self.frame >= 0)


@dataclass(frozen=True, eq=False)
class KittiBoxes:
    """All of a drive."""

    standing: tuple[KittiBox, ...]
    middles: Float[np.ndarray, "standing 2"]
    flat: tuple[tuple[KittiBox, Float[np.ndarray, " 2"], Float[np.ndarray, " 2"]], ...]
    """With their least and largest x and y."""

    @classmethod
    def read(cls, path: Path) -> "KittiBoxes":
        """The file's content; a DataFormatError says what cannot be used."""
        boxes = _read_boxes(path)
        standing = tuple(box for box in boxes if box.semantic in STANDING)
        middles = np.array([box.vertices.mean(0)[:2] for box in standing]).reshape(-1, 2)
        flat = [box for box in boxes if box.semantic in FLAT]
        flat.sort(key=lambda box: GROUND_ORDER.index(FLAT[box.semantic]))
        return cls(standing, middles, tuple((b, b.vertices[:, :2].min(0), b.vertices[:, :2].max(0)) for b in flat))

    def objects(self, frame: int, position: Float[np.ndarray, " 2"]) -> list[LogObject]:
        """What stands around a position, or moves there in a frame."""
        near = np.nonzero(np.linalg.norm(self.middles - position, axis=1) < NEAR)[0]
        return [self.standing[n].as_object() for n in near if self.standing[n].frame in (-1, frame)]

    def areas(self, lower: tuple[float, float], upper: tuple[float, float]) -> list[GroundArea]:
        """Faces of the ground that reach into a rectangle."""
        found = []
        for box, low, high in self.flat:
            if (low > np.array(upper)).any() or (high < np.array(lower)).any():
                continue
            corners = box.vertices[:, :2]
            found += [GroundArea(FLAT[box.semantic], (corners[face],)) for face in box.faces]
        return found


def _read_boxes(path: Path) -> list[KittiBox]:
    root = read_xml(path, MAX_BYTES, "unpack the boxes again")
    found = [_read_box(path, child) for child in root if child.find("transform") is not None]
    return [box for box in found if box is not None]


def _read_box(path: Path, child: ElementTree.Element) -> KittiBox | None:
    semantic = _integer(path, child, "semanticId")
    if semantic in OVERHEAD or semantic < 0:
        return None
    if semantic not in STANDING and semantic not in FLAT:
        raise DataFormatError(path, f"{child.tag}: semanticId {semantic} is none of KITTI-360's; restore the file")
    transform = _matrix(path, child, "transform")
    vertices = _matrix(path, child, "vertices")
    faces = _matrix(path, child, "faces").clip(-1, len(vertices)).astype(np.int64)
    if transform.shape != (4, 4) or vertices.shape[1] != 3 or not len(vertices):
        raise DataFormatError(path, f"{child.tag} needs a 4x4 transform and corners of 3 numbers; restore the file")
    if faces.size and not 0 <= faces.min() <= faces.max() < len(vertices):
        raise DataFormatError(path, f"{child.tag}: faces name corners that are not there; restore the file")
    axis = transform[:2, 0] if np.linalg.norm(transform[:2, 0]) > 0.1 * np.linalg.norm(transform[:3, 0]) else None
    heading = 0.0 if axis is None else float(np.arctan2(axis[1], axis[0]))
    return KittiBox(
        f"{semantic:02d}{_integer(path, child, 'instanceId'):03d}",
        semantic,
        _integer(path, child, "timestamp"),
        heading,
        vertices @ transform[:3, :3].T + transform[:3, 3],
        faces,
    )


def _integer(path: Path, child: ElementTree.Element, key: str) -> int:
    text = child.findtext(key)
    try:
        return int(text or "")
    except ValueError as error:
        raise DataFormatError(path, f"{child.tag}: {key} is {text!r}; write a whole number") from error


def _matrix(path: Path, child: ElementTree.Element, key: str) -> Float[np.ndarray, "rows columns"]:
    node = child.find(key)
    try:
        shape = tuple(int(node.findtext(axis) or "") for axis in ("rows", "cols"))  # type: ignore[union-attr]
        values = np.array((node.findtext("data") or "").split(), dtype=np.float64)  # type: ignore[union-attr]
        matrix = values.reshape(shape)
    except (AttributeError, ValueError) as error:
        raise DataFormatError(path, f"{child.tag}: {key} is no opencv-matrix ({error}); restore the file") from error
    if not np.isfinite(matrix).all():
        raise DataFormatError(path, f"{child.tag}: {key} holds NaN or infinity; restore the file")
    return matrix
