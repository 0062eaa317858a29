"""Reads nuScenes as it is published: drives of 20 s in Boston and Singapore, six cameras and a lidar, twice a second.

    v1.0-mini/*.json        tables, a list of rows each, which name each other by token (also v1.0-trainval, v1.0-test)
    samples/CAM_FRONT/...   pictures, 1600x900, without distortion; samples/LIDAR_TOP/... sweeps of 5 float32 a point
    maps/expansion/*.json   streets, if they were downloaded (version 1.3)

Poses are position and quaternion w, x, y, z, of the vehicle (x ahead, y left, z up) in a flat world, and of each sensor
on it; cameras have OpenCV's axes. Every picture has a pose of the vehicle of its own. Timestamps are microseconds,
sizes of boxes width, length, height. Only key frames are read, for which there are boxes. Everything was read from
https://github.com/nutonomy/nuscenes-devkit/blob/master/docs/schema_nuscenes.md.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.data.intrinsics import Intrinsics
from nfldm3d.data.json_record import Record
from nfldm3d.data.logs.drive import GroundArea, LogObject, LogView
from nfldm3d.data.logs.json_rows import Table
from nfldm3d.data.logs.nuscenes_map import StreetMap
from nfldm3d.data.logs.sweeps import read_sweep
from nfldm3d.data.vehicle_poses import pose_from_quaternion
from nfldm3d.files import DataFormatError, resolve_inside
from nfldm3d.geometry import flip_opencv, transform_points

POSE = ("translation", "rotation")
FIELDS = {
    "sensor": ("channel", "modality"),
    "calibrated_sensor": ("sensor_token", *POSE, "camera_intrinsic"),
    "sample_data": (
        *("sample_token", "ego_pose_token", "calibrated_sensor_token"),
        *("filename", "width", "height", "timestamp"),
    ),
    "ego_pose": POSE,
    "sample": ("scene_token", "timestamp", "next"),
    "scene": ("name", "first_sample_token", "log_token"),
    "log": ("logfile", "location"),
    "category": ("name",),
    "instance": ("category_token",),
    "sample_annotation": ("sample_token", "instance_token", *POSE, "size"),
}
"""What is read of each table, beside its token."""
LIDAR = "LIDAR_TOP"
SWEEP_COLUMNS = 5
"""x, y, z, intensity, and the number of the ring."""
VEHICLE_RADIUS = 2.5
"""Metres around the lidar in which it sees nothing but its own vehicle's roof."""
MOVES = 0.25
"""Metres between two moments, half a second apart, from which on a thing counts as moving."""
CLASSES = {"vehicle": "vehicle", "human": "person", "animal": "person"}
"""By the first part of a category's name; all others are objects."""


@dataclass(frozen=True, eq=False)
class NuScenes:
    """The tables of one version, and where its files lie."""

    root: Path
    tables: dict[str, Table]

    @classmethod
    def open(cls, path: Path) -> "NuScenes":
        """Reads the tables below the data set's folder, or in the folder of one version.

        Raises:
            DataFormatError: tables are missing or cannot be used.
        """
        folder = _find_version(path)
        missing = [f"{name}.json" for name in FIELDS if not (folder / f"{name}.json").is_file()]
        if missing:
            raise DataFormatError(folder, f"lacks the tables {', '.join(missing)}; unpack nuScenes' metadata again")
        tables: dict[str, Table] = {}
        for name in ("sensor", "calibrated_sensor"):
            tables[name] = Table.read(folder / f"{name}.json", FIELDS[name])
        wanted = {
            token
            for token, row in tables["calibrated_sensor"].rows.items()
            if _is_wanted(tables["sensor"].get(row, "sensor_token"))
        }

        def is_key_frame(row: dict) -> bool:
            sensor = row.get("calibrated_sensor_token")
            return row.get("is_key_frame") is True and isinstance(sensor, str) and sensor in wanted

        tables["sample_data"] = Table.read(folder / "sample_data.json", FIELDS["sample_data"], is_key_frame)
        poses = {row.text("ego_pose_token") for row in tables["sample_data"].rows.values()}

        def is_used(row: dict) -> bool:
            return not isinstance(row.get("token"), str) or row["token"] in poses  # what is none is told by the table

        tables["ego_pose"] = Table.read(folder / "ego_pose.json", FIELDS["ego_pose"], is_used)
        for name in FIELDS.keys() - tables.keys():
            tables[name] = Table.read(folder / f"{name}.json", FIELDS[name])
        return cls(folder.parent, tables)

    def drives(self) -> list["NuScenesDrive"]:
        """One for each scene of the table, in its order."""
        return [NuScenesDrive(self, scene) for scene in self.tables["scene"].rows.values()]

    @cached_property
    def data_of_samples(self) -> dict[str, dict[str, Record]]:
        """The row of each sensor's key frame, by sample and channel."""
        found: dict[str, dict[str, Record]] = {}
        for row in self.tables["sample_data"].rows.values():
            calibration = self.tables["calibrated_sensor"].get(row, "calibrated_sensor_token")
            channel = self.tables["sensor"].get(calibration, "sensor_token").text("channel")
            found.setdefault(row.text("sample_token"), {})[channel] = row
        return found

    @cached_property
    def boxes_of_samples(self) -> dict[str, list[Record]]:
        """The annotations of each sample."""
        found: dict[str, list[Record]] = {}
        for row in self.tables["sample_annotation"].rows.values():
            found.setdefault(row.text("sample_token"), []).append(row)
        return found

    @cached_property
    def streets(self) -> dict[str, StreetMap | None]:
        """The map of each place; None where it was not downloaded."""
        places = {row.text("location") for row in self.tables["log"].rows.values()}
        files = {
            place: resolve_inside(self.root, f"maps/expansion/{place}.json", source=self.tables["log"].source)
            for place in sorted(places)
        }
        return {place: StreetMap(file) if file.is_file() else None for place, file in files.items()}


@dataclass(frozen=True, eq=False)
class NuScenesDrive:
    """One of nuScenes' scenes; see ``drive.Drive``."""

    log: NuScenes
    scene: Record

    @property
    def name(self) -> str:
        """Such as ``scene-0061``."""
        return self.scene.text("name")

    @property
    def route(self) -> str:
        """The log, of which scenes are parts."""
        return self.log.tables["log"].get(self.scene, "log_token").text("logfile")

    @property
    def source(self) -> Path:
        """The data set's folder."""
        return self.log.root

    @cached_property
    def samples(self) -> list[tuple[str, Record]]:
        """The key moments in order, with their tokens."""
        table, chain = self.log.tables["sample"], dict[str, Record]()
        row, key = self.scene, "first_sample_token"
        while key == "first_sample_token" or row.values.get("next"):
            following = table.get(row, key)
            token = row.text(key)
            if token in chain:
                raise row.problem(key, "the samples of a scene run in a circle; unpack the tables again")
            chain[token], row, key = following, following, "next"
        return list(chain.items())

    def vehicle_poses(self) -> Float[Tensor, "moments 4 4"]:
        """When the lidar swept, or else when the first camera fired."""
        first = [self._data(moment) for moment in range(len(self.samples))]
        return torch.stack([self._vehicle(rows.get(LIDAR) or rows[min(rows)]) for rows in first])

    def views(self, moment: int) -> list[LogView]:
        """The cameras in alphabetical order."""
        rows = self._data(moment)
        return [self._view(channel, rows[channel]) for channel in sorted(rows) if channel != LIDAR]

    def sweep(self, moment: int) -> Float[Tensor, "points 3"] | None:
        """What the lidar on the roof saw."""
        row = self._data(moment).get(LIDAR)
        if row is None:
            return None
        points = read_sweep(self._file(row), SWEEP_COLUMNS, VEHICLE_RADIUS)
        return transform_points(self._vehicle(row) @ _pose(self._calibration(row)), points)

    def objects(self, moment: int) -> list[LogObject]:
        """The boxes of a key moment."""
        token, log = self.samples[moment][0], self.log
        result = []
        for row in log.boxes_of_samples.get(token, ()):
            kind = log.tables["category"].get(log.tables["instance"].get(row, "instance_token"), "category_token")
            width, length, height = _numbers(row, "size", 3)
            if min(width, length, height) <= 0:
                raise row.problem("size", "write width, length and height in metres")
            name, label = row.text("instance_token"), kind.text("name")
            group = CLASSES.get(label.partition(".")[0], "object")
            size = (length, width, height)
            result.append(LogObject(name, label, group, _pose(row), size, (moment, name) in self._moving))
        return result

    def ground(self, lower: tuple[float, float], upper: tuple[float, float]) -> list[GroundArea] | None:
        """What the map expansion says."""
        streets = self.log.streets[self.log.tables["log"].get(self.scene, "log_token").text("location")]
        return None if streets is None else streets.areas(lower, upper)

    @cached_property
    def _moving(self) -> set[tuple[int, str]]:
        """Moments and instances that are elsewhere at the moment before or after."""
        found: set[tuple[int, str]] = set()
        places = [
            {row.text("instance_token"): torch.tensor(_numbers(row, "translation", 3)) for row in rows}
            for rows in (self.log.boxes_of_samples.get(token, ()) for token, _ in self.samples)
        ]
        for moment, (before, after) in enumerate(pairwise(places)):
            for name in before.keys() & after.keys():
                if float((after[name] - before[name]).norm()) > MOVES:
                    found |= {(moment, name), (moment + 1, name)}
        return found

    def _data(self, moment: int) -> dict[str, Record]:
        token, sample = self.samples[moment]
        rows = self.log.data_of_samples.get(token, {})
        if not rows.keys() - {LIDAR}:
            raise DataFormatError(
                self.log.tables["sample_data"].source,
                f"has no key frame of a camera for sample{sample.where} of {self.name}; unpack the tables again",
            )
        return rows

    def _calibration(self, row: Record) -> Record:
        return self.log.tables["calibrated_sensor"].get(row, "calibrated_sensor_token")

    def _vehicle(self, row: Record) -> Float[Tensor, "4 4"]:
        return _pose(self.log.tables["ego_pose"].get(row, "ego_pose_token"))

    def _file(self, row: Record) -> Path:
        return resolve_inside(self.log.root, row.text("filename"), source=row.source)

    def _view(self, channel: str, row: Record) -> LogView:
        calibration = self._calibration(row)
        return LogView(
            channel,
            self._file(row),
            _lens(row, calibration),
            flip_opencv(self._vehicle(row) @ _pose(calibration)),
            row.number("timestamp") / 1e6,
        )


def is_nuscenes(path: Path) -> bool:
    """Whether a folder is laid out as nuScenes, or as the tables of one version."""
    return any(path.glob("v1.0-*")) or (path.name.startswith("v1.0-") and path.is_dir()) or _has_pictures(path)


def _has_pictures(path: Path) -> bool:
    return (path / "samples" / "CAM_FRONT").is_dir()


def _find_version(path: Path) -> Path:
    if path.name.startswith("v1.0-"):
        return path
    found = sorted(folder for folder in path.glob("v1.0-*") if folder.is_dir())
    if not found:
        raise DataFormatError(
            path, "has no folder of tables such as v1.0-mini; unpack nuScenes' metadata beside samples"
        )
    if len(found) > 1:
        names = ", ".join(folder.name for folder in found)
        raise DataFormatError(path, f"holds the tables {names}; give the folder of one, such as {found[0]}")
    return found[0]


def _is_wanted(sensor: Record) -> bool:
    return sensor.text("modality") == "camera" or sensor.text("channel") == LIDAR


def _pose(row: Record) -> Float[Tensor, "4 4"]:
    quaternion = _numbers(row, "rotation", 4)
    if not 0.99 < sum(value * value for value in quaternion) < 1.01:
        raise row.problem("rotation", "write a unit quaternion w, x, y, z")
    return pose_from_quaternion(quaternion, _numbers(row, "translation", 3))


def _numbers(row: Record, key: str, count: int) -> list[float]:
    values = row.numbers(key)
    if len(values) != count:
        raise row.problem(key, f"write {count} numbers")
    return values


def _lens(row: Record, calibration: Record) -> Intrinsics:
    """Of a calibration that counts from the first pixel's centre."""
    rows = [
        Record(calibration.source, {"row": values}, f"{calibration.where}.camera_intrinsic").numbers("row")
        for values in calibration.items("camera_intrinsic")
    ]
    if [len(values) for values in rows] != [3, 3, 3] or rows[0][1] or rows[1][0] or rows[2] != [0, 0, 1]:
        raise calibration.problem("camera_intrinsic", "a camera needs [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]")
    (fx, _, cx), (_, fy, cy), _ = rows
    return Intrinsics(row.integer("width"), row.integer("height"), (fx, fy), (cx + 0.5, cy + 0.5))
