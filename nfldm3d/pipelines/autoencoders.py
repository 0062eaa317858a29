"""Both auto-encoders as one: posed images to a scene that shows itself, and to latents and back."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from nfldm3d._types import PathName
from nfldm3d.appearance import EnvironmentMap
from nfldm3d.camera import Camera
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.fields import VoxelField
from nfldm3d.files import DataFormatError
from nfldm3d.geometry import Box
from nfldm3d.models.nfldm.latent_autoencoder import LatentAutoencoder, Latents
from nfldm3d.models.nfldm.scene_autoencoder import SceneAutoencoder
from nfldm3d.models.nfldm.scene_voxels import Voxels, background_of, field_of, voxels_of
from nfldm3d.models.nfldm.views import Views, cubic_box
from nfldm3d.models.weight_folders import DEFAULT, device_of, find_weights, require_options
from nfldm3d.models.weights import load_network
from nfldm3d.placement import keep_motion
from nfldm3d.scene import Scene

SCENE, LATENT = "scene_autoencoder", "latent_autoencoder"


@dataclass(frozen=True)
class Autoencoders:
    """The trained networks of stages 1 and 2."""

    scene: SceneAutoencoder
    latent: LatentAutoencoder | None
    """None if the folder holds stage 1 alone."""

    @classmethod
    def from_pretrained(
        cls, weights: PathName, device: torch.device | str | None = None, **options: Any
    ) -> "Autoencoders":
        """Reads the folders ``scene_autoencoder`` and ``latent_autoencoder`` of weights or of a training run.

        Args:
            weights: one of ``shipped_weights()``, else a folder, or with ``hub=True`` a name on the Hugging Face Hub.
            options: diffusers' own, those of ``LoadOptions``.

        Raises:
            TypeError: an option that does not exist.
            ValueError: an option's value that cannot be followed.
            DataFormatError: weights are missing, damaged or of another network.
        """
        require_options(options, "Autoencoders.from_pretrained")
        folder = find_weights(weights, **options)
        if not (folder / SCENE).is_dir():
            raise DataFormatError(folder, f"holds no folder {SCENE}; give a folder of weights, or the name {DEFAULT!r}")
        variant, place = options.get("variant"), device_of(device, options)
        scene = load_network(SceneAutoencoder, folder / SCENE, variant)
        latent = load_network(LatentAutoencoder, folder / LATENT, variant) if (folder / LATENT).is_dir() else None
        for network in [part for part in (scene, latent) if part is not None]:
            torch.nn.Module.to(network, place, options.get("torch_dtype"))
        return cls(scene, latent)

    @torch.no_grad()
    def encode(self, views: Views, box: Box) -> Scene:
        """A scene from posed images, in one pass of the network; the box is enlarged until its voxels are cubes."""
        views = views.to(self.scene.device)
        encoding = self.scene.encode(views, box)
        return self.assemble(encoding.field, encoding.background, views.camera)

    def encode_sample(self, sample: SceneSample) -> Scene:
        """A recorded scene, from all its views."""
        scene = self.encode(views_of(sample), cubic_box(sample.box, self.scene.grid))
        return replace(scene, metric=sample.metric, metadata=keep_motion(sample.metadata))

    def assemble(self, field: VoxelField, background: EnvironmentMap, cameras: Camera | None = None) -> Scene:
        """A field with the learned appearance."""
        return Scene(field, self.scene.decoder, background, cameras=cameras)

    @torch.no_grad()
    def compress(self, scene: Scene) -> Latents:
        """The latents of an encoded scene, quantised."""
        if self.latent is None or not isinstance(scene.background, EnvironmentMap):
            raise ValueError("latents need the weights of stage 2, and a scene that these auto-encoders have made")
        voxels = voxels_of(scene.field, scene.background).to(self.latent.device)
        return self.latent.quantize(self.latent.encode(voxels).latents)[0]

    @torch.no_grad()
    def decompress(self, latents: Latents, box: Box) -> Scene:
        """The scene of the latents of one scene."""
        if self.latent is None:
            raise ValueError("latents need the weights of stage 2; give a folder that holds latent_autoencoder")
        return self.assemble_voxels(self.latent.decode(latents.to(self.latent.device))[0], box)

    def assemble_voxels(self, voxels: Voxels, box: Box, cameras: Camera | None = None) -> Scene:
        """The scene of one scene's voxels."""
        return self.assemble(field_of(voxels, box), background_of(voxels, self.scene.sky_code), cameras)


def views_of(sample: SceneSample, chosen: Sequence[int] | None = None) -> Views:
    """The views of a scene as the encoder takes them."""
    numbers = list(range(len(sample.images))) if chosen is None else list(chosen)
    mask = None if sample.masks is None else sample.masks[numbers]
    depth = None if sample.depth is None else sample.depth[numbers]
    return Views(sample.images[numbers].float() / 255, sample.camera[numbers], depth, mask)
