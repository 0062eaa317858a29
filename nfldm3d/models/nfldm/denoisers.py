"""The hierarchy of denoisers: p(g) p(c | g) p(f | g, c) (NF-LDM, section 4), each with an optional bird's-eye map.

All predict v = alpha * noise - sigma * latents (Salimans & Ho 2022) of normalised latents. g, concatenated with the
camera path, is denoised by linear blocks; c and f by 2-D U-Nets that g enters through conditional group norm and the
map through cross-attention. A denoiser knows the statistics of what it was trained on, so it takes and gives latents
as the latent auto-encoder has them once ``normalize`` and ``denormalize`` stand around it.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional

from nfldm3d.models.nfldm.condition_encoders import EmbeddingEncoder, MapEncoder
from nfldm3d.models.nfldm.latent_statistics import Scaling, Whitening
from nfldm3d.models.nfldm.trajectories import PATH_CHANNELS, POSES, draw_path

HEAD = 32
"""Channels of an attention head."""
FREQUENCIES = 128
"""Numbers that a time step is turned into."""
FAR = 8.0
"""Half boxes from which on a path is not to be seen."""


class GlobalDenoiser(ModelMixin, ConfigMixin):
    """psi_g: linear blocks with skip connections, the time step in each, over g and the camera path in one vector."""

    importance: Tensor
    """Of each number, one in all; see ``latent_statistics.find_importance``."""

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        dimensions: int = 208,
        widths: tuple[int, ...] = (512, 384, 256),
        map_classes: int = 0,
        map_size: int = 64,
        map_width: int = 64,
        embedding_dimensions: int = 0,
        parts: tuple[int, ...] = (),
        part_width: int = 192,
    ):
        """Sets the widths.

        Args:
            map_classes, embedding_dimensions: 0 leaves out that condition.
            parts: how many numbers each part of the vector has: what is learned, the panorama, the camera path. Beside
                the whole, each is looked at by itself, in its own units and by its importance: of hundreds of
                whitened numbers two tell the heading, along four directions that mirror each other, which linear
                blocks over all of them do not find. Empty leaves that out.
            part_width: hidden units for each.
        """
        super().__init__()
        self.scaling = Whitening(dimensions)
        self.time = nn.Sequential(nn.Linear(FREQUENCIES, 256), nn.SiLU(), nn.Linear(256, 256))
        self.map_encoder = MapEncoder(map_classes, map_size, map_width) if map_classes else None
        embeds = bool(embedding_dimensions)
        self.embedding_encoder = EmbeddingEncoder(embedding_dimensions, map_width) if embeds else None
        condition = 256
        self.part_blocks = _Parts(parts, part_width, condition) if parts else None
        self.stem = nn.Linear(dimensions + (dimensions + part_width * len(parts) if parts else 0), widths[0])
        self.down = nn.ModuleList(_LinearBlock(a, b, condition) for a, b in itertools.pairwise((widths[0], *widths)))
        self.middle = _LinearBlock(widths[-1], widths[-1], condition)
        self.query = nn.Linear(widths[-1], map_width)
        self.attention = nn.MultiheadAttention(map_width, max(1, map_width // HEAD), batch_first=True)
        self.seen = nn.Linear(map_width, widths[-1])
        nn.init.zeros_(self.seen.weight)
        ends = (*reversed(widths), widths[0])
        self.up = nn.ModuleList(_LinearBlock(2 * a, b, condition) for a, b in itertools.pairwise(ends))
        self.head = nn.Linear(widths[0], dimensions)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        if parts:
            self.register_buffer("importance", torch.full((dimensions,), 1 / dimensions))

    def forward(
        self,
        noisy: Float[Tensor, "scenes dimensions"],
        timestep: Shaped[Tensor, " scenes"],
        bev: Int64[Tensor, "scenes x y"] | None = None,
        embedding: Float[Tensor, "scenes tokens embedding"] | None = None,
    ) -> Float[Tensor, "scenes dimensions"]:
        """v of whitened vectors, in their precision; the network computes in that of its weights."""
        time = self.time(embed_time(timestep).to(self.dtype))
        alone, known = None, noisy.to(self.dtype)
        if self.part_blocks is not None:
            own = (self.scaling.unwhiten(noisy) * (noisy.shape[1] * self.importance).sqrt()).to(self.dtype)
            alone, seen_parts = self.part_blocks(own, time)
            known = torch.cat((known, own, seen_parts), dim=-1)
        hidden, kept = self.stem(known), []
        for block in self.down:
            hidden = block(hidden, time)
            kept.append(hidden)
        hidden = self.middle(hidden, time)
        seen = [] if self.map_encoder is None else [self.map_encoder(bev, len(noisy))[0]]
        seen += [] if self.embedding_encoder is None else [self.embedding_encoder(embedding, len(noisy))]
        if seen:
            tokens = torch.cat(seen, dim=1)
            looked = self.attention(self.query(hidden)[:, None], tokens, tokens, need_weights=False)[0][:, 0]
            hidden = hidden + self.seen(looked)
        for block in self.up:
            hidden = block(torch.cat((hidden, kept.pop()), dim=-1), time)
        velocity = self.head(functional.silu(hidden))
        return (velocity if alone is None else velocity + alone).to(noisy.dtype)


class GridDenoiser(ModelMixin, ConfigMixin):
    """psi_c and psi_f: a 2-D U-Net over a latent grid whose heights are folded into channels.

    g enters by conditional group norm, the coarser latent beside the input, and a map by cross-attention. Beyond the
    paper the U-Net is told where each pixel lies, and sees the map and the camera path drawn beside its input: with
    attention and group norm alone it takes long to learn that these are places.

    Args:
        channels: of the latent, heights folded in.
        size: cells of the latent along x and y.
        parent_channels: of the coarser latent that is given; 0 for none.
        patch: cells along x and y that become the channels of one pixel.
        widths, attention: at each resolution of the U-Net, which halves in between.
        dimensions: of g with the camera path; 0 leaves g out.
        map_classes: of the condition; 0 leaves it out.
        map_beside: whether the U-Net sees the map beside its input, not by attention alone.
        embedding_dimensions: of each token of an embedding of a class or a text; 0 leaves it out.
        path_beside: whether the U-Net sees the camera path of g drawn beside its input.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        channels: int = 16,
        size: int = 16,
        parent_channels: int = 0,
        patch: int = 1,
        widths: tuple[int, ...] = (128, 256),
        attention: tuple[bool, ...] = (True, True),
        layers: int = 2,
        dimensions: int = 208,
        map_classes: int = 0,
        map_size: int = 64,
        map_width: int = 64,
        map_beside: bool = True,
        embedding_dimensions: int = 0,
        path_beside: bool = False,
    ):
        """Sets the widths; the paper's are far larger."""
        super().__init__()
        _require_levels(size, patch, widths, attention)
        if path_beside and dimensions < 5 * POSES:
            raise ValueError(f"g of {dimensions} numbers has no camera path, which takes {5 * POSES}; leave it out")
        self.scaling, self.parent_scaling = Scaling(channels), Scaling(parent_channels)
        self.global_scaling = Scaling(dimensions)
        self.map_encoder = MapEncoder(map_classes, map_size, map_width) if map_classes else None
        embeds = bool(embedding_dimensions)
        self.embedding_encoder = EmbeddingEncoder(embedding_dimensions, map_width) if embeds else None
        beside = map_width if map_classes and map_beside else 0
        self.open = nn.Parameter(torch.zeros(1, map_width))  # what attention looks at where there is no map
        self.unet = UNet2DConditionModel(
            sample_size=size // patch,
            in_channels=channels * patch**2 + parent_channels + beside + 2 + PATH_CHANNELS * path_beside,
            out_channels=channels * patch**2,
            block_out_channels=tuple(widths),
            down_block_types=tuple("CrossAttnDownBlock2D" if used else "DownBlock2D" for used in attention),
            up_block_types=tuple("CrossAttnUpBlock2D" if used else "UpBlock2D" for used in reversed(attention)),
            mid_block_type="UNetMidBlock2DCrossAttn",
            layers_per_block=layers,
            cross_attention_dim=map_width,
            attention_head_dim=tuple(max(1, width // HEAD) for width in widths),  # type: ignore[arg-type]
            norm_num_groups=16,
            resnet_time_scale_shift="scale_shift",
            class_embed_type="simple_projection" if dimensions else None,
            projection_class_embeddings_input_dim=dimensions or None,
        )
        for parameter in self.unet.conv_out.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        noisy: Float[Tensor, "scenes channels x y"],
        timestep: Shaped[Tensor, " scenes"],
        g: Float[Tensor, "scenes dimensions"] | None = None,
        parent: Float[Tensor, "scenes parent u v"] | None = None,
        bev: Int64[Tensor, "scenes map_x map_y"] | None = None,
        embedding: Float[Tensor, "scenes tokens embedding"] | None = None,
        shift: Float[Tensor, "scenes 2"] | None = None,
    ) -> Float[Tensor, "scenes channels x y"]:
        """v of normalised latents, in their precision; ``g`` and ``parent`` are normalised, too.

        ``shift`` tells how far along x and y, in half boxes, the grid lies from the one that the path belongs to; from
        ``FAR`` on there is no path to be seen.
        """
        patch = int(self.config["patch"])
        picture = functional.pixel_unshuffle(noisy.to(self.dtype), patch)
        size = picture.shape[-2:]
        parts = [picture, _places(size, picture)]
        if self.config["parent_channels"]:
            assert parent is not None
            parts.append(functional.interpolate(parent.to(picture), size=size, mode="nearest"))
        if self.config["path_beside"]:
            assert g is not None
            path = self.global_scaling.denormalize(g)[:, -5 * POSES :].float()
            parts.append(draw_path(path, size, shift).to(picture))
        tokens = self.open.expand(len(noisy), 1, -1)
        if self.map_encoder is not None:
            tokens, beside = self.map_encoder(bev, len(noisy))
            if self.config["map_beside"]:
                parts.append(functional.interpolate(beside, size=size, mode="nearest"))
        if self.embedding_encoder is not None:
            tokens = torch.cat((tokens, self.embedding_encoder(embedding, len(noisy))), dim=1)
        joined = torch.cat(parts, dim=1)
        labels = g.to(picture) if g is not None and self.config["dimensions"] else None
        velocity = self.unet(joined, timestep, tokens, class_labels=labels, return_dict=False)[0]
        return functional.pixel_shuffle(velocity, patch).to(noisy.dtype)


class _LinearBlock(nn.Module):
    """Norm, scale and shift by the time step, activation, linear layer; added to the input where widths agree."""

    def __init__(self, inputs: int, outputs: int, condition: int):
        super().__init__()
        self.norm = nn.LayerNorm(inputs)
        self.modulation = nn.Linear(condition, 2 * inputs)
        self.linear, self.out = nn.Linear(inputs, outputs), nn.Linear(outputs, outputs)
        self.skip = nn.Identity() if inputs == outputs else nn.Linear(inputs, outputs)
        nn.init.zeros_(self.out.weight)

    def forward(
        self, vector: Float[Tensor, "scenes inputs"], time: Float[Tensor, "scenes condition"]
    ) -> Float[Tensor, "scenes outputs"]:
        scale, shift = self.modulation(functional.silu(time)).chunk(2, dim=-1)
        hidden = self.linear(functional.silu(self.norm(vector) * (1 + scale) + shift))
        return self.skip(vector) + self.out(functional.silu(hidden))


class _Parts(nn.Module):
    """Blocks for each part of a vector, which know nothing of the others: v as far as they tell, and what they saw."""

    def __init__(self, parts: Sequence[int], width: int, condition: int):
        super().__init__()
        self.sizes = tuple(parts)
        self.stems = nn.ModuleList(nn.Linear(size, width) for size in parts)
        self.blocks = nn.ModuleList(
            nn.ModuleList(_LinearBlock(width, width, condition) for _ in range(2)) for _ in parts
        )
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in parts)
        for parameter in self.heads.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, vector: Float[Tensor, "scenes dimensions"], time: Float[Tensor, "scenes condition"]
    ) -> tuple[Float[Tensor, "scenes dimensions"], Float[Tensor, "scenes hidden"]]:
        made, seen = [], []
        for part, stem, blocks, head in zip(
            vector.split(self.sizes, dim=-1), self.stems, self.blocks, self.heads, strict=True
        ):
            hidden = stem(part)
            for block in blocks:  # type: ignore[attr-defined]
                hidden = block(hidden, time)
            made.append(head(functional.silu(hidden)))
            seen.append(hidden)
        return torch.cat(made, dim=-1), torch.cat(seen, dim=-1)


def _require_levels(size: int, patch: int, widths: Sequence[int], attention: Sequence[bool]) -> None:
    """A ValueError says which sizes do not fit the levels of a U-Net."""
    if size % patch or (size // patch) % 2 ** (len(widths) - 1):
        raise ValueError(
            f"{size} cells in patches of {patch} cannot be halved {len(widths) - 1} times; choose fewer widths"
        )
    if len(attention) != len(widths):
        raise ValueError(f"give attention for each of {len(widths)} widths, got {len(attention)}")


def embed_time(timestep: Shaped[Tensor, " scenes"]) -> Float[Tensor, "scenes frequencies"]:
    """Sines and cosines of a time step (Vaswani et al. 2017)."""
    half = FREQUENCIES // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, device=timestep.device) / half)
    angles = timestep[:, None].float() * rates
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


def _places(size: torch.Size, like: Tensor) -> Float[Tensor, "scenes 2 x y"]:
    """Where each pixel lies, from -1 to 1 along x and y."""
    lines = [torch.linspace(-1, 1, count, device=like.device, dtype=like.dtype) for count in size]
    return torch.stack(torch.meshgrid(*lines, indexing="ij")).expand(len(like), -1, -1, -1)
