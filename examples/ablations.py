"""The paper's ablations and a baseline, each row trained with the same small budget.

    nfldm3d capture driving --scenes 1696 --test-scenes 96 --out roads
    python examples/ablations.py roads --weights driving --which voxel-size --steps 400
    python examples/ablations.py roads --weights driving --which hierarchy --steps 600 --denoiser-steps 1500 --trained

Of auto-encoders: ``voxel-size``: finer voxels show more (Table 12). ``density``: densities predicted for each view
against densities inferred from pooled features (Figure 15). ``pooling``: mean against attention. ``recipe``: the
paper's plain one against ours, both from colour alone. ``surfaces``: densities that are not negative against signed
ones, whose surfaces lie between voxels. ``downsampling``: of the coarse latent (Table 13), on the fields of the given
stage 1. After the first row ``gain`` tells between which bounds PSNR is higher than there, scene by scene.

Of generators, on small fields, or with ``--trained`` on those of the weights' own stage 1: ``hierarchy``: c, c and f,
all of g, c and f (Table 4). ``direct``: diffusion straight on the voxels, without latents (Figure 14), beside c and f.
``baseline``: one global latent for each scene, as GAUDI has them, beside g, c and f. ``latents``: all of ``hierarchy``
and ``baseline`` on one stage 1. With ``--adapted`` rows of latents do not begin from scratch, but with all networks of
the weights, of which the latents that are left out are cut off: what each is worth to networks that have learned for
hours. Rows are judged by the Fréchet distance of generated pictures to those of test maps, in the features of the
weights' frame classifier, or of EfficientNet-Lite0 where there is none, as a multiple of that of training pictures,
with ``--restore`` a second time after the weights' restorer has drawn over them, as ``generate --refine`` has it do;
``low`` and ``high`` are its bounds, had other scenes been sampled. Bounds hold nine times of ten.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from nfldm3d.data.encoded_scenes import EncodedScenes
from nfldm3d.data.scene_dataset import SceneDataset
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.data.scenes import spread
from nfldm3d.evaluation.autoencoder_report import judge_autoencoders
from nfldm3d.evaluation.chance import bootstrap
from nfldm3d.evaluation.frechet_ratio import FrechetRatio, load_judge
from nfldm3d.evaluation.metrics import Lpips
from nfldm3d.geometry import Box
from nfldm3d.models.gaudi.autodecoder import SceneAutodecoder, coarsest
from nfldm3d.models.nfldm.denoisers import GlobalDenoiser, GridDenoiser
from nfldm3d.models.nfldm.latent_autoencoder import LatentAutoencoder
from nfldm3d.models.nfldm.scene_autoencoder import PAPER, SceneAutoencoder
from nfldm3d.models.nfldm.scene_voxels import FULL, Voxels
from nfldm3d.models.nfldm.trajectories import POSES, path_cameras
from nfldm3d.models.nfldm.views import cubic_box
from nfldm3d.models.priors.restorer import Restorer
from nfldm3d.models.weight_folders import find_weights
from nfldm3d.models.weights import Network, load_network
from nfldm3d.pipelines.autoencoders import Autoencoders
from nfldm3d.pipelines.encoding import describe_scenes, encode_scenes
from nfldm3d.pipelines.global_generator import GlobalGenerator
from nfldm3d.pipelines.sampling import Sampler, split_generator
from nfldm3d.pipelines.scene_generator import SceneGenerator
from nfldm3d.scene import Scene
from nfldm3d.training import TrainingOptions, train
from nfldm3d.training.autodecoder_stage import AutodecoderStage, CodedSource, write_codes
from nfldm3d.training.denoiser_stage import DenoiserStage, LatentSet, LatentSetSource, make_denoiser, make_schedule
from nfldm3d.training.latent_stage import LatentSource, LatentStage
from nfldm3d.training.scene_source import Drawing, SceneSource
from nfldm3d.training.scene_stage import PAPER_WEIGHTS, SceneStage, SceneWeights
from nfldm3d.training.stage import Stage

SMALL = {"image_widths": (48, 64), "grid_widths": (48, 64), "decoder_widths": (32, 48)}
LATENT = {"width": 64, "fine_width": 48}
SCHEDULE = {"evaluate_every": 0, "ema_decay": 0.99, "warmup_steps": 50}
VOXEL_SIZES = {(32, 32, 8): 2, (64, 64, 16): 2, (128, 128, 32): 1}
"""The stride of the frustums' grid for each resolution: finer voxels need finer frustums, or they stay empty."""
RESOLUTION = (32, 32, 8)
"""Of the fields that are generated where stage 1 is trained here."""
LEVELS = {"c": (False, False), "c+f": (True, False), "g+c+f": (True, True)}
"""Whether there are f and g."""
GENERATORS = {"hierarchy": tuple(LEVELS), "direct": ("c+f", "voxels"), "baseline": ("g+c+f", "GAUDI-style")}
GENERATORS |= {"latents": (*LEVELS, "GAUDI-style")}
AUTOENCODERS: dict[str, list[dict]] = {
    "voxel-size": [{"resolution": size, "stride": stride} for size, stride in VOXEL_SIZES.items()],
    "density": [{"density": "inferred"}, {"density": "explicit"}],
    "pooling": [{"pooling": "mean"}, {"pooling": "attention"}],
    "surfaces": [{"signed": False}, {"signed": True}],
    "recipe": [{"plain": True}, {"plain": False}],
    "downsampling": [],  # see there
}


class Trials:
    """The data, the budget, and the rows."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments, self.steps = arguments, arguments.steps
        self.training, self.held_out = (SceneDataset(arguments.data, split=split) for split in ("train", "test"))
        self.scenes = list(spread(self.training, arguments.scenes))
        self.keys = [scene.key for scene in self.scenes]
        self.first: torch.Tensor | None = None

    def run(self, stage: Stage, steps: int, batch: int = 2, rate: float = 8e-4) -> None:
        """The same schedule for all."""
        rate, batch = rate / 2 if self.arguments.adapted else rate, min(batch, len(self.scenes))
        about = SCHEDULE | {"precision": self.arguments.precision}
        options = TrainingOptions(steps=steps, batch_size=batch, learning_rate=rate, **about)
        with tempfile.TemporaryDirectory() as folder:
            train(stage, folder, options=options)
        stage.model.eval()

    def autoencoders(self) -> Iterator[dict]:
        """A row for each auto-encoder."""
        which = self.arguments.which
        for change in AUTOENCODERS[which]:
            networks = self.train_scene(**change)
            yield change | self.measure(networks, "from_colour" if which == "recipe" else "encoded")
        if which == "downsampling":
            yield from self.downsampling()

    def downsampling(self) -> Iterator[dict]:
        base = Autoencoders(Autoencoders.from_pretrained(self.arguments.weights).scene, None)
        with tempfile.TemporaryDirectory() as fields:
            encode_scenes(base, self.scenes, fields)
            for downsampling in (16, 8, 4):
                torch.manual_seed(0)
                model = LatentAutoencoder(downsampling=downsampling, **LATENT, **shape_of(base))
                source = LatentSource(EncodedScenes(fields), self.scenes, self.keys)
                self.run(LatentStage(model, base.scene, source, self.held_out, judged=1), self.steps)
                networks = Autoencoders(base.scene, model)
                yield {"downsampling": downsampling} | self.measure(networks, "compressed")

    def train_scene(self, *, plain: bool = False, **changes) -> Autoencoders:
        torch.manual_seed(0)
        model = SceneAutoencoder(**(SMALL | (PAPER if plain else {}) | changes))
        source = SceneSource(self.scenes, Drawing(without_depth=1.0) if plain else Drawing())
        weights = PAPER_WEIGHTS if plain else SceneWeights()
        self.run(SceneStage(model, source, self.held_out, weights=weights, judged=1), self.steps)
        return Autoencoders(model.requires_grad_(False), None)

    def measure(self, networks: Autoencoders, part: str) -> dict:
        report = judge_autoencoders(networks, spread(self.held_out, self.arguments.judged))
        name = {"encoded": "", "from_colour": "_from_colour"}.get(part)
        found = dict(report.summary()["latent_autoencoder" if name is None else f"scene_autoencoder{name}"])  # type: ignore[call-overload]
        psnr = torch.tensor([score.psnr for score in getattr(report, part)])
        if self.first is None:
            self.first = psnr
        else:
            gain, draws = psnr - self.first, torch.Generator().manual_seed(0)
            bounds = bootstrap(lambda chosen: float(gain[chosen].mean()), len(gain), rounds=1000, generator=draws)
            found["gain"] = [round(bound, 3) for bound in bounds]
        return found

    def generators(self) -> Iterator[dict]:
        """A row for each generator."""
        judge = load_judge(find_weights(self.arguments.weights))
        count = self.arguments.generated * self.arguments.views
        ratio = FrechetRatio.against(judge, self.training, self.held_out, pictures=count)
        base = self.find_stage_1()
        with tempfile.TemporaryDirectory() as work:
            encode_scenes(base, self.scenes, Path(work, "fields"))
            fields = EncodedScenes(Path(work, "fields"))
            for name in GENERATORS[self.arguments.which]:
                if name in LEVELS:
                    made = self.sample_hierarchy(base, fields, name, Path(work, name))
                else:
                    made = (self.sample_voxels if name == "voxels" else self.sample_global)(base, fields)
                figures = ratio.of(made)
                if self.arguments.restore:
                    draw = Restorer.from_pretrained(self.arguments.weights).draw
                    figures |= {f"{figure}_restored": value for figure, value in ratio.of(made, draw=draw).items()}
                yield {"generator": name, **figures}

    def find_stage_1(self) -> Autoencoders:
        """That of the weights, or one of small fields from scratch."""
        if not (self.arguments.trained or self.arguments.adapted):
            return self.train_scene(resolution=RESOLUTION)
        trained = Autoencoders.from_pretrained(self.arguments.weights).scene
        return Autoencoders(trained.requires_grad_(False), None)

    def sample_hierarchy(self, base: Autoencoders, fields: EncodedScenes, name: str, folder: Path) -> list[Scene]:
        fine, everything = LEVELS[name]
        torch.manual_seed(0)
        shape, used = shape_of(base) | LATENT, {"use_fine": fine, "use_global": everything}
        latent = self.adapt(LatentAutoencoder, "latent_autoencoder", **used) or LatentAutoencoder(**shape, **used)
        source = LatentSource(fields, self.scenes, self.keys)
        lpips = Lpips.find_like() if self.arguments.adapted else None  # as those networks have learned
        self.run(LatentStage(latent, base.scene, source, self.held_out, lpips=lpips, judged=1), self.steps, 4, 6e-4)
        networks = Autoencoders(base.scene, latent.requires_grad_(False))
        encode_scenes(networks, self.scenes, folder, keep="latents", fields=fields)
        latents, denoisers = LatentSetSource(EncodedScenes(folder)), {}
        for level in ("g", "c", "f") if fine else ("g", "c"):  # g holds the path where there is no global latent
            torch.manual_seed(0)
            kind = GlobalDenoiser if level == "g" else GridDenoiser
            model = self.adapt(kind, f"denoiser_{level}") or make_denoiser(level, latents, use_map=False)  # type: ignore[arg-type]
            stage = DenoiserStage(level, model, latents, latents, without_map=1.0, judged=1)  # type: ignore[arg-type]
            self.run(stage, *self.budget(level))
            denoisers[f"denoiser_{level}"] = model
        denoisers |= {"scheduler": make_schedule(), "box_size": latents.encoded.header["box_size"]}
        return self.sample(SceneGenerator(base.scene, latent, **denoisers))

    def adapt(self, kind: type[Network], name: str, **changes) -> Network | None:
        """A network of the weights with some other options, if rows begin there."""
        if not self.arguments.adapted:
            return None
        trained = load_network(kind, find_weights(self.arguments.weights) / name)
        options = {key: value for key, value in trained.config.items() if key[0] != "_"}  # type: ignore[attr-defined]
        network = kind(**(options | changes))
        network.load_state_dict(trained.state_dict())
        return network

    def budget(self, level: str) -> tuple[int, int, float]:
        """Steps, batch and rate of a denoiser: steps of g take a hundredth of the time of others."""
        steps = self.arguments.denoiser_steps
        return (4 * steps, 128, 2e-3) if level == "g" else (steps, 16 if level == "c" else 8, 6e-4)

    def sample_global(self, base: Autoencoders, fields: EncodedScenes) -> list[Scene]:
        """The baseline: as many steps in stage 2, and the denoiser of g, larger."""
        torch.manual_seed(0)
        source, shape = CodedSource(fields, self.scenes, self.keys), shape_of(base)
        model = SceneAutodecoder(source.keys, **shape, downsampling=coarsest(shape["resolution"]), **LATENT)
        self.run(AutodecoderStage(model, base.scene, source, judged=1), self.steps, 4, 6e-4)
        about = describe_scenes(self.scenes[0], base.scene.grid)
        with tempfile.TemporaryDirectory() as folder:
            write_codes(model, source.scenes, range(len(source)), Path(folder, "codes"), about)
            codes = LatentSetSource(EncodedScenes(Path(folder, "codes")))
            size = codes.read(0).g.shape[1]
            denoiser = GlobalDenoiser(size, widths=(768, 576, 384), parts=(size - 5 * POSES, 5 * POSES))
            self.run(DenoiserStage("g", denoiser, codes, codes, judged=1), *self.budget("g"))
        parts = (base.scene, model, denoiser, make_schedule(), about["box_size"])
        return self.sample(GlobalGenerator(*parts))  # type: ignore[arg-type]

    def sample(self, pipeline: SceneGenerator | GlobalGenerator) -> list[Scene]:
        pipeline.set_progress_bar_config(disable=True)
        draws, steps = torch.Generator().manual_seed(0), self.arguments.sampling_steps
        return pipeline.generate(self.arguments.generated, num_inference_steps=steps, generator=draws).scenes

    def sample_voxels(self, base: Autoencoders, fields: EncodedScenes) -> list[Scene]:
        """Without latents: one denoiser of as many steps as three. Skies and paths are those of training scenes."""
        x, _, z = shape_of(base)["resolution"]
        source, channels = VoxelSource(fields), (1 + int(base.scene.config["channels"])) * z
        torch.manual_seed(0)
        widths, attention = (96, 144, 192), (False, True, True)
        model = GridDenoiser(channels, x, widths=widths, attention=attention, layers=1, dimensions=0)
        self.run(DenoiserStage("c", model, source, source, judged=1), 3 * self.arguments.denoiser_steps, 16, 6e-4)
        skies = torch.stack([fields[n].tensors["sky"].float() for n in range(len(fields))])
        sampler, made = Sampler(make_schedule(), self.arguments.sampling_steps, progress=False), []
        for draws in split_generator(torch.Generator().manual_seed(0), self.arguments.generated):
            grid = sampler.sample("voxels", model, (channels, x, x), [draws], torch.device("cpu"))
            values = model.scaling.denormalize(grid).unflatten(1, (-1, z)).permute(0, 3, 4, 2, 1)
            number = int(torch.randint(len(fields), (), generator=draws))
            voxels = Voxels(values[..., 0].sigmoid(), values[..., 1:], skies[number : number + 1])
            made.append(self.place(base, voxels[0], self.scenes[number % len(self.scenes)]))
        return made

    def place(self, base: Autoencoders, voxels: Voxels, sample: SceneSample) -> Scene:
        """Around the origin, with the path of a training scene."""
        x, y, z = sample.box.size
        assert sample.trajectory is not None
        lifted = torch.cat((sample.trajectory[:, :3] - torch.tensor(sample.box.center), sample.trajectory[:, 3:]), -1)
        box = cubic_box(Box.from_center((0.0, 0.0, 0.0), (x, y, z)), shape_of(base)["resolution"])
        return base.assemble_voxels(voxels, box, path_cameras(lifted, 64, 64))


def shape_of(base: Autoencoders) -> dict:
    """Of the fields of a stage 1, as networks of stage 2 are told."""
    return {name: base.scene.config[name] for name in ("resolution", "channels", "sky_rows")}


class VoxelSource(LatentSetSource):
    """Fields as one folded grid each, in place of a coarse latent."""

    def __init__(self, encoded: EncodedScenes):
        self.encoded = encoded

    def read(self, index: int) -> LatentSet:
        tensors = self.encoded[index].tensors
        occupancy = tensors["occupancy"].float().clamp(FULL, 1 - FULL).logit()[..., None]
        grid = torch.cat((occupancy, tensors["features"].float()), dim=-1)
        folded = grid.permute(3, 2, 0, 1).flatten(0, 1)[None]  # x y z channels -> 1 channels*z x y
        return LatentSet(torch.zeros(1, 1), folded, folded[:, :0], None)


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="shards of nfldm3d capture driving or vizdoom --scenes")
    parser.add_argument("--which", choices=(*AUTOENCODERS, *GENERATORS), required=True)
    parser.add_argument("--weights", default="vizdoom", help="a trained stage 1, perhaps with a frame classifier")
    parser.add_argument("--trained", action="store_true", help="generators on the stage 1 of the weights")
    parser.add_argument("--adapted", action="store_true", help="rows of latents begin with the weights, less a latent")
    parser.add_argument("--restore", action="store_true", help="judge generators by restored pictures, too")
    parser.add_argument("--steps", type=int, default=400, help="optimiser steps of each auto-encoder")
    parser.add_argument("--denoiser-steps", type=int, default=1500, help="optimiser steps of each denoiser")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"), help="of forward passes")
    parser.add_argument("--sampling-steps", type=int, default=25, help="steps of the sampler")
    parser.add_argument("--scenes", type=int, default=300, help="scenes to train on")
    parser.add_argument("--judged", type=int, default=96, help="held-out scenes that auto-encoders are measured on")
    parser.add_argument("--generated", type=int, default=96, help="scenes that generators are measured on")
    parser.add_argument("--views", type=int, default=24, help="pictures of each of them")
    trials = Trials(arguments := parser.parse_args(given))
    for figures in trials.generators() if arguments.which in GENERATORS else trials.autoencoders():
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
