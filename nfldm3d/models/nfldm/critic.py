"""A network that tells photographs from what the decoder draws, patch by patch."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
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
