"""The scene file: ``config.json`` and ``scene.safetensors`` in a folder, or both in one uncompressed ``.nfld`` zip.

Every level of a scene has a ``type``, the name of its class, and what its ``state`` gave; loading makes only classes
that are known here or handed in. The config names the format, its version and the SHA-256 of the tensors, because a
flipped bit in a safetensors file would otherwise load silently.
"""

import hashlib
import json
import shutil
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from nfldm3d._types import PathName
from nfldm3d.appearance import Appearance, EnvironmentMap, Rgb, SphericalHarmonics
from nfldm3d.camera import Camera
from nfldm3d.camera_problems import find_camera_problem
from nfldm3d.fields import Field, FieldState, NeuralField, SparseField, StoredField, VoxelField
from nfldm3d.files import (
    DataFormatError,
    atomic_write,
    check_output,
    measure_file,
    parse_json,
    read_content,
    read_json,
    refuse_outside,
    refuse_special,
)
from nfldm3d.geometry import find_pose_problem, invert_pose
from nfldm3d.image_decoder import ImageDecoder
from nfldm3d.temporary_files import temporary_file
from nfldm3d.tensor_files import plan_network, require_finite, require_floats, unpack_tensors, write_tensors
from nfldm3d.written_files import NOTE, atomic_folder

FORMAT = "nfldm3d.scene"
VERSION = 2
"""Of scenes with other levels than voxel fields; those that have none are still written as 1, for older readers."""
CONFIG, TENSORS = "config.json", "scene.safetensors"
WEIGHTS = "appearance."
"""Begins the names of tensors that belong to a learned appearance."""
EXTRA = "extra."
"""Begins the names of tensors that a scene only keeps."""
MAX_CONFIG_BYTES = 16 * 2**20
MAX_TENSOR_BYTES = 2**40
LARGEST_SIDE = 2**16
"""Pixels of a camera's picture; more are no picture, but a way to ask for memory."""

FIELD_TYPES: tuple[type[StoredField], ...] = (VoxelField, SparseField, NeuralField)
"""What files may hold without being told more."""

Result = TypeVar("Result")


def write(path: PathName, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Writes a folder, or one file if the name ends in ``.nfld``, whole or not at all."""
    path = Path(path)
    _require_scene_name(path)
    version = 1 if all(level["type"] == VoxelField.__name__ for level in config["levels"]) else VERSION
    config = {"format": FORMAT, "version": version, "sha256": "", **config}
    _spell(config, path)  # before anything is made
    if path.suffix == ".nfld":
        with atomic_write(path) as temporary, temporary_file(path) as packed:
            write_tensors(packed, tensors)
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
                archive.writestr(_entry(CONFIG), _spell(config, path, packed))
                with archive.open(_entry(TENSORS, packed.stat().st_size), "w") as file, packed.open("rb") as content:
                    shutil.copyfileobj(content, file)
    else:
        _require_replaceable(path)
        with atomic_folder(path, noted=False) as temporary:
            write_tensors(temporary / TENSORS, tensors)
            (temporary / CONFIG).write_text(_spell(config, path, temporary / TENSORS), encoding="utf-8")


def _spell(config: dict[str, Any], path: Path, packed: Path | None = None) -> str:
    """The text of a scene's config, with the checksum of its tensors."""
    known = {} if packed is None else {"sha256": measure_file(packed)["sha256"]}
    try:
        return json.dumps(config | known, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"cannot write {path}: metadata must be plain, finite JSON values ({error})") from error


def check_target(path: PathName) -> None:
    """Raises a ValueError, before a scene has been made, if it could not be written to ``path``."""
    path = Path(path)
    _require_scene_name(path)
    if path.suffix != ".nfld":
        _require_replaceable(path)
    check_output(path, folder=path.suffix != ".nfld")


def _require_scene_name(path: Path) -> None:
    if path.suffix and path.suffix != ".nfld":
        raise ValueError(f"cannot write {path}: scenes are files ending in .nfld or folders without a suffix")


def _entry(name: str, size: int = 0) -> zipfile.ZipInfo:
    """Without the time of day, so that one scene always makes the same file."""
    entry = zipfile.ZipInfo(name)
    entry.file_size = size  # as zipfile must know before it begins with more than 2 GiB
    entry.external_attr = 0o644 << 16
    return entry


def _require_replaceable(path: Path) -> None:
    """A folder is replaced only if it holds a scene and nothing else, or nothing at all."""
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    strange = (path.exists() and not path.is_dir()) or not names <= {CONFIG, TENSORS, NOTE}
    if names and not strange:
        try:
            read(path)
        except DataFormatError:  # files of these names that belong to something else
            strange = True
    if strange:
        raise ValueError(f"cannot write {path}: it exists and is not a scene folder; choose another name")


def read(path: PathName) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and tensors of a scene; raises DataFormatError on anything that ``write`` has not written."""
    path = Path(path)
    config, data = _read_folder(path) if path.is_dir() else _read_archive(path)
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise DataFormatError(path, f"is not a scene: {CONFIG} does not name the format {FORMAT!r}")
    version = config.get("version")
    if not isinstance(version, int) or version < 1 or version > VERSION:
        raise DataFormatError(
            path,
            f"has version {version}, this nfldm3d reads versions up to {VERSION}; upgrade with pip install -U nfldm3d",
        )
    if hashlib.sha256(data).hexdigest() != config.get("sha256"):
        raise DataFormatError(path, f"{TENSORS} is damaged or truncated (its sha256 differs); copy the file again")
    return config, unpack_tensors(data, f"{path}: {TENSORS}")


def rebuild(path: PathName, build: Callable[[], Result]) -> Result:
    """Runs ``build`` on what was read; what it misses or finds wrong becomes a DataFormatError."""
    try:
        return build()
    except KeyError as error:
        raise DataFormatError(path, f"lacks the entry {error}; save the scene again") from error
    except (ValueError, TypeError, AttributeError, IndexError, RuntimeError, OverflowError) as error:
        raise DataFormatError(path, f"holds values that do not fit together: {error}") from error


def pack_field(field: Field, name: str, tensors: dict[str, Tensor]) -> dict[str, object]:
    """The description of a field; its tensors go to ``tensors`` under names that begin with ``name``."""
    kind = type(field).__name__
    if not isinstance(field, StoredField):
        raise ValueError(
            f"a {kind} does not say what a scene file should keep of it: give the class state() and from_state() "
            "(fields.StoredField), or read it on a grid with editing.resample first"
        )
    config, parts = field.state()
    if "type" in config:
        raise ValueError(f"the state of a {kind} has a value named 'type', which is the name of the class: rename it")
    tensors |= {f"{name}.{key}": value for key, value in parts.items()}
    return {"type": kind, **config}


def unpack_field(
    config: dict[str, Any], name: str, tensors: dict[str, Tensor], types: Sequence[type[StoredField]] = ()
) -> Field:
    """The field that ``pack_field`` kept, if its class is one of ours or of the given ones."""
    kind = config.get("type", VoxelField.__name__)  # files of version 1 name none
    known = {known.__name__: known for known in (*FIELD_TYPES, *types)}
    if kind not in known:
        raise ValueError(
            f"{name} is a {kind}, a class unknown here: pass it with Scene.load(path, field_types=[{kind}])"
        )
    rest = {key: value for key, value in config.items() if key != "type"}
    parts = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
    try:
        return known[kind].from_state(FieldState(rest, parts))
    except KeyError as error:
        raise KeyError(f"{name}.{error.args[0]}") from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def pack_camera(camera: Camera, tensors: dict[str, Tensor]) -> dict[str, object]:
    """Adds the tensors of a camera to ``tensors`` and returns the rest of it."""
    for name in ("world_from_camera", "focal", "principal", "distortion"):
        if getattr(camera, name) is not None:
            tensors[f"cameras.{name}"] = getattr(camera, name).clone()  # safetensors refuses tensors that share memory
    return {"width": camera.width, "height": camera.height, "lens": camera.lens}


def unpack_camera(config: dict[str, Any], tensors: dict[str, Tensor]) -> Camera:
    """The camera that ``pack_camera`` kept; a ValueError if it can cast no rays."""
    for name, value in tensors.items():
        if name.startswith("cameras."):
            require_floats(name, value)
    camera = Camera(
        tensors["cameras.world_from_camera"],
        tensors["cameras.focal"],
        tensors["cameras.principal"],
        int(config["width"]),
        int(config["height"]),
        tensors.get("cameras.distortion"),
        config["lens"],
    )
    if max(camera.width, camera.height) > LARGEST_SIDE:
        raise ValueError(f"cameras take pictures of {camera.width}x{camera.height} pixels; save them smaller")
    if problem := find_camera_problem(camera):
        raise ValueError(f"the cameras' {problem}; save the scene with whole cameras")
    return camera


def unpack_background(kind: object, tensors: dict[str, Tensor]) -> EnvironmentMap | Tensor | None:
    """The background of a scene whose config calls it ``kind``; a ValueError if it is no colour."""
    values = tensors.get("background")
    if values is None:
        return None
    require_floats("background", values)
    if not bool(torch.isfinite(values).all()):
        raise ValueError("background holds NaN or infinity; give the scene another and save it again")
    return EnvironmentMap(values) if kind == "environment_map" else values


def pack_appearance(appearance: Appearance, tensors: dict[str, Tensor]) -> dict[str, object]:
    """The description of an appearance; the weights of a learned one go to ``tensors``: the file is complete."""
    if isinstance(appearance, torch.nn.Module):
        for name, value in appearance.state_dict().items():
            tensors[f"{WEIGHTS}{name}"] = _halve(value)
    return {"type": type(appearance).__name__, **appearance.config()}


def unpack_appearance(
    config: dict[str, Any], tensors: dict[str, Tensor] | None = None, given: Appearance | None = None
) -> Appearance:
    """The appearance that a config describes, with its weights in ``tensors``, or the given one in its place."""
    if given is not None:
        return _move_to_anchor(given, config)
    match config["type"]:
        case "Rgb":
            return Rgb(int(config["channels"]))
        case "SphericalHarmonics":
            return SphericalHarmonics(int(config["degree"]), tuple(tuple(row) for row in config["frame"]))  # type: ignore[arg-type]
        case "ImageDecoder":
            return _unpack_decoder(config, tensors or {})
        case other:
            raise ValueError(f"appearance {other!r} is unknown: pass one with Scene.load(path, appearance=...)")


def _unpack_decoder(config: dict[str, Any], tensors: dict[str, Tensor]) -> Appearance:
    weights = {name.removeprefix(WEIGHTS): value for name, value in tensors.items() if name.startswith(WEIGHTS)}
    widths = tuple(int(width) for width in config["widths"])
    channels, octaves, finest = int(config["channels"]), int(config["octaves"]), float(config["finest"])
    if not (3 <= channels <= 1024 and 0 <= octaves <= 16 and 1 <= len(widths) <= 8 and max(widths) <= 4096):
        raise ValueError(f"an image decoder of {channels} channels, {octaves} octaves and widths {widths} is too large")
    angle = float(config["pixel_angle"])

    def build() -> ImageDecoder:
        return ImageDecoder(channels, widths=widths, octaves=octaves, finest=finest, pixel_angle=angle)

    wanted = plan_network(build, len(weights))
    held = {name: tuple(value.shape) for name, value in weights.items()}
    if different := sorted(name for name, shape in wanted.items() if held.get(name) != shape):
        name = different[0]
        raise ValueError(f"{name} of the image decoder is {held.get(name, 'missing')}, not {wanted[name]}")
    require_finite(weights, "the image decoder")
    with torch.random.fork_rng([]):
        decoder = build()
    decoder.load_state_dict(weights)
    return _move_to_anchor(decoder.eval().requires_grad_(False), config)


def _halve(value: Tensor) -> Tensor:
    """The weights in half precision where that loses nothing, as with weights that came from a file of halves."""
    half = value.detach().half()
    return half if torch.equal(half.to(value.dtype), value) else value.detach().clone()


def _move_to_anchor(given: Appearance, config: dict[str, Any]) -> Appearance:
    """Networks that see positions name the pose of their axes, which is the scene's and not the weights'."""
    own = given.config()
    if "anchor" not in config or "anchor" not in own or config["anchor"] == own["anchor"]:
        return given
    saved, present = torch.tensor(config["anchor"]), torch.tensor(own["anchor"])
    problem = find_pose_problem(saved) if saved.shape == (4, 4) else f"has shape {tuple(saved.shape)}"
    if problem:
        raise ValueError(f"the appearance's anchor {problem}; save the scene again")
    return given.moved(saved @ invert_pose(present))


def _read_folder(path: Path) -> tuple[Any, bytes]:
    for name in (CONFIG, TENSORS):
        if not (path / name).is_file():
            raise DataFormatError(path, f"is not a scene folder: {name} is missing")
        refuse_outside(path, path / name)
    return read_json(path / CONFIG), read_content(path / TENSORS, MAX_TENSOR_BYTES, "save the scene again")


def _read_archive(path: Path) -> tuple[Any, bytes]:
    if not path.is_file():
        raise DataFormatError(path, "does not exist; give a .nfld file or a scene folder")
    try:
        refuse_special(path)
        with zipfile.ZipFile(path) as archive:
            size = path.stat().st_size
            for name, limit in ((CONFIG, min(size, MAX_CONFIG_BYTES)), (TENSORS, size)):
                entry = archive.getinfo(name)
                if entry.file_size > limit or entry.compress_type != zipfile.ZIP_STORED:
                    raise DataFormatError(path, f"{name} is compressed or larger than the file; it is not a scene")
            text, data = archive.read(CONFIG), archive.read(TENSORS)
    except KeyError as error:
        raise DataFormatError(path, f"is a zip but not a scene: {error.args[0]}") from error
    except DataFormatError:
        raise
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, struct.error) as error:
        raise DataFormatError(path, f"is not a scene or is truncated ({error}); copy the file again") from error
    try:
        return parse_json(text.decode("utf-8"), path), data
    except UnicodeDecodeError as error:
        raise DataFormatError(path, f"{CONFIG} is not UTF-8 text; save the scene again") from error
