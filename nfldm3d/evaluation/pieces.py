"""What an evaluation makes scene by scene, in a folder that several processes fill together."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from nfldm3d.data.scenes import Scenes
from nfldm3d.evaluation.autoencoder_report import AutoencoderReport, judge_autoencoders
from nfldm3d.evaluation.metrics import Lpips
from nfldm3d.jobs import Share
from nfldm3d.pipelines.autoencoders import Autoencoders
from nfldm3d.scene import Scene

BATCH = 8
"""Scenes that are sampled at once."""


@dataclass(frozen=True)
class Pieces:
    """A folder of pieces by set and number; each is made by the process whose share it is, unless it is there."""

    folder: Path
    share: Share

    def judge(
        self, networks: Autoencoders, samples: Scenes, inputs: int, lpips: Lpips | None = None
    ) -> AutoencoderReport | None:
        """See ``judge_autoencoders``; None as long as other processes have not judged their scenes."""
        paths = [self.folder / f"scene_{number:05d}.safetensors" for number in range(len(samples))]
        for number in self._missing(paths):
            judge_autoencoders(networks, [samples[number]], inputs=inputs, lpips=lpips).save(paths[number])
        if not _all_there(paths):
            return None
        return AutoencoderReport.join(map(AutoencoderReport.load, paths))

    def sample(self, name: str, count: int, make: Callable[[list[int]], Iterable[Scene]]) -> bool:
        """Makes the missing scenes of a set from their numbers; whether those of other processes are there, too."""
        paths = self._scene_paths(name, count)
        missing = self._missing(paths)
        for first in range(0, len(missing), BATCH):
            part = missing[first : first + BATCH]
            for number, scene in zip(part, make(part), strict=True):
                scene.to("cpu").save(paths[number])
        return _all_there(paths)

    def load(self, name: str, count: int, device: torch.device) -> list[Scene]:
        """The scenes of a set."""
        return [Scene.load(path, device=device) for path in self._scene_paths(name, count)]

    def _scene_paths(self, name: str, count: int) -> list[Path]:
        return [self.folder / f"{name}_{number:05d}.nfld" for number in range(count)]

    def _missing(self, paths: Sequence[Path]) -> list[int]:
        return [number for number in self.share.of(len(paths)) if not paths[number].is_file()]


def _all_there(paths: Iterable[Path]) -> bool:
    return all(path.is_file() for path in paths)
