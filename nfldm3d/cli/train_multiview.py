"""``nfldm3d train multiview``: a text-to-image model that draws many views at once (ViewDiff)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import tyro

from nfldm3d.cli.devices import open_device
from nfldm3d.cli.training_run import run_and_write
from nfldm3d.training import TrainingOptions

if TYPE_CHECKING:
    from nfldm3d.guidance.latent_prior import LatentPrior
    from nfldm3d.guidance.pixel_prior import PixelPrior
    from nfldm3d.training.multiview_stage import MultiViewSource, PreservedPictures


@dataclass(frozen=True)
class TrainMultiview:
    """ViewDiff: converts a text-to-image model's U-Net, so that it draws all views of an object together, and
    fine-tunes it on views of many objects. OUT/weights is a pipeline's folder."""

    prior: str
    """Folder of a pipeline like Stable Diffusion's, weights in safetensors. Those of nfldm3d train text-prior and of
    DeepFloyd have other networks, which cannot be converted."""
    data: Path
    """What nfldm3d train view-diffusion takes; captions of objects are the texts."""
    out: Path
    """Run folder."""
    options: Annotated[TrainingOptions, tyro.conf.arg(name="")] = field(
        default_factory=lambda: TrainingOptions(
            batch_size=1, learning_rate=5e-5, betas=(0.9, 0.999), schedule="constant", clip_norm=5e-3, precision="fp32"
        )
    )
    """How to train; a sample is an object. Half precision diverges."""
    views: int = 5
    """Of each object."""
    levels: int = 1
    """Blocks with attention, from the middle outwards, that projection layers follow; 0 the middle alone."""
    projection: bool = True
    """Whether there are projection layers; without, an ablation."""
    across: bool = True
    """Whether attention asks across views; without, an ablation."""
    grid: int = 32
    """Voxels along each side of the volumes."""
    rank: int = 64
    """Of the low-rank additions to attention."""
    replace: bool = False
    """Whether what is rendered takes the place of what transformers give, as in the authors' runs."""
    renderer_rate: float = 100.0
    """How much faster the layers that decode volumes learn than the rest: as published; the authors' runs took 20."""
    surroundings: bool | None = None
    """Whether objects that have a mask are shown with what is around them, instead of white: by default those of CO3D
    alone, as published."""
    preserved: int = 100
    """Pictures that the model draws of captions before it is converted, and keeps on learning (published: some 1,000);
    with 0 it forgets what it knew."""
    hub: bool = False
    """Take --prior for a name on the Hugging Face Hub, OWNER/NAME, and download it; nothing else asks a network."""
    resume: bool = False
    """Go on with the run in OUT."""

    def run(self) -> None:
        """Trains and writes the weights."""
        from nfldm3d.cli.values import require_at_least
        from nfldm3d.data.co3d import is_co3d
        from nfldm3d.data.view_sets import open_view_sets
        from nfldm3d.models.views.multiview.view_layers import ViewLayers
        from nfldm3d.models.weight_folders import find_weights
        from nfldm3d.pipelines.views.multiview import MultiViewGenerator, open_text_model
        from nfldm3d.training.multiview_stage import MultiViewSource, MultiViewStage

        require_at_least(self, preserved=0)
        if not 0 < self.renderer_rate < 1e6:
            raise ValueError(f"--renderer-rate must lie above 0 and below a million, got {self.renderer_rate}")
        on_cpu = self.options.device == "cpu" or not torch.cuda.is_available()
        device = open_device("cpu" if on_cpu else "cuda")
        prior = open_text_model(self.prior, device, **({"hub": True} if self.hub else {}))
        surroundings = is_co3d(self.data) if self.surroundings is None else self.surroundings
        source, held_out = (
            MultiViewSource(
                open_view_sets(self.data, side, size=prior.image_size, surroundings=surroundings), self.views
            )
            for side in ("train", "val")
        )
        kept = self._preserve(prior, source)
        layers = ViewLayers.of(
            prior.unet,  # type: ignore[arg-type]
            levels=self.levels if self.projection else None,
            rank=self.rank,
            grid=self.grid,
            replace=self.replace,
            shared=self.across,
            surroundings=surroundings,
        )
        model = MultiViewGenerator.join(prior, layers)
        stage = MultiViewStage(model.network, prior, source, held_out, preserved=kept, renderer_rate=self.renderer_rate)
        origin = find_weights(self.prior, hub=self.hub)
        run_and_write(stage, lambda folder: model.write_into(folder, origin), self.out, self.options, self.resume)

    def _preserve(self, prior: "LatentPrior | PixelPrior", source: "MultiViewSource") -> "PreservedPictures | None":
        """What the model draws of evenly spread captions."""
        from nfldm3d.pipelines.views.multiview import preserve_pictures
        from nfldm3d.training.multiview_stage import PreservedPictures

        if not self.preserved:
            return None
        numbers = [number * len(source) // self.preserved for number in range(self.preserved)]
        captions = [source.sets.read(number, lambda _: torch.tensor([0])).caption for number in numbers]
        draws = torch.Generator().manual_seed(self.options.seed)
        return PreservedPictures(preserve_pictures(prior, captions, generator=draws), tuple(captions))
