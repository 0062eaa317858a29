"""Trained weights in the form that users load: ``config.json`` and ``model.safetensors``."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from nfldm3d._types import PathName
from nfldm3d.files import atomic_write
from nfldm3d.tensor_files import read_tensors, write_tensors
from nfldm3d.training.run_folder import RunFolder
from nfldm3d.training.saved_state import EMA, MODEL, OTHER
from nfldm3d.written_files import writing


def read_weights(
    run: PathName, *, which: Literal["newest", "best"] = "best"
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The network's configuration and its weights, averaged if the run averages them.

    Raises:
        DataFormatError: if the folder holds no whole checkpoint.
    """
    folder = RunFolder(Path(run))
    checkpoint = folder.find(which)
    file = checkpoint / (EMA if (checkpoint / EMA).exists() else MODEL)
    return folder.read_config()["model"], read_tensors(file, remedy=OTHER)


def export_weights(
    run: PathName, folder: PathName, *, which: Literal["newest", "best"] = "best", half: bool = False
) -> None:
    """Writes ``config.json`` and ``model.safetensors`` of a run's network; ``half`` halves the file with fp16.

    Raises:
        ValueError: files of these names are there that this program has not written.
    """
    config, tensors = read_weights(run, which=which)
    if half:
        tensors = {name: _halve(value) for name, value in tensors.items()}
    paths = Path(folder) / "model.safetensors", Path(folder) / "config.json"
    with writing(*paths, overwrite=True), atomic_write(paths[0]) as weights, atomic_write(paths[1]) as description:
        write_tensors(weights, tensors)
        description.write_text(json.dumps(config, indent=1), encoding="utf-8")


def _halve(tensor: Tensor) -> Tensor:
    """The tensor in fp16, unless it is no fp32 tensor or exceeds what fp16 can hold."""
    fits = tensor.dtype == torch.float32 and bool((tensor.abs() <= torch.finfo(torch.float16).max).all())
    return tensor.half() if fits else tensor
