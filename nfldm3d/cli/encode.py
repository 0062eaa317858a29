"""``nfldm3d encode``: posed images to a scene, or a data set to fields, latents or pairs, by trained networks."""

import functools
import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from nfldm3d.cli.devices import open_device
from nfldm3d.cli.values import require_at_least
from nfldm3d.data import SceneFolder, read_posed_images
from nfldm3d.data.logs import LogCut, find_log
from nfldm3d.data.scene_dataset import SceneDataset
from nfldm3d.files import check_output
from nfldm3d.jobs import Share
from nfldm3d.models.nfldm.scene_voxels import ORIENTATIONS
from nfldm3d.models.weight_folders import DEFAULT
from nfldm3d.placement import Up, keep_motion
from nfldm3d.scene_file import check_target
from nfldm3d.written_files import writing


@dataclass(frozen=True)
class Encode:
    """Encodes one capture to a scene (OUT ends in .nfld), or every scene of a data set to fields or latents."""

    data: Annotated[Path, tyro.conf.Positional]
    """A capture, shards of nfldm3d capture --scenes, a folder of captures, or nuScenes or KITTI-360 as published."""
    out: Path
    """Scene file, or folder for encodings."""
    weights: str = DEFAULT
    """Weights of the auto-encoders: a name of those that nfldm3d comes with, a folder, or a run of nfldm3d train."""
    hub: bool = False
    """Look for the weights on the Hugging Face Hub, by a name such as OWNER/NAME; nothing else ever asks a network."""
    keep: Literal["fields", "decoded", "latents", "pairs"] = "fields"
    """What of each scene is kept; ``decoded``: fields after their way through the latents, as generated ones look;
    ``pairs``: renders of what was encoded (and compressed, if the weights hold stage 2) beside photographs."""
    split: Literal["train", "test", "all"] = "train"
    """Which scenes of a data set; one capture is taken whole."""
    turns: tuple[int, ...] | None = None
    """Orientations in which each scene is kept: number k of 0 to 7 is a world mirrored along y if k >= 4, then turned
    by k % 4 quarters. By default fields are kept as they are, as training turns them itself; latents in all eight."""
    embeddings: Path | None = None
    """With latents, a condition for the denoisers: a .safetensors file with a tensor for each scene, by its key, such
    as the embedding of its class or of a text."""
    fields: Path | None = None
    """With latents or decoded fields: a folder of the same scenes' fields, kept before with the same weights of stage
    1, from which they are made without looking at pictures again."""
    scene: int = 0
    """Which scene of the data set, if OUT is a scene file."""
    views: int = 16
    """At most so many views are encoded to a scene file, evenly chosen."""
    use_depth: bool = True
    """Whether to a scene file depth is an input, where the capture has it."""
    images: Path | None = None
    """Folder of the pictures of a COLMAP model, if it is not called images."""
    up: Up = "auto"
    """Which direction of a capture's world points upwards; auto asks the cameras where the format does not say."""
    cut: Annotated[LogCut, tyro.conf.arg(name="")] = field(default_factory=LogCut)
    """How a log becomes scenes."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where the networks run."""

    def run(self) -> None:
        """Encodes and saves."""
        require_at_least(self, scene=0, views=1)
        self._check()
        device, one = open_device(self.device), self.out.suffix == ".nfld"
        if one:
            check_target(self.out)
        else:
            check_output(self.out, folder=True)
        from nfldm3d.data.encoded_scenes import read_embeddings
        from nfldm3d.pipelines import Autoencoders

        given = None if self.embeddings is None else read_embeddings(self.embeddings)
        if given is not None and one:
            raise ValueError("--embeddings goes with --keep latents and a folder as --out, not with one scene file")
        if self.fields is not None and one:
            raise ValueError(
                "--fields goes with --keep latents or decoded and a folder as --out, not with a scene file"
            )
        with writing(self.out if one else None, overwrite=True):
            networks = Autoencoders.from_pretrained(self.weights, device, hub=self.hub)
            scenes = self._open_scenes(one)
            figures = self._encode_one(networks, scenes) if one else self._encode_all(networks, scenes, given)
        print(json.dumps(figures))  # noqa: T201 - the command's result

    def _check(self) -> None:
        if wrong := [turn for turn in self.turns or () if not 0 <= turn < ORIENTATIONS]:
            raise ValueError(f"--turns are numbers from 0 to {ORIENTATIONS - 1}, got {wrong[0]}")

    def _open_scenes(self, one: bool) -> SceneDataset | SceneFolder:
        from nfldm3d.cli.scene_sets import VIEWS, open_scenes

        read = functools.partial(read_posed_images, images=self.images, up=self.up)
        views = max(VIEWS, self.views) if one else VIEWS
        scenes = open_scenes(self.data, self.split, whole=True, views=views, read=read, cut=self.cut)
        kind = "shards" if isinstance(scenes, SceneDataset) else "a log" if find_log(self.data) else None
        if kind is not None and (self.images is not None or self.up != "auto"):
            raise ValueError(
                f"{self.data} holds {kind}, where pictures have their places and z is up; leave --images and --up out"
            )
        return scenes

    def _encode_all(self, networks, scenes, embeddings) -> dict[str, object]:
        from nfldm3d.data.encoded_scenes import EncodedScenes
        from nfldm3d.pipelines.encoding import encode_scenes

        report = encode_scenes(
            networks,
            scenes,
            self.out,
            keep=self.keep,
            turns=self.turns,
            embeddings=embeddings,
            fields=None if self.fields is None else EncodedScenes(self.fields),
            share=Share.from_launcher(),
        )
        return {"written": report.written, "present": report.present, "left_out": len(report.problems)}

    def _encode_one(self, networks, scenes) -> dict[str, object]:
        from nfldm3d.pipelines.autoencoders import views_of

        if self.scene >= len(scenes):
            raise ValueError(f"--scene must lie between 0 and {len(scenes) - 1}, got {self.scene}")
        sample = scenes[self.scene]
        count = min(self.views, len(sample.images))
        views = views_of(sample, [number * len(sample.images) // count for number in range(count)])
        if not self.use_depth:
            views = replace(views, depth=None)
        start = time.monotonic()
        scene = replace(networks.encode(views, sample.box), metric=sample.metric, metadata=keep_motion(sample.metadata))
        seconds = time.monotonic() - start
        scene.to("cpu").save(self.out)
        return {"scene": sample.key, "views": count, "seconds": round(seconds, 3), "out": str(self.out)}
