"""3DiM at work: views of an object from one picture of it, or several."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d._types import PathName
from nfldm3d.camera import Camera
from nfldm3d.files import DataFormatError
from nfldm3d.models.views.sampling import ViewSampling, draw_views
from nfldm3d.models.views.xunet import XUNet
from nfldm3d.models.weight_folders import device_of, find_weights, require_options
from nfldm3d.models.weights import load_network

FOLDER = "view_denoiser"


@dataclass(frozen=True)
class ViewSynthesizer:
    """A trained network that draws views."""

    network: XUNet

    @classmethod
    def from_pretrained(
        cls, weights: PathName, device: torch.device | str | None = None, **options: Any
    ) -> "ViewSynthesizer":
        """Reads the folder ``view_denoiser`` of weights or of a training run.

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
        return cls(network.requires_grad_(False))

    @property
    def image_size(self) -> int:
        """Pixels along each side of the pictures that it draws."""
        return int(self.network.config["size"])

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
        ``draw_views``."""
        cameras = (seen.reshape(1, -1), wanted.reshape(1, -1))
        return draw_views(self.network, given[None], *cameras, sampling, generator=generator, tell=tell)[0]
