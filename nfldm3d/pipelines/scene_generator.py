"""Whole scenes from nothing, or from a bird's-eye map: the hierarchy of denoisers and the decoders behind it."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float, Int64
from torch import Tensor

from nfldm3d._types import PathName
from nfldm3d.files import DataFormatError
from nfldm3d.geometry import Box
from nfldm3d.models.nfldm.denoisers import GlobalDenoiser, GridDenoiser
from nfldm3d.models.nfldm.latent_autoencoder import LatentAutoencoder
from nfldm3d.models.nfldm.scene_autoencoder import SceneAutoencoder
from nfldm3d.models.nfldm.views import Views
from nfldm3d.models.weight_folders import INDEX, device_of, find_weights, require_options
from nfldm3d.pipelines.autoencoders import Autoencoders
from nfldm3d.pipelines.bev_input import BevInput, read_map
from nfldm3d.pipelines.embeddings import read_embedding
from nfldm3d.pipelines.encoding import fingerprint
from nfldm3d.pipelines.generation import GeneratedScenes, choose_draws, generate_scenes
from nfldm3d.pipelines.generator_files import OPTIONAL, PARTS, read_parts
from nfldm3d.pipelines.hierarchy import Condition, Hierarchy
from nfldm3d.pipelines.sampling import Generators, Sampler, step_callback
from nfldm3d.pipelines.scene_coding import SceneCoder
from nfldm3d.pipelines.scene_editing import Editor, extend, resample
from nfldm3d.pipelines.scene_latents import SceneLatents
from nfldm3d.pipelines.schedulers import require_fit
from nfldm3d.scene import Scene

Callback = Callable[["SceneGenerator", int, Tensor | None, dict[str, Any]], dict[str, Any]]
"""As diffusers' ``callback_on_step_end``: the pipeline, the step, None, and ``level`` and ``latents``; what it returns
under ``latents`` is gone on with."""


class SceneGenerator(DiffusionPipeline):
    """p(V, g, c, f) = p(V | g, c, f) p(f | g, c) p(c | g) p(g) (NF-LDM, equation 1), each part sampled in turn."""

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
        cls, weights: PathName, device: torch.device | str | None = None, **options: Any
    ) -> "SceneGenerator":
        """Reads weights that come with the package, by name, or a folder that ``save_pretrained`` wrote.

        Args:
            weights: one of ``shipped_weights()``, else a folder, or with ``hub=True`` a name on the Hugging Face Hub.
            options: diffusers' own, those of ``LoadOptions``; and arguments of the constructor that take the place
                of what the weights hold, such as ``scheduler=`` or ``denoiser_f=None``.

        Raises:
            TypeError: an option that does not exist.
            ValueError: an option's value that cannot be followed.
            DataFormatError: something is missing, damaged or of another version; nothing is made up.
        """
        given = {name: options.pop(name) for name in PARTS if name in options}
        require_options(options, "SceneGenerator.from_pretrained", PARTS)
        folder = find_weights(weights, **options)
        parts = read_parts(folder, given, options.get("variant"))
        try:
            pipeline = cls(**parts).to(device_of(device, options))
        except ValueError as error:
            raise DataFormatError(folder / INDEX, str(error)) from error
        dtype = options.get("torch_dtype")
        return pipeline if dtype is None else pipeline.to(dtype)

    def enable_sequential_cpu_offload(self, *arguments: Any, **options: Any) -> None:
        """Refused: the networks are small, and what they make keeps some of them."""
        raise ValueError("a scene generator cannot be offloaded; its networks are small: move it with .to('cuda')")

    enable_model_cpu_offload = enable_sequential_cpu_offload

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
        generator: Generators = None,
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
            scheduler: one of diffusers' that fits the networks; default: the pipeline's own.
            generator: one for all scenes, or a list of one for each.
            batch_size: scenes that are made at once, which bounds the memory.

        Raises:
            ValueError: the map, the embedding, the scheduler or a number does not fit.
            SamplingError: numbers are not finite.
        """
        if num_scenes < 1 or batch_size < 1:
            raise ValueError(f"num_scenes and batch_size must be at least 1, got {num_scenes} and {batch_size}")
        draws = choose_draws(num_scenes, numbers, generator)
        sampler = self.sampler(num_inference_steps, scheduler, callback_on_step_end)
        classes = None if bev is None else self.read_map(bev, num_scenes)
        dimensions = int(self.denoiser_c.config["embedding_dimensions"])
        tokens = None if embedding is None else read_embedding(embedding, dimensions, num_scenes)
        condition = Condition(classes, tokens, guidance_scale, path_guidance_scale)
        return generate_scenes(self.coder, self.hierarchy, sampler, draws, condition, trajectory, batch_size)

    def sampler(
        self, steps: int = 40, scheduler: Any = None, callback: Callback | None = None, rounds: int = 1
    ) -> Sampler:
        """How to sample; raises a ValueError for a scheduler that would give noise."""
        shown = not getattr(self, "_progress_bar_config", {}).get("disable", False)
        wanted = self.scheduler if scheduler is None else scheduler
        on_step = None if callback is None else step_callback(self, callback)
        sampler = Sampler(wanted, steps, rounds, shown, on_step)
        require_fit(wanted, steps, self.scheduler)
        return sampler

    def read_map(self, bev: BevInput, scenes: int = 1) -> Int64[Tensor, "scenes x y"]:
        """Class numbers of a bird's-eye map, as ``generate`` takes it; a ValueError says what is wrong with it."""
        return read_map(bev, self.config["map_classes"], self.config["map_palette"], self.map_size, scenes)

    @torch.no_grad()
    def edit(
        self,
        scene: Scene,
        box: Box,
        *,
        num_inference_steps: int = 40,
        rounds: int = 1,
        scheduler: Any = None,
        generator: torch.Generator | None = None,
        callback_on_step_end: Callback | None = None,
    ) -> Scene:
        """The scene with everything in ``box`` sampled again, given all that is around it (NF-LDM, section 5).

        Outside the box grown by ``scene_editing.MARGIN`` voxels, the field stays the same, number by number. A scene
        that was not generated is first encoded from pictures of it, which costs sharpness.

        Args:
            box: in world metres, within the scene.
            rounds: how often each step is taken; more than one makes borders more coherent.

        Raises:
            ValueError: the box lies outside the scene, or the scheduler does not fit.
            SamplingError: numbers are not finite.
        """
        sampler = self.sampler(num_inference_steps, scheduler, callback_on_step_end, rounds)
        return resample(Editor(self.coder, self.hierarchy, sampler, generator), scene, box)

    @torch.no_grad()
    def grow(
        self,
        windows: tuple[int, int] = (3, 3),
        *,
        scene: Scene | None = None,
        num_inference_steps: int = 40,
        scheduler: Any = None,
        generator: torch.Generator | None = None,
        callback_on_step_end: Callback | None = None,
    ) -> Scene:
        """One larger scene of overlapping windows along x and y, each half a window on from the one before.

        With ``scene`` the middle of the world is that scene.

        Raises:
            ValueError: fewer than one window, or the scheduler does not fit.
            SamplingError: numbers are not finite.
        """
        sampler = self.sampler(num_inference_steps, scheduler, callback_on_step_end)
        return extend(Editor(self.coder, self.hierarchy, sampler, generator), windows, scene)

    @property
    def coder(self) -> SceneCoder:
        """The auto-encoders, on the device where they run."""
        return SceneCoder(
            self.scene_autoencoder, self.latent_autoencoder, self.box, self.sha256, self._execution_device
        )

    def decode(self, made: SceneLatents, box: Box | None = None) -> list[Scene]:
        """The scenes of latents, in ``box`` (default: the one generated scenes lie in)."""
        return self.coder.decode(made, box)

    @property
    def hierarchy(self) -> Hierarchy:
        """The denoisers, on the device where they run."""
        return Hierarchy(
            self.latent_autoencoder,
            self.denoiser_g,
            self.denoiser_c,
            self.denoiser_f,
            self.box,
            self.config["path_odds"],
            self._execution_device,
        )

    @property
    def networks(self) -> Autoencoders:
        """Both auto-encoders."""
        return self.coder.networks

    def encode(self, views: Views, box: Box, path: Float[Tensor, "poses 5"] | None = None) -> SceneLatents:
        """The latents of posed images; the path is that of the cameras, one after another, unless one is given."""
        return self.coder.encode(views, box, path)

    def recall(self, scene: Scene) -> SceneLatents | None:
        """The latents that a scene was generated from, by these weights and unchanged since; else None."""
        return self.coder.recall(scene)

    def interpolate(self, first: SceneLatents, second: SceneLatents, count: int = 8) -> SceneLatents:
        """``count`` scenes from one to the other, ends included: great circles between normalised latents."""
        return self.hierarchy.interpolate(first, second, count)
