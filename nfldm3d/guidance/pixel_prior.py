"""Diffusion models of the pixels themselves as priors: the first stage of cascades such as DeepFloyd's, and our own."""

from dataclasses import dataclass

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from nfldm3d.guidance.embedders import Embedder
from nfldm3d.guidance.latent_prior import predict_noise, require_widths, resize, sample_size
from nfldm3d.guidance.noise_schedule import NoiseSchedule
from nfldm3d.guidance.prior import Described
from nfldm3d.models.priors.image_denoiser import ImageDenoiser
from nfldm3d.models.priors.told import tell_viewpoint

COLORS = 3


@dataclass(frozen=True)
class PixelPrior:
    """A U-Net on pictures scaled to [-1, 1]; see ``Prior``."""

    unet: UNet2DConditionModel | ImageDenoiser
    schedule: NoiseSchedule
    embedder: Embedder

    def __post_init__(self):
        if isinstance(self.unet, ImageDenoiser):
            self.unet.require_prior(self.embedder.numbers)
        else:
            require_widths(self.unet, COLORS, self.embedder.numbers)

    @property
    def image_size(self) -> int:
        """See ``Prior``."""
        return int(self.unet.config["size"]) if isinstance(self.unet, ImageDenoiser) else sample_size(self.unet)

    @property
    def alphas_cumprod(self) -> Float[Tensor, " steps"]:
        """See ``Prior``."""
        return self.schedule.alphas_cumprod

    def to_latents(self, images: Float[Tensor, "views 3 height width"]) -> Float[Tensor, "views channels rows columns"]:
        """See ``Prior``."""
        return 2 * resize(images, self.image_size) - 1

    def to_images(self, latents: Float[Tensor, "views channels rows columns"]) -> Float[Tensor, "views 3 height width"]:
        """See ``Prior``."""
        return latents / 2 + 0.5

    def predict_noise(
        self,
        latents: Float[Tensor, "views channels rows columns"],
        t: Int64[Tensor, " views"],
        condition: Float[Tensor, "views tokens numbers"],
    ) -> Float[Tensor, "views channels rows columns"]:
        """See ``Prior``."""
        if not isinstance(self.unet, ImageDenoiser):
            return predict_noise(self.unet, self.schedule, latents, t, condition)
        told = condition if self.unet.config["questions"] else condition[:, 0]
        predicted = self.unet(latents, t.to(latents.device), told)
        return self.schedule.noise_from(predicted, latents, t)

    def embed(self, described: Described) -> Float[Tensor, "views tokens numbers"]:
        """See ``Prior``."""
        return self.embedder.embed(described)

    def embed_nothing(self, views: int) -> Float[Tensor, "views tokens numbers"]:
        """See ``Prior``."""
        return self.embedder.embed_nothing(views)


class PlacedPixelPrior(PixelPrior):
    """Our own text prior; see ``CameraPrior``. The last token of its conditions holds the viewpoint, or zeros."""

    def embed(self, described: Described) -> Float[Tensor, "views tokens numbers"]:
        """See ``Prior``."""
        return add_place(super().embed(described))

    def embed_nothing(self, views: int) -> Float[Tensor, "views tokens numbers"]:
        """See ``Prior``."""
        return add_place(super().embed_nothing(views))

    def place(
        self,
        condition: Float[Tensor, "views tokens numbers"],
        azimuth: Float[Tensor, " views"],
        elevation: Float[Tensor, " views"],
    ) -> Float[Tensor, "views tokens numbers"]:
        """See ``CameraPrior``."""
        return add_place(condition[:, :-1], tell_viewpoint(azimuth, elevation))


def add_place(
    tokens: Float[Tensor, "views tokens numbers"], viewpoint: Float[Tensor, "views viewpoint"] | None = None
) -> Float[Tensor, "views longer numbers"]:
    """One token more, that of ``told.tell_viewpoint``; zeros say that it is not known."""
    if viewpoint is None:
        return functional.pad(tokens, (0, 0, 0, 1))
    last = functional.pad(viewpoint.to(tokens), (0, tokens.shape[-1] - viewpoint.shape[-1]))
    return torch.cat((tokens, last[:, None]), dim=1)
