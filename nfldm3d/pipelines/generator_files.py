"""Folders of a scene generator's weights."""

import inspect
from pathlib import Path
from typing import Any

import diffusers
from torch import nn

from nfldm3d.data.json_record import Record
from nfldm3d.files import DataFormatError, read_json
from nfldm3d.models.nfldm.denoisers import GlobalDenoiser, GridDenoiser
from nfldm3d.models.nfldm.latent_autoencoder import LatentAutoencoder
from nfldm3d.models.nfldm.scene_autoencoder import SceneAutoencoder
from nfldm3d.models.weights import load_network

NETWORKS: dict[str, type[nn.Module]] = {
    "scene_autoencoder": SceneAutoencoder,
    "latent_autoencoder": LatentAutoencoder,
    "denoiser_g": GlobalDenoiser,
    "denoiser_c": GridDenoiser,
    "denoiser_f": GridDenoiser,
}
OPTIONAL = ("denoiser_g", "denoiser_f")
OPTIONS = ("box_size", "map_classes", "map_palette", "path_odds")
MOST_STEPS = 100_000
"""Of training of a schedule, which keeps several numbers for each."""
PARTS = (*NETWORKS, "scheduler", *OPTIONS)
"""The constructor's arguments."""


def read_parts(folder: Path, given: dict[str, Any], variant: str | None = None) -> dict[str, Any]:
    """The constructor arguments of the scene generator that a folder holds, in single precision.

    Args:
        given: arguments that take the place of those in the folder.

    Raises:
        ValueError: a part was given that is none.
        DataFormatError: something is missing, damaged or of another version.
    """
    index = read_index(folder, "SceneGenerator")
    parts = read_options(index, folder / "model_index.json")
    if "scheduler" not in given:
        parts["scheduler"] = read_scheduler(folder / "scheduler")
    elif not isinstance(given["scheduler"], diffusers.SchedulerMixin):
        raise ValueError(f"scheduler must be one of diffusers', got {type(given['scheduler']).__name__}; give one")
    for name, network in NETWORKS.items():
        if name in given:
            _require_part(given[name], name, network)
        elif name not in OPTIONAL or _names_class(index.get(name)):
            if not (folder / name).is_dir():
                raise DataFormatError(folder, f"holds no folder {name}, which a scene generator needs; copy it there")
            parts[name] = load_network(network, folder / name, variant).requires_grad_(False)
    return parts | given


def _names_class(entry: object) -> bool:
    """Whether an entry of ``model_index.json``, a library and a class, says that there is such a part."""
    return isinstance(entry, list) and bool(entry) and entry[0] is not None


def read_options(index: dict[str, Any], source: Path) -> dict[str, Any]:
    """The plain values among the constructor's arguments."""
    record = Record.of(source, {name: index[name] for name in OPTIONS if name in index})
    if "box_size" in record and not (len(size := record.numbers("box_size")) == 3 and min(size) > 0):
        raise record.problem("box_size", "write three lengths in metres, above 0")
    if "path_odds" in record and not all(odds >= 0 for odds in record.numbers("path_odds")):
        raise record.problem("path_odds", "write numbers of at least 0")
    if "map_classes" in record and not all(isinstance(name, str) for name in record.items("map_classes")):
        raise record.problem("map_classes", "write names")
    for color in record.items("map_palette") if "map_palette" in record else ():
        whole = isinstance(color, list) and len(color) == 3 and all(type(value) is int for value in color)
        if not (whole and min(color) >= 0 and max(color) <= 255):
            raise record.problem("map_palette", "write red, green and blue from 0 to 255 for each class")
    return record.values


def _require_part(part: object, name: str, network: type[nn.Module]) -> None:
    if not (isinstance(part, network) or (part is None and name in OPTIONAL)):
        raise ValueError(f"{name} must be a {network.__name__}, got {type(part).__name__}; give one, or leave it out")


def pipeline_of(folder: Path) -> str:
    """The class of the pipeline that a folder holds; a DataFormatError if it does not say."""
    path = folder / "model_index.json"
    index = read_json(path) if path.is_file() else None
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        raise DataFormatError(folder, "holds no model_index.json of a scene generator; make one with nfldm3d assemble")
    return index["_class_name"]


def read_index(folder: Path, pipeline: str) -> dict[str, Any]:
    """What a folder says of the pipeline that it holds; a DataFormatError if it is not the one that is named."""
    path = folder / "model_index.json"
    if not path.is_file():
        raise DataFormatError(
            folder, "holds no model_index.json, so it is no scene generator; make one with nfldm3d assemble"
        )
    index = read_json(path)
    if not isinstance(index, dict) or index.get("_class_name") != pipeline:
        raise DataFormatError(path, f"does not describe a {pipeline}; give another folder")
    return index


def read_scheduler(folder: Path) -> Any:
    """The scheduler of diffusers that a folder describes; a DataFormatError if it does not."""
    path = folder / "scheduler_config.json"
    if not path.is_file():
        raise DataFormatError(folder, "holds no scheduler_config.json; copy the folder scheduler of the weights")
    config = read_json(path)
    name = config.get("_class_name") if isinstance(config, dict) else None
    cls = getattr(diffusers, str(name), None)
    if not (isinstance(cls, type) and issubclass(cls, diffusers.SchedulerMixin)):
        raise DataFormatError(path, f"names {name!r}, which is none of diffusers' schedulers; write its class name")
    steps = config.get("num_train_timesteps", 1000)
    if type(steps) is not int or not 1 <= steps <= MOST_STEPS:
        raise DataFormatError(path, f"num_train_timesteps is {steps!r}; write a whole number up to {MOST_STEPS}")
    known = inspect.signature(cls).parameters
    options = {name: value for name, value in config.items() if name in known or name.startswith("_")}
    try:
        return cls.from_config(options)  # type: ignore[attr-defined] - of other options it would print
    except (ValueError, TypeError, AttributeError, RuntimeError, LookupError) as error:
        raise DataFormatError(path, f"describes no {name}: {error}; copy the file again") from error
