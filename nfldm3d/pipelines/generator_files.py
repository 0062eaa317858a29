"""Folders of a scene generator's weights."""

from pathlib import Path
from typing import Any

import diffusers
from torch import nn

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


def read_parts(folder: Path) -> dict[str, Any]:
    """The constructor arguments of the scene generator that a folder holds, in single precision.

    Raises:
        DataFormatError: something is missing, damaged or of another version.
    """
    index = _read_index(folder)
    parts: dict[str, Any] = {"scheduler": _read_scheduler(folder / "scheduler")}
    for name, network in NETWORKS.items():
        if index.get(name, [None])[0] is None and name in OPTIONAL:
            continue
        if not (folder / name).is_dir():
            raise DataFormatError(folder, f"holds no folder {name}, which a scene generator needs; copy it there")
        parts[name] = load_network(network, folder / name).requires_grad_(False)
    return parts | {name: index[name] for name in OPTIONS if name in index}


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / "model_index.json"
    if not path.is_file():
        raise DataFormatError(
            folder, "holds no model_index.json, so it is no scene generator; make one with nfldm3d assemble"
        )
    index = read_json(path)
    if not isinstance(index, dict) or index.get("_class_name") != "SceneGenerator":
        raise DataFormatError(path, "does not describe a SceneGenerator; give another folder")
    return index


def _read_scheduler(folder: Path) -> Any:
    path = folder / "scheduler_config.json"
    if not path.is_file():
        raise DataFormatError(folder, "holds no scheduler_config.json; copy the folder scheduler of the weights")
    config = read_json(path)
    name = config.get("_class_name") if isinstance(config, dict) else None
    cls = getattr(diffusers, str(name), None)
    if not (isinstance(cls, type) and issubclass(cls, diffusers.SchedulerMixin)):
        raise DataFormatError(path, f"names {name!r}, which is none of diffusers' schedulers; write its class name")
    return cls.from_config(config)  # type: ignore[attr-defined]
