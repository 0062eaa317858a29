"""From drawn views to a scene: a field without view dependence, fitted to pictures of an object before white."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.data.posed_images import WHITE, PosedImages
from nfldm3d.fitting import FitOptions, fit
from nfldm3d.geometry import Box
from nfldm3d.scene import Scene

OBJECT_BOX = Box((-0.55, -0.55, -0.55), (0.55, 0.55, 0.55))
"""Holds any object whose own box has a diagonal of 1 and its middle at the origin."""
FIT = FitOptions(
    steps=1500,
    rays_per_step=4096,
    voxels=64**3,
    degree=0,
    box=(OBJECT_BOX.lower, OBJECT_BOX.upper),
    surroundings=0,
    smoothness=2.0,
)
"""For pictures of some 64 pixels: a minute on a laptop."""
SHELLS = 2
"""Around objects whose pictures show what is around them."""


def as_capture(
    images: Float[Tensor, "views 3 height width"], camera: Camera, name: str, *, surroundings: bool = False
) -> PosedImages:
    """Drawn views as a capture: lengths are diagonals of the object's box, which stands before white or, with
    ``surroundings``, among whatever the views show."""
    box = {"lower": list(OBJECT_BOX.lower), "upper": list(OBJECT_BOX.upper)}
    metadata: dict[str, object] = {"place": name, "view_dependent": False, "box": box}
    found = PosedImages.from_tensors(images.clamp(0, 1), camera)
    return replace(found, metric=False, background=None if surroundings else WHITE, metadata=metadata)


def fit_object(
    images: PosedImages, options: FitOptions = FIT, *, device: torch.device | str = "cpu", progress: bool = True
) -> Scene:
    """A scene of what ``as_capture`` gave: colours do not depend on where one looks from, so that views which disagree
    cannot be told by it. Around objects that do not stand before white, shells are fitted, too."""
    if images.background is None:
        options = replace(options, surroundings=options.surroundings or SHELLS)
    return fit(images, options=options, device=device, progress=progress)
