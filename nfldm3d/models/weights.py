"""Networks from folders: ``config.json`` beside safetensors files, read strictly."""

import inspect
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers.configuration_utils import ConfigMixin
from torch import nn

from nfldm3d._types import PathName
from nfldm3d.files import DataFormatError, read_json, resolve_inside
from nfldm3d.models.eight_bits import drop_scales, unpack_weights
from nfldm3d.tensor_files import Shapes, plan_network, read_shapes, read_tensors, require_finite, require_tensors

CONFIG = "config.json"
STEMS = ("diffusion_pytorch_model", "model")
"""How ``save_pretrained`` and ``export_weights`` name the weights."""
MOST = 2**24
"""No option of a network is a larger whole number; some would fill the memory before they are found to be wrong."""

Network = TypeVar("Network", bound=nn.Module)


def load_network(cls: type[Network], folder: PathName, variant: str | None = None) -> Network:
    """The network that ``save_pretrained`` or ``export_weights`` wrote, in single precision and evaluation mode.

    Unlike ``from_pretrained``, which makes up what is missing, it takes nothing but a complete set of weights.

    Args:
        variant: what ``save_pretrained`` was told, such as "fp16": part of the names of files.

    Raises:
        DataFormatError: a file is missing or damaged, or belongs to another class, version or architecture.
    """
    folder = Path(folder)
    arguments = _read_arguments(cls, folder)
    path = _find(folder, variant)
    places = _find_places(path)
    shapes = drop_scales(_read_shapes(places, path))
    try:
        wanted = plan_network(lambda: cls(**arguments), len(shapes))
    except (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError, AttributeError, AssertionError) as error:
        raise DataFormatError(folder / CONFIG, f"describes no {cls.__name__}: {error}") from error
    _require_same(shapes, wanted, path, cls.__name__)
    tensors = {}
    for file, names in places.items():
        held = read_tensors(file)
        tensors |= held if names is None else {name: held[name] for name in names}
    tensors = unpack_weights(tensors, path)
    require_finite(tensors, path)
    with torch.random.fork_rng([]):  # the random weights that are about to be replaced cost the caller nothing
        network = cls(**arguments)
    network.load_state_dict(tensors)
    return network.eval()


def read_weight_shapes(folder: Path, variant: str | None = None) -> Shapes:
    """The shapes of the weights in a folder, from the heads of their files; raises as ``load_network``."""
    path = _find(folder, variant)
    return _read_shapes(_find_places(path), path)


def take_over(network: nn.Module, other: nn.Module) -> list[str]:
    """Copies weights of another network where names and shapes agree; returns the names of those that stay as they are.

    Raises:
        ValueError: nothing fits.
    """
    own, given = network.state_dict(), other.state_dict()
    fitting = {name: given[name] for name, value in own.items() if name in given and given[name].shape == value.shape}
    if own and not fitting:
        raise ValueError(
            f"no weight of this {type(other).__name__} fits into a {type(network).__name__} of these options"
        )
    network.load_state_dict(fitting, strict=False)
    return sorted(set(own) - set(fitting))


def _read_arguments(cls: type[nn.Module], folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise DataFormatError(folder, f"holds no {CONFIG}; give a folder that holds a {cls.__name__}")
    config = read_json(path)
    if not isinstance(config, dict):
        raise DataFormatError(path, "is not a table of options; copy the file again")
    found = config.get("_class_name", cls.__name__)
    if found != cls.__name__:
        raise DataFormatError(path, f"describes a {found}, not a {cls.__name__}; give another folder")
    options = {name: value for name, value in config.items() if not name.startswith("_")}
    known = set(inspect.signature(cls).parameters) if issubclass(cls, ConfigMixin) else set(options)
    if unknown := sorted(set(options) - known):
        raise DataFormatError(
            path,
            f"has options that this nfldm3d does not know: {', '.join(unknown)}; upgrade with pip install -U nfldm3d",
        )
    for name, value in options.items():
        if any(isinstance(one, int) and abs(one) > MOST for one in (value if isinstance(value, list) else [value])):
            raise DataFormatError(path, f"{name} is {str(value)[:80]}, which no network has; copy the file again")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}


def _find(folder: Path, variant: str | None) -> Path:
    """The file of weights, or the index of several."""
    part = f".{variant}" if variant else ""
    names = [
        f"{stem}{ending}" for stem in STEMS for ending in (f"{part}.safetensors", f".safetensors.index{part}.json")
    ]
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is not None:
        return path
    if others := sorted(file.name for stem in STEMS for file in folder.glob(f"{stem}.*")):
        said = f"of the variant {variant!r}" if variant else "without a variant"
        raise DataFormatError(
            folder, f"holds no safetensors {said}, but {', '.join(others[:3])}; give another variant="
        )
    raise DataFormatError(folder, f"holds no weights; copy {names[0]} into it")


def _find_places(path: Path) -> dict[Path, list[str] | None]:
    """The files of weights, with the tensors that an index says to lie in each; None for all that it holds."""
    if path.suffix != ".json":
        return {path: None}
    content = read_json(path)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise DataFormatError(path, "holds no weight_map of tensors and files; copy the file again")
    return {
        resolve_inside(path.parent, file, source=path): [name for name, place in places.items() if place == file]
        for file in sorted(set(places.values()))
    }


def _read_shapes(places: dict[Path, list[str] | None], source: Path) -> Shapes:
    """The shapes of all tensors that are meant, from the heads of their files."""
    shapes: Shapes = {}
    for path, names in places.items():
        found = read_shapes(path)
        require_tensors(found, names or (), path, f"copy the files that belong to {source.name}")
        shapes |= {name: found[name] for name in (found if names is None else names)}
    return shapes


def _require_same(found: Shapes, wanted: Shapes, path: Path, network: str) -> None:
    problems = [f"{name} is missing" for name in sorted(set(wanted) - set(found))]
    problems += [f"{name} is unexpected" for name in sorted(set(found) - set(wanted))]
    problems += [
        f"{name} is {found[name]}, not {wanted[name]}"
        for name in sorted(set(found) & set(wanted))
        if found[name] != wanted[name]
    ]
    if problems:
        shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        raise DataFormatError(path, f"is not of this {network}: {shown}; copy the file that belongs to {CONFIG}")
