"""The exposure of each photograph: a factor on what the scene shows, so that changing light is no geometry.

Cameras that choose exposure and white balance anew for each picture scale red, green and blue; sRGB is close to a power
law, so that linear factors k are factors k^(1 / 2.2) of its values.
"""

from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.data.posed_images import PosedImages

PHOTOGRAPHS = {".jpg", ".jpeg"}
"""What cameras write."""
NEIGHBOURS = 2
"""Of a view, that tell its exposure."""
EXPOSURE_WEIGHT = 1e-4
"""Weight of the mean squared logarithm of the factors: where pictures do not tell, there is none."""


def are_photographs(images: PosedImages) -> bool:
    """Whether the pictures are files as cameras write them, not rendered ones."""
    return all(isinstance(frame.image, Path) and frame.image.suffix.lower() in PHOTOGRAPHS for frame in images.frames)


def read_factors(
    exposures: Float[Tensor, "all_views 3"], views: Int64[Tensor, " rays"]
) -> tuple[Float[Tensor, "rays 3"], Float[Tensor, ""]]:
    """The factors of the views that some rays belong to, and the loss that keeps all of them near one."""
    return exposures[views].exp(), EXPOSURE_WEIGHT * exposures.square().mean()


@torch.no_grad()
def center_(exposures: Float[Tensor, "all_views 3"]) -> None:
    """Leaves to the scene what all views share."""
    exposures -= exposures.mean(0)


def match_exposures(
    pictures: Float[Tensor, "views 3 height width"],
    photographs: Float[Tensor, "views 3 height width"],
    masks: Bool[Tensor, "views height width"] | None = None,
) -> Float[Tensor, "views 3 height width"]:
    """Pictures of the mean exposure in that of the photographs: times the factors that bring them nearest."""
    used = torch.ones_like(pictures[:, :1]) if masks is None else masks[:, None].to(pictures)
    factors = (used * pictures * photographs).sum((2, 3)) / (used * pictures.square()).sum((2, 3)).clamp(min=1e-9)
    return (factors[:, :, None, None] * pictures).clamp(0, 1)


def guess_factors(factors: Float[Tensor, "fitted 3"], fitted: Camera, camera: Camera) -> Float[Tensor, "views 3"]:
    """The factors that views would have, by those of the nearest fitted ones: their geometric mean by nearness.

    Near is what stands close, in parts of how far cameras are spread, and looks the same way: cameras choose exposures
    by what they look at.
    """
    centers = fitted.centers
    spread = (centers - centers.mean(0)).norm(dim=-1).mean().clamp(min=1e-9)
    apart = torch.cdist(camera.centers, centers) / spread
    turned = 2 - 2 * camera.forward @ fitted.forward.T  # squared distances of unit vectors
    near = (apart.square() + turned).topk(min(NEIGHBOURS, len(factors)), largest=False)
    weights = 1 / (near.values + 1e-6)
    logs = factors.clamp(min=1e-6).log()[near.indices]
    return ((weights[..., None] * logs).sum(1) / weights.sum(1, keepdim=True)).exp()
