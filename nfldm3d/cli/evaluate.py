"""``nfldm3d evaluate``: how good trained networks are on scenes that they have not seen."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from nfldm3d.data.scene_sample import SceneSample


@dataclass(frozen=True)
class Evaluate:
    """Measures trained networks: ``autoencoders`` compares novel views of held-out scenes, before and after
    compression to latents, with the truth."""

    what: Annotated[Literal["autoencoders"], tyro.conf.Positional]
    """What to measure."""
    data: Path
    """Shards of nfldm3d capture --scenes, a folder of captures, or one capture."""
    weights: Path = Path("assets/vizdoom")
    """Weights of the auto-encoders, or a run folder of nfldm3d train."""
    split: Literal["train", "test"] = "test"
    """Which scenes of a data set."""
    scenes: int = 64
    """At most so many scenes, evenly chosen."""
    views: int = 16
    """Views of each scene that are encoded; the others are compared with."""
    page: Path | None = None
    """PNG page of truth, stage 1 and stage 2, one above the other."""
    json: bool = False
    """Print one line of JSON and nothing else."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where the networks run."""

    def run(self) -> None:
        """Measures and prints."""
        from tqdm.auto import tqdm

        from nfldm3d.cli.scenes import open_scenes
        from nfldm3d.data.scenes import spread
        from nfldm3d.pictures import save_image
        from nfldm3d.pipelines.autoencoder_scores import judge_autoencoders
        from nfldm3d.pipelines.autoencoders import Autoencoders

        networks = Autoencoders.from_pretrained(self.weights, self.device)
        found = open_scenes(self.data, self.split)
        count = min(self.scenes, len(found))

        def chosen() -> Iterator[SceneSample]:
            yield from tqdm(spread(found, self.scenes), total=count, desc="judge", unit="scene", disable=self.json)

        report = judge_autoencoders(networks, chosen(), inputs=self.views)
        if self.page is not None:
            save_image(torch.cat(report.strips, dim=-2), self.page)
        print(json.dumps(report.summary(), indent=None if self.json else 1))  # noqa: T201 - the command's result
