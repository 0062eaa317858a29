"""Networks that tell photographs from what is drawn, patch by patch."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm


class PatchCritic(nn.Module):
    """Scores of overlapping patches of pictures, each beside the plain rendered colours (Isola et al. 2017).

    It sees 22 pixels around: strokes of texture, not places. Spectral norms keep it gentle.
    """

    def __init__(self, width: int = 32):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, stride in ((6, width, 2), (width, 2 * width, 2), (2 * width, 2 * width, 1)):
            layers += [spectral_norm(nn.Conv2d(inputs, outputs, 4 if stride == 2 else 3, stride, 1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(2 * width, 1, 1)))

    def forward(
        self, picture: Float[Tensor, "views 3 height width"], colors: Float[Tensor, "views 3 height width"]
    ) -> Float[Tensor, "views 1 rows columns"]:
        """High for photographs."""
        return self.layers(torch.cat((picture, colors), dim=1))


class FeatureCritic(nn.Module):
    """Scores of pictures by what a network that stays as it is finds in them, at each of its levels.

    Such a critic knows from the start what pictures consist of, and learns in minutes (Sauer et al. 2021).
    """

    def __init__(self, channels: tuple[int, ...], width: int = 64):
        """For features of so many channels, level by level."""
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Conv2d(count, width, 1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(width, width, 3, padding=1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(width, 1, 1)),
            )
            for count in channels
        )

    def forward(self, features: list[Float[Tensor, "views channels _ _"]]) -> list[Float[Tensor, "views 1 _ _"]]:
        """High for photographs, in each place of each level."""
        scaled = [functional.normalize(level.float(), dim=1) * level.shape[1] ** 0.5 for level in features]
        return [head(level) for head, level in zip(self.heads, scaled, strict=True)]
