"""Whole scenes from nothing, or from a bird's-eye map: the hierarchy of denoisers and the decoders behind it."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float, Int64
from torch import Tensor, nn

from nfldm3d._types import PathName
from nfldm3d.files import DataFormatError, read_json
from nfldm3d.geometry import Box
from nfldm3d.models.denoisers import GlobalDenoiser, GridDenoiser
from nfldm3d.models.latent_autoencoder import LatentAutoencoder, Latents
from nfldm3d.models.scene_autoencoder import SceneAutoencoder
from nfldm3d.models.scene_voxels import voxels_of
from nfldm3d.models.trajectories import POSES, pack_path, path_cameras, unpack_path
from nfldm3d.models.views import Views, cubic_box
from nfldm3d.models.weights import load_network
from nfldm3d.pipelines.autoencoders import Autoencoders
from nfldm3d.pipelines.bev_input import BevInput, read_classes
from nfldm3d.pipelines.encoding import fingerprint
from nfldm3d.pipelines.path_choice import draw_fitting
from nfldm3d.pipelines.sampling import Kept, Sampler, split_generator
from nfldm3d.pipelines.windows import over_windows
from nfldm3d.scene import Scene

NETWORKS: dict[str, type[nn.Module]] = {
    "scene_autoencoder": SceneAutoencoder,
    "latent_autoencoder": LatentAutoencoder,
    "denoiser_g": GlobalDenoiser,
    "denoiser_c": GridDenoiser,
    "denoiser_f": GridDenoiser,
}
OPTIONAL = ("denoiser_g", "denoiser_f")
OPTIONS = ("box_size", "map_classes", "map_palette", "path_odds")
PICTURE = 256
"""Pixels along each side of the cameras that a generated scene comes with."""
KEY = "nfldm3d"
"""Of the entry in a scene's metadata that says how it was generated."""

Callback = Callable[["SceneGenerator", int, Tensor | None, dict[str, Any]], dict[str, Any]]
"""As diffusers' ``callback_on_step_end``: the pipeline, the step, None, and ``level`` and ``latents``; what it returns
under ``latents`` is gone on with."""


@dataclass(frozen=True)
class SceneLatents:
    """What scenes are made from, a scene axis first."""

    latents: Latents
    """As the latent auto-encoder has them, not quantised."""
    paths: Float[Tensor, "scenes numbers"]
    """Camera paths, packed; see ``pack_path``."""

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> "SceneLatents":
        part = slice(index, index + 1)
        latents = Latents(self.latents.g[part], self.latents.c[part], self.latents.f[part])
        return SceneLatents(latents, self.paths[part])

    @staticmethod
    def stack(parts: "Sequence[SceneLatents]") -> "SceneLatents":
        """Several in one."""
        joined = (torch.cat([getattr(part.latents, name) for part in parts]) for name in ("g", "c", "f"))
        return SceneLatents(Latents(*joined), torch.cat([part.paths for part in parts]))


@dataclass(frozen=True)
class Condition:
    """What scenes shall be like, and how much that counts."""

    bev: Int64[Tensor, "scenes map_x map_y"] | None = None
    embedding: Float[Tensor, "scenes tokens embedding"] | None = None
    guidance_scale: float = 1.0
    path_scale: float = 2.0
    """The same for the camera path that the coarse latent is given: it keeps cameras out of walls."""

    def of(self, scenes: Int64[Tensor, " rows"]) -> "Condition":
        """The conditions of the named scenes."""
        bev, embedding = (None if some is None else some[scenes] for some in (self.bev, self.embedding))
        return replace(self, bev=bev, embedding=embedding)

    def guide(self, look: "Look", sees_path: bool = False) -> Tensor:
        """v with guidance away from what the network makes without the conditions (Ho & Salimans 2022)."""
        known = guided = look(self.bev, self.embedding, True)
        if self.guidance_scale != 1 and not (self.bev is None and self.embedding is None):
            without = look(None, None if self.embedding is None else torch.zeros_like(self.embedding), True)
            guided = guided + (self.guidance_scale - 1) * (known - without)
        if self.path_scale != 1 and sees_path:
            guided = guided + (self.path_scale - 1) * (known - look(self.bev, self.embedding, False))
        return guided


FREE = Condition()
Look = Callable[[Tensor | None, Tensor | None, bool], Tensor]
"""v of a network that is shown a bird's-eye map and an embedding, or neither, and the camera path or not."""


@dataclass(frozen=True)
class GeneratedScenes:
    """What ``SceneGenerator.generate`` returns."""

    scenes: list[Scene]
    """Each with its latents, its cameras along the sampled path, and the sha256 of the weights."""
    latents: SceneLatents
    trajectories: Float[Tensor, "scenes poses 5"]
    """Poses of the paths: x, y, z in metres, cosine and sine of the heading."""


class SceneGenerator(DiffusionPipeline):
    """p(V, g, c, f) = p(V | g, c, f) p(f | g, c) p(c | g) p(g) (NF-LDM, equation 1), each part sampled in turn."""

    model_cpu_offload_seq = "denoiser_g->denoiser_c->denoiser_f->latent_autoencoder->scene_autoencoder"
    _optional_components: ClassVar[list[str]] = list(OPTIONAL)

    def __init__(
        self,
        scene_autoencoder: SceneAutoencoder,
        latent_autoencoder: LatentAutoencoder,
        denoiser_c: GridDenoiser,
        scheduler: Any,
        denoiser_g: GlobalDenoiser | None = None,
        denoiser_f: GridDenoiser | None = None,
        box_size: Sequence[float] = (32.0, 32.0, 8.0),
        map_classes: Sequence[str] = (),
        map_palette: Sequence[Sequence[int]] = (),
        path_odds: Sequence[float] = (),
    ):
        """Puts trained networks together.

        Args:
            box_size: metres of a scene along x, y and z.
            map_classes: names of what a bird's-eye map holds, in the order of its numbers.
            map_palette: an sRGB colour of 0 to 255 for each.
            path_odds: how much more often each class lies under a camera path than anywhere; for a map, paths are
                drawn until one fits it. Empty takes the first.

        Raises:
            ValueError: there are not as many path_odds as map_classes.
        """
        super().__init__()
        if path_odds and len(path_odds) != len(map_classes):
            raise ValueError(
                f"path_odds has {len(path_odds)} values for {len(map_classes)} map_classes; assemble again"
            )
        self.register_modules(
            scene_autoencoder=scene_autoencoder,
            latent_autoencoder=latent_autoencoder,
            denoiser_g=denoiser_g,
            denoiser_c=denoiser_c,
            denoiser_f=denoiser_f,
            scheduler=scheduler,
        )
        self.register_to_config(
            box_size=list(box_size),
            map_classes=list(map_classes),
            map_palette=[list(color) for color in map_palette],
            path_odds=list(path_odds),
        )
        self._sha256: str | None = None

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, folder: PathName, device: torch.device | str = "cpu", **options: Any
    ) -> "SceneGenerator":
        """Reads a folder that ``save_pretrained`` wrote, or one of that name from the hub, in single precision.

        Raises:
            DataFormatError: something is missing, damaged or of another version; nothing is made up.
        """
        folder = Path(folder) if Path(folder).is_dir() else Path(cls.download(str(folder), **options))
        index = _read_index(folder)
        parts: dict[str, Any] = {}
        for name, network in NETWORKS.items():
            if index.get(name, [None])[0] is None and name in OPTIONAL:
                continue
            if not (folder / name).is_dir():
                raise DataFormatError(folder, f"holds no folder {name}, which a scene generator needs; copy it there")
            parts[name] = load_network(network, folder / name).requires_grad_(False)
        scheduler = _read_scheduler(folder / "scheduler")
        known = {name: index[name] for name in OPTIONS if name in index}
        return cls(scheduler=scheduler, **parts, **known).to(device)

    @property
    def box(self) -> Box:
        """Where generated scenes lie: around the origin."""
        x, y, z = self.config["box_size"]
        return Box.from_center((0.0, 0.0, 0.0), (x, y, z))

    @property
    def map_size(self) -> int:
        """Cells of a bird's-eye map along x and y; 0 if the networks take none."""
        config = self.denoiser_c.config
        return int(config["map_size"]) if config["map_classes"] else 0

    @property
    def sha256(self) -> str:
        """Of the weights that turn latents into scenes."""
        if self._sha256 is None:
            parts = fingerprint(self.latent_autoencoder), fingerprint(self.scene_autoencoder)
            self._sha256 = hashlib.sha256("".join(parts).encode()).hexdigest()
        return self._sha256

    def __call__(self, *arguments: Any, **options: Any) -> GeneratedScenes:
        """The same as ``generate``."""
        return self.generate(*arguments, **options)

    @torch.no_grad()
    def generate(
        self,
        num_scenes: int = 1,
        bev: BevInput | None = None,
        trajectory: Float[Tensor, "poses 5"] | None = None,
        *,
        numbers: Sequence[int] | None = None,
        embedding: Float[Tensor, "..."] | None = None,
        guidance_scale: float = 8.0,
        path_guidance_scale: float = 2.0,
        num_inference_steps: int = 40,
        scheduler: Any = None,
        generator: torch.Generator | None = None,
        batch_size: int = 8,
        callback_on_step_end: Callback | None = None,
    ) -> GeneratedScenes:
        """New scenes; the same CPU generator gives the same ones on every device, however many are made at once.

        Args:
            bev: what is where, seen from above: class numbers [x, y], a ``BevMap``, or a picture file whose colours
                are those of ``map_palette``; one for all scenes, or class numbers with a scene axis first.
            trajectory: poses that the camera shall take, as in ``GeneratedScenes.trajectories``; else they are sampled.
            numbers: the scenes to make, of 0 to ``num_scenes`` - 1; default: all. Leaving some out changes no other.
            embedding: of a class or a text, by the encoder that the weights were trained with: one vector, tokens with
                numbers, or a scene axis first.
            guidance_scale: how much more map and embedding count than in training (Ho & Salimans 2022); 1 is no
                guidance.
            path_guidance_scale: the same of the camera path, which lies in the open.
            scheduler: one of diffusers' for v-prediction; default: the pipeline's own.
            batch_size: scenes that are made at once, which bounds the memory.

        Raises:
            ValueError: the map, the embedding, the scheduler or a number does not fit.
            SamplingError: numbers are not finite.
        """
        if num_scenes < 1 or batch_size < 1:
            raise ValueError(f"num_scenes and batch_size must be at least 1, got {num_scenes} and {batch_size}")
        wanted = list(range(num_scenes) if numbers is None else numbers)
        if not wanted or not 0 <= min(wanted) <= max(wanted) < num_scenes:
            raise ValueError(f"numbers must name scenes from 0 to {num_scenes - 1}, got {wanted}")
        sampler = self.sampler(num_inference_steps, scheduler, callback_on_step_end)
        classes = None if bev is None else self.read_map(bev, num_scenes)
        tokens = None if embedding is None else self._read_embedding(embedding, num_scenes)
        generators = split_generator(generator, num_scenes)
        device, parts, scenes = self._execution_device, [], []
        for first in range(0, len(wanted), batch_size):
            part = wanted[first : first + batch_size]
            maps, known = (None if some is None else some[part].to(device) for some in (classes, tokens))
            draws = [generators[number] for number in part]
            condition = Condition(maps, known, guidance_scale, path_guidance_scale)
            latents = self.sample(sampler, draws, condition, trajectory)
            scenes += self.decode(latents)
            parts.append(latents)
        made = SceneLatents.stack(parts)
        return GeneratedScenes(scenes, made, torch.stack([unpack_path(path, self.box) for path in made.paths]))

    def sampler(
        self, steps: int = 40, scheduler: Any = None, callback: Callback | None = None, rounds: int = 1
    ) -> Sampler:
        """How to sample; raises a ValueError for a scheduler that is not for v-prediction."""

        def on_step(level: str, step: int, latents: Tensor) -> Tensor | None:
            assert callback is not None
            return callback(self, step, None, {"level": level, "latents": latents}).get("latents")

        shown = not getattr(self, "_progress_bar_config", {}).get("disable", False)
        wanted = self.scheduler if scheduler is None else scheduler
        return Sampler(wanted, steps, rounds, shown, None if callback is None else on_step)

    def read_map(self, bev: BevInput, scenes: int = 1) -> Int64[Tensor, "scenes x y"]:
        """Class numbers of a bird's-eye map, as ``generate`` takes it; a ValueError says what is wrong with it."""
        if not self.map_size:
            raise ValueError("these weights were trained without maps; leave out bev, or take other weights")
        classes = read_classes(bev, self.config["map_classes"], self.config["map_palette"], self.map_size)
        if len(classes) not in (1, scenes):
            raise ValueError(f"got {len(classes)} maps for {scenes} scenes; give one for all, or one for each")
        return classes.expand(scenes, -1, -1)

    def _read_embedding(self, embedding: Float[Tensor, "..."], scenes: int) -> Float[Tensor, "scenes tokens embedding"]:
        wanted = int(self.denoiser_c.config["embedding_dimensions"])
        if not wanted:
            raise ValueError("these weights were trained without embeddings; leave it out, or take other weights")
        tokens = embedding.float()[(None,) * (3 - embedding.dim())] if 1 <= embedding.dim() <= 3 else embedding
        if tokens.dim() != 3 or tokens.shape[-1] != wanted or len(tokens) not in (1, scenes):
            raise ValueError(
                f"an embedding of shape {tuple(embedding.shape)} does not fit {scenes} scenes; give ({wanted},), "
                f"(tokens, {wanted}) or ({scenes}, tokens, {wanted})"
            )
        return tokens.expand(scenes, -1, -1)

    def sample(
        self,
        sampler: Sampler,
        generators: Sequence[torch.Generator],
        condition: Condition = FREE,
        trajectory: Float[Tensor, "poses 5"] | None = None,
    ) -> SceneLatents:
        """Latents of one batch, from g down to f."""
        g = self.sample_g(sampler, generators, condition, trajectory)
        c = self.sample_grid("c", sampler, generators, g, None, condition)
        f = self.sample_grid("f", sampler, generators, g, c, condition)
        return self.unfold_latents(g, c, f)

    def unfold_latents(self, g: Tensor, c: Tensor, f: Tensor) -> SceneLatents:
        """Latents as the auto-encoder has them, from what the denoisers make."""
        heights, length = self.latent_autoencoder.coarse_heights, 5 * POSES
        return SceneLatents(Latents(g[:, :-length], c.unflatten(1, (-1, heights)), f), g[:, -length:])

    def fold_latents(self, made: SceneLatents) -> tuple[Tensor, Tensor, Tensor]:
        """g with the camera path, c and f as the denoisers take them: the inverse of ``unfold_latents``."""
        return torch.cat((made.latents.g, made.paths), dim=1), made.latents.c.flatten(1, 2), made.latents.f

    def sample_g(
        self,
        sampler: Sampler,
        generators: Sequence[torch.Generator],
        condition: Condition = FREE,
        trajectory: Float[Tensor, "poses 5"] | None = None,
    ) -> Float[Tensor, "scenes dimensions"]:
        """g with the camera path, which is kept if it is given, and else fits the map; see ``draw_fitting``."""
        model, device = self.denoiser_g, self._execution_device
        size = int(self.latent_autoencoder.config["global_dimensions"]) + 5 * POSES
        if model is None:
            return torch.zeros(len(generators), size, device=device)
        kept, odds = None, self.config["path_odds"]
        if trajectory is not None:
            values = torch.zeros(len(generators), size, device=device)
            values[:, -5 * POSES :] = pack_path(trajectory.to(device), self.box)
            share = torch.zeros_like(values)
            share[:, -5 * POSES :] = 1
            kept = Kept(model.scaling.normalize(values), share)

        def draw(generators: Sequence[torch.Generator], condition: Condition) -> Tensor:
            def predict(noisy: Tensor, step: Tensor) -> Tensor:
                return condition.guide(lambda bev, embedding, path: model(noisy, step, bev, embedding))

            return model.scaling.denormalize(sampler.sample("g", predict, (size,), generators, device, kept))

        if trajectory is not None or condition.bev is None or not odds:
            return draw(generators, condition)
        return draw_fitting(
            lambda seeds, scenes: draw(seeds, condition.of(scenes)),
            generators,
            condition.bev,
            torch.tensor(odds, device=device),
        )

    def sample_grid(
        self,
        level: str,
        sampler: Sampler,
        generators: Sequence[torch.Generator],
        g: Float[Tensor, "scenes dimensions"],
        parent: Float[Tensor, "scenes parent u v"] | None,
        condition: Condition = FREE,
        *,
        kept: Kept | None = None,
        windows: tuple[int, int] = (1, 1),
    ) -> Float[Tensor, "scenes channels x y"]:
        """c or f, given what lies above it in the hierarchy.

        Args:
            kept: what stays as it is, as the auto-encoder has it.
            windows: along x and y, each half a window on from the one before: a larger grid, at every step the
                weighted mean of what the network makes of each window (MultiDiffusion, Bar-Tal et al. 2023).
        """
        model, device = (self.denoiser_c if level == "c" else self.denoiser_f), self._execution_device
        if model is None:
            size = int(self.latent_autoencoder.config["resolution"][0])
            channels = int(self.latent_autoencoder.config["latent_channels"])
            shape = [size + (count - 1) * size // 2 for count in windows]
            return torch.zeros(len(generators), channels, *shape, device=device)
        size, channels = int(model.config["size"]), int(model.config["channels"])
        shape = [channels, *(size + (count - 1) * size // 2 for count in windows)]
        known = model.global_scaling.normalize(g) if model.config["dimensions"] else None
        above = None
        if model.config["parent_channels"]:
            assert parent is not None
            above = model.parent_scaling.normalize(parent)

        def predict(noisy: Tensor, step: Tensor) -> Tensor:
            def look(bev: Tensor | None, embedding: Tensor | None, path: bool) -> Tensor:
                return over_windows(model, noisy, step, known, above, bev, embedding, windows, path)

            return condition.guide(look, sees_path=model.config["path_beside"])

        if kept is not None:
            kept = Kept(model.scaling.normalize(kept.values), kept.share)
        return model.scaling.denormalize(sampler.sample(level, predict, shape, generators, device, kept))

    @torch.no_grad()
    def decode(self, made: SceneLatents, box: Box | None = None) -> list[Scene]:
        """The scenes of latents, in ``box`` (default: the one generated scenes lie in)."""
        box = box or self.box
        networks, scenes = self.networks, []
        device = self._execution_device
        latents = Latents(*(getattr(made.latents, name).to(device) for name in ("g", "c", "f")))
        voxels = self.latent_autoencoder.decode(self.latent_autoencoder.quantize(latents)[0])
        for number in range(len(made)):
            one = made[number]
            cameras = path_cameras(unpack_path(one.paths[0], box), PICTURE, PICTURE).to(device)
            scene = networks.assemble_voxels(voxels[number], box, cameras)
            extras = {name: getattr(one.latents, name)[0].cpu() for name in ("g", "c", "f")}
            about = {"weights": self.sha256, "field": field_sha256(scene)}
            extras["path"] = one.paths[0].cpu()
            scenes.append(replace(scene, extras=extras, metadata={KEY: about}))
        return scenes

    @property
    def networks(self) -> Autoencoders:
        """Both auto-encoders."""
        return Autoencoders(self.scene_autoencoder, self.latent_autoencoder)

    @torch.no_grad()
    def encode(self, views: Views, box: Box, path: Float[Tensor, "poses 5"] | None = None) -> SceneLatents:
        """The latents of posed images; the path is that of the cameras, one after another, unless one is given."""
        box = cubic_box(box, self.scene_autoencoder.grid)
        encoding = self.scene_autoencoder.encode(views.to(self._execution_device), box)
        latents = self.latent_autoencoder.encode(voxels_of(encoding.field, encoding.background)).latents
        if path is None:
            forward = views.camera.forward
            heading = torch.nn.functional.normalize(forward[:, :2], dim=-1)
            path = torch.cat((views.camera.centers, heading), dim=-1)
        return SceneLatents(latents, pack_path(path, box)[None].to(latents.g))

    @torch.no_grad()
    def recall(self, scene: Scene) -> SceneLatents | None:
        """The latents that a scene was generated from, by these weights and unchanged since; else None."""
        about = scene.metadata.get(KEY)
        if not isinstance(about, dict) or about.get("weights") != self.sha256:
            return None
        if about.get("field") != field_sha256(scene) or not {"g", "c", "f", "path"} <= set(scene.extras):
            return None
        g, c, f, path = (scene.extras[name][None].to(self._execution_device) for name in ("g", "c", "f", "path"))
        return SceneLatents(Latents(g, c, f), path)

    def interpolate(self, first: SceneLatents, second: SceneLatents, count: int = 8) -> SceneLatents:
        """``count`` scenes from one to the other, ends included: great circles between normalised latents."""
        shares = torch.linspace(0, 1, count, device=first.paths.device)
        parts = []
        for a, b, model in zip(
            self.fold_latents(first),
            self.fold_latents(second),
            (self.denoiser_g, self.denoiser_c, self.denoiser_f),
            strict=True,
        ):
            if model is None:
                parts.append(a.expand(count, *a.shape[1:]))
                continue
            ends = model.scaling.normalize(a), model.scaling.normalize(b)
            parts.append(model.scaling.denormalize(_great_circle(*ends, shares)))
        return self.unfold_latents(*parts)


def field_sha256(scene: Scene) -> str:
    """Of the density, which tells whether a scene was changed."""
    return hashlib.sha256(scene.field.density.detach().cpu().float().contiguous().numpy().tobytes()).hexdigest()


def _great_circle(a: Tensor, b: Tensor, shares: Tensor) -> Tensor:
    flat_a, flat_b = a.flatten(), b.flatten()
    angle = torch.acos((flat_a @ flat_b / (flat_a.norm() * flat_b.norm()).clamp(min=1e-9)).clamp(-0.9999, 0.9999))
    shares = shares.view(-1, *[1] * (a.dim() - 1))
    mixed = torch.sin((1 - shares) * angle) * a + torch.sin(shares * angle) * b
    return mixed / torch.sin(angle)


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / "model_index.json"
    if not path.is_file():
        raise DataFormatError(
            folder, "holds no model_index.json, so it is no scene generator; make one with nfldm3d assemble"
        )
    index = read_json(path)
    if not isinstance(index, dict) or index.get("_class_name") != "SceneGenerator":
        raise DataFormatError(path, "does not describe a SceneGenerator; give another folder")
    return index


def _read_scheduler(folder: Path) -> Any:
    path = folder / "scheduler_config.json"
    if not path.is_file():
        raise DataFormatError(folder, "holds no scheduler_config.json; copy the folder scheduler of the weights")
    config = read_json(path)
    name = config.get("_class_name") if isinstance(config, dict) else None
    cls = getattr(diffusers, str(name), None)
    if not (isinstance(cls, type) and issubclass(cls, diffusers.SchedulerMixin)):
        raise DataFormatError(path, f"names {name!r}, which is none of diffusers' schedulers; write its class name")
    return cls.from_config(config)  # type: ignore[attr-defined]
