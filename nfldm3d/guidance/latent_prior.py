"""Latent diffusion models (Rombach et al. 2022) as priors, whether conditioned on texts or on pictures."""

from dataclasses import dataclass

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from nfldm3d.guidance.embedders import Embedder
from nfldm3d.guidance.noise_schedule import NoiseSchedule
from nfldm3d.guidance.prior import Described


@dataclass(frozen=True)
class LatentPrior:
    """A U-Net in the space of a variational auto-encoder; see ``Prior``."""

    unet: UNet2DConditionModel
    autoencoder: AutoencoderKL
    schedule: NoiseSchedule
    embedder: Embedder

    def __post_init__(self):
        require_widths(self.unet, int(self.autoencoder.config["latent_channels"]), self.embedder.numbers)

    @property
    def image_size(self) -> int:
        """See ``Prior``."""
        factor = 2 ** (len(self.autoencoder.config["block_out_channels"]) - 1)
        return sample_size(self.unet) * factor

    @property
    def alphas_cumprod(self) -> Float[Tensor, " steps"]:
        """See ``Prior``."""
        return self.schedule.alphas_cumprod

    def to_latents(self, images: Float[Tensor, "views 3 height width"]) -> Float[Tensor, "views channels rows columns"]:
        """The mean of the encoder's distribution."""
        seen = (2 * resize(images, self.image_size) - 1).to(self.autoencoder.dtype)
        mean = self.autoencoder.encode(seen).latent_dist.mean  # pyright: ignore[reportAttributeAccessIssue]
        return mean.float() * self.autoencoder.config["scaling_factor"]

    def to_images(self, latents: Float[Tensor, "views channels rows columns"]) -> Float[Tensor, "views 3 height width"]:
        """See ``Prior``."""
        scaled = (latents / self.autoencoder.config["scaling_factor"]).to(self.autoencoder.dtype)
        return self.autoencoder.decode(scaled, return_dict=False)[0].float() / 2 + 0.5  # pyright: ignore

    def predict_noise(
        self,
        latents: Float[Tensor, "views channels rows columns"],
        t: Int64[Tensor, " views"],
        condition: Float[Tensor, "views tokens numbers"],
    ) -> Float[Tensor, "views channels rows columns"]:
        """See ``Prior``."""
        return predict_noise(self.unet, self.schedule, latents, t, condition)

    def embed(self, described: Described) -> Float[Tensor, "views tokens numbers"]:
        """See ``Prior``."""
        return self.embedder.embed(described)

    def embed_nothing(self, views: int) -> Float[Tensor, "views tokens numbers"]:
        """See ``Prior``."""
        return self.embedder.embed_nothing(views)


def resize(images: Float[Tensor, "views 3 height width"], size: int) -> Float[Tensor, "views 3 size size"]:
    """Square pictures of ``size`` pixels; those that have it stay as they are."""
    if images.shape[-2:] == (size, size):
        return images
    return functional.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)


def predict_noise(
    unet: UNet2DConditionModel,
    schedule: NoiseSchedule,
    noisy: Float[Tensor, "views channels rows columns"],
    t: Int64[Tensor, " views"],
    condition: Float[Tensor, "views tokens numbers"],
) -> Float[Tensor, "views channels rows columns"]:
    """The noise that a conditional U-Net sees; where it predicts its variance, too, that is left out."""
    device = unet.device
    made: Tensor = unet(
        noisy.to(device, unet.dtype), t.to(device), condition.to(device, unet.dtype), return_dict=False
    )[0]
    return schedule.noise_from(made[:, : noisy.shape[1]].to(noisy), noisy, t)


def require_widths(unet: UNet2DConditionModel, channels: int, numbers: int) -> None:
    """A ValueError says that a U-Net takes other latents or other conditions."""
    if int(unet.config["in_channels"]) != channels:
        raise ValueError(
            f"the U-Net takes {unet.config['in_channels']} channels where pictures have {channels}: such as inpainting "
            "or super-resolution needs; give a pipeline that generates pictures"
        )
    wide = unet.config["encoder_hid_dim"] or unet.config["cross_attention_dim"]
    widths = set(wide) if isinstance(wide, list | tuple) else {wide}
    if widths != {numbers}:
        raise ValueError(f"the U-Net takes conditions of {wide} numbers, the encoder gives {numbers}; copy both again")


def sample_size(unet: UNet2DConditionModel) -> int:
    """Pixels along each side of what a U-Net was trained on."""
    size = unet.config["sample_size"]
    return int(size[0] if isinstance(size, list | tuple) else size)
