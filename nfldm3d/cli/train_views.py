"""``nfldm3d train view-diffusion``: a network that draws an object from elsewhere (3DiM), and its baselines."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nfldm3d.cli.training_run import begin_with, run_stage
from nfldm3d.training import TrainingOptions

VIEW_DENOISER = "view_denoiser"
"""The folder of such a network among weights."""


@dataclass(frozen=True)
class TrainViewDiffusion:
    """3DiM: from one view of an object to any other, learned from pairs of views of many objects."""

    data: Path
    """Shards of nfldm3d capture objects, SRN's cars_train beside cars_test, a category of CO3Dv2, or a folder of
    captures. One training shape in twenty is held out to choose the best weights by; what is marked for tests stays
    unseen."""
    out: Path
    """Run folder."""
    options: Annotated[TrainingOptions, tyro.conf.arg(name="")] = field(
        default_factory=lambda: TrainingOptions(batch_size=4, weight_decay=0.0, ema_decay=0.999, evaluate_every=1000)
    )
    """How to train; a sample is an object, of which PAIRS pairs are drawn."""
    pairs: int = 4
    """Pairs of views of each object in a batch."""
    nearby: float = 0.0
    """Degrees: views are paired with such about as near, as views of an orbit are; 0 pairs all alike, as published."""
    size: int = 64
    """Pixels along each side to which pictures are brought."""
    patch: int = 2
    """Pixels along each side that are one place for the network: 1 as published, more for small processors."""
    channels: int = 32
    """Of the finest level."""
    multiples: tuple[int, ...] = (1, 2, 4)
    """Of these channels, at each level."""
    blocks: int = 1
    """At each level."""
    attention: tuple[int, ...] = (8, 16)
    """Places along a side of the levels with attention within and across views."""
    memory: int = 96
    """Numbers in which noise and pose are told."""
    dropout: float = 0.0
    """Share of channels left out in training."""
    prediction: Literal["epsilon", "v", "picture"] = "picture"
    """What is learned: the noise as published, v, or the picture itself, soonest learned by small networks."""
    relative: bool = True
    """Whether azimuths are counted from the given view, so that a photograph needs none."""
    planes: int = 16
    """Over which the given view is swept for the view to draw, so that small networks need not find out what a ray may
    show; 0 leaves it out, as published."""
    octaves: tuple[int, int] = (4, 4)
    """Of the sines in which ray origins and directions are told; 15 and 8 as published."""
    published: bool = False
    """The published network for 128 pixels instead, 462 million weights; SIZE to DROPOUT say nothing then."""
    kind: Literal["xunet", "concat"] = "xunet"
    """``concat`` is the baseline of one frame with both pictures in its channels."""
    objective: Literal["diffusion", "regression"] = "diffusion"
    """``regression`` is the baseline without noise."""
    untold: float = 0.1
    """Share of pairs of which the given view is left out; of none for the regression."""
    start_from: str | None = None
    """Weights to begin with, where they fit: a run folder or a folder with view_denoiser."""
    resume: bool = False
    """Go on with the run in OUT."""

    def run(self) -> None:
        """Trains and writes the weights."""
        from nfldm3d.data.view_sets import open_view_sets
        from nfldm3d.models.views.xunet import PUBLISHED_128, XUNet, XUNetOptions
        from nfldm3d.training.view_stage import ViewDiffusionStage, ViewPairSource

        options: XUNetOptions = {
            "size": self.size,
            "patch": self.patch,
            "channels": self.channels,
            "multiples": self.multiples,
            "blocks": self.blocks,
            "attention": self.attention,
            "memory": self.memory,
            "dropout": self.dropout,
            "prediction": self.prediction,
            "relative": self.relative,
            "planes": self.planes,
            "octaves": self.octaves,
        }
        options = PUBLISHED_128.copy() if self.published else options
        options |= {"kind": self.kind, "objective": self.objective}
        size = options.get("size", self.size)
        source, held_out = (
            ViewPairSource(open_view_sets(self.data, side, size=size), self.pairs, self.nearby)
            for side in ("train", "val")
        )
        model = XUNet(**options)
        begin_with(model, self.start_from, VIEW_DENOISER)
        stage = ViewDiffusionStage(model, source, held_out, untold=self.untold)
        run_stage(stage, (VIEW_DENOISER, model), self.out, self.options, self.resume)
