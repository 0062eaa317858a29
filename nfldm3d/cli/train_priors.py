"""``nfldm3d train restorer`` and ``image-prior``: networks that know pictures, for the last stage of NF-LDM."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from nfldm3d.cli.training_run import begin_with, run_stage
from nfldm3d.training import TrainingOptions


@dataclass(frozen=True)
class TrainRestorer:
    """A few-step denoiser that is shown the render of a scene and draws the photograph."""

    pairs: Path
    """Folder of nfldm3d encode --keep pairs, of training scenes."""
    held_out: Path
    """The same of test scenes."""
    out: Path
    """Run folder."""
    options: Annotated[TrainingOptions, tyro.conf.arg(name="")] = field(
        default_factory=lambda: TrainingOptions(batch_size=8, weight_decay=0.0, evaluate_every=1000)
    )
    """How to train; a sample is two pictures."""
    crop: int = 0
    """Pixels along each side of the part of each picture that is learned from; 0 for all of it."""
    start_from: str | None = None
    """Weights to begin with, where they fit: a run folder or a folder with restorer."""
    resume: bool = False
    """Go on with the run in OUT."""

    def run(self) -> None:
        """Trains and writes the weights."""
        from nfldm3d.data.encoded_scenes import EncodedScenes
        from nfldm3d.training.restorer_stage import PairSource, RestorerStage, make_restorer

        source = PairSource(EncodedScenes(self.pairs), crop=self.crop)
        held_out = PairSource(EncodedScenes(self.held_out))
        model = make_restorer(source)
        begin_with(model, self.start_from, "restorer")
        run_stage(RestorerStage(model, source, held_out), ("restorer", model), self.out, self.options, self.resume)


@dataclass(frozen=True)
class TrainImagePrior:
    """A diffusion model of pictures that is told their embedding, for nfldm3d refine --method sds."""

    pairs: Path
    """Folder of nfldm3d encode --keep pairs, of training scenes: half photographs, half what scenes show."""
    held_out: Path
    """The same of test scenes."""
    out: Path
    """Run folder."""
    options: Annotated[TrainingOptions, tyro.conf.arg(name="")] = field(
        default_factory=lambda: TrainingOptions(batch_size=16, weight_decay=0.0, ema_decay=0.9995, evaluate_every=1000)
    )
    """How to train; a sample is two pictures."""
    start_from: str | None = None
    """Weights to begin with, where they fit: a run folder or a folder with image_prior."""
    resume: bool = False
    """Go on with the run in OUT."""

    def run(self) -> None:
        """Trains and writes the weights."""
        from nfldm3d.data.encoded_scenes import EncodedScenes
        from nfldm3d.training.image_prior_stage import ImagePriorStage, PictureSource, make_image_prior
        from nfldm3d.training.restorer_stage import PairSource

        source, held_out = (PictureSource(PairSource(EncodedScenes(each))) for each in (self.pairs, self.held_out))
        model = make_image_prior(source)
        begin_with(model, self.start_from, "image_prior")
        run_stage(ImagePriorStage(model, source, held_out), ("image_prior", model), self.out, self.options, self.resume)
