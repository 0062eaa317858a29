"""A denoiser of small pictures, small enough to be trained on a CPU, for two uses.

As a prior it is told an embedding of a picture, or the tokens of a text; as a restorer it is shown the render of a
scene beside the noisy picture. Both give v = alpha * noise - sigma * picture (Salimans & Ho 2022). Inside, a prior
predicts the picture itself: a small network need not carry the noise through to its end (Li & He 2025).
"""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import DDPMScheduler
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from nfldm3d.blocks import GROUP, ResidualBlock, UNet
from nfldm3d.models.priors.told import VIEWPOINT, TokenReader, VectorReader, ViewpointReader

FREQUENCIES = 64
"""Pairs of sines and cosines that a time step is turned into."""
MOST_PIXELS = 1024
"""Along each side of pictures."""
HALF_NEAR = 4.0
"""Metres."""


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
        directions: int = 128,
        predicts: Literal["velocity", "picture"] = "velocity",
        viewpoint: bool = False,
        layout: int = 0,
        sketch: int = 0,
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
            directions: in which embeddings differ, of which it is told; see ``tell_apart``.
            predicts: what the layers give; the answer is v always.
            viewpoint: the last token holds ``told.tell_viewpoint``'s numbers, then zeros; see ``guidance.CameraPrior``.
            layout: channels of a map that is made of what is told alone, for the network's second level: convolutions
                cannot tell where in an unseen picture something should be. 0 leaves it out.
            sketch: channels at the coarsest level of ``Sketcher``, which says so to every level, and in more detail;
                0 leaves it out, else a multiple of 8 that can be halved between levels.
        """
        super().__init__()
        require_patches(size, patch, len(widths))
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, memory), nn.SiLU(), nn.Linear(memory, memory))
        self.told = None
        if embedding and questions:
            self.told = TokenReader(embedding, questions, memory, min(directions, embedding))
        elif embedding:
            self.told = VectorReader(embedding, memory, min(directions, embedding))
        self.place = None
        if viewpoint:
            if not questions or embedding < VIEWPOINT:
                raise ValueError("a prior that is told viewpoints is told tokens of a text; set questions")
            self.place = ViewpointReader(memory)
        self.plan = None
        if layout:
            if len(widths) < 2 or size % (2 * patch):
                raise ValueError(f"a layout needs two levels, got widths {widths} and {size // patch} patches a side")
            self.plan = Layout(memory, layout, size // patch // 2, widths[1])
        if sketch and not embedding:
            raise ValueError("a sketch shows what a network is told; set embedding, or leave sketch out")
        self.sketcher = Sketcher(memory, sketch, patch, size // patch, tuple(widths)) if sketch else None
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
        *,
        sketch: "Sketch | None" = None,
    ) -> Float[Tensor, "views 3 height width"]:
        """v of pictures scaled to [-1, 1], in their precision; an embedding of zeros says nothing.

        Args:
            sketch: of the same embedding, where it has been drawn already.
        """
        condition = self.time(_embed_time(timestep).to(self.dtype))
        if self.told is not None:
            assert embedding is not None
            told = self._tell(embedding.to(self.dtype)) if sketch is None else sketch.told
            condition = condition + told
            if self.sketcher is not None and sketch is None:
                sketch = self.sketcher(told)
        seen = noisy if beside is None else torch.cat((noisy, beside), dim=1)
        patch = int(self.config["patch"])
        layout = None if self.plan is None else self.plan(condition)
        sketches = None if sketch is None else sketch.levels
        folded = functional.pixel_unshuffle(seen.to(self.dtype), patch)
        hidden = self.network(folded, functional.silu(condition), layout, sketches)
        made = functional.pixel_shuffle(hidden, patch).to(noisy.dtype)
        return made if self.config["predicts"] == "velocity" else _velocity(made, noisy, timestep)

    def draw_sketch(self, embedding: Float[Tensor, "views *tokens numbers"]) -> "Sketch":
        """What pictures of which an embedding tells look like on average; a ValueError if it has no sketcher."""
        if self.sketcher is None:
            raise ValueError("this network does not sketch what it is told; train one with sketch")
        return self.sketcher(self._tell(embedding.to(self.dtype)))

    def _tell(self, embedding: Float[Tensor, "views *tokens numbers"]) -> Float[Tensor, "views memory"]:
        """What conditions add to the time; that of nothing is learned where there is a viewpoint, else zero."""
        viewpoint = None
        if self.place is not None:
            embedding, viewpoint = embedding[:, :-1], embedding[:, -1, :VIEWPOINT]
        assert self.told is not None
        known = (embedding != 0).flatten(1).any(-1, keepdim=True)
        told = known * self.told(embedding)
        return told if viewpoint is None or self.place is None else told + self.place(told, viewpoint)

    def tell_apart(self, embeddings: Float[Tensor, "samples numbers"]) -> None:
        """Before training: by which directions a sample of what it will be told differs, tokens or whole embeddings."""
        assert self.told is not None
        self.told.whitening.fit(embeddings)

    def require_prior(self, numbers: int) -> None:
        """A ValueError says that this network is no prior, or one that is told other embeddings."""
        if self.config["beside"]:
            raise ValueError("this network restores renders and is no prior; give the weights of train image-prior")
        if int(self.config["embedding"]) != numbers:
            raise ValueError(
                f"this prior is told embeddings of {self.config['embedding']} numbers, not {numbers}; give the network "
                f"that it was trained with ({self.config['embedder']})"
            )


class Layout(nn.Module):
    """Draws a coarse map of features from what a network is told; nothing at first."""

    def __init__(self, memory: int, channels: int, side: int, width: int):
        super().__init__()
        self.shape = (channels, side, side)
        self.draw = nn.Sequential(
            nn.SiLU(), nn.Linear(memory, 2 * memory), nn.SiLU(), nn.Linear(2 * memory, channels * side**2)
        )
        self.widen = nn.Conv2d(channels, width, 1)
        for parameter in self.widen.parameters():
            nn.init.zeros_(parameter)

    def forward(self, condition: Float[Tensor, "views memory"]) -> Float[Tensor, "views width side side"]:
        return self.widen(self.draw(condition).unflatten(-1, self.shape))


@dataclass(frozen=True)
class Sketch:
    """What pictures look like on average, of which nothing is known but what a network is told."""

    pixels: Float[Tensor, "views 4 size size"]
    """Colours from 0 to 1 times opacity, and opacity."""
    levels: tuple[Float[Tensor, "views _ _ _"], ...]
    """What the levels of a U-Net are told, from fine to coarse."""
    told: Float[Tensor, "views memory"]
    """What it was drawn from."""


class Sketcher(nn.Module):
    """Draws what a network is told as a picture, by itself, and shows all levels of the network how.

    Where most is noise, the best guess is the mean of all pictures that fit words and viewpoint, which has legs, backs
    and wheels in their places. Learned by itself it takes minutes; through the scales and shifts of a U-Net that must
    remove noise as well, it hardly comes.
    """

    def __init__(self, memory: int, channels: int, patch: int, side: int, widths: tuple[int, ...]):
        """For levels of ``widths``, the finest of ``side`` patches; each has half the ``channels`` of the one below."""
        super().__init__()
        levels, self.patch = len(widths), patch
        if channels % (GROUP << (levels - 1)):
            raise ValueError(
                f"a sketch of {channels} channels cannot be halved {levels - 1} times; give a multiple of "
                f"{GROUP << (levels - 1)}"
            )
        self.sides = [-(-side // 2**level) for level in reversed(range(levels))]
        self.shape = (channels, self.sides[0], self.sides[0])
        self.begin = nn.Sequential(
            nn.Linear(memory, 2 * memory), nn.SiLU(), nn.Linear(2 * memory, channels * self.sides[0] ** 2)
        )
        wide = [channels >> level for level in range(levels)]
        self.blocks = nn.ModuleList(ResidualBlock(each, each, condition=memory) for each in wide)
        self.narrow = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in itertools.pairwise(wide))
        self.show = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(wide, reversed(widths), strict=True))
        for parameter in self.show.parameters():
            nn.init.zeros_(parameter)
        self.head = nn.Conv2d(wide[-1], 4 * patch**2, 1)

    def forward(self, told: Float[Tensor, "views memory"]) -> Sketch:
        condition = functional.silu(told)
        hidden, shown = self.begin(condition).unflatten(-1, self.shape), list[Tensor]()
        for level, (block, show) in enumerate(zip(self.blocks, self.show, strict=True)):
            if level:
                hidden = functional.interpolate(self.narrow[level - 1](hidden), size=(self.sides[level],) * 2)
            hidden = block(hidden, condition)
            shown.append(show(functional.silu(hidden)))
        pixels = functional.pixel_shuffle(self.head(functional.silu(hidden)), self.patch)
        return Sketch(pixels, tuple(reversed(shown)), told)


def require_patches(size: int, patch: int, levels: int) -> None:
    """Raises a ValueError for pictures that a network cannot cut into patches, or halve at each of its levels."""
    if not (type(size) is int and type(patch) is int and 1 <= patch <= size <= MOST_PIXELS) or size % patch:
        raise ValueError(f"{size} pixels cannot be cut into patches of {patch}; at most {MOST_PIXELS} are")
    if size // patch < 2 ** (levels - 1):
        raise ValueError(f"{size} pixels in patches of {patch} are too few for {levels} levels; give fewer widths")


def nearness(distance: Float[Tensor, "*views height width"]) -> Float[Tensor, "*views height width"]:
    """How near surfaces are, 0 to 1, as restorers are told it: half at ``HALF_NEAR`` metres, 0 where there is none."""
    return torch.where(distance > 0, HALF_NEAR / (HALF_NEAR + distance), 0.0)


def far_from(nearness: Float[Tensor, "*views height width"]) -> Float[Tensor, "*views height width"]:
    """The distance in metres that a nearness means; 0 where there is no surface."""
    return torch.where(nearness > 0, HALF_NEAR / nearness - HALF_NEAR, 0.0)


def make_image_schedule() -> DDPMScheduler:
    """The noise of ``ImageDenoiser``: 1,000 steps, squared cosine, v-prediction."""
    return DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False)


SCHEDULE = make_image_schedule()


def _velocity(
    picture: Float[Tensor, "views 3 height width"],
    noisy: Float[Tensor, "views 3 height width"],
    timestep: Shaped[Tensor, " views"],
) -> Float[Tensor, "views 3 height width"]:
    """v = (alpha * noisy - picture) / sigma."""
    kept = SCHEDULE.alphas_cumprod.to(noisy)[timestep.long()].view(-1, 1, 1, 1)
    return (kept.sqrt() * noisy - picture) / (1 - kept).sqrt()


def _embed_time(timestep: Shaped[Tensor, " views"]) -> Float[Tensor, "views frequencies"]:
    rates = torch.exp(-math.log(10_000) * torch.arange(FREQUENCIES, device=timestep.device) / FREQUENCIES)
    angles = timestep[:, None].float() * rates
    return torch.cat((angles.cos(), angles.sin()), dim=-1)
