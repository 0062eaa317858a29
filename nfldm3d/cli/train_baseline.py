"""``nfldm3d train autodecoder``: half of the GAUDI-style baseline; the other half is a denoiser of its codes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from nfldm3d.cli.training_run import run_stage
from nfldm3d.training import TrainingOptions

ASIDE = 20
"""Of so many codes one is kept aside, for the denoiser to be judged by; of fewer in all, none."""


@dataclass(frozen=True)
class TrainAutodecoder:
    """One global latent for each training scene and their decoder, in the manner of GAUDI, to compare with.

    Writes OUT/weights, and OUT/codes and OUT/codes_held_out, which train denoiser --level g takes as latents."""

    data: Path
    """The scenes that the fields were encoded from."""
    fields: Path
    """Folder of nfldm3d encode, of training scenes in one orientation."""
    weights: str
    """Weights of stage 1, which draws: a run folder, a folder with scene_autoencoder, or a name of those that nfldm3d
    comes with."""
    out: Path
    """Run folder."""
    options: Annotated[TrainingOptions, tyro.conf.arg(name="")] = field(default_factory=TrainingOptions)
    """How to train."""
    global_dimensions: int = 128
    """Numbers of a code."""
    sky_dimensions: int = 96
    """Principal components of panoramas that are drawn from a code, as in stage 2; 0 learns their pixels."""
    lpips: Path | None = None
    """Weights of VGG-16 for a LPIPS loss, as in stage 2; by default what is found there, else there is none."""
    resume: bool = False
    """Go on with the run in OUT."""

    def run(self) -> None:
        """Trains, and writes the weights and the codes."""
        from nfldm3d.cli.scene_sets import open_scenes
        from nfldm3d.data.encoded_scenes import EncodedScenes
        from nfldm3d.evaluation.metrics import Lpips
        from nfldm3d.models.gaudi.autodecoder import SceneAutodecoder, coarsest
        from nfldm3d.pipelines import Autoencoders
        from nfldm3d.pipelines.encoding import describe_scenes
        from nfldm3d.training.autodecoder_stage import AutodecoderStage, CodedSource, write_codes
        from nfldm3d.written_files import atomic_folder

        scene = Autoencoders.from_pretrained(self.weights).scene
        scenes = open_scenes(self.data, "train")
        source = CodedSource(EncodedScenes(self.fields), scenes, scenes.keys)
        shape = {name: scene.config[name] for name in ("resolution", "channels", "sky_rows")}
        shape |= {"downsampling": coarsest(scene.grid), "global_dimensions": self.global_dimensions}
        model = SceneAutodecoder(source.keys, sky_dimensions=self.sky_dimensions, **shape)
        lpips = Lpips.find_like() if self.lpips is None else Lpips.load(self.lpips, network="vgg")
        stage = AutodecoderStage(model, scene, source, lpips=lpips)
        if not run_stage(stage, ("autodecoder", model), self.out, self.options, self.resume):
            return
        about = describe_scenes(source.scenes[0], scene.grid)
        aside = list(range(0, len(source), ASIDE))
        kept = [number for number in range(len(source)) if number % ASIDE or len(source) < ASIDE]
        for name, numbers in (("codes", kept), ("codes_held_out", aside)):
            with atomic_folder(self.out / name) as temporary:
                write_codes(model.float(), source.scenes, numbers, temporary, about)
