"""Scenes to latents and back, with the path of a camera, and a note in each scene of what it was made from."""

import hashlib
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.fields import VoxelField, require_voxels
from nfldm3d.geometry import Box
from nfldm3d.models.nfldm.latent_autoencoder import LatentAutoencoder, Latents
from nfldm3d.models.nfldm.scene_autoencoder import SceneAutoencoder
from nfldm3d.models.nfldm.scene_voxels import voxels_of
from nfldm3d.models.nfldm.trajectories import pack_path, path_cameras, path_past, unpack_path
from nfldm3d.models.nfldm.views import Views, cubic_box
from nfldm3d.pipelines.autoencoders import Autoencoders
from nfldm3d.pipelines.scene_latents import SceneLatents
from nfldm3d.scene import Scene

PICTURE = 256
"""Pixels along each side of the cameras that a generated scene comes with."""
KEY = "nfldm3d"
"""Of the entry in a scene's metadata that says how it was generated."""


@dataclass(frozen=True)
class SceneCoder:
    """The auto-encoders of a scene generator."""

    scene_autoencoder: SceneAutoencoder
    latent_autoencoder: LatentAutoencoder
    box: Box
    """Where scenes lie unless something else is said."""
    sha256: str
    """Of the weights."""
    device: torch.device
    """Where the networks run."""

    @property
    def networks(self) -> Autoencoders:
        """Both auto-encoders."""
        return Autoencoders(self.scene_autoencoder, self.latent_autoencoder)

    @torch.no_grad()
    def decode(self, made: SceneLatents, box: Box | None = None) -> list[Scene]:
        """The scenes of latents, in ``box``."""
        box = box or self.box
        networks, scenes = self.networks, []
        made = made.to(self.device)
        voxels = self.latent_autoencoder.decode(self.latent_autoencoder.quantize(made.latents)[0])
        for number in range(len(made)):
            one = made[number]
            cameras = path_cameras(unpack_path(one.paths[0], box), PICTURE, PICTURE)
            scene = networks.assemble_voxels(voxels[number], box, cameras)
            extras = {name: getattr(one.latents, name)[0] for name in ("g", "c", "f")}
            scenes.append(self.note(replace(scene, extras=extras | {"path": one.paths[0]})))
        return scenes

    def note(self, scene: Scene) -> Scene:
        """The scene with a note that it is, as it stands, what these weights make of its latents."""
        about = {"weights": self.sha256, "field": _field_sha256(scene)}
        return replace(scene, metadata=scene.metadata | {KEY: about})

    @torch.no_grad()
    def encode(self, views: Views, box: Box, path: Float[Tensor, "poses 5"] | None = None) -> SceneLatents:
        """The latents of posed images; the path is that of the cameras, one after another, unless one is given."""
        box = cubic_box(box, self.scene_autoencoder.grid)
        encoding = self.scene_autoencoder.encode(views.to(self.device), box)
        latents = self.latent_autoencoder.encode(voxels_of(encoding.field, encoding.background)).latents
        path = path_past(views.camera) if path is None else path
        return SceneLatents(latents, pack_path(path, box)[None].to(latents.g))

    @torch.no_grad()
    def recall(self, scene: Scene) -> SceneLatents | None:
        """The latents that a scene was generated from, by these weights and unchanged since; else None."""
        about = scene.metadata.get(KEY)
        if not isinstance(about, dict) or about.get("weights") != self.sha256:
            return None
        if not isinstance(scene.field, VoxelField) or about.get("field") != _field_sha256(scene):
            return None
        if not {"g", "c", "f", "path"} <= set(scene.extras):
            return None
        g, c, f, path = (scene.extras[name][None].to(self.device) for name in ("g", "c", "f", "path"))
        return SceneLatents(Latents(g, c, f), path)


def _field_sha256(scene: Scene) -> str:
    """Of the density, which tells whether a scene was changed."""
    density = require_voxels(scene.field, "a generated scene").density
    return hashlib.sha256(density.detach().cpu().float().contiguous().numpy().tobytes()).hexdigest()
