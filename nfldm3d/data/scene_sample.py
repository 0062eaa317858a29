"""One scene as a training sample: its views and all that is known about them."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.data.bev_map import BevMap
from nfldm3d.data.posed_images import PosedImages
from nfldm3d.geometry import Box

FARTHEST_MEDIAN, NEAREST_MAXIMUM = 3.0, 0.01
"""Depths are in other units if their median is this many times the box's diagonal, or the largest below this share."""
SKY_LABEL = "sky"
"""The name among ``metadata["label_names"]`` of what is infinitely far."""
MARGIN = 1e-3
"""Metres by which cameras may lie outside the box, for rounding."""


@dataclass(frozen=True)
class SceneSample:
    """Views of one local scene with all that is known about them, in memory."""

    key: str
    """Names the scene within its data set."""
    images: UInt8[Tensor, "views 3 height width"]
    depth: Float[Tensor, "views height width"] | None
    """Along the optical axis; 0 is unknown or sky (``find_sky`` tells which). None if it was not recorded: such scenes
    can be encoded."""
    camera: Camera
    """One per view."""
    box: Box
    """The place, in world metres."""
    labels: UInt8[Tensor, "views height width"] | None = None
    """A class per pixel; names are in ``metadata["label_names"]``."""
    bev: BevMap | None = None
    map: str = ""
    """The world that the scene is a part of."""
    split: str = "train"
    kinds: tuple[str, ...] = ()
    """How each view came about: ``scattered``, ``walk`` for one taken along the trajectory, or ``rig`` for one that
    another camera of the same vehicle took."""
    trajectory: Float[Tensor, "poses 5"] | None = None
    """Camera poses of a walk: x, y, z in metres, cosine and sine of the heading (counter-clockwise from +x)."""
    metadata: dict[str, object] = field(default_factory=dict)
    """Anything else worth keeping, as plain JSON values."""
    masks: Bool[Tensor, "views height width"] | None = None
    """True where a pixel is to be used; None if all are."""
    metric: bool = True
    """Whether lengths are metres; False where the capture's scale is unknown."""
    alpha: UInt8[Tensor, "views height width"] | None = None
    """How much of a pixel an object covers, 255 for all; ``images`` show it before white. None where nothing else is
    behind the scene."""
    normals: UInt8[Tensor, "views height width 3"] | None = None
    """Of surfaces in world axes, -1 to 1 as 0 to 255; 0, 0, 0 where there is none. None if they were not recorded."""

    def known_depth(self) -> Float[Tensor, "views height width"]:
        """The depth of a scene to train on; a ValueError if it has none."""
        if self.depth is None:
            raise ValueError(f"scene {self.key} has no depth, which scenes to train on need; record it with depth")
        return self.depth

    def posed_images(self) -> PosedImages:
        """The same views as a capture."""
        capture = PosedImages.from_tensors(
            self.images, self.camera, depth=self.depth, masks=self.masks, labels=self.labels
        )
        box = {"lower": list(self.box.lower), "upper": list(self.box.upper)}
        extra: dict[str, object] = {"map": self.map, "box": box}
        if self.trajectory is not None:
            extra["trajectory"] = self.trajectory.double().tolist()
        return replace(capture, bev=self.bev, metric=self.metric, metadata=extra | self.metadata)

    def find_sky(self) -> Bool[Tensor, "views height width"]:
        """Which pixels show the sky, as far as labels tell: there the ray meets nothing, whereas a depth of 0 elsewhere
        is unknown."""
        names = self.metadata.get("label_names")
        if self.labels is None or not isinstance(names, list | tuple) or SKY_LABEL not in names:
            return torch.zeros(self.images[:, 0].shape, dtype=torch.bool)
        sky = self.labels == list(names).index(SKY_LABEL)
        return sky if self.depth is None else sky & (self.depth == 0)

    def seen_map(self) -> Int64[Tensor, "x y"] | None:
        """The bird's-eye map where some view meets a surface; ``UNSEEN`` elsewhere. None without map or depth."""
        if self.bev is None or self.depth is None:
            return None
        return self.bev.seen_from(self.camera.unproject(self.depth)[self.depth > 0])

    def find_problem(self) -> str | None:
        """What makes the scene useless, with the remedy; None if nothing does."""
        if len(self.camera) < 2:
            return "has one view, but a scene needs one to look from and one to judge by; record more views"
        centers, lower, upper = self.camera.centers, torch.tensor(self.box.lower), torch.tensor(self.box.upper)
        outside = ((centers < lower - MARGIN) | (centers > upper + MARGIN)).any(-1)
        if bool(outside.any()):
            number = int(outside.nonzero()[0])
            place = ", ".join(f"{value:.3g}" for value in centers[number].tolist())
            return f"view {number} at ({place}) is outside the box {self.box.lower} to {self.box.upper}; drop the view"
        if self.depth is None:
            return None
        diagonal, depth = math.dist(self.box.lower, self.box.upper), self.depth.numpy()
        known, largest = np.count_nonzero(depth), float(depth.max())
        if not known:
            return "has no depth at all; record it again with depth"
        too_far = np.count_nonzero(depth > FARTHEST_MEDIAN * diagonal) > known / 2
        if too_far or largest < NEAREST_MAXIMUM * diagonal:
            return (
                f"has depths of {float(np.median(depth[depth > 0])):.3g} in the middle and {largest:.3g} at most in a "
                f"box {diagonal:.3g} m across: they are not metres; check depth_unit"
            )
        return None
