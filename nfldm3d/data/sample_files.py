"""The files that a scene is made of in a shard: film strips, a ground map and JSON.

A film strip is one picture that holds all views of a scene, view 0 on top: one decode reads them all.
"""

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nfldm3d._types import PathName
from nfldm3d.camera import Camera
from nfldm3d.camera_problems import find_camera_problem, find_pose_problems
from nfldm3d.data.array_files import parse_array
from nfldm3d.data.bev_map import BevMap, from_rows, to_rows
from nfldm3d.data.image_files import DAMAGED, MAX_PIXELS, open_quietly
from nfldm3d.data.json_record import Record
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.files import DataFormatError, parse_json
from nfldm3d.geometry import Box

FORMAT, VERSION = "nfldm3d scene", 1
DEPTH_UNITS = (0.001, 0.002, 0.005, 0.01, 0.1, 1.0)
"""Metres; a scene is written in the finest in which its largest depth is a 16-bit number."""
COMPRESSION = 1
"""Of the PNG files: level 6 would take twice as long for 5 % less."""


def encode_scene(sample: SceneSample) -> dict[str, bytes]:
    """The files of a scene by their extensions; depth is rounded to millimetres, farther ones more coarsely."""
    from PIL import Image

    def png(pixels: np.ndarray, palette: object = None) -> bytes:
        image, buffer = Image.fromarray(pixels), io.BytesIO()
        if isinstance(palette, list | tuple) and palette:
            image.putpalette([value for color in palette for value in color])
        image.save(buffer, "png", compress_level=COMPRESSION)
        return buffer.getvalue()

    metres = sample.known_depth()
    unit = next(unit for unit in DEPTH_UNITS if float(metres.max()) / unit < 65535 or unit == DEPTH_UNITS[-1])
    depth = (metres.double() / unit).round().clamp(max=65535).numpy().astype(np.uint16)
    members = {
        "rgb.png": png(sample.images.permute(0, 2, 3, 1).flatten(0, 1).numpy()),
        "depth.png": png(depth.reshape(-1, depth.shape[-1])),
    }
    if sample.masks is not None:
        members["masks.png"] = png(sample.masks.flatten(0, 1).byte().mul(255).numpy())
    if sample.alpha is not None:
        members["alpha.png"] = png(sample.alpha.flatten(0, 1).numpy())
    if sample.normals is not None:
        members["normals.png"] = png(sample.normals.flatten(0, 1).numpy())
    if sample.labels is not None:
        members["labels.png"] = png(sample.labels.flatten(0, 1).numpy(), sample.metadata.get("label_palette"))
    if sample.bev is not None:
        members["bev.png"] = png(to_rows(sample.bev.classes).numpy(), sample.bev.palette)
        if sample.bev.height is not None:
            buffer = io.BytesIO()
            np.save(buffer, sample.bev.height.float().numpy(), allow_pickle=False)
            members["bev_height.npy"] = buffer.getvalue()
    text = json.dumps(_describe(sample, unit), separators=(",", ":"), allow_nan=False)
    return {"json": text.encode()} | members


def _describe(sample: SceneSample, unit: float) -> dict[str, object]:
    camera, bev, path = sample.camera, sample.bev, sample.trajectory
    walk = [] if path is None else [[*p[:3], math.atan2(p[4], p[3])] for p in path.double().tolist()]
    return {
        "format": FORMAT,
        "version": VERSION,
        "map": sample.map,
        **({} if sample.metric else {"metric": False}),
        "split": sample.split,
        "views": len(camera),
        "width": camera.width,
        "height": camera.height,
        "focal": _numbers(camera.focal),
        "principal": _numbers(camera.principal),
        "world_from_camera": _numbers(camera.world_from_camera),
        "kinds": list(sample.kinds),
        "trajectory": [[round(value, 6) for value in pose] for pose in walk] or None,
        "box": {"lower": list(sample.box.lower), "upper": list(sample.box.upper)},
        "depth_unit": unit,
        "bev": None
        if bev is None
        else {
            "lower": list(bev.lower),
            "cell_size": bev.cell_size,
            "class_names": list(bev.class_names),
            "palette": [list(color) for color in bev.palette],
        },
        "metadata": sample.metadata,
    }


def _numbers(tensor: Tensor) -> list:
    """Nested lists in which a float32 is as short as it can be."""
    shortest = [float(str(value)) for value in tensor.detach().float().numpy().ravel()]
    return np.array(shortest).reshape(tensor.shape).tolist()


def decode_scene(key: str, members: Mapping[str, bytes], source: PathName) -> SceneSample:
    """The scene of some files; ``source`` names where they come from in messages.

    Raises:
        DataFormatError: a file is missing or damaged, or the scene is of no use.
    """
    files = _SceneFiles(members, Path(f"{source}/{key}"))
    record = files.record()
    camera = _read_camera(record)
    try:
        sample = _read_sample(key, files, record, camera)
    except ValueError as error:
        raise error if isinstance(error, DataFormatError) else DataFormatError(files.where, str(error)) from error
    problem = sample.find_problem()
    if problem:
        raise DataFormatError(files.where, problem)
    return sample


def decode_views(
    key: str, members: Mapping[str, bytes], source: PathName
) -> tuple[UInt8[Tensor, "views 3 height width"], Camera, dict[str, object]]:
    """The pictures, cameras and metadata of a scene alone, several times faster than all of it; see ``decode_scene``.

    Raises:
        DataFormatError: a file is missing or damaged.
    """
    files = _SceneFiles(members, Path(f"{source}/{key}"))
    record = files.record()
    camera = _read_camera(record)
    images = torch.from_numpy(files.strip("rgb.png", ("RGB",), camera)).permute(0, 3, 1, 2)
    return images, camera, _metadata_of(record)


def read_metadata(key: str, members: Mapping[str, bytes], source: PathName) -> dict[str, object]:
    """What is known of a scene beside its pictures; see ``decode_scene``.

    Raises:
        DataFormatError: its JSON file is missing or damaged.
    """
    return _metadata_of(_SceneFiles(members, Path(f"{source}/{key}")).record())


def _metadata_of(record: Record) -> dict[str, object]:
    return Record.of(record.source, record.values.get("metadata", {}), "metadata").values


@dataclass(frozen=True)
class _SceneFiles:
    """The files of one scene by their extensions."""

    members: Mapping[str, bytes]
    where: Path
    """Their name without extension, for messages."""

    def __contains__(self, extension: str) -> bool:
        return extension in self.members

    def record(self) -> Record:
        """What the JSON file says."""
        if "json" not in self:
            raise DataFormatError(self.where, "has no .json file; write the shard again")
        text = self.members["json"].decode("utf-8", errors="replace")
        record = Record.of(Path(f"{self.where}.json"), parse_json(text, f"{self.where}.json"))
        if record.values.get("format") != FORMAT or record.values.get("version") != VERSION:
            raise record.problem("format", f"only {FORMAT!r} version {VERSION} can be read; record the scene again")
        return record

    def strip(self, extension: str, modes: tuple[str, ...], camera: Camera) -> np.ndarray:
        """The pictures of all views, cut from their film strip."""
        pixels = self.picture(extension, modes, (len(camera) * camera.height, camera.width))
        return pixels.reshape(len(camera), camera.height, camera.width, *pixels.shape[2:])

    def picture(self, extension: str, modes: tuple[str, ...], size: tuple[int, int] | None = None) -> np.ndarray:
        """The pixels of a PNG, which must have this height and width if they are given."""
        from PIL import Image

        name = f"{self.where}.{extension}"
        if extension not in self:
            raise DataFormatError(name, "is missing; write the scene again")
        said: list[str] = []
        try:
            with open_quietly(io.BytesIO(self.members[extension]), ("PNG",), said) as image:
                found = image.height, image.width
                if image.mode not in modes or (found != size if size else image.height * image.width > MAX_PIXELS):
                    wanted = f"{modes[0]}{f' of {size[1]}x{size[0]}' if size else ''}"
                    seen = f"{image.mode} of {found[1]}x{found[0]}"
                    raise DataFormatError(name, f"is {seen} pixels, not {wanted}; write it again")
                return np.array(image)
        except DataFormatError:
            raise
        except (*DAMAGED, Image.DecompressionBombError) as error:
            problem = "; ".join((str(error), *said))
            raise DataFormatError(name, f"is no PNG picture ({problem}); write it again") from error

    def array(self, extension: str) -> np.ndarray:
        """The numbers of a ``.npy`` file."""
        return parse_array(self.members[extension], f"{self.where}.{extension}")


def _read_sample(key: str, files: _SceneFiles, record: Record, camera: Camera) -> SceneSample:
    box = Record.of(record.source, record.values.get("box"), "box")
    lower, upper = box.numbers("lower"), box.numbers("upper")
    unit = record.number("depth_unit")
    if not 0 < unit < 1e6:
        raise record.problem("depth_unit", "write the metres of one step, above 0")
    depth = files.strip("depth.png", ("I;16",), camera).astype(np.float32) * np.float32(unit)
    images = files.strip("rgb.png", ("RGB",), camera)
    labels = torch.from_numpy(files.strip("labels.png", ("L", "P"), camera)) if "labels.png" in files else None
    masks = torch.from_numpy(files.strip("masks.png", ("L",), camera) != 0) if "masks.png" in files else None
    alpha = torch.from_numpy(files.strip("alpha.png", ("L",), camera)) if "alpha.png" in files else None
    normals = torch.from_numpy(files.strip("normals.png", ("RGB",), camera)) if "normals.png" in files else None
    return SceneSample(
        key,
        torch.from_numpy(images).permute(0, 3, 1, 2),  # views height width 3 -> views 3 height width
        torch.from_numpy(depth),
        camera,
        Box(tuple(lower), tuple(upper)),  # type: ignore[arg-type]
        labels,
        _read_bev(record, files) if "bev.png" in files else None,
        map=str(record.values.get("map", "")),
        split=record.text("split"),
        kinds=tuple(str(kind) for kind in record.items("kinds")),
        trajectory=None if record.values.get("trajectory") is None else _read_trajectory(record),
        metadata=Record.of(record.source, record.values.get("metadata", {}), "metadata").values,
        masks=masks,
        metric=record.truth("metric", True),
        alpha=alpha,
        normals=normals,
    )


def _read_camera(record: Record) -> Camera:
    def table(key: str, shape: tuple[int, ...]) -> Tensor:
        try:
            values = np.asarray(record.items(key), dtype=np.float64)
        except (ValueError, TypeError, OverflowError) as error:
            raise record.problem(key, "write lists of numbers of equal length") from error
        if values.shape != shape or not (np.abs(values) < 1e30).all():  # NaN fails the comparison, too
            raise record.problem(key, f"write an array of shape {shape}")
        return torch.from_numpy(values.astype(np.float32))

    views = record.integer("views")
    poses = table("world_from_camera", (views, 4, 4))
    focal, principal = table("focal", (views, 2)), table("principal", (views, 2))
    camera = Camera(poses, focal, principal, record.integer("width"), record.integer("height"))
    problem = find_camera_problem(camera) or find_pose_problems(camera)
    if problem:
        raise DataFormatError(record.source, f"{problem}; record the scene again")
    return camera


def _read_trajectory(record: Record) -> Float[Tensor, "poses 5"]:
    try:
        path = np.asarray(record.items("trajectory"), dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise record.problem("trajectory", "write poses [x, y, z, heading]") from error
    if path.ndim != 2 or path.shape[1] != 4 or not (np.abs(path) < 1e30).all():
        raise record.problem("trajectory", "write poses [x, y, z, heading]")
    heading = path[:, 3:]
    return torch.from_numpy(np.concatenate((path[:, :3], np.cos(heading), np.sin(heading)), axis=1)).float()


def _read_bev(record: Record, files: _SceneFiles) -> BevMap:
    bev = Record.of(record.source, record.values.get("bev"), "bev")
    classes = from_rows(torch.from_numpy(files.picture("bev.png", ("L", "P"))))
    height = None
    if "bev_height.npy" in files:
        with np.errstate(over="ignore"):
            height = torch.from_numpy(files.array("bev_height.npy").astype(np.float32))
    lower, names, palette = bev.numbers("lower"), bev.items("class_names"), bev.items("palette")
    try:
        colors = tuple((int(r), int(g), int(b)) for r, g, b in palette)
        return BevMap(classes, height, (lower[0], lower[1]), bev.number("cell_size"), tuple(names), colors)
    except (ValueError, TypeError, IndexError) as error:
        raise DataFormatError(record.source, f"bev: {error}; write the scene again") from error
