"""A text-to-image U-Net that draws the views of objects together."""

from dataclasses import replace

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from nfldm3d.models.views.multiview.batches import ViewBatch
from nfldm3d.models.views.multiview.view_layers import ViewLayers


class MultiViewNetwork(nn.Module):
    """A U-Net with its view layers in place."""

    def __init__(self, unet: UNet2DConditionModel, layers: ViewLayers):
        """Attaches ``layers`` to ``unet``, which must not have any yet."""
        super().__init__()
        self.unet, self.layers = unet, layers
        layers.attach(unet)

    def forward(
        self,
        latents: Float[Tensor, "objects views channels height width"],
        times: Shaped[Tensor, "objects views"],
        texts: Float[Tensor, "objects words context"],
        batch: ViewBatch,
    ) -> Float[Tensor, "objects views channels height width"]:
        """What the U-Net says of noisy latents: each view may be at a time step of its own, 0 where it is known."""
        objects, views = latents.shape[:2]
        flat = times.flatten()
        embedded = self.unet.time_embedding(self.unet.time_proj(flat).to(latents))
        told = replace(batch, times=embedded.unflatten(0, (objects, views)))
        said = self.unet(
            latents.flatten(0, 1),
            flat,
            encoder_hidden_states=texts.repeat_interleave(views, dim=0),
            cross_attention_kwargs={"views": told},
            return_dict=False,
        )[0]
        return said[:, : latents.shape[2]].unflatten(0, (objects, views))  # DeepFloyd's also says a variance

    def decoder_names(self) -> list[str]:
        """How the names of the weights begin that turn volumes into what is rendered."""
        return [f"layers.renderers.{key}.decoder." for key in self.layers.renderers]
