"""Distances and overlaps of sets of pictures and clips, in the feature space of any network that looks at pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nfldm3d.evaluation.chance import Interval, bootstrap, rows_of
from nfldm3d.evaluation.distributions import FrechetReference, frechet_distance, kernel_distance, measure_coverage
from nfldm3d.evaluation.scene_pictures import Clip, NumberedPictures, stack_clips

AXES = 8
"""Principal axes of the features of recorded frames in which clips are compared."""
Embed: TypeAlias = Callable[[Tensor], Tensor]
"""Features (views features) of pictures (views 3 height width)."""


@dataclass(frozen=True)
class FeatureNames:
    """What figures in a feature space are called."""

    frechet: str
    kernel: str
    video: str
    suffix: str
    """Of precision, recall, density and coverage."""


CLASSIFIER = FeatureNames("frechet", "kernel_distance", "frechet_video", "")
EFFICIENTNET = FeatureNames(
    "frechet_efficientnet", "kernel_distance_efficientnet", "frechet_video_efficientnet", "_efficientnet"
)
INCEPTION = FeatureNames("fid", "kid", "frechet_video_inception", "_inception")


@dataclass(frozen=True)
class PictureSets:
    """What is compared."""

    made: NumberedPictures
    rebuilt: NumberedPictures
    """Training scenes as the generator's latents hold them."""
    training: NumberedPictures
    held_out: NumberedPictures


@dataclass(frozen=True)
class ClipSets:
    """What is compared in motion."""

    made: Sequence[Clip]
    training: Sequence[Clip]
    held_out: Sequence[Clip]


@dataclass(frozen=True)
class Features:
    """Pictures as a network sees them, with the numbers of the scenes that they show."""

    values: Float[Tensor, "views features"]
    scenes: Int64[Tensor, " views"]

    def of(self, chosen: Tensor) -> "Features":
        """Some of them."""
        return Features(self.values[chosen], self.scenes[chosen])


@dataclass(frozen=True)
class FeatureSets:
    """``PictureSets`` as a network sees them."""

    made: Features
    rebuilt: Features
    training: Features
    held_out: Features

    @classmethod
    def of(cls, sets: PictureSets, embed: Embed) -> "FeatureSets":
        """Each picture is looked at once."""
        parts = (sets.made, sets.rebuilt, sets.training, sets.held_out)
        return cls(*(Features(embed(part.images).float().cpu(), part.scenes) for part in parts))


def judge_pictures(
    sets: FeatureSets, names: FeatureNames = CLASSIFIER, *, generator: torch.Generator | None = None
) -> dict[str, float]:
    """Figures of generated, rebuilt and training pictures beside held-out ones.

    Fréchet distances need more pictures than features on each side; where there are fewer, they are left out. The
    floor is that of half of the training scenes to the held-out ones, and halves are halves of the training scenes.
    The recall of training pictures is that of as many as were made.
    """
    made, seen, real = sets.made, sets.training, sets.held_out
    half, other = seen.of(seen.scenes % 2 == 0), seen.of(seen.scenes % 2 == 1)
    figures: dict[str, float] = {}
    if min(len(part.values) for part in (made, sets.rebuilt, half, other, real)) > real.values.shape[1]:
        distance, floor = (float(frechet_distance(part.values, real.values)) for part in (made, half))
        figures |= {
            names.frechet: distance,
            f"{names.frechet}_floor": floor,
            f"{names.frechet}_ratio": distance / floor,
            f"{names.frechet}_halves": float(frechet_distance(half.values, other.values)),
            f"{names.frechet}_rebuilt": float(frechet_distance(sets.rebuilt.values, real.values)),
        }
    covered = measure_coverage(made.values, real.values, made_scenes=made.scenes, real_scenes=real.scenes)
    some = seen.of(torch.linspace(0, len(seen.values) - 1, min(len(seen.values), len(made.values))).long())
    ceiling = measure_coverage(some.values, real.values, made_scenes=some.scenes, real_scenes=real.scenes)
    figures |= {
        names.kernel: float(kernel_distance(made.values, real.values, generator=generator)),
        f"{names.kernel}_floor": float(kernel_distance(half.values, real.values, generator=generator)),
    }
    figures |= {f"{name}{names.suffix}": value for name, value in vars(covered).items()}
    return figures | {f"recall_of_training{names.suffix}": ceiling.recall}


def frechet_chance(made: Features, held_out: Features, *, generator: torch.Generator | None = None) -> Interval:
    """Within which bounds the Fréchet distance of generated to held-out pictures may lie, had other scenes been made.

    Raises:
        ValueError: fewer pictures than features on a side.
    """
    reference = FrechetReference(held_out.values)

    def figure(scenes: Tensor) -> float:
        return float(reference.distance(made.values[rows_of(scenes, made.scenes)]))

    return bootstrap(figure, int(made.scenes.max()) + 1, generator=generator)


def judge_clips(sets: ClipSets, embed: Embed, names: FeatureNames = CLASSIFIER) -> dict[str, float]:
    """Fréchet video distances in features of single frames: of clips as vectors of all their frames, in order.

    Frames are told apart along ``AXES`` principal axes of those of training clips, so that a hundred clips are enough;
    the floor is the distance of training to held-out clips. Empty if a side has too few clips.
    """
    if min(map(len, (sets.made, sets.training, sets.held_out))) == 0:
        return {}
    made, seen, real = (_embed_clips(clips, embed) for clips in (sets.made, sets.training, sets.held_out))
    frames = seen.flatten(0, 1)
    axes = torch.linalg.svd(frames - frames.mean(0), full_matrices=False).Vh[:AXES]  # axes features
    if min(map(len, (made, seen, real))) <= made.shape[1] * len(axes):
        return {}
    own, other, true = (((clips - frames.mean(0)) @ axes.T).flatten(1) for clips in (made, seen, real))
    distance, floor = float(frechet_distance(own, true)), float(frechet_distance(other, true))
    return {names.video: distance, f"{names.video}_floor": floor, f"{names.video}_ratio": distance / floor}


def _embed_clips(clips: Sequence[Clip], embed: Embed) -> Float[Tensor, "clips frames features"]:
    stacked = stack_clips(clips)
    return embed(stacked.flatten(0, 1)).float().cpu().unflatten(0, stacked.shape[:2])


def embedding_by(network: Callable[[Tensor], Tensor], device: torch.device, batch: int = 64) -> Embed:
    """Pictures through a network in parts."""

    @torch.no_grad()
    def embed(images: Tensor) -> Tensor:
        return torch.cat([network(part.to(device)).float().cpu() for part in images.split(batch)])

    return embed
