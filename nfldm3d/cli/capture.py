"""``nfldm3d capture``: record posed images."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nfldm3d.files import check_output, require_free
from nfldm3d.jobs import Share


@dataclass(frozen=True)
class Capture:
    """Records Freedoom maps with exact depth, classes and a bird's-eye map: one transforms.json capture of one place,
    or with --scenes many places as tar shards for training; a stopped recording goes on if it is started again."""

    source: Annotated[Literal["vizdoom"], tyro.conf.Positional]
    """What to record from."""
    out: Path
    """Folder for the capture or the shards."""
    map: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Freedoom map, MAP01 to MAP32 or E1M1 to E4M9; MAP01 if none is given. With --scenes several, as MAP01,E1M1 or by
    repeating the option; all 68 if none is given."""
    scenes: int | None = None
    """Record so many scenes, spread evenly over the maps, as shards."""
    views: int | None = None
    """Number of views: 60, or 24 of each scene."""
    size: int | None = None
    """Width and height of the pictures in pixels: 128, or 64 with --scenes."""
    seed: int = 0
    """Seeds the choice of views, and of places."""
    walk: bool = False
    """Walk along a path instead of scattering the views; every one of many scenes holds a walk anyway."""
    overwrite: bool = False
    """Replace a capture that this program wrote there and nobody has changed (not with --scenes)."""
    split: Literal["train", "test", "all"] = "all"
    """Only with --scenes: which of the maps; ten are for tests alone."""
    workers: int | None = None
    """Only with --scenes: processes, by default as many as there are cores."""

    def run(self) -> None:
        """Records and saves."""
        if self.scenes is None:
            self._record_one()
        else:
            self._record_many(self.scenes)

    def _record_one(self) -> None:
        from nfldm3d.recording.vizdoom.recorder import CaptureOptions, record_vizdoom

        if self.split != "all" or self.workers is not None:
            raise ValueError("--split and --workers are for many scenes; give --scenes, or leave them out")
        views, size = 60 if self.views is None else self.views, 128 if self.size is None else self.size
        options = CaptureOptions(views=views, size=size, seed=self.seed, walk=self.walk)
        names = self._maps()
        if len(names) > 1:
            raise ValueError(f"one capture shows one map, got {', '.join(names)}; name one, or give --scenes")
        check_output(self.out, folder=True)
        require_free(self.out.resolve(), overwrite=self.overwrite)
        record_vizdoom(names[0] if names else "MAP01", options=options).save(self.out, overwrite=self.overwrite)

    def _record_many(self, scenes: int) -> None:
        from nfldm3d.recording.vizdoom.shard_recorder import SceneOptions, record_scenes

        check_output(self.out, folder=True)
        if self.walk or self.overwrite:
            raise ValueError("--walk and --overwrite are for one place; leave them out, or leave --scenes out")
        options = SceneOptions(
            scenes=scenes,
            views=24 if self.views is None else self.views,
            size=64 if self.size is None else self.size,
            seed=self.seed,
            maps=self._maps(),
            split=self.split,
        )
        report = record_scenes(self.out, options=options, workers=self.workers, share=Share.from_launcher())
        speed = report.recorded_views / max(report.seconds, 1e-9)
        figures = {"scenes": report.scenes, "skipped": report.skipped, "missing": report.missing}
        figures |= {"seconds": round(report.seconds, 1), "views_per_second": round(speed, 1)}
        print(json.dumps(figures))  # noqa: T201 - the command's result

    def _maps(self) -> tuple[str, ...]:
        return tuple(name for names in self.map for name in names.replace(" ", "").split(",") if name)
