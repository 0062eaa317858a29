"""3-D consistency scoring (Watson et al. 2023, section 4): whether views of an object could be of one thing.

A field whose colours do not depend on where one looks from is fitted to the view that a model was given and to most of
those that it drew, and compared with the rest. Views that disagree cannot all be told by it; whether they are the true
ones does not count.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.evaluation.metrics import psnr, ssim
from nfldm3d.pipelines.views.object_fitting import FIT, as_capture, fit_object
from nfldm3d.rendering import render

HELD_OUT = 5
"""One drawn view in so many is compared with."""


@dataclass(frozen=True)
class Consistency:
    """How near the field comes to the views that it was not fitted to."""

    psnr: float
    ssim: float


def measure_consistency(
    images: Float[Tensor, "views 3 height width"],
    camera: Camera,
    *,
    steps: int = FIT.steps,
    seed: int = 0,
    surroundings: bool = False,
) -> Consistency:
    """Of the given view, which comes first, and the drawn ones, before white or with ``surroundings``.

    Raises:
        ValueError: fewer than six views, so that none could be held out.
    """
    if len(images) <= HELD_OUT:
        raise ValueError(f"consistency needs at least {HELD_OUT + 1} views, got {len(images)}; draw more")
    camera = camera.to("cpu")
    held_out = torch.arange(len(images)) % HELD_OUT == HELD_OUT // 2
    held_out[0] = False
    capture = as_capture(images[~held_out].cpu(), camera[~held_out], "drawn", surroundings=surroundings)
    scene = fit_object(capture, replace(FIT, steps=steps, seed=seed), progress=False)
    with torch.no_grad():
        shown = render(scene, camera[held_out]).image
    truth = images[held_out].cpu().clamp(0, 1)
    return Consistency(float(psnr(shown, truth)), float(ssim(shown, truth)))
