"""The hierarchy of denoisers, p(f | g, c) p(c | g) p(g) of NF-LDM: each level is sampled given those above."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nfldm3d.geometry import Box
from nfldm3d.models.nfldm.denoisers import GlobalDenoiser, GridDenoiser
from nfldm3d.models.nfldm.latent_autoencoder import LatentAutoencoder, Latents
from nfldm3d.models.nfldm.trajectories import POSES, pack_path
from nfldm3d.pipelines.path_choice import draw_fitting
from nfldm3d.pipelines.sampling import Kept, Sampler
from nfldm3d.pipelines.scene_latents import SceneLatents
from nfldm3d.pipelines.windows import over_windows


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

    def to(self, device: torch.device) -> "Condition":
        """The same on another device."""
        bev, embedding = (None if some is None else some.to(device) for some in (self.bev, self.embedding))
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
class GlobalPrior:
    """p(g, camera path)."""

    denoiser: GlobalDenoiser
    box: Box
    """Of scenes, in which camera paths are in metres."""
    path_odds: Sequence[float]
    """See ``SceneGenerator``."""
    device: torch.device

    def sample(
        self,
        sampler: Sampler,
        generators: Sequence[torch.Generator],
        condition: Condition = FREE,
        trajectory: Float[Tensor, "poses 5"] | None = None,
    ) -> Float[Tensor, "scenes dimensions"]:
        """g with the camera path, which is kept if it is given, and else fits the map; see ``draw_fitting``."""
        model, size = self.denoiser, int(self.denoiser.config["dimensions"])
        kept = None
        if trajectory is not None:
            values = torch.zeros(len(generators), size, device=self.device)
            values[:, -5 * POSES :] = pack_path(trajectory.to(self.device), self.box)
            share = torch.zeros_like(values)
            share[:, -5 * POSES :] = 1
            kept = Kept(model.scaling.normalize(values), share)

        def draw(generators: Sequence[torch.Generator], condition: Condition) -> Tensor:
            def predict(noisy: Tensor, step: Tensor) -> Tensor:
                return condition.guide(lambda bev, embedding, path: model(noisy, step, bev, embedding))

            return model.scaling.denormalize(sampler.sample("g", predict, (size,), generators, self.device, kept))

        if trajectory is not None or condition.bev is None or not self.path_odds:
            return draw(generators, condition)
        return draw_fitting(
            lambda seeds, scenes: draw(seeds, condition.of(scenes)),
            generators,
            condition.bev,
            torch.tensor(self.path_odds, device=self.device),
        )


@dataclass(frozen=True)
class Hierarchy:
    """The denoisers of all levels; those of g and f may be missing, whose latents are then zeros."""

    latent_autoencoder: LatentAutoencoder
    denoiser_g: GlobalDenoiser | None
    denoiser_c: GridDenoiser
    denoiser_f: GridDenoiser | None
    box: Box
    """Of scenes, in which camera paths are in metres."""
    path_odds: Sequence[float]
    """See ``SceneGenerator``."""
    device: torch.device

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
        return self.unfold(g, c, f)

    def unfold(self, g: Tensor, c: Tensor, f: Tensor) -> SceneLatents:
        """Latents as the auto-encoder has them, from what the denoisers make."""
        heights, length = self.latent_autoencoder.coarse_heights, 5 * POSES
        return SceneLatents(Latents(g[:, :-length], c.unflatten(1, (-1, heights)), f), g[:, -length:])

    def fold(self, made: SceneLatents) -> tuple[Tensor, Tensor, Tensor]:
        """g with the camera path, c and f as the denoisers take them: the inverse of ``unfold``."""
        return torch.cat((made.latents.g, made.paths), dim=1), made.latents.c.flatten(1, 2), made.latents.f

    def sample_g(
        self,
        sampler: Sampler,
        generators: Sequence[torch.Generator],
        condition: Condition = FREE,
        trajectory: Float[Tensor, "poses 5"] | None = None,
    ) -> Float[Tensor, "scenes dimensions"]:
        """g with the camera path, which is kept if it is given, and else fits the map; see ``draw_fitting``."""
        model = self.denoiser_g
        if model is None:
            size = self.latent_autoencoder.vector_size + 5 * POSES
            return torch.zeros(len(generators), size, device=self.device)
        prior = GlobalPrior(model, self.box, self.path_odds, self.device)
        return prior.sample(sampler, generators, condition, trajectory)

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
        model = self.denoiser_c if level == "c" else self.denoiser_f
        if model is None:
            size = int(self.latent_autoencoder.config["resolution"][0])
            channels = int(self.latent_autoencoder.config["latent_channels"])
            shape = [size + (count - 1) * size // 2 for count in windows]
            return torch.zeros(len(generators), channels, *shape, device=self.device)
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
        return model.scaling.denormalize(sampler.sample(level, predict, shape, generators, self.device, kept))

    def interpolate(self, first: SceneLatents, second: SceneLatents, count: int = 8) -> SceneLatents:
        """``count`` scenes from one to the other, ends included: great circles between normalised latents."""
        shares = torch.linspace(0, 1, count, device=self.device)
        parts = []
        for a, b, model in zip(
            self.fold(first.to(self.device)),
            self.fold(second.to(self.device)),
            (self.denoiser_g, self.denoiser_c, self.denoiser_f),
            strict=True,
        ):
            if model is None:
                parts.append(a.expand(count, *a.shape[1:]))
                continue
            ends = model.scaling.normalize(a), model.scaling.normalize(b)
            parts.append(model.scaling.denormalize(_great_circle(*ends, shares)))
        return self.unfold(*parts)


def _great_circle(a: Tensor, b: Tensor, shares: Tensor) -> Tensor:
    flat_a, flat_b = a.flatten(), b.flatten()
    angle = torch.acos((flat_a @ flat_b / (flat_a.norm() * flat_b.norm()).clamp(min=1e-9)).clamp(-0.9999, 0.9999))
    shares = shares.view(-1, *[1] * (a.dim() - 1))
    mixed = torch.sin((1 - shares) * angle) * a + torch.sin(shares * angle) * b
    return mixed / torch.sin(angle)
