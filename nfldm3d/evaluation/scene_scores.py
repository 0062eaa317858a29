"""How well networks show scenes that they were not trained on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.appearance import EnvironmentMap
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.data.scenes import spread_views
from nfldm3d.evaluation import metrics
from nfldm3d.fields import Field
from nfldm3d.models.nfldm.lifting import in_box
from nfldm3d.models.nfldm.losses import relative_depth_error
from nfldm3d.models.nfldm.scene_autoencoder import SceneAutoencoder
from nfldm3d.models.nfldm.views import Views

INPUTS = 16
"""Views that are encoded; the others are compared with."""
SHOWN = 6


@dataclass(frozen=True)
class SceneScores:
    """Means over views that were not encoded."""

    psnr: float
    ssim: float
    depth_error: float
    """Mean of |d' - d| / d over all surfaces inside the box; d' is the expected depth divided by the opacity.

    NaN where there is no such surface."""
    surfaces: int
    """Pixels that show one."""
    sharpness: float
    """Mean absolute differences of neighbouring pixels over those of the truth."""
    mean_colour_psnr: float
    """Of pictures painted in the mean colour of the views that were encoded."""

    lpips_like: float | None = None
    """See ``Lpips.find_like``; None where it was not measured."""

    def figures(self) -> dict[str, float]:
        """All that were measured but the count, by name."""
        return {name: value for name, value in vars(self).items() if name != "surfaces" and value is not None}


@dataclass(frozen=True)
class SceneSplit:
    """A scene's views, those to encode and those to compare with."""

    inputs: Views
    targets: Views


def split_views(sample: SceneSample, *, with_depth: bool = True, inputs: int = INPUTS) -> SceneSplit:
    """Every scene is split in the same way each time: the views to compare with are spread over all (``spread_views``).

    Raises:
        ValueError: a scene of one view.
    """
    count = len(sample.images)
    if count < 2 or inputs < 1:
        raise ValueError(
            f"{sample.key} has {count} view(s) of which {inputs} are to be encoded, but at least one is needed to "
            "encode and one to judge by; record more views"
        )
    held_out = max(1, count - inputs)
    targets = torch.tensor(spread_views(count, held_out, sample.key))
    rest = torch.tensor([number for number in range(count) if number not in set(targets.tolist())])
    images = sample.images.float() / 255

    def views(chosen: Tensor, depth: bool) -> Views:
        mask = None if sample.masks is None else sample.masks[chosen]
        known = sample.depth[chosen] if depth and sample.depth is not None else None
        return Views(images[chosen], sample.camera[chosen.tolist()], known, mask)

    return SceneSplit(views(rest, with_depth), views(targets, True))


@torch.no_grad()
def judge_scene(
    model: SceneAutoencoder, sample: SceneSample, *, with_depth: bool, inputs: int = INPUTS
) -> tuple[SceneScores, Float[Tensor, "3 height width"]]:
    """Scores of one scene, and a picture of truth above renders."""
    split = split_views(sample, with_depth=with_depth, inputs=inputs)
    encoding = model.encode(split.inputs.to(model.device), sample.box)
    return judge_field(model, encoding.field, encoding.background, split)


@torch.no_grad()
def judge_field(
    model: SceneAutoencoder,
    field: Field,
    background: EnvironmentMap,
    split: SceneSplit,
    lpips: metrics.Lpips | None = None,
) -> tuple[SceneScores, Float[Tensor, "3 height width"]]:
    """Scores of a field by the views of ``split``, and a picture of truth above renders."""
    targets = split.targets.to(model.device)
    rays = targets.camera.rays()
    rendered = model.render(field, background, rays)
    picture = model.decode(rendered).float().clamp(0, 1)
    cosine = targets.camera.depth_per_distance(rays)
    depth = torch.zeros_like(cosine) if targets.depth is None else targets.depth
    measured = depth > 0 if targets.mask is None else (depth > 0) & targets.mask
    inside = measured & in_box(rays.at(depth / cosine), field.box)
    error = relative_depth_error(rendered.distance, rendered.opacity, depth, cosine, inside.float())
    mean = _mean_colour(split.inputs).to(picture)
    painted = mean[:, None, None].expand_as(targets.images)
    scores = SceneScores(
        psnr=float(metrics.psnr(picture, targets.images, targets.mask)),
        ssim=float(metrics.ssim(picture, targets.images, targets.mask)),
        depth_error=float(error) if bool(inside.any()) else math.nan,
        surfaces=int(inside.sum()),
        sharpness=float(metrics.sharpness(picture, targets.images, targets.mask)),
        mean_colour_psnr=float(metrics.psnr(painted, targets.images, targets.mask)),
        lpips_like=None if lpips is None else float(lpips(picture, targets.images, targets.mask)),
    )
    rows = [torch.cat(list(part[:SHOWN]), dim=-1) for part in (targets.images, picture)]
    return scores, torch.cat(rows, dim=-2).cpu()


def _mean_colour(views: Views) -> Float[Tensor, " 3"]:
    """Of all pixels that count."""
    pixels = views.images.movedim(1, -1)  # views height width 3
    return pixels.mean((0, 1, 2)) if views.mask is None else pixels[views.mask].mean(0)


def mean_scores(scores: Sequence[SceneScores]) -> SceneScores:
    """The mean over views, and over surfaces for the depth error; a ValueError if there are no scenes."""
    if not scores:
        raise ValueError("there are no scenes to judge; give a split that holds some")
    known = [score for score in scores if score.surfaces]
    surfaces = sum(score.surfaces for score in known)

    def mean(name: str) -> float:
        return sum(getattr(score, name) for score in scores) / len(scores)

    return SceneScores(
        psnr=mean("psnr"),
        ssim=mean("ssim"),
        depth_error=sum(score.depth_error * score.surfaces for score in known) / surfaces if surfaces else math.nan,
        surfaces=surfaces,
        sharpness=mean("sharpness"),
        mean_colour_psnr=mean("mean_colour_psnr"),
        lpips_like=None if any(score.lpips_like is None for score in scores) else mean("lpips_like"),
    )
