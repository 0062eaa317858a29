"""The auto-decoder of the baseline: a vector for each training scene, found together with the network that decodes it.

GAUDI (Bautista et al. 2022) has no encoder: the latents z of all training scenes and a decoder are optimised together,

    min over z_1 ... z_n and D of  sum_i loss(D(z_i), scene_i),

and a diffusion model then learns p(z, camera path). The decoder here is that of NF-LDM's latents, with c made from the
vector and no f, and it ends in the same voxels, renderer and picture decoder: only the shape of the latent differs.
"""

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float, Int64
from torch import Tensor, nn

from nfldm3d.blocks import unfold
from nfldm3d.models.nfldm.latent_autoencoder import SKY_WIDTH, LatentDecoder
from nfldm3d.models.nfldm.panorama import PanoramaCode
from nfldm3d.models.nfldm.scene_voxels import Voxels

SEED = 32
"""Channels of the smallest grid, which a linear layer makes from the vector."""
GAIN, SPREAD = 10.0, 0.05
"""Codes are this factor times a parameter of this deviation: each comes once an epoch, with Adam's small steps."""


DOWNSAMPLING = (16, 8, 4)
"""What the decoder can undo."""


def coarsest(resolution: Sequence[int]) -> int:
    """The strongest down-sampling that divides a resolution: all else than the code should be small."""
    return next((size for size in DOWNSAMPLING if not (resolution[0] % size or resolution[1] % size)), DOWNSAMPLING[-1])


class SceneAutodecoder(ModelMixin, ConfigMixin):
    """The codes of all training scenes, and the decoder from a code to voxels.

    Args:
        keys: of the training scenes, one for each code.
        width, fine_width: of the decoder, as ``LatentAutoencoder`` has them.
        downsampling: of the smallest grid against the field along x and y.
        sky_dimensions: principal components of panoramas that are drawn from the code; 0 learns their pixels.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        keys: Sequence[str] = ("scene",),
        resolution: tuple[int, int, int] = (64, 64, 16),
        channels: int = 12,
        sky_rows: int = 16,
        width: int = 96,
        fine_width: int = 64,
        global_dimensions: int = 128,
        downsampling: int = 16,
        sky_dimensions: int = 0,
    ):
        """Sets the widths."""
        super().__init__()
        x, y, z = (int(count) for count in resolution)
        if downsampling not in DOWNSAMPLING or x % downsampling or y % downsampling:
            raise ValueError(
                f"downsampling must be 4, 8 or 16 and divide the resolution {(x, y, z)}, got {downsampling}"
            )
        if global_dimensions < 1 or sky_dimensions < 0:
            raise ValueError(
                "global_dimensions must be at least 1, sky_dimensions at least 0, "
                f"got {global_dimensions} and {sky_dimensions}"
            )
        if not keys or len(set(keys)) < len(keys):
            raise ValueError(f"an auto-decoder needs one key for each training scene, got {len(keys)} with repetitions")
        self.heights, self.coarse = z, (x // downsampling, y // downsampling)
        self.codes = nn.Parameter(SPREAD * torch.randn(len(keys), global_dimensions))
        self.stem = nn.Linear(global_dimensions, SEED * self.coarse[0] * self.coarse[1])
        levels = downsampling.bit_length() - 1
        self.decoder = LatentDecoder(SEED, 0, (1 + channels) * z, (width, fine_width), levels, global_dimensions)
        self.sky_decoder = nn.Sequential(
            nn.Linear(global_dimensions, SKY_WIDTH),
            nn.SiLU(),
            nn.Linear(SKY_WIDTH, sky_dimensions or sky_rows * sky_rows * 6),
        )
        if sky_dimensions:
            self.panorama_code = PanoramaCode(sky_rows, sky_dimensions)

    def codes_of(self, numbers: Int64[Tensor, " scenes"]) -> Float[Tensor, "scenes global"]:
        """The codes of training scenes, by their places among the keys."""
        return GAIN * self.codes[numbers]

    def find(self, key: str) -> int:
        """The place of a training scene; a ValueError if it is none."""
        keys = list(self.config["keys"])
        if key not in keys:
            raise ValueError(f"{key} is none of the {len(keys)} scenes that this auto-decoder was trained on")
        return keys.index(key)

    def decode(self, codes: Float[Tensor, "scenes global"]) -> Voxels:
        """Fields of codes, in single precision."""
        codes = codes.to(self.dtype)
        seed = self.stem(codes).unflatten(1, (SEED, *self.coarse))
        size = tuple(int(count) for count in self.config["resolution"][:2])
        grid = unfold(self.decoder(seed, seed.new_zeros(len(codes), 0, *size), codes).float(), self.heights)
        rows = int(self.config["sky_rows"])
        sky = self.sky_decoder(codes)
        if self.config["sky_dimensions"]:
            sky = self.panorama_code.decode(sky).float()
        else:
            sky = sky.float().unflatten(-1, (rows, 2 * rows, 3)) + 0.3
        return Voxels(torch.sigmoid(grid[..., 0]), grid[..., 1:], sky)
