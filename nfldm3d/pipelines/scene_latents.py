"""What generated scenes are made from: the latents of the auto-encoder with the path of a camera."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.models.nfldm.latent_autoencoder import Latents


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

    def to(self, target: torch.device | torch.dtype | str) -> "SceneLatents":
        """The same on another device or in another dtype."""
        return SceneLatents(self.latents.to(target), self.paths.to(target))

    @staticmethod
    def stack(parts: "Sequence[SceneLatents]") -> "SceneLatents":
        """Several in one."""
        joined = (torch.cat([getattr(part.latents, name) for part in parts]) for name in ("g", "c", "f"))
        return SceneLatents(Latents(*joined), torch.cat([part.paths for part in parts]))
