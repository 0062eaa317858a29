"""How to dream, and where from."""

import math
from dataclasses import dataclass, field as member, fields, is_dataclass, replace
from typing import Any, Literal

from nfldm3d._types import LARGEST_SEED
from nfldm3d.guidance import Prior
from nfldm3d.guidance.distillation import Distillation
from nfldm3d.pipelines.dream.canvas import Kind
from nfldm3d.pipelines.dream.prompts import ViewPrompts
from nfldm3d.pipelines.dream.views import ViewRanges

LIMITS = {
    "steps": (1, 10**6),
    "seed": (0, LARGEST_SEED),
    "size": (4, 1024),
    "coarse_size": (4, 1024),
    "batch": (1, 64),
    "detail": (8, 512),
    "preview_every": (0, 10**9),
}
SHARES = ("coarse_share", "albedo_share", "shaded_share", "textureless_share", "random_background")
WEIGHTS = ("opacity_weight", "first_orientation_weight", "last_orientation_weight")


@dataclass(frozen=True)
class DreamOptions:
    """How to dream. Weights of penalties are relative to a loss that is summed over all latents of a view.

    The defaults suit our own small prior on a processor; ``published()`` are DreamFusion's, for large ones.
    """

    steps: int = 600
    """How many; the paper takes 15,000."""
    time_budget: float | None = None
    """Seconds at most; every schedule is stretched over whichever limit comes first."""
    seed: int = 0
    """The same seed gives the same object, on the CPU to the bit."""
    field: Kind = "voxels"
    """What is drawn on: a hash grid with a small network, or voxels, several times faster on a processor."""
    detail: int = 64
    """Voxels along each side of the object's box."""
    activation: Literal["exp", "softplus"] = "softplus"
    """The network's density, with the blob that it begins as: DreamFusion's or Magic3D's."""
    size: int = 64
    """Of the pictures that the prior sees, in pixels."""
    coarse_size: int = 32
    """The same at the beginning."""
    coarse_share: float = 0.5
    """Share of the run that it takes."""
    batch: int = 4
    """Views in each step."""
    negative: str = ""
    """What pictures must not be like."""
    view_prompts: ViewPrompts = "interpolate"
    """How prompts say which side is seen: mixed by the azimuth, the nearest side, or none."""
    perp_neg: bool = False
    """Keep away from the prompts of other sides (Perp-Neg), for objects that show their face to all sides; each step
    asks the prior for four pictures instead of two."""
    albedo_share: float = 0.1
    """Share of the run before there is light."""
    shaded_share: float = 0.4
    """How often there is light afterwards."""
    textureless_share: float = 0.3
    """How often what is lit has no colours."""
    random_background: float = 0.5
    """How often a plain colour takes the place of the learned background."""
    opacity_weight: float = 200.0
    """Of the penalty on matter: raise it against floaters and fog, lower it if nothing is left."""
    first_orientation_weight: float = 3.0
    """Of the penalty on surfaces that face away, at the beginning; it grows to the last one over half the run."""
    last_orientation_weight: float = 30.0
    """The same from there on."""
    normals: Literal["field", "differences"] = "differences"
    """Exact normals, or those of differences over a voxel, which are smoother."""
    rate: float = 0.02
    """Step size; the background's is a tenth, that of voxels five times as large."""
    preview_every: int = 250
    """Steps between two previews; 0 makes none."""
    views: ViewRanges = member(default_factory=ViewRanges)
    """Where cameras and lights are."""
    distillation: Distillation = member(
        default_factory=lambda: Distillation(guidance_scale=12.0, first_steps=(0.6, 0.98), last_steps=(0.2, 0.6))
    )
    """How the prior pulls."""

    @staticmethod
    def published() -> "DreamOptions":
        """DreamFusion's, for models of everything: a hash grid, light on most pictures, all levels of noise, and much
        guidance; with fewer steps and Magic3D's density."""
        return DreamOptions(
            steps=10_000,
            field="hash",
            detail=96,
            coarse_share=0.3,
            batch=1,
            shaded_share=0.75,
            textureless_share=0.5,
            opacity_weight=1.0,
            first_orientation_weight=10.0,
            last_orientation_weight=1000.0,
            rate=0.01,
            views=ViewRanges.published(),
            distillation=Distillation(guidance_scale=100.0),
        )

    def or_published(self) -> "DreamOptions":
        """These, with ``published()`` in place of whatever stands at its default."""
        return _fill(self, DreamOptions(), DreamOptions.published())

    def suiting(self, prior: Prior) -> "DreamOptions":
        """These for our own small priors; for all others ``or_published()``."""
        from nfldm3d.models.priors.image_denoiser import ImageDenoiser  # brings diffusers, which no option needs

        return self if isinstance(getattr(prior, "unet", None), ImageDenoiser) else self.or_published()

    def __post_init__(self):
        for name, (least, most) in LIMITS.items():
            value = getattr(self, name)
            if not (isinstance(value, int) and least <= value <= most):
                raise ValueError(f"{name} must be a whole number from {least} to {most}, got {value}")
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} lies between 0 and 1, got {getattr(self, name)}")
        if self.perp_neg and self.distillation.rescale:
            raise ValueError("rescale does not go with perp_neg: leave one of them out")
        for name in WEIGHTS:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        choices = {
            "field": ("hash", "voxels"),
            "activation": ("exp", "softplus"),
            "view_prompts": ("interpolate", "threshold", "none"),
            "normals": ("field", "differences"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")

    def identity(self) -> dict[str, object]:
        """What a resumed run must have in common with the one that was stopped."""
        free = {"steps", "time_budget", "preview_every"}
        return {part.name: str(getattr(self, part.name)) for part in fields(self) if part.name not in free}


def _fill(chosen: Any, default: Any, instead: Any) -> Any:
    """``instead`` where what was chosen is the default, part by part."""
    if not is_dataclass(chosen):
        return instead if chosen == default else chosen
    names = [part.name for part in fields(chosen)]
    return replace(
        chosen,  # type: ignore[type-var]
        **{name: _fill(*(getattr(each, name) for each in (chosen, default, instead))) for name in names},
    )
