"""The figure by which ablations are ranked: how far generated pictures are from recorded ones, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from nfldm3d._types import PathName
from nfldm3d.data.scenes import Scenes
from nfldm3d.evaluation.distributions import frechet_distance
from nfldm3d.evaluation.features import EfficientNetFeatures
from nfldm3d.evaluation.picture_scores import Embed, Features, embedding_by, frechet_chance
from nfldm3d.evaluation.scene_pictures import Draw, NumberedPictures, made_pictures, recorded_pictures
from nfldm3d.models.nfldm.readers import FrameClassifier
from nfldm3d.models.weights import load_network
from nfldm3d.scene import Scene


@dataclass(frozen=True)
class FrechetRatio:
    """The Fréchet distance of generated pictures to held-out ones, in multiples of that of training pictures."""

    embed: Embed
    held_out: Scenes
    pictures: int
    real: Features
    floor: float

    @classmethod
    def against(
        cls,
        judge: FrameClassifier | EfficientNetFeatures,
        training: Scenes,
        held_out: Scenes,
        *,
        pictures: int = 2048,
    ) -> "FrechetRatio":
        """In the features of a network; ``pictures`` are looked at on each side.

        Raises:
            ValueError: fewer pictures than features.
        """
        if isinstance(judge, FrameClassifier):
            embed = embedding_by(judge.embed, torch.device("cpu"), 256)
        else:
            embed = embedding_by(judge, torch.device("cpu"), 32)
        seen, real = (_look(embed, recorded_pictures(scenes, pictures)) for scenes in (training, held_out))
        return cls(embed, held_out, pictures, real, float(frechet_distance(seen.values, real.values)))

    @torch.no_grad()
    def of(self, scenes: Sequence[Scene], *, draw: Draw | None = None) -> dict[str, float]:
        """``frechet_ratio`` of generated scenes, and its ``low`` and ``high``: other scenes would give one between.

        ``draw`` makes single pictures where plain rendering should not, such as ``Restorer.draw``.
        """
        made = _look(self.embed, made_pictures(scenes, self.held_out, self.pictures, progress=False, draw=draw))
        distance = float(frechet_distance(made.values, self.real.values))
        bounds = frechet_chance(made, self.real, generator=torch.Generator().manual_seed(0))
        figures = {"frechet_ratio": distance, "low": bounds.low, "high": bounds.high}
        return {name: round(value / self.floor, 3) for name, value in figures.items()}


def _look(embed: Embed, pictures: NumberedPictures) -> Features:
    return Features(embed(pictures.images), pictures.scenes)


def load_judge(weights: PathName) -> FrameClassifier | EfficientNetFeatures:
    """The classifier of frames in a folder of weights, or where they have none EfficientNet-Lite0.

    Raises:
        ImportError: there is no classifier, and EfficientNet's packages are missing.
    """
    folder = Path(weights, "frame_classifier")
    return load_network(FrameClassifier, folder) if folder.exists() else EfficientNetFeatures.load()
