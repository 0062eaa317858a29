"""What tells a refinement which way to go: pictures that a restorer has drawn, or the score of a diffusion model."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from nfldm3d.camera import Camera
from nfldm3d.fitting.schedule import Step
from nfldm3d.guidance import Distillation, Prior, distill
from nfldm3d.models.nfldm.losses import structural_loss, texture_loss
from nfldm3d.models.priors.image_denoiser import far_from
from nfldm3d.models.priors.restorer import RawViews, Restorer, look_at
from nfldm3d.pipelines.refining.anchored_noise import anchor_noise
from nfldm3d.pipelines.refining.options import RefineOptions
from nfldm3d.scene import Scene

COARSE = 16
"""Pixels along each side of the pictures by which it is judged whether a scene is still the same."""
LEAST_NOISE, LAST_NOISE = 0.1, 0.2
"""Of distillation, as ``RefineOptions.most_noise``: the least, and the most at the end. Less would change nothing."""
STRUCTURE, TEXTURE = 0.3, 0.05
"""Weights of structural similarity and of local contrasts beside the absolute error of pictures."""


@runtime_checkable
class Guide(Protocol):
    """What ``refine`` asks of either method."""

    camera: Camera
    """From where the scene is looked at."""

    def losses(
        self, images: Float[Tensor, "views 3 height width"], chosen: Sequence[int], step: Step
    ) -> dict[str, Tensor]:
        """What is wrong with pictures of the cameras ``chosen``, by name."""
        ...


class RestoringGuide:
    """Pictures that a restorer has drawn once of what the scene showed."""

    def __init__(
        self, scene: Scene, restorer: Restorer, camera: Camera, steps: int, place: float, generator: torch.Generator
    ):
        """Restores in so many steps, from noise that is the same for all cameras wherever they see the same ``place``,
        of so many metres."""
        self.camera = camera
        raw = RawViews(**look_at(scene, camera))
        distance = torch.where(raw.opacity > 0.5, far_from(raw.nearness), 0.0)
        noise = anchor_noise(camera, distance, place, generator)
        self.raw = raw.render
        self.targets = restorer.restore(raw, steps=steps, noise=noise).clamp(0, 1)

    def losses(
        self, images: Float[Tensor, "views 3 height width"], chosen: Sequence[int], step: Step
    ) -> dict[str, Tensor]:
        """See ``Guide``."""
        return compare(images, self.targets[list(chosen)])


class DistillingGuide:
    """A diffusion model that pulls pictures towards data and away from what the scene showed."""

    def __init__(
        self,
        scene: Scene,
        prior: Prior,
        camera: Camera,
        conditions: tuple[Float[Tensor, "views tokens numbers"], Float[Tensor, "views tokens numbers"] | None],
        options: RefineOptions,
        generator: torch.Generator,
    ):
        """``conditions`` are what each camera's picture should be like, and what not."""
        self.camera, self.prior, self.options, self.generator = camera, prior, options, generator
        self.raw = look_at(scene, camera)["render"]
        self.wanted, self.avoided = conditions
        self.distillation = Distillation(
            options.guidance_scale,
            weighting="clean",
            first_steps=(min(LEAST_NOISE, options.most_noise), options.most_noise),
            last_steps=(min(LEAST_NOISE, options.most_noise), min(LAST_NOISE, options.most_noise)),
        )

    def losses(
        self, images: Float[Tensor, "views 3 height width"], chosen: Sequence[int], step: Step
    ) -> dict[str, Tensor]:
        """See ``Guide``; first the pictures that the scene showed, then the prior's pull."""
        numbers = list(chosen)
        raw = self.raw[numbers]
        if step.share < self.options.copied:
            return compare(images, raw)
        share = (step.share - self.options.copied) / (1 - self.options.copied)
        avoided = None if self.avoided is None else self.avoided[numbers]
        pull = distill(
            self.prior,
            images,
            self.wanted[numbers],
            avoided,
            share=share,
            options=self.distillation,
            generator=self.generator,
        )
        moved = (coarse(images) - coarse(raw)).square().mean()
        return {"pull": pull / images[0].numel(), "coarse": self.options.keep_coarse * moved}


def coarse(images: Float[Tensor, "views 3 height width"]) -> Float[Tensor, "views 3 rows columns"]:
    """Pictures of ``COARSE`` pixels along each side, by which it is judged whether a scene is still the same."""
    return functional.adaptive_avg_pool2d(images, COARSE)


def compare(
    images: Float[Tensor, "views 3 height width"], targets: Float[Tensor, "views 3 height width"]
) -> dict[str, Float[Tensor, ""]]:
    """How far pictures are from others."""
    return {
        "absolute": (images - targets).abs().mean(),
        "structure": STRUCTURE * structural_loss(images, targets),
        "texture": TEXTURE * texture_loss(images, targets),
    }
