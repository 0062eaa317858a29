"""Trains one denoiser of the hierarchy (stage 3) on the latents of encoded scenes, given their true parents."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DDPMScheduler
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from nfldm3d.data.encoded_scenes import EncodedScenes
from nfldm3d.files import DataFormatError
from nfldm3d.models.nfldm.denoisers import FAR, GlobalDenoiser, GridDenoiser
from nfldm3d.models.nfldm.latent_statistics import find_importance
from nfldm3d.models.nfldm.trajectories import path_size
from nfldm3d.tensor_files import require_finite
from nfldm3d.training.stage import Evaluation

Level = Literal["g", "c", "f"]

MEASURED = 2048
"""Encodings that statistics are taken from."""
AXES = {"g": 1, "path": 1, "c": 4, "f": 3, "bev": 2, "embedding": 2}
"""Of the tensors of an encoding; c has its heights apart from its channels."""
LEVELS_OF_NOISE = 10
"""Time steps at which held-out latents are denoised to judge."""
PLAIN = 0.1
"""Share of the loss of g in which all whitened numbers count alike; the rest goes by what they stand for."""


@dataclass(frozen=True)
class LatentSet:
    """The latents of some scenes, as denoisers take them."""

    g: Float[Tensor, "scenes dimensions"]
    """With the camera path."""
    c: Float[Tensor, "scenes channels u v"]
    """Heights folded into channels."""
    f: Float[Tensor, "scenes fine x y"]
    bev: Int64[Tensor, "scenes map_x map_y"] | None
    embedding: Float[Tensor, "scenes tokens embedding"] | None = None
    """Of a class or a text."""

    def to(self, device: torch.device) -> "LatentSet":
        """The same on another device."""
        given = (None if value is None else value.to(device) for value in (self.bev, self.embedding))
        return LatentSet(self.g.to(device), self.c.to(device), self.f.to(device), *given)


class LatentSetSource:
    """Reads encodings; see ``SampleSource``."""

    def __init__(self, encoded: EncodedScenes):
        """Raises DataFormatError if the folder holds fields rather than latents."""
        self.encoded = encoded
        if encoded.header.get("keep") != "latents":
            raise DataFormatError(encoded.folder, "holds no latents; write them with nfldm3d encode --keep latents")

    def __len__(self) -> int:
        return len(self.encoded)

    @property
    def panorama_spread(self) -> list[float]:
        """As ``LatentAutoencoder.panorama_spread``; a DataFormatError if it cannot be that."""
        spread = self.encoded.header.get("panorama_spread") or []
        size = self.read(0).g.shape[1]
        if len(spread) > size - path_size(size) or not all(0 < one < math.inf for one in spread):
            raise DataFormatError(self.encoded.folder, "panorama_spread does not fit g; encode the scenes again")
        return spread

    def sample(self, index: int, generator: torch.Generator) -> LatentSet:
        """The latents of one scene."""
        return self.read(index)

    def read(self, index: int) -> LatentSet:
        """The latents of one scene, with a scene axis of 1; a DataFormatError if they are damaged."""
        scene = self.encoded[index]
        tensors, path = scene.tensors, self.encoded.folder / self.encoded.names[index]
        missing = [name for name in ("g", "c", "f", "path") if name not in tensors]
        if missing:
            raise DataFormatError(path, f"lacks {', '.join(missing)}; encode the scene again")
        require_finite(tensors, path, "encode the scene again")
        self._require_shapes(tensors, path)
        g = torch.cat((tensors["g"].float(), tensors["path"].float()))
        bev = tensors["bev"].long()[None] if "bev" in tensors else None
        embedding = tensors["embedding"].float()[None] if "embedding" in tensors else None
        return LatentSet(g[None], tensors["c"].float().flatten(0, 1)[None], tensors["f"].float()[None], bev, embedding)

    def _require_shapes(self, tensors: dict[str, Tensor], path: Path) -> None:
        for name, axes in AXES.items():
            shape = tuple(tensors[name].shape) if name in tensors else (1,) * axes
            if len(shape) != axes or (0 in shape and name not in ("c", "f")):  # codes of auto-decoders have neither
                raise DataFormatError(path, f"{name} has shape {shape}, not {axes} axes; encode the scene again")
        classes = self.encoded.header.get("map_classes") or ()
        bev = tensors.get("bev")
        if bev is None or not classes:
            return
        if bev.is_floating_point() or int(bev.min()) < 0 or int(bev.max()) > len(classes):
            raise DataFormatError(path, f"bev is no map of the {len(classes)} classes; encode the scene again")

    def collate(self, samples: Sequence[LatentSet]) -> LatentSet:
        """Several scenes in one; a DataFormatError if they have different shapes."""
        for name in ("g", "c", "f", "bev", "embedding"):
            shapes = {value.shape[1:] for sample in samples if (value := getattr(sample, name)) is not None}
            if len(shapes) > 1:
                shown = " and ".join(sorted(str(tuple(shape)) for shape in shapes)[:2])
                raise DataFormatError(self.encoded.folder, f"holds {name} of {shown}; encode all scenes in one way")
        g, c, f = (torch.cat([getattr(sample, name) for sample in samples]) for name in ("g", "c", "f"))
        given = []
        for name in ("bev", "embedding"):
            some = [getattr(sample, name) for sample in samples if getattr(sample, name) is not None]
            given.append(torch.cat(some) if len(some) == len(samples) else None)
        return LatentSet(g, c, f, *given)

    def spread(self, count: int) -> LatentSet:
        """At most ``count`` scenes, evenly spread."""
        count = min(count, len(self))
        return self.collate([self.read(number * len(self) // count) for number in range(count)])


class DenoiserStage:
    """See ``Stage``; g, c and f are trained one by one, in any order."""

    optional_parameters = True

    def __init__(
        self,
        level: Level,
        model: GlobalDenoiser | GridDenoiser,
        source: LatentSetSource,
        held_out: LatentSetSource,
        *,
        without_map: float = 0.15,
        without_path: float = 0.1,
        most_weight: float = 5.0,
        judged: int = 64,
    ):
        """Measures the statistics of the latents and puts them into the network.

        Args:
            without_map: share of scenes whose map and embedding are left out, for guidance without a classifier (Ho &
                Salimans 2022).
            without_path: share of scenes whose camera path is not drawn, as around the middle of larger worlds.
            most_weight: bound of the ratio of signal to noise, which weighs the error of the latents (Hang et al.
                2023).

        Of g most numbers hardly matter: a few principal components carry nearly all of what differs between scenes. So
        what is learned, the panorama and the path count a third each, and within each every number by its variance.
        """
        self.name = f"denoiser-{level}"
        self.level, self.model, self.source, self.held_out = level, model, source, held_out
        self.without_map, self.without_path = without_map, without_path
        self.most_weight, self.judged = most_weight, judged
        self.schedule = make_schedule()
        self.measure()

    def measure(self) -> None:
        """Takes the statistics of some training latents."""
        some = self.source.spread(MEASURED)
        model = self.model
        model.scaling.measure(getattr(some, self.level))
        if isinstance(model, GlobalDenoiser):
            self.importance = find_importance(model.scaling, self.source.panorama_spread, path_size(some.g.shape[1]))
            if model.config["parts"]:
                model.importance.copy_(self.importance)
        if isinstance(model, GridDenoiser):
            if model.config["dimensions"]:
                model.global_scaling.measure(some.g)
            if model.config["parent_channels"]:
                model.parent_scaling.measure(some.c)

    def config(self) -> dict[str, Any]:
        """The network's constructor arguments."""
        return {name: value for name, value in self.model.config.items() if not name.startswith("_")}

    def to(self, device: torch.device) -> None:
        """Moves the network."""
        self.model.to(device)  # type: ignore[arg-type]

    def loss(self, batch: LatentSet, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean squared error of v, weighed by the ratio of signal to noise."""
        count = len(batch.g)
        timestep = torch.randint(self.schedule.config["num_train_timesteps"], (count,), generator=generator)
        batch = self._forget_conditions(batch, torch.rand(count, generator=generator) < self.without_map)
        shift = FAR * (torch.rand(count, 1, generator=generator) < self.without_path).float().expand(-1, 2)
        errors = self._errors(batch, timestep, generator, shift)
        signal = self.schedule.alphas_cumprod[timestep].to(errors)
        ratio = signal / (1 - signal)
        weight = ratio.clamp(max=self.most_weight) / (ratio + 1)  # min-SNR for v: Hang et al. 2023, section 3.4
        loss = (weight * errors).sum() / weight.sum()
        return loss, {"error": errors.detach().mean()}

    def evaluate(self, generator: torch.Generator) -> Evaluation:
        """Errors of v on held-out scenes, and by how much they grow when a condition is exchanged between scenes."""
        batch = self.held_out.spread(self.judged).to(self.model.device)
        steps = int(self.schedule.config["num_train_timesteps"])
        variants = {"error": batch, "error_without_map": replace(batch, bev=None, embedding=None)}
        if isinstance(self.model, GridDenoiser):
            variants["error_other_g"] = replace(batch, g=batch.g.roll(1, 0))
            if self.model.config["parent_channels"]:
                variants["error_other_c"] = replace(batch, c=batch.c.roll(1, 0))
        if batch.bev is not None:
            variants["error_other_map"] = replace(batch, bev=batch.bev.roll(1, 0))
        if batch.embedding is not None:
            variants["error_other_embedding"] = replace(batch, embedding=batch.embedding.roll(1, 0))
        scalars: dict[str, float] = {}
        seed = generator.initial_seed()
        for name, variant in variants.items():
            draws = torch.Generator().manual_seed(seed)  # the same noise each time
            errors = []
            for level in range(LEVELS_OF_NOISE):
                timestep = torch.full((len(batch.g),), int((level + 0.5) * steps / LEVELS_OF_NOISE))
                errors.append(float(self._errors(variant, timestep, draws).mean()))
            scalars[name] = sum(errors) / len(errors)
            if name == "error":
                scalars |= {f"error_{number}": value for number, value in enumerate(errors)}
        return Evaluation(-scalars["error"], scalars)

    def _errors(
        self,
        batch: LatentSet,
        timestep: Int64[Tensor, " scenes"],
        generator: torch.Generator,
        shift: Float[Tensor, "scenes 2"] | None = None,
    ) -> Float[Tensor, " scenes"]:
        """The mean squared error of v of each scene."""
        model = self.model
        clean = model.scaling.normalize(getattr(batch, self.level))
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        timestep = timestep.to(clean.device)
        noisy = self.schedule.add_noise(clean, noise, timestep)  # type: ignore[arg-type]
        target = self.schedule.get_velocity(clean, noise, timestep)  # type: ignore[arg-type]
        bev = batch.bev if model.config["map_classes"] else None
        embedding = batch.embedding if model.config["embedding_dimensions"] else None
        if isinstance(model, GlobalDenoiser):
            made = model(noisy, timestep, bev, embedding)
        else:
            g = model.global_scaling.normalize(batch.g) if model.config["dimensions"] else None
            parent = model.parent_scaling.normalize(batch.c) if model.config["parent_channels"] else None
            shift = None if shift is None else shift.to(clean.device)
            made = model(noisy, timestep, g, parent, bev, embedding, shift)
        return self._weigh(made.float() - target)

    def _weigh(self, errors: Float[Tensor, "scenes channels *grid"]) -> Float[Tensor, " scenes"]:
        """The mean square of errors of whitened or scaled latents, of g by what its numbers stand for."""
        plain = errors.square().flatten(1).mean(1)
        if not isinstance(self.model, GlobalDenoiser):
            return plain
        own = self.model.scaling.unwhiten(errors).square() @ self.importance.to(errors.device)
        return PLAIN * plain + (1 - PLAIN) * own

    def _forget_conditions(self, batch: LatentSet, forgotten: Bool[Tensor, " scenes"]) -> LatentSet:
        forgotten = forgotten.to(batch.g.device)[:, None, None]
        unknown = int(self.model.config["map_classes"])
        bev = None if batch.bev is None else torch.where(forgotten, unknown, batch.bev)
        embedding = None if batch.embedding is None else torch.where(forgotten, 0.0, batch.embedding)
        return replace(batch, bev=bev, embedding=embedding)


def make_denoiser(
    level: Level, source: LatentSetSource, *, size: Literal["small", "paper"] = "small", use_map: bool = True
) -> GlobalDenoiser | GridDenoiser:
    """A new network of the shape that the latents of ``source`` need."""
    header, some = source.encoded.header, source.read(0)
    classes = len(header.get("map_classes", ())) if use_map and some.bev is not None else 0
    condition: dict[str, Any] = {"map_classes": classes, "map_size": int(header.get("map_size") or 64)}
    condition["dimensions"] = some.g.shape[1]
    condition["embedding_dimensions"] = 0 if some.embedding is None else some.embedding.shape[-1]
    small = size == "small"
    if level == "g":
        sizes = len(source.panorama_spread), path_size(some.g.shape[1])
        parts = [part for part in (some.g.shape[1] - sum(sizes), *sizes) if part]
        return GlobalDenoiser(widths=(384, 288, 192) if small else (2048, 1536, 1024), parts=tuple(parts), **condition)
    if level == "c":
        widths, attention = ((96, 144), (True, True)) if small else ((256, 512, 1024), (True, True, True))
        condition |= {"channels": some.c.shape[1], "size": some.c.shape[-1], "path_beside": True}
    else:
        widths, attention = ((64, 96, 128), (False, True, True))
        if not small:
            widths, attention = (192, 384, 576, 960), (False, True, True, True)
        condition |= {"channels": some.f.shape[1], "size": some.f.shape[-1], "parent_channels": some.c.shape[1]}
        condition["patch"] = 2
    return GridDenoiser(widths=widths, attention=attention, layers=1 if small else 2, **condition)


def make_schedule() -> DDPMScheduler:
    """The noise of the hierarchy: 1,000 steps, squared cosine, v-prediction.

    It samples with fresh noise at each step: deterministic samplers give paler scenes with few, round walls.
    """
    return DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        timestep_spacing="trailing",
    )
