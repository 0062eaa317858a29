"""Where weights lie: shipped with the package, in a folder, or, only where that is asked for, on a hub."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypedDict

import torch

from nfldm3d._types import PathName
from nfldm3d.files import DataFormatError, resolve_inside

DEFAULT = "driving"
"""The weights that commands take."""
OBJECTS = "objects"
"""The same for dreams of single objects, and for their judge."""
INDEX = "model_index.json"


class LoadOptions(TypedDict, total=False):
    """The arguments of diffusers' ``from_pretrained`` that are taken here; any other is refused by name."""

    torch_dtype: torch.dtype | None
    """Of the networks; default: single precision."""
    device_map: str | None
    """One device for all networks, as ``device``."""
    variant: str | None
    """Such as "fp16": weights are read from files of that name."""
    subfolder: str | None
    """Of the folder, where the weights lie."""
    hub: bool
    """Whether the name is that of weights on the Hugging Face Hub; without it, nothing is ever asked of a network."""
    revision: str | None
    """A branch, tag or commit on the Hub."""
    token: str | bool | None
    """For the Hub."""
    cache_dir: PathName | None
    """Where downloads are kept."""
    force_download: bool
    local_files_only: bool
    """Whether only downloads of before are taken."""
    use_safetensors: bool | None
    """No other files are ever read, so False is refused."""
    low_cpu_mem_usage: bool | None
    """Taken for the sake of other people's scripts: networks are always read one after another."""


SAFE_FILES = ("*.json", "*/*.safetensors", "*/merges.txt", "*/spiece.model", "photographs/*.png")
"""Not the safetensors beside the folders of the parts: they hold the same weights once more."""
HUB_ONLY = ("revision", "token", "cache_dir", "force_download")


def shipped_weights() -> dict[str, Path]:
    """The folders of weights that come with the package, by name."""
    package = Path(str(resources.files("nfldm3d")))
    roots = (package / "assets", package.parent / "assets")  # installed from a wheel; a checkout, editable or not
    found: dict[str, Path] = {}
    for root in roots if (package.parent / "pyproject.toml").is_file() else roots[:1]:
        found |= {config.parents[1].name: config.parents[1] for config in sorted(root.glob("*/*/config.json"))}
    return found


def find_weights(weights: PathName, **options: Any) -> Path:
    """The folder that is meant by a shipped name, else by a path, or with ``hub=True`` by a name on the Hub.

    Args:
        weights: a string that is one of ``shipped_weights()`` means those, ``./`` before it a folder here. Of a run
            folder of training, the folder weights in it is meant.
        options: those of ``LoadOptions``.

    Raises:
        DataFormatError: there is no such folder, or no such name on the Hub.
        TypeError: an option that does not exist.
    """
    require_options(options, "find_weights")
    folder = _download(str(weights), options) if options.get("hub") else _find_here(weights, options)
    subfolder = options.get("subfolder")
    if not subfolder:
        return folder
    inner = resolve_inside(folder, subfolder, source=folder)
    if not inner.is_dir():
        raise DataFormatError(folder, f"holds no folder {subfolder}; leave subfolder out, or give another")
    return inner


def require_options(options: dict[str, Any], taker: str, also: tuple[str, ...] = ()) -> None:
    """Raises a TypeError for an argument that does not exist, a ValueError for a value that cannot be followed."""
    known = (*LoadOptions.__annotations__, *also)
    if unknown := sorted(set(options) - set(known)):
        raise TypeError(f"{taker} does not take {', '.join(unknown)}; it takes device, {', '.join(known)}")
    if options.get("use_safetensors") is False:
        raise ValueError("use_safetensors=False is refused: other files of weights may run code; leave it out")
    place, dtype = options.get("device_map"), options.get("torch_dtype")
    if place is not None and (not isinstance(place, str) or place in ("auto", "balanced", "sequential")):
        raise ValueError(f"device_map={place!r} is not taken: all networks lie on one device; give its name, as 'cuda'")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"torch_dtype must be a dtype such as torch.float32, got {dtype!r}")


def device_of(device: torch.device | str | None, options: Mapping[str, Any]) -> torch.device:
    """The one device that ``device`` and ``device_map`` name; the CPU if neither does."""
    place = options.get("device_map")
    if device is not None and place is not None and torch.device(device) != torch.device(place):
        raise ValueError(f"device={str(device)!r} and device_map={place!r} differ; give one of them")
    return torch.device(device or place or "cpu")


def _find_here(weights: PathName, options: dict[str, Any]) -> Path:
    if told := [name for name in HUB_ONLY if options.get(name)]:
        raise ValueError(f"{', '.join(told)} can only be meant for the Hub, which is asked with hub=True alone; add it")
    shipped = shipped_weights()
    if isinstance(weights, str) and weights in shipped:
        return shipped[weights]
    if Path(weights).is_dir():
        trained = Path(weights) / "weights"  # of a run folder
        return trained if trained.is_dir() else Path(weights)
    names = f" or one of those that come with nfldm3d: {', '.join(shipped)}" if shipped else ""
    hint = "; for a name on the Hugging Face Hub say --hub (hub=True)" if str(weights).count("/") == 1 else ""
    raise DataFormatError(weights, f"does not exist here; give a folder of weights{names}{hint}")


def _download(name: str, options: dict[str, Any]) -> Path:
    """The files of a name on the Hub: JSON, safetensors of its parts and tokenizers' words, nothing else."""
    from huggingface_hub import snapshot_download

    wanted = {key: options[key] for key in (*HUB_ONLY, "local_files_only") if options.get(key)}
    try:
        return Path(snapshot_download(name, allow_patterns=list(SAFE_FILES), **wanted))
    except (OSError, ValueError) as error:  # huggingface_hub's errors are one or the other
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataFormatError(name, f"cannot be had from the Hub ({line}); check the name and the network") from error
