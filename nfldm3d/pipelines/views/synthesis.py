"""3DiM at work: views of an object from one picture of it, or several."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d._types import PathName
from nfldm3d.camera import Camera
from nfldm3d.data.json_record import Record
from nfldm3d.files import DataFormatError, read_json
from nfldm3d.models.views.sampling import Conditioning, ViewSampling, draw_views
from nfldm3d.models.views.xunet import XUNet
from nfldm3d.models.weight_folders import device_of, find_weights, require_options
from nfldm3d.models.weights import load_network

FOLDER = "view_denoiser"
SAMPLING = "sampling.json"
"""Beside a network's weights: how its views are best drawn, by the names of ``ViewSampling``."""


@dataclass(frozen=True)
class ViewSynthesizer:
    """A trained network that draws views."""

    network: XUNet
    sampling: ViewSampling = field(default_factory=ViewSampling)
    """How it draws where nothing else is asked for."""

    @classmethod
    def from_pretrained(
        cls, weights: PathName, device: torch.device | str | None = None, **options: Any
    ) -> "ViewSynthesizer":
        """Reads the folder ``view_denoiser`` of weights or of a training run, with ``sampling.json`` if there is one.

        Args:
            options: diffusers' own, those of ``LoadOptions``.

        Raises:
            DataFormatError: weights are missing, damaged or of another network.
        """
        require_options(options, "ViewSynthesizer.from_pretrained")
        folder, place = find_weights(weights, **options), device_of(device, options)
        if not (folder / FOLDER).is_dir():
            raise DataFormatError(folder, f"holds no folder {FOLDER}; give weights of nfldm3d train view-diffusion")
        network = load_network(XUNet, folder / FOLDER, options.get("variant"))
        torch.nn.Module.to(network, place, options.get("torch_dtype") or torch.float32)
        return cls(network.requires_grad_(False), read_sampling(folder / FOLDER / SAMPLING))

    @property
    def image_size(self) -> int:
        """Pixels along each side of the pictures that it draws."""
        return int(self.network.config["size"])

    def sampling_with(self, **options: Any) -> ViewSampling:
        """Its own way of drawing with other ``options`` of ``ViewSampling``, of which those that are None are left."""
        return replace(self.sampling, **{name: value for name, value in options.items() if value is not None})

    def draw(
        self,
        given: Float[Tensor, "given 3 height width"],
        seen: Camera,
        wanted: Camera,
        sampling: ViewSampling | None = None,
        *,
        generator: torch.Generator | None = None,
        tell: Callable[[float], None] | None = None,
    ) -> Float[Tensor, "views 3 height width"]:
        """Pictures of one object, sRGB in [0, 1], from the cameras ``wanted`` (views), in their order; see
        ``draw_views``. By default they are drawn as ``sampling`` says."""
        cameras = (seen.reshape(1, -1), wanted.reshape(1, -1))
        sampling = sampling or self.sampling
        return draw_views(self.network, given[None], *cameras, sampling, generator=generator, tell=tell)[0]


def read_sampling(path: Path) -> ViewSampling:
    """What a ``sampling.json`` says; 3DiM's own way where there is none.

    Raises:
        DataFormatError: it names something else, or what cannot be.
    """
    if not path.is_file():
        return ViewSampling()
    record, known = Record.of(path, read_json(path)), {each.name for each in fields(ViewSampling)}
    if unknown := sorted(set(record.values) - known):
        raise record.problem(unknown[0], f"name only {', '.join(sorted(known))}")
    part = {name: record.number(name) for name in ("steps", "memory", "guidance", "eta") if name in record}
    for name in {"steps", "memory"} & set(part):
        if part[name] != int(part[name]):
            raise record.problem(name, "write a whole number")
    whole = {name: int(part.pop(name)) for name in ("steps", "memory") if name in part}
    if "conditioning" in record and record.values["conditioning"] not in (ways := get_args(Conditioning)):
        raise record.problem("conditioning", f"write one of {', '.join(ways)}")
    way = {name: record.text(name) for name in ("conditioning",) if name in record}
    try:
        return ViewSampling(**(whole | part | way))  # type: ignore[arg-type]
    except ValueError as error:
        raise DataFormatError(path, str(error)) from error
