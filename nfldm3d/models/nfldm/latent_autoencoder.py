"""The latent auto-encoder: a voxel field to three latents and back (NF-LDM, stage 2).

g, a vector, is global (palette, light, sky); c, coarse and 3-D, is the layout; f, flat and fine, is the residual of
each column of voxels seen from above. Density enters as the occupancy of a voxel; the vertical axis is folded into
channels, so that all convolutions are 2-D. The decoder is conditioned on g by group norm; f joins at full resolution.
"""

import itertools
from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nfldm3d.blocks import ResidualBlock, fold, unfold
from nfldm3d.models.nfldm.panorama import PanoramaCode
from nfldm3d.models.nfldm.quantizer import Quantized, VectorQuantizer, make_quantizer
from nfldm3d.models.nfldm.scene_voxels import Voxels

SKY_WIDTH = 192
"""Hidden units on the way from a panorama to g and back."""


@dataclass(frozen=True)
class Latents:
    """What a scene is made from; ``c`` is not folded, and ``g`` ends with the panorama's own numbers, if it has any."""

    g: Float[Tensor, "scenes global"]
    c: Float[Tensor, "scenes channels zs xs ys"]
    f: Float[Tensor, "scenes channels x y"]

    def to(self, target: torch.device | torch.dtype | str) -> "Latents":
        """The same on another device or in another dtype."""
        return Latents(self.g.to(target), self.c.to(target), self.f.to(target))


@dataclass(frozen=True)
class LatentEncoding:
    """Latents before quantisation, and what training needs besides."""

    latents: Latents
    """g is the mean."""
    log_variance: Float[Tensor, "scenes learned"]
    """Of those numbers of g that are learned, which come first."""


class LatentAutoencoder(ModelMixin, ConfigMixin):
    """Three encoders, two code books and a decoder.

    Args:
        downsampling: of c against the field along x, y and z: 4, 8 or 16.
        use_global: without it g is zero.
        use_fine: without it f is zero.
        quantize: without it c and f stay continuous.
        fine_stages: lists of ``fine_codes`` codes that stand for a column of f, each for what the ones before leave.
        sky_dimensions: principal components of panoramas, which are the last numbers of g, after the
            ``global_dimensions`` that are learned and seen by the field's decoder; 0 lets the panorama share those.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        resolution: tuple[int, int, int] = (64, 64, 16),
        channels: int = 12,
        sky_rows: int = 16,
        width: int = 96,
        fine_width: int = 64,
        global_dimensions: int = 128,
        latent_channels: int = 4,
        coarse_codes: int = 1024,
        fine_codes: int = 128,
        downsampling: int = 4,
        use_global: bool = True,
        use_fine: bool = True,
        quantize: bool = True,
        fine_stages: int = 1,
        sky_dimensions: int = 0,
    ):
        """Sets the widths."""
        super().__init__()
        x, y, z = resolution
        if downsampling not in (4, 8, 16) or x % downsampling or y % downsampling:
            raise ValueError(
                f"downsampling must be 4, 8 or 16 and divide the resolution {resolution}, got {downsampling}"
            )
        _require_codes(coarse_codes, fine_codes, fine_stages, sky_dimensions)
        if sky_rows % 2:
            raise ValueError(f"sky_rows must be even, got {sky_rows}")
        self.heights = int(z)
        self.coarse_heights = max(1, int(z) // int(downsampling))
        levels, folded, latents = downsampling.bit_length() - 1, (1 + channels) * z, latent_channels
        self.encoder_g = _Encoder(folded, (fine_width,) + (width,) * 4, width)
        sky_values = sky_dimensions or sky_rows * sky_rows * 6
        self.sky_encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(sky_values, SKY_WIDTH), nn.SiLU(), nn.Linear(SKY_WIDTH, 128), nn.SiLU()
        )
        self.global_head = nn.Linear(width + 128, 2 * global_dimensions)
        self.encoder_c = _Encoder(folded, (fine_width,) + (width,) * levels, latents * self.coarse_heights)
        self.encoder_f = _Encoder(folded, (fine_width,), latents)
        self.quantizer_c = VectorQuantizer(coarse_codes, latents)
        self.quantizer_f = make_quantizer(fine_codes, latents, fine_stages)
        coarse = latents * self.coarse_heights
        self.decoder = LatentDecoder(coarse, latents, folded, (width, fine_width), levels, global_dimensions)
        if sky_dimensions:
            self.panorama_code = PanoramaCode(sky_rows, sky_dimensions)
        else:
            self.sky_decoder = nn.Sequential(
                nn.Linear(global_dimensions, SKY_WIDTH), nn.SiLU(), nn.Linear(SKY_WIDTH, sky_rows * sky_rows * 6)
            )

    @property
    def vector_size(self) -> int:
        """Numbers of g, the panorama's own among them."""
        return int(self.config["global_dimensions"]) + int(self.config["sky_dimensions"])

    @property
    def panorama_spread(self) -> list[float]:
        """By how much panoramas differ along each number of g that is their own."""
        return self.panorama_code.spread.tolist() if self.config["sky_dimensions"] else []

    def encode(self, voxels: Voxels) -> LatentEncoding:
        """The latents of fields, in single precision: c and f not yet quantised, g as mean and log of the variance.

        Raises:
            ValueError: the fields or panoramas have another shape than the network was made for.
        """
        self._check(voxels)
        picture = fold(torch.cat((voxels.occupancy[..., None] * 2 - 1, voxels.features), dim=-1))
        picture = picture.to(self.dtype).contiguous(memory_format=torch.channels_last)
        own = self.config["sky_dimensions"]
        sky = self.panorama_code.encode(voxels.sky.to(self.dtype)) if own else (voxels.sky - 0.5).to(self.dtype)
        seen = torch.cat((self.encoder_g(picture).mean((-2, -1)), self.sky_encoder(sky)), dim=-1)
        mean, log_variance = self.global_head(seen).float().chunk(2, dim=-1)
        if own:
            mean = torch.cat((mean, sky.float()), dim=-1)
        c = self.encoder_c(picture).float().unflatten(1, (-1, self.coarse_heights))
        f = self.encoder_f(picture).float()
        mean = mean if self.config["use_global"] else torch.zeros_like(mean)
        f = f if self.config["use_fine"] else torch.zeros_like(f)
        return LatentEncoding(Latents(mean, c, f), log_variance.clamp(-20, 5))

    def quantize(self, latents: Latents) -> tuple[Latents, dict[str, Quantized]]:
        """The latents with c and f replaced by their nearest codes."""
        if not self.config["quantize"]:
            return latents, {}
        c, f = self.quantizer_c(latents.c.movedim(1, -1)), self.quantizer_f(latents.f.movedim(1, -1))
        values = f.values.movedim(-1, 1) if self.config["use_fine"] else latents.f
        return Latents(latents.g, c.values.movedim(-1, 1), values), {"c": c, "f": f}

    def decode(self, latents: Latents) -> Voxels:
        """Fields of latents, in single precision; quantise them first."""
        latents = latents.to(self.dtype)
        c = latents.c.flatten(1, 2)  # (scenes channels z x y) -> (scenes channels*z x y)
        shared, own = latents.g.split(
            (int(self.config["global_dimensions"]), int(self.config["sky_dimensions"])), dim=1
        )
        grid = unfold(self.decoder(c, latents.f, shared).float(), self.heights)
        rows = int(self.config["sky_rows"])
        if self.config["sky_dimensions"]:
            sky = self.panorama_code.decode(own).float()
        else:
            sky = self.sky_decoder(shared).float().unflatten(-1, (rows, 2 * rows, 3)) + 0.3
        return Voxels(torch.sigmoid(grid[..., 0]), grid[..., 1:], sky)

    def _check(self, voxels: Voxels) -> None:
        grid = (*self.config["resolution"], int(self.config["channels"]))
        sky = (int(self.config["sky_rows"]), 2 * int(self.config["sky_rows"]))
        found, found_sky = tuple(voxels.features.shape[1:]), tuple(voxels.sky.shape[1:3])
        if found != grid or found_sky != sky:
            raise ValueError(
                f"this latent auto-encoder takes fields (x, y, z, channels) of {grid} with a panorama of {sky} pixels, "
                f"got {found} and {found_sky}; use the weights of both stages together"
            )


def _require_codes(coarse_codes: int, fine_codes: int, fine_stages: int, sky_dimensions: int) -> None:
    if min(coarse_codes, fine_codes, fine_stages) < 1 or sky_dimensions < 0:
        raise ValueError(
            "a latent auto-encoder needs at least 1 coarse_codes, fine_codes and fine_stages, and sky_dimensions of 0 "
            f"or more, got {coarse_codes}, {fine_codes}, {fine_stages} and {sky_dimensions}"
        )


class _Encoder(nn.Module):
    """Halves the picture at every width after the first."""

    def __init__(self, inputs: int, widths: tuple[int, ...], outputs: int):
        super().__init__()
        self.stem = nn.Conv2d(inputs, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(width, width) for width in widths)
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise(widths))
        self.norm = nn.GroupNorm(widths[-1] // 8, widths[-1])
        self.head = nn.Conv2d(widths[-1], outputs, 1)

    def forward(self, picture: Float[Tensor, "scenes inputs x y"]) -> Float[Tensor, "scenes outputs xs ys"]:
        hidden = self.stem(picture)
        for number, block in enumerate(self.blocks):
            hidden = block(hidden)
            if number < len(self.shrink):
                hidden = self.shrink[number](hidden)
        return self.head(functional.silu(self.norm(hidden)))


class LatentDecoder(nn.Module):
    """Table 8 of the paper's supplement: blocks on c, doubled until it has f's size, then f joins."""

    def __init__(self, coarse: int, fine: int, outputs: int, widths: tuple[int, int], levels: int, condition: int):
        super().__init__()
        width, fine_width = widths
        self.stem = nn.Conv2d(coarse, width, 3, padding=1)
        self.attention = _Attention(width)
        steps = (width,) * levels + (fine_width,)
        self.blocks = nn.ModuleList(
            nn.ModuleList(ResidualBlock(size, size, condition=condition) for _ in range(2)) for size in steps[:-1]
        )
        self.grow = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(steps))
        self.combine = nn.Conv2d(fine_width + fine, fine_width, 3, padding=1)
        self.fine_blocks = nn.ModuleList(ResidualBlock(fine_width, fine_width, condition=condition) for _ in range(3))
        self.norm = nn.GroupNorm(fine_width // 8, fine_width)
        self.head = nn.Conv2d(fine_width, outputs, 3, padding=1)

    def forward(
        self,
        c: Float[Tensor, "scenes coarse xs ys"],
        f: Float[Tensor, "scenes fine x y"],
        g: Float[Tensor, "scenes condition"],
    ) -> Float[Tensor, "scenes outputs x y"]:
        hidden = self.attention(self.stem(c))
        for blocks, grow in zip(self.blocks, self.grow, strict=True):
            for block in blocks:  # type: ignore[union-attr]
                hidden = block(hidden, g)
            hidden = grow(functional.interpolate(hidden, scale_factor=2.0, mode="nearest"))
        hidden = self.combine(torch.cat((hidden, f), dim=1))
        for block in self.fine_blocks:
            hidden = block(hidden, g)
        return self.head(functional.silu(self.norm(hidden)))


class _Attention(nn.Module):
    """Every pixel looks at every other one."""

    def __init__(self, width: int, heads: int = 4):
        super().__init__()
        self.norm = nn.GroupNorm(width // 8, width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        nn.init.zeros_(self.attention.out_proj.weight)

    def forward(self, picture: Float[Tensor, "scenes width x y"]) -> Float[Tensor, "scenes width x y"]:
        tokens = self.norm(picture).flatten(2).movedim(1, 2)  # (scenes width x y) -> (scenes x*y width)
        mixed = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return picture + mixed.movedim(1, 2).unflatten(2, picture.shape[-2:])
