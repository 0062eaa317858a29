"""Whole scenes from one global latent each: the GAUDI-style baseline that the hierarchy is compared with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float, Int64
from torch import Tensor

from nfldm3d._types import PathName
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.files import DataFormatError
from nfldm3d.geometry import Box
from nfldm3d.models.gaudi.autodecoder import SceneAutodecoder
from nfldm3d.models.nfldm.denoisers import GlobalDenoiser
from nfldm3d.models.nfldm.scene_autoencoder import SceneAutoencoder
from nfldm3d.models.nfldm.trajectories import POSES, path_cameras, unpack_path
from nfldm3d.models.nfldm.views import cubic_box
from nfldm3d.models.weights import load_network
from nfldm3d.pipelines.autoencoders import Autoencoders
from nfldm3d.pipelines.bev_input import BevInput, read_map
from nfldm3d.pipelines.generation import choose_draws
from nfldm3d.pipelines.generator_files import read_index, read_options, read_scheduler
from nfldm3d.pipelines.hierarchy import Condition, GlobalPrior
from nfldm3d.pipelines.sampling import Generators, Sampler
from nfldm3d.pipelines.scene_coding import PICTURE
from nfldm3d.pipelines.schedulers import require_fit
from nfldm3d.scene import Scene

NETWORKS: dict[str, type[torch.nn.Module]] = {
    "scene_autoencoder": SceneAutoencoder,
    "autodecoder": SceneAutodecoder,
    "denoiser_g": GlobalDenoiser,
}


@dataclass(frozen=True)
class GlobalScenes:
    """What ``GlobalGenerator.generate`` returns."""

    scenes: list[Scene]
    """Each with its cameras along the sampled path."""
    vectors: Float[Tensor, "scenes dimensions"]
    """The code of each, and its path."""


class GlobalGenerator(DiffusionPipeline):
    """p(V, z) = p(V | z) p(z, camera path), z a vector: what a hierarchy of latents has to be better than."""

    def __init__(
        self,
        scene_autoencoder: SceneAutoencoder,
        autodecoder: SceneAutodecoder,
        denoiser_g: GlobalDenoiser,
        scheduler: Any,
        box_size: Sequence[float] = (32.0, 32.0, 8.0),
        map_classes: Sequence[str] = (),
        map_palette: Sequence[Sequence[int]] = (),
        path_odds: Sequence[float] = (),
    ):
        """Puts trained networks together; ``scene_autoencoder`` draws, the other options are ``SceneGenerator``'s.

        Raises:
            ValueError: the denoiser is of codes of another size.
        """
        super().__init__()
        size = int(autodecoder.config["global_dimensions"]) + 5 * POSES
        if int(denoiser_g.config["dimensions"]) != size:
            raise ValueError(
                f"denoiser_g is for vectors of {denoiser_g.config['dimensions']} numbers, codes and paths have {size}; "
                "train it on the codes of this auto-decoder"
            )
        self.register_modules(
            scene_autoencoder=scene_autoencoder, autodecoder=autodecoder, denoiser_g=denoiser_g, scheduler=scheduler
        )
        self.register_to_config(
            box_size=list(box_size),
            map_classes=list(map_classes),
            map_palette=[list(color) for color in map_palette],
            path_odds=list(path_odds),
        )

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, weights: PathName, device: torch.device | str | None = None
    ) -> "GlobalGenerator":
        """Reads a folder that ``save_pretrained`` or ``nfldm3d assemble`` wrote.

        Raises:
            DataFormatError: something is missing, damaged or of another version.
        """
        folder = Path(weights)
        index = read_index(folder, cls.__name__)
        parts = read_options(index, folder / "model_index.json")
        for name, network in NETWORKS.items():
            if not (folder / name).is_dir():
                raise DataFormatError(folder, f"holds no folder {name}, which this generator needs; copy it there")
            parts[name] = load_network(network, folder / name).requires_grad_(False)
        return cls(scheduler=read_scheduler(folder / "scheduler"), **parts).to(device or "cpu")

    @property
    def box(self) -> Box:
        """Where generated scenes lie: around the origin."""
        x, y, z = self.config["box_size"]
        return Box.from_center((0.0, 0.0, 0.0), (x, y, z))

    @property
    def map_size(self) -> int:
        """Cells of a bird's-eye map along x and y; 0 if the networks take none."""
        config = self.denoiser_g.config
        return int(config["map_size"]) if config["map_classes"] else 0

    @property
    def networks(self) -> Autoencoders:
        """What encodes recorded scenes and draws all."""
        return Autoencoders(self.scene_autoencoder, None)

    def read_map(self, bev: BevInput, scenes: int = 1) -> Int64[Tensor, "scenes x y"]:
        """Class numbers of a bird's-eye map, as ``generate`` takes it; a ValueError says what is wrong with it."""
        return read_map(bev, self.config["map_classes"], self.config["map_palette"], self.map_size, scenes)

    @torch.no_grad()
    def generate(
        self,
        num_scenes: int = 1,
        bev: BevInput | None = None,
        *,
        numbers: Sequence[int] | None = None,
        guidance_scale: float = 8.0,
        num_inference_steps: int = 40,
        generator: Generators = None,
        batch_size: int = 8,
    ) -> GlobalScenes:
        """New scenes; the arguments are those of ``SceneGenerator.generate``.

        Raises:
            ValueError: the map, the scheduler or a number does not fit.
            SamplingError: numbers are not finite.
        """
        if num_scenes < 1 or batch_size < 1:
            raise ValueError(f"num_scenes and batch_size must be at least 1, got {num_scenes} and {batch_size}")
        require_fit(self.scheduler, num_inference_steps, self.scheduler)
        shown = not getattr(self, "_progress_bar_config", {}).get("disable", False)
        sampler, device = Sampler(self.scheduler, num_inference_steps, progress=shown), self._execution_device
        draws = choose_draws(num_scenes, numbers, generator)
        condition = Condition(None if bev is None else self.read_map(bev, num_scenes), None, guidance_scale)
        prior = GlobalPrior(self.denoiser_g, self.box, self.config["path_odds"], device)
        scenes: list[Scene] = []
        vectors: list[Tensor] = []
        for first in range(0, len(draws), batch_size):
            chosen, generators = zip(*draws[first : first + batch_size], strict=True)
            wanted = condition.of(torch.tensor(chosen)).to(device)
            vectors.append(prior.sample(sampler, generators, wanted))
            scenes += self._decode(vectors[-1])
        return GlobalScenes(scenes, torch.cat(vectors))

    @torch.no_grad()
    def recall(self, sample: SceneSample) -> Scene:
        """A training scene from its code; a ValueError if it is none."""
        place = torch.tensor([self.autodecoder.find(sample.key)], device=self._execution_device)
        voxels = self.autodecoder.decode(self.autodecoder.codes_of(place))
        box = cubic_box(sample.box, self.scene_autoencoder.grid)
        return self.networks.assemble_voxels(voxels[0], box)

    def _decode(self, vectors: Float[Tensor, "scenes dimensions"]) -> list[Scene]:
        codes, paths = vectors[:, : -5 * POSES], vectors[:, -5 * POSES :]
        voxels = self.autodecoder.decode(codes)
        cameras = [path_cameras(unpack_path(path, self.box), PICTURE, PICTURE) for path in paths]
        return [self.networks.assemble_voxels(voxels[n], self.box, camera) for n, camera in enumerate(cameras)]
