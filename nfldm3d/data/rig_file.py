"""What a driving rig's ``rig.json`` says, in our axes and units.

    {"axes": "opencv",
     "cameras": [{"name": "front", "w": 800, "h": 450, "fx": 400, "fy": 400, "cx": 400, "cy": 225,
                  "vehicle_from_camera": 4x4}, ...],
     "frames": [{"timestamp": 0.5, "world_from_vehicle": 4x4,
                 "images": {"front": "front/0000.jpg", ...}, "depth": {"front": "depth/0000.png", ...},
                 "bev": {"classes_path", "lower", "cell_size", "class_names", "palette", "height_path"}}, ...],
     "depth_unit": 0.001, "depth_encoding": "metric", "map": "Town03",
     "box": {"lower": [-40, -40, -3], "upper": [40, 40, 13]}}

Paths are relative to the file. The fields of the last two lines may be left out (the first two are shown with their
defaults), and so may ``bev``, and in all frames ``timestamp`` (seconds) and ``depth``. Principal points count from
the picture's corner: the first pixel's centre is (0.5, 0.5), where OpenCV's calibrations have (0, 0). An image may be
``{"path", "timestamp", "world_from_vehicle"}`` where a camera fires at its own time. ``box`` is the place of a local
scene, around the vehicle. Matrices are in metres, and ``axes`` says how they are meant:

    opencv   world and vehicle right-handed, z up, the vehicle's x ahead and y left; cameras y down, z ahead (nuScenes)
    opengl   the same with cameras y up, looking along -z
    carla    everything left-handed as in Unreal, x ahead, y right, z up: ``carla.Transform.get_matrix()`` of the
             vehicle, and of the camera relative to it

Depth is along the optical axis, 16-bit multiples of ``depth_unit`` metres, or CARLA's 24 bits in the bytes of a
colour picture (https://carla.readthedocs.io/en/latest/ref_sensors/#depth-camera). A BEV map, as ``bev_map`` describes
it, belongs to its frame: it is drawn around the vehicle at (0, 0, 0), x ahead and y left, level with the ground.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d._types import PathName
from nfldm3d.data import image_files
from nfldm3d.data.bev_map import BevMap, read_bev
from nfldm3d.data.intrinsics import Intrinsics
from nfldm3d.data.json_record import Record
from nfldm3d.files import DataFormatError, read_json, resolve_inside
from nfldm3d.geometry import Box, find_pose_problem, flip_opencv

RIG_FILE = "rig.json"

AXES = ("opencv", "opengl", "carla")
ENCODINGS = ("metric", "carla")

CALIBRATION = ("w", "h", "fx", "fy", "cx", "cy", "vehicle_from_camera")

VEHICLE_FROM_CAMERA = ((0.0, 0.0, -1.0, 0.0), (-1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
"""A camera that looks where a body's x points: its right, up and back in x ahead, y left, z up."""

CARLA_FAR_METRES, CARLA_LARGEST = 1000.0, 2**24 - 1
SKY_SHARE = 0.999
"""CARLA's depth above this share of the far plane is the sky."""


@dataclass(frozen=True)
class RigCamera:
    """One calibrated camera of the vehicle."""

    name: str
    lens: Intrinsics
    vehicle_from_camera: Float[Tensor, "4 4"]
    """Float64; the vehicle has x ahead, y left, z up."""


@dataclass(frozen=True)
class RigImage:
    """One picture and where the vehicle was."""

    path: Path
    depth: Path | None
    world_from_vehicle: Float[Tensor, "4 4"]
    """Float64."""
    timestamp: float | None


@dataclass(frozen=True)
class RigFile:
    """The checked content of a ``rig.json``; each moment is read when asked for."""

    top: Record
    axes: str
    cameras: tuple[RigCamera, ...]
    frames: tuple[Record, ...]

    @classmethod
    def read(cls, path: PathName) -> "RigFile":
        """The file of a folder, or the file itself; a DataFormatError says what cannot be used."""
        source = Path(path) / RIG_FILE if Path(path).is_dir() else Path(path)
        top = Record.of(source, read_json(source))
        axes = top.values.get("axes")
        if axes not in AXES:
            raise top.problem("axes", f"write how the matrices are meant: {', '.join(AXES)}")
        if top.values.get("depth_encoding", "metric") not in ENCODINGS:
            raise top.problem("depth_encoding", f"write {' or '.join(ENCODINGS)}")
        cameras = tuple(_read_camera(record, axes) for record in _records(top, "cameras"))
        if len({camera.name for camera in cameras}) < len(cameras):
            raise top.problem("cameras", "give each camera a name of its own")
        if max(float(camera.vehicle_from_camera[2, 1]) for camera in cameras) < -0.5:
            raise top.problem("axes", "so all cameras are upside down; in opencv their y points down, in opengl up")
        return cls(top, axes, cameras, _records(top, "frames"))

    @property
    def root(self) -> Path:
        """The folder that paths are relative to."""
        return self.top.source.parent

    def vehicle_pose(self, number: int) -> Float[Tensor, "4 4"]:
        """The vehicle in the world at a moment, x ahead, y left, z up, float64."""
        return _read_vehicle_pose(self.frames[number], self.axes)

    def image(self, number: int, camera: str) -> RigImage:
        """What one camera recorded at a moment."""
        frame = self.frames[number]
        images = Record.of(self.top.source, frame.values.get("images"), f"{frame.where}.images")
        entry = images.values.get(camera)
        own = entry if isinstance(entry, dict) else {}
        record = Record(self.top.source, own or images.values, f"{images.where}.{camera}" if own else images.where)
        pose, time = (record if own and key in record else frame for key in ("world_from_vehicle", "timestamp"))
        return RigImage(
            resolve_inside(self.root, record.text("path" if own else camera), source=self.top.source),
            self._depth(frame, camera),
            _read_vehicle_pose(pose, self.axes),
            time.number("timestamp") if "timestamp" in time else None,
        )

    @property
    def is_carla_depth(self) -> bool:
        """Whether depth is in the bytes of colour pictures."""
        return self.top.values.get("depth_encoding", "metric") == "carla"

    def depth_unit(self) -> float:
        """Metres per unit of a depth picture."""
        unit = self.top.number("depth_unit", 0.001)
        if not unit > 0:
            raise self.top.problem("depth_unit", "write metres per unit, e.g. 0.001")
        return unit

    def box(self) -> Box | None:
        """The place of a local scene, around the vehicle."""
        if "box" not in self.top:
            return None
        record = Record.of(self.top.source, self.top.values["box"], "box")
        lower, upper = record.numbers("lower"), record.numbers("upper")
        try:
            return Box(tuple(lower), tuple(upper))  # type: ignore[arg-type]
        except ValueError as error:
            raise self.top.problem("box", str(error)) from error

    def bev(self, number: int) -> BevMap | None:
        """The ground around the vehicle at a moment."""
        frame = self.frames[number]
        if "bev" not in frame:
            return None
        return read_bev(Record.of(self.top.source, frame.values["bev"], f"{frame.where}.bev"), self.root)

    def _depth(self, frame: Record, camera: str) -> Path | None:
        if "depth" not in frame:
            if any("depth" in other for other in self.frames):
                raise frame.problem("depth", "other frames have it; give depth in all frames or in none")
            return None
        record = Record.of(self.top.source, frame.values["depth"], f"{frame.where}.depth")
        return resolve_inside(self.root, record.text(camera), source=self.top.source)


def read_carla_depth(path: Path) -> Float[Tensor, "height width"]:
    """Metres along the optical axis from the 24 bits of red, green and blue, lowest first; 0 where there is sky."""
    red, green, blue = (image_files.read_image(path, (0.0, 0.0, 0.0)).double() * 255).round()
    share = (red + 256 * green + 65536 * blue) / CARLA_LARGEST
    return torch.where(share < SKY_SHARE, CARLA_FAR_METRES * share, 0.0).float()


def _records(top: Record, key: str) -> tuple[Record, ...]:
    records = tuple(Record.of(top.source, values, f"{key}[{n}]") for n, values in enumerate(top.items(key)))
    if not records:
        raise top.problem(key, "write at least one")
    return records


def _read_camera(record: Record, axes: str) -> RigCamera:
    name = record.text("name")
    missing = [key for key in CALIBRATION if key not in record]
    if missing:
        raise DataFormatError(
            record.source,
            f"{record.where}, camera {name!r}, has no calibration: it lacks {', '.join(missing)}; write the size and "
            "lens in pixels and the camera's 4x4 pose on the vehicle",
        )
    lens = Intrinsics(
        record.integer("w"),
        record.integer("h"),
        (record.number("fx"), record.number("fy")),
        (record.number("cx"), record.number("cy")),
    )
    problem = lens.find_problem()
    if problem:
        raise DataFormatError(record.source, f"{record.where}, camera {name!r}, {problem}")
    pose = _read_pose(record, "vehicle_from_camera")
    if axes == "carla":
        pose = _flip_unreal(pose) @ pose.new_tensor(VEHICLE_FROM_CAMERA)
    return RigCamera(name, lens, flip_opencv(pose) if axes == "opencv" else pose)


def _read_vehicle_pose(record: Record, axes: str) -> Float[Tensor, "4 4"]:
    pose = _read_pose(record, "world_from_vehicle")
    return _flip_unreal(pose) if axes == "carla" else pose


def _read_pose(record: Record, key: str) -> Float[Tensor, "4 4"]:
    pose = record.matrix(key)
    problem = find_pose_problem(pose)
    if problem:
        raise record.problem(key, f"it {problem}; write a rotation and a position in metres")
    return pose


def _flip_unreal(pose: Float[Tensor, "4 4"]) -> Float[Tensor, "4 4"]:
    """A pose between left-handed frames as one between right-handed ones, or back: y changes sign in both."""
    signs = pose.new_tensor((1.0, -1.0, 1.0, 1.0))
    return signs[:, None] * pose * signs
