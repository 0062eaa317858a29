"""One scene as a training sample, and the files it is made of: film strips, a ground map and JSON.

A film strip is one picture that holds all views of a scene, view 0 on top: one decode reads them all.
"""

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from nfldm3d._types import PathName
from nfldm3d.camera import Camera
from nfldm3d.data.bev_map import BevMap, from_rows, to_rows
from nfldm3d.data.image_files import DAMAGED, MAX_PIXELS
from nfldm3d.data.json_record import Record
from nfldm3d.data.posed_images import PosedImages
from nfldm3d.files import DataFormatError, parse_json
from nfldm3d.geometry import Box

FORMAT, VERSION = "nfldm3d scene", 1
DEPTH_UNITS = (0.001, 0.002, 0.005, 0.01, 0.1, 1.0)
"""Metres; a scene is written in the finest in which its largest depth is a 16-bit number."""
COMPRESSION = 1
"""Of the PNG files: level 6 would take twice as long for 5 % less."""
FARTHEST_MEDIAN, NEAREST_MAXIMUM = 3.0, 0.01
"""Depths are in other units if their median is this many times the box's diagonal, or the largest below this share."""
SKY_LABEL = "sky"
"""The name among ``metadata["label_names"]`` of what is infinitely far."""
MARGIN = 1e-3
"""Metres by which cameras may lie outside the box, for rounding."""


@dataclass(frozen=True)
class SceneSample:
    """Views of one local scene with all that is known about them, in memory."""

    key: str
    """Names the scene within its data set."""
    images: UInt8[Tensor, "views 3 height width"]
    depth: Float[Tensor, "views height width"] | None
    """Along the optical axis; 0 is unknown or sky (``find_sky`` tells which). None if it was not recorded: such scenes
    can be encoded."""
    camera: Camera
    """One per view."""
    box: Box
    """The place, in world metres."""
    labels: UInt8[Tensor, "views height width"] | None = None
    """A class per pixel; names are in ``metadata["label_names"]``."""
    bev: BevMap | None = None
    map: str = ""
    """The world that the scene is a part of."""
    split: str = "train"
    kinds: tuple[str, ...] = ()
    """How each view came about: ``scattered``, ``walk`` for one taken along the trajectory, or ``rig`` for one that
    another camera of the same vehicle took."""
    trajectory: Float[Tensor, "poses 5"] | None = None
    """Camera poses of a walk: x, y, z in metres, cosine and sine of the heading (counter-clockwise from +x)."""
    metadata: dict[str, object] = field(default_factory=dict)
    """Anything else worth keeping, as plain JSON values."""
    masks: Bool[Tensor, "views height width"] | None = None
    """True where a pixel is to be used; None if all are."""
    metric: bool = True
    """Whether lengths are metres; False where the capture's scale is unknown."""

    def known_depth(self) -> Float[Tensor, "views height width"]:
        """The depth of a scene to train on; a ValueError if it has none."""
        if self.depth is None:
            raise ValueError(f"scene {self.key} has no depth, which scenes to train on need; record it with depth")
        return self.depth

    def posed_images(self) -> PosedImages:
        """The same views as a capture."""
        capture = PosedImages.from_tensors(
            self.images, self.camera, depth=self.depth, masks=self.masks, labels=self.labels
        )
        box = {"lower": list(self.box.lower), "upper": list(self.box.upper)}
        extra: dict[str, object] = {"map": self.map, "box": box}
        if self.trajectory is not None:
            extra["trajectory"] = self.trajectory.double().tolist()
        return replace(capture, bev=self.bev, metric=self.metric, metadata=extra | self.metadata)

    def find_sky(self) -> Bool[Tensor, "views height width"]:
        """Which pixels show the sky, as far as labels tell: there the ray meets nothing, whereas a depth of 0 elsewhere
        is unknown."""
        names = self.metadata.get("label_names")
        if self.labels is None or not isinstance(names, list | tuple) or SKY_LABEL not in names:
            return torch.zeros(self.images[:, 0].shape, dtype=torch.bool)
        sky = self.labels == list(names).index(SKY_LABEL)
        return sky if self.depth is None else sky & (self.depth == 0)

    def seen_map(self) -> Int64[Tensor, "x y"] | None:
        """The bird's-eye map where some view meets a surface; ``UNSEEN`` elsewhere. None without map or depth."""
        if self.bev is None or self.depth is None:
            return None
        return self.bev.seen_from(self.camera.unproject(self.depth)[self.depth > 0])

    def find_problem(self) -> str | None:
        """What makes the scene useless, with the remedy; None if nothing does."""
        if len(self.camera) < 2:
            return "has one view, but a scene needs one to look from and one to judge by; record more views"
        centers, lower, upper = self.camera.centers, torch.tensor(self.box.lower), torch.tensor(self.box.upper)
        outside = ((centers < lower - MARGIN) | (centers > upper + MARGIN)).any(-1)
        if bool(outside.any()):
            number = int(outside.nonzero()[0])
            place = ", ".join(f"{value:.3g}" for value in centers[number].tolist())
            return f"view {number} at ({place}) is outside the box {self.box.lower} to {self.box.upper}; drop the view"
        if self.depth is None:
            return None
        diagonal, depth = math.dist(self.box.lower, self.box.upper), self.depth.numpy()
        known, largest = np.count_nonzero(depth), float(depth.max())
        if not known:
            return "has no depth at all; record it again with depth"
        too_far = np.count_nonzero(depth > FARTHEST_MEDIAN * diagonal) > known / 2
        if too_far or largest < NEAREST_MAXIMUM * diagonal:
            return (
                f"has depths of {float(np.median(depth[depth > 0])):.3g} in the middle and {largest:.3g} at most in a "
                f"box {diagonal:.3g} m across: they are not metres; check depth_unit"
            )
        return None


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


def decode_scene(key: str, members: Mapping[str, bytes], source: PathName) -> SceneSample:
    """The scene of some files; ``source`` names where they come from in messages.

    Raises:
        DataFormatError: a file is missing or damaged, or the scene is of no use.
    """
    where = Path(f"{source}/{key}")
    if "json" not in members:
        raise DataFormatError(where, "has no .json file; write the shard again")
    text = members["json"].decode("utf-8", errors="replace")
    record = Record.of(Path(f"{where}.json"), parse_json(text, f"{where}.json"))
    if record.values.get("format") != FORMAT or record.values.get("version") != VERSION:
        raise record.problem("format", f"only {FORMAT!r} version {VERSION} can be read; record the scene again")
    camera, box_record = _read_camera(record), Record.of(record.source, record.values.get("box"), "box")
    lower, upper = box_record.numbers("lower"), box_record.numbers("upper")
    views, height, width = len(camera), camera.height, camera.width
    strip = height * views, width

    def strip_of(extension: str, mode: str) -> np.ndarray:
        return _decode(members, extension, (mode,), strip, where)

    depth = strip_of("depth.png", "I;16").astype(np.float32) * np.float32(record.number("depth_unit"))
    images = strip_of("rgb.png", "RGB").reshape(views, height, width, 3)
    labels = None
    if "labels.png" in members:
        labels = torch.from_numpy(_decode(members, "labels.png", ("L", "P"), strip, where))
        labels = labels.reshape(views, height, width)
    masks = None
    if "masks.png" in members:
        masks = torch.from_numpy(strip_of("masks.png", "L") != 0).reshape(views, height, width)
    kinds, path = record.items("kinds"), record.values.get("trajectory")
    try:
        sample = SceneSample(
            key,
            torch.from_numpy(images).permute(0, 3, 1, 2),  # views height width 3 -> views 3 height width
            torch.from_numpy(depth).reshape(views, height, width),
            camera,
            Box(tuple(lower), tuple(upper)),  # type: ignore[arg-type]
            labels,
            _read_bev(record, members, where) if "bev.png" in members else None,
            str(record.values.get("map", "")),
            record.text("split"),
            tuple(str(kind) for kind in kinds),
            None if path is None else _read_trajectory(record),
            Record.of(record.source, record.values.get("metadata", {}), "metadata").values,
            masks,
            record.truth("metric", True),
        )
    except ValueError as error:
        raise error if isinstance(error, DataFormatError) else DataFormatError(where, str(error)) from error
    problem = sample.find_problem()
    if problem:
        raise DataFormatError(where, problem)
    return sample


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


def _read_camera(record: Record) -> Camera:
    def table(key: str, shape: tuple[int, ...]) -> Tensor:
        try:
            values = np.asarray(record.items(key), dtype=np.float32)
        except (ValueError, TypeError) as error:
            raise record.problem(key, "write lists of numbers of equal length") from error
        if values.shape != shape or not np.isfinite(values).all():
            raise record.problem(key, f"write an array of shape {shape}")
        return torch.from_numpy(values)

    views = record.integer("views")
    poses = table("world_from_camera", (views, 4, 4))
    focal, principal = table("focal", (views, 2)), table("principal", (views, 2))
    return Camera(poses, focal, principal, record.integer("width"), record.integer("height"))


def _read_trajectory(record: Record) -> Float[Tensor, "poses 5"]:
    try:
        path = np.asarray(record.items("trajectory"), dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise record.problem("trajectory", "write poses [x, y, z, heading]") from error
    if path.ndim != 2 or path.shape[1] != 4:
        raise record.problem("trajectory", "write poses [x, y, z, heading]")
    heading = path[:, 3:]
    return torch.from_numpy(np.concatenate((path[:, :3], np.cos(heading), np.sin(heading)), axis=1)).float()


def _read_bev(record: Record, members: Mapping[str, bytes], where: Path) -> BevMap:
    bev = Record.of(record.source, record.values.get("bev"), "bev")
    classes = from_rows(torch.from_numpy(_decode(members, "bev.png", ("L", "P"), None, where)))
    height = None
    if "bev_height.npy" in members:
        try:
            array = np.load(io.BytesIO(members["bev_height.npy"]), allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise DataFormatError(f"{where}.bev_height.npy", f"is no .npy array ({error}); write it again") from error
        height = torch.from_numpy(array.astype(np.float32))
    lower, names, palette = bev.numbers("lower"), bev.items("class_names"), bev.items("palette")
    try:
        colors = tuple((int(r), int(g), int(b)) for r, g, b in palette)
        return BevMap(classes, height, (lower[0], lower[1]), bev.number("cell_size"), tuple(names), colors)
    except (ValueError, TypeError, IndexError) as error:
        raise DataFormatError(record.source, f"bev: {error}; write the scene again") from error


def _decode(
    members: Mapping[str, bytes], extension: str, modes: tuple[str, ...], size: tuple[int, int] | None, where: Path
) -> np.ndarray:
    """The pixels of a PNG of a given height and width."""
    from PIL import Image

    name = f"{where}.{extension}"
    if extension not in members:
        raise DataFormatError(name, "is missing; write the scene again")
    try:
        with Image.open(io.BytesIO(members[extension]), formats=("PNG",)) as image:
            found = image.height, image.width
            if image.mode not in modes or (found != size if size else image.height * image.width > MAX_PIXELS):
                wanted = f"{modes[0]}{f' of {size[1]}x{size[0]}' if size else ''}"
                seen = f"{image.mode} of {found[1]}x{found[0]}"
                raise DataFormatError(name, f"is {seen} pixels, not {wanted}; write it again")
            return np.array(image)
    except DataFormatError:
        raise
    except (*DAMAGED, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataFormatError(name, f"is no PNG picture ({error}); write it again") from error
