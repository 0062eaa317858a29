"""A denoiser of small pictures, small enough to be trained on a CPU, for two uses.

As a prior it is told an embedding of a picture, or the tokens of a text, and predicts v = alpha * noise - sigma *
picture (Salimans & Ho 2022); as a restorer it is shown the render of a scene beside the noisy picture, and predicts the
same of the photograph.
"""

import math

import torch
from diffusers import DDPMScheduler
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from nfldm3d.blocks import UNet

FREQUENCIES = 64
"""Pairs of sines and cosines that a time step is turned into."""
HALF_NEAR = 4.0
"""Metres."""


class TokenReader(nn.Module):
    """Asks learned questions of tokens, by attention; tokens of zeros are none."""

    def __init__(self, numbers: int, questions: int, memory: int):
        super().__init__()
        self.questions = nn.Parameter(torch.randn(questions, memory))
        self.norm = nn.LayerNorm(numbers)
        self.key, self.value = nn.Linear(numbers, memory), nn.Linear(numbers, memory)
        self.answer = nn.Linear(questions * memory, memory)

    def forward(self, tokens: Float[Tensor, "views tokens numbers"]) -> Float[Tensor, "views memory"]:
        known = (tokens != 0).any(-1)
        hidden = self.norm(tokens)
        scores = self.questions @ self.key(hidden).mT / self.questions.shape[-1] ** 0.5  # views questions tokens
        shares = scores.masked_fill(~known[:, None], torch.finfo(scores.dtype).min).softmax(-1)
        return self.answer((shares @ self.value(hidden)).flatten(1))


class ImageDenoiser(ModelMixin, ConfigMixin):
    """A U-Net on patches of pixels, whose residual blocks are told the time step and an embedding."""

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        size: int = 64,
        patch: int = 2,
        widths: tuple[int, ...] = (64, 96, 128, 192),
        blocks: int = 2,
        embedding: int = 0,
        embedder: str = "",
        beside: int = 0,
        memory: int = 256,
        deviation: float = 1.0,
        questions: int = 0,
    ):
        """For square pictures of ``size`` pixels.

        Args:
            patch: pixels along each side that become the channels of one: most of a U-Net's time goes into fine levels.
            embedding: numbers of a picture's embedding; 0 leaves it out.
            embedder: the network that embeds pictures, one of ``guidance.folders.EMBEDDERS``.
            beside: channels of what is seen beside the noisy picture, such as a render; 0 for nothing.
            memory: numbers that time step and embedding become.
            deviation: of what is denoised, by which it is divided.
            questions: what is asked of an embedding of several tokens; 0 for embeddings that are one.
        """
        super().__init__()
        if size % patch:
            raise ValueError(f"{size} pixels cannot be cut into patches of {patch}; change one")
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, memory), nn.SiLU(), nn.Linear(memory, memory))
        self.told = None
        if embedding and questions:
            self.told = TokenReader(embedding, questions, memory)
        elif embedding:
            self.told = nn.Sequential(nn.LayerNorm(embedding), nn.Linear(embedding, memory))
        inputs, outputs = (3 + beside) * patch**2, 3 * patch**2
        self.network = UNet(inputs, outputs, tuple(widths), blocks=blocks, condition=memory)
        for parameter in self.network.head.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        noisy: Float[Tensor, "views 3 height width"],
        timestep: Shaped[Tensor, " views"],
        embedding: Float[Tensor, "views *tokens numbers"] | None = None,
        beside: Float[Tensor, "views beside height width"] | None = None,
    ) -> Float[Tensor, "views 3 height width"]:
        """v of pictures scaled to [-1, 1], in their precision; an embedding of zeros says nothing."""
        condition = self.time(_embed_time(timestep).to(self.dtype))
        if self.told is not None:
            assert embedding is not None
            known = (embedding != 0).flatten(1).any(-1, keepdim=True)
            condition = condition + known * self.told(embedding.to(self.dtype))
        seen = noisy if beside is None else torch.cat((noisy, beside), dim=1)
        patch = int(self.config["patch"])
        hidden = self.network(functional.pixel_unshuffle(seen.to(self.dtype), patch), functional.silu(condition))
        return functional.pixel_shuffle(hidden, patch).to(noisy.dtype)

    def require_prior(self, numbers: int) -> None:
        """A ValueError says that this network is no prior, or one that is told other embeddings."""
        if self.config["beside"]:
            raise ValueError("this network restores renders and is no prior; give the weights of train image-prior")
        if int(self.config["embedding"]) != numbers:
            raise ValueError(
                f"this prior is told embeddings of {self.config['embedding']} numbers, not {numbers}; give the network "
                f"that it was trained with ({self.config['embedder']})"
            )


def nearness(distance: Float[Tensor, "*views height width"]) -> Float[Tensor, "*views height width"]:
    """How near surfaces are, 0 to 1, as restorers are told it: half at ``HALF_NEAR`` metres, 0 where there is none."""
    return torch.where(distance > 0, HALF_NEAR / (HALF_NEAR + distance), 0.0)


def make_image_schedule() -> DDPMScheduler:
    """The noise of ``ImageDenoiser``: 1,000 steps, squared cosine, v-prediction."""
    return DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False)


def _embed_time(timestep: Shaped[Tensor, " views"]) -> Float[Tensor, "views frequencies"]:
    rates = torch.exp(-math.log(10_000) * torch.arange(FREQUENCIES, device=timestep.device) / FREQUENCIES)
    angles = timestep[:, None].float() * rates
    return torch.cat((angles.cos(), angles.sin()), dim=-1)
