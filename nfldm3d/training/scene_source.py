"""Scenes to train on: which views are encoded, which are compared with, and from which side the world is seen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.data.scenes import Scenes
from nfldm3d.geometry import Box, Rays, turn_about
from nfldm3d.models.nfldm.lifting import in_box
from nfldm3d.models.nfldm.views import Views

SKY_DISTANCE = 4.0
"""Diagonals of the box: how far the sky is."""


@dataclass(frozen=True)
class Targets:
    """Parts of pictures that the decoder has to make."""

    images: Float[Tensor, "views 3 height width"]
    depth: Float[Tensor, "views height width"]
    """Metres along the optical axis, 0 where there is no surface."""
    cosine: Float[Tensor, "views height width"]
    """Depth of a unit of distance along the ray."""
    rays: Rays

    def inside(self, box: Box) -> Float[Tensor, "views height width"]:
        """1 where the surface lies in the box."""
        return ((self.depth > 0) & in_box(self.rays.at(self.depth / self.cosine), box)).float()

    def to(self, device: torch.device) -> "Targets":
        """The same on another device."""
        return Targets(self.images.to(device), self.depth.to(device), self.cosine.to(device), self.rays.to(device))


@dataclass(frozen=True)
class SceneItem:
    """One scene of a batch."""

    inputs: Views
    targets: Targets
    observed: Views
    """All views with depth, the encoded ones first: what is known of the voxels. The sky is far beyond the box."""
    box: Box

    def to(self, device: torch.device) -> "SceneItem":
        """The same on another device."""
        return SceneItem(self.inputs.to(device), self.targets.to(device), self.observed.to(device), self.box)


@dataclass(frozen=True)
class Drawing:
    """How views are drawn."""

    inputs: tuple[int, int] = (8, 16)
    """Fewest and most views that are encoded."""
    targets: int = 8
    """Views to compare with."""
    seen_targets: int = 2
    """How many of those are among the encoded ones."""
    crop: int = 32
    """Pixels along each side of the part of a target that is rendered."""
    without_depth: float = 0.3
    """Share of scenes that are encoded from colour alone."""
    turn: bool = True
    """Whether the world is turned by quarters about the middle of the box."""

    def __post_init__(self):
        if not 0 <= self.without_depth <= 1:
            raise ValueError(f"without_depth is a share of scenes, from 0 to 1, got {self.without_depth}")


class SceneSource:
    """Draws scenes and views; see ``SampleSource``."""

    def __init__(self, scenes: Scenes, drawing: Drawing | None = None):
        self.scenes = scenes
        self.drawing = drawing or Drawing()

    def __len__(self) -> int:
        return len(self.scenes)

    def sample(self, index: int, generator: torch.Generator) -> SceneItem:
        """One scene with views in random order, seen from a random side."""
        turn = int(torch.randint(4, (), generator=generator)) if self.drawing.turn else 0
        return self.draw(index, turn, generator)

    def draw(self, index: int, turn: int, generator: torch.Generator) -> SceneItem:
        """One scene with views in random order, after ``turn`` quarter turns of the world."""
        sample, drawing = self.scenes[index], self.drawing
        order = torch.randperm(len(sample.images), generator=generator)
        x, y, z = sample.box.size
        box = Box.from_center(sample.box.center, (max(x, y), max(x, y), z))  # lies on itself after each turn
        camera = sample.camera.transformed(turn_about(box, turn))
        with_depth = float(torch.rand((), generator=generator)) >= drawing.without_depth
        low, high = drawing.inputs
        count = int(torch.randint(low, high + 1, (), generator=generator))
        count = max(1, min(count, len(order) - 1))
        inputs, rest = order[:count], order[count:]
        fresh = rest[: drawing.targets - drawing.seen_targets]
        targets = torch.cat((fresh, inputs[: drawing.seen_targets]))
        observed = torch.cat((inputs, rest))
        return SceneItem(
            _views(sample, camera, inputs, with_depth),
            crop_targets(_views(sample, camera, targets, True), drawing.crop, generator),
            _observe(sample, camera, observed),
            box,
        )

    def collate(self, samples: Sequence[SceneItem]) -> "SceneBatch":
        """The scenes side by side."""
        return SceneBatch(list(samples))


@dataclass(frozen=True)
class SceneBatch:
    """Scenes to train on at once."""

    scenes: list[SceneItem]

    def to(self, device: torch.device) -> "SceneBatch":
        """The same on another device."""
        return SceneBatch([scene.to(device) for scene in self.scenes])


def crop_targets(views: Views, size: int, generator: torch.Generator) -> Targets:
    """A random square of each view."""
    assert views.depth is not None
    rays, parts = views.camera.rays(), []
    cosine = views.camera.depth_per_distance(rays)
    height, width = views.depth.shape[-2:]
    size = min(size, height, width)
    for number in range(len(views.images)):
        top = int(torch.randint(height - size + 1, (), generator=generator))
        left = int(torch.randint(width - size + 1, (), generator=generator))
        rows, columns = slice(top, top + size), slice(left, left + size)
        image = views.images[number, :, rows, columns]
        parts.append((image, *(t[number, rows, columns] for t in (views.depth, cosine, rays.origins, rays.directions))))
    images, depth, cosines, origins, directions = (torch.stack(part) for part in zip(*parts, strict=True))
    return Targets(images, depth, cosines, Rays(origins, directions))


def _views(sample: SceneSample, camera: Camera, chosen: Tensor, with_depth: bool) -> Views:
    return Views(
        sample.images[chosen].float() / 255,
        camera[chosen.tolist()],
        sample.known_depth()[chosen] if with_depth else None,
    )


def _observe(sample: SceneSample, camera: Camera, chosen: Tensor) -> Views:
    """Views in which the sky has a depth beyond any box, so that voxels in front of it count as seen to be empty."""
    views, sky = _views(sample, camera, chosen, True), sample.find_sky()[chosen]
    assert views.depth is not None
    beyond = SKY_DISTANCE * math.dist(sample.box.lower, sample.box.upper)
    return replace(views, depth=torch.where(sky, beyond, views.depth))
