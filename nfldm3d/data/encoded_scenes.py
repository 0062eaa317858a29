"""Fields of many scenes on disk: what stage 2 learns from, one safetensors file for each encoding of a scene."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from nfldm3d._types import PathName
from nfldm3d.file_names import compose, find_spelling
from nfldm3d.files import DataFormatError, atomic_write, read_json
from nfldm3d.jobs import claim_folder, require_file_names
from nfldm3d.tensor_files import read_tensors, write_tensors

INDEX = "encoded.json"
FORMAT = "nfldm3d.encoded-scenes"


@dataclass(frozen=True)
class EncodedScene:
    """One scene as an encoder saw it, the world perhaps turned or mirrored."""

    key: str
    """Names the scene in the data set that was encoded."""
    turn: int
    """Orientation of the world, 0 to 7: mirrored along y if 4 or more, then turned by ``turn % 4`` quarters."""
    tensors: dict[str, Tensor]
    """What was kept, by name."""


class EncodedScenes:
    """A folder of encodings, read by index; files that are missing are left out."""

    def __init__(self, folder: PathName):
        """Raises DataFormatError if the folder holds no encodings."""
        self.folder = Path(folder)
        self.header = read_header(self.folder)
        names = sorted(compose(path.stem) for path in self.folder.glob("*.safetensors"))
        self.names = [name for name in names if name.rpartition(".")[2].isdigit()]
        if not self.names:
            raise DataFormatError(self.folder, "holds no encoded scenes; write them with nfldm3d encode")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> EncodedScene:
        return read_encoding(self.folder, *parse_name(self.names[index]))


KINDS = {"box_size": int | float, "map_classes": str, "map_palette": list, "panorama_spread": int | float}
"""Lists of what, as far as a header has them."""


def start_folder(folder: PathName, header: Mapping[str, object], keys: Sequence[str] = ()) -> None:
    """Begins a folder for encodings of scenes ``keys`` made as ``header`` says, or goes on with one.

    Raises:
        ValueError: the folder holds encodings that were made otherwise.
        DataFormatError: a key cannot be the name of a file.
    """
    require_file_names(keys, "keys of the scenes")
    header = {"format": FORMAT, **header}
    claim_folder(folder, INDEX, header, what="encodings", pieces="*.safetensors")


def read_header(folder: Path) -> dict:
    """How the encodings of a folder were made."""
    if not (folder / INDEX).is_file():
        raise DataFormatError(folder, f"holds no {INDEX}; write encodings with nfldm3d encode")
    header = read_json(folder / INDEX)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise DataFormatError(folder / INDEX, f"does not name the format {FORMAT!r}; encode the scenes again")
    for name, kind in KINDS.items():
        value = header.get(name)
        if value is not None and (type(value) is not list or not all(isinstance(item, kind) for item in value)):
            raise DataFormatError(folder / INDEX, f"{name} is no list of its kind; encode the scenes again")
    if type(header.get("map_size", 0)) is not int:
        raise DataFormatError(folder / INDEX, f"map_size is {header['map_size']!r}, no number; encode the scenes again")
    return header


def has_encoding(folder: PathName, key: str, turn: int) -> bool:
    """Whether this encoding is there already."""
    return _path(Path(folder), key, turn).is_file()


def write_encoding(folder: PathName, scene: EncodedScene) -> None:
    """Adds an encoding, whole or not at all."""
    with atomic_write(_path(Path(folder), scene.key, scene.turn)) as temporary:
        write_tensors(temporary, scene.tensors)


def read_encoding(folder: PathName, key: str, turn: int) -> EncodedScene:
    """One encoding; raises DataFormatError if it is damaged."""
    tensors = read_tensors(_path(Path(folder), key, turn), remedy="delete it and encode again")
    return EncodedScene(key, turn, tensors)


def read_embeddings(path: PathName) -> dict[str, Tensor]:
    """Embeddings of scenes by their keys; raises DataFormatError for a file that is no whole .safetensors."""
    found = read_tensors(path, remedy="write it again")
    if not found:
        raise DataFormatError(Path(path), "holds no tensor; give each scene one, by its key")
    return {compose(name): value for name, value in found.items()}


def read_embedding(path: PathName) -> Float[Tensor, "..."]:
    """The one embedding in a file; raises DataFormatError if there are more."""
    found = read_embeddings(path)
    if len(found) > 1:
        names = ", ".join(sorted(found)[:3])
        raise DataFormatError(Path(path), f"holds {len(found)} tensors ({names} ...); leave the one that is meant")
    return next(iter(found.values()))


def parse_name(name: str) -> tuple[str, int]:
    """Key and turn of a file's stem."""
    key, _, turn = name.rpartition(".")
    return key, int(turn)


def _path(folder: Path, key: str, turn: int) -> Path:
    require_file_names([key], folder)
    return find_spelling(folder, (f"{key}.{turn}.safetensors",))


def check_finite(tensors: Mapping[str, Shaped[Tensor, "*any"]], where: object) -> None:
    """Raises a ValueError that names the first tensor with NaN or infinity."""
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{where}: {name} holds NaN or infinity; the weights or the scene are damaged")
