"""``nfldm3d capture``: record posed images."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from nfldm3d.cli.capture_emoji import CaptureEmoji
from nfldm3d.cli.capture_objects import CaptureObjects
from nfldm3d.cli.capture_rooms import CaptureRooms
from nfldm3d.cli.values import require_at_least
from nfldm3d.data.logs import LogCut
from nfldm3d.files import check_output
from nfldm3d.jobs import Share
from nfldm3d.written_files import require_free

if TYPE_CHECKING:
    from nfldm3d.recording.shards import RecordingReport


@dataclass(frozen=True)
class CaptureVizdoom:
    """Freedoom maps: one transforms.json capture of one place, or with --scenes many places as tar shards for training;
    a stopped recording goes on if it is started again."""

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
        if self.workers is not None:
            require_at_least(self, workers=1)
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
        share = Share.from_launcher()
        _print_report(record_scenes(self.out, options=options, workers=self.workers, share=share))

    def _maps(self) -> tuple[str, ...]:
        return _split_names(self.map)


@dataclass(frozen=True)
class CaptureDriving:
    """Roads with cars, drawn from the tracks of TORCS (package torcs-data): a rig of six cameras at several stops and
    free views, in any weather, with exact depth, classes and a bird's-eye map. A stopped recording goes on if it is
    started again."""

    out: Path
    """Folder for the shards or captures."""
    scenes: int = 1600
    """Number of scenes, spread evenly over the tracks."""
    test_scenes: int | None = None
    """How many of these are on test tracks; by default each track gives as many as any other."""
    tracks: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Tracks, as street-1,alpine-1 or by repeating the option; all 21 if none is given."""
    split: Literal["train", "test", "all"] = "all"
    """Which of the tracks; four are for tests alone."""
    layout: Literal["shards", "captures", "rig"] = "shards"
    """Tar shards for training, a transforms.json capture for each scene, or a rig.json for each (the rig alone)."""
    data: Path | None = None
    """Folder of torcs-data, or of the unpacked package; by default where the installed package puts it."""
    size: int = 64
    """Width and height of the pictures in pixels."""
    box: tuple[float, float, float] = (32.0, 32.0, 8.0)
    """Extents of a scene in metres; the ego car stands in its middle, a quarter up."""
    stops: int = 4
    """Places along the way where the rig's six cameras take a view each."""
    free: int = 12
    """Views from random poses."""
    seed: int = 0
    """Decides on places, cars, weather and views."""
    workers: int | None = None
    """Processes, by default as many as there are cores; the result does not depend on it."""

    def run(self) -> None:
        """Records and saves."""
        from nfldm3d.recording.driving.shard_recorder import DrivingOptions, record_scenes
        from nfldm3d.recording.driving.torcs import TorcsData
        from nfldm3d.recording.driving.world import SceneShape

        check_output(self.out, folder=True)
        if self.workers is not None:
            require_at_least(self, workers=1)
        options = DrivingOptions(
            scenes=self.scenes,
            test_scenes=self.test_scenes,
            seed=self.seed,
            tracks=_split_names(self.tracks),
            split=self.split,
            shape=SceneShape(size=self.size, box=self.box, stops=self.stops, free=self.free),
        )
        data = TorcsData.find(self.data)
        share = Share.from_launcher()
        if self.layout == "shards":
            _print_report(record_scenes(self.out, data, options=options, workers=self.workers, share=share))
            return
        from nfldm3d.recording.driving.capture_recorder import record_captures

        _print_report(record_captures(self.out, data, options, layout=self.layout, workers=self.workers, share=share))


@dataclass(frozen=True)
class CaptureLog:
    """Recordings of real vehicles as published, nuScenes or KITTI-360: drives are cut into boxes, each seen from
    several stops; pictures are scaled, lidar becomes sparse depth, boxes and streets a bird's-eye map. A stopped run
    goes on if it is started again."""

    log: Annotated[Path, tyro.conf.Positional]
    """Folder of the data set, as it is unpacked."""
    out: Path
    """Folder for the shards or captures."""
    layout: Literal["shards", "captures"] = "shards"
    """Tar shards for training, which need the lidar, or a transforms.json capture for each scene."""
    split: Literal["train", "test", "all"] = "all"
    """Which drives: a tenth is for tests, or what splits.json in the data set's folder says."""
    cut: Annotated[LogCut, tyro.conf.arg(name="")] = field(default_factory=LogCut)
    """How drives become scenes."""
    workers: int | None = None
    """Processes, by default as many as there are cores; each reads the tables."""

    def run(self) -> None:
        """Reads and saves."""
        from nfldm3d.recording.logs import record_log

        check_output(self.out, folder=True)
        if self.workers is not None:
            require_at_least(self, workers=1)
        share = Share.from_launcher()
        report = record_log(
            self.out, self.log, self.cut, split=self.split, layout=self.layout, workers=self.workers, share=share
        )
        _print_report(report)


@dataclass(frozen=True)
class Capture:
    """Records worlds with exact depth, classes and a bird's-eye map, or takes over what real vehicles recorded."""

    world: (
        Annotated[CaptureVizdoom, tyro.conf.subcommand("vizdoom")]
        | Annotated[CaptureDriving, tyro.conf.subcommand("driving")]
        | Annotated[CaptureObjects, tyro.conf.subcommand("objects")]
        | Annotated[CaptureEmoji, tyro.conf.subcommand("emoji")]
        | Annotated[CaptureRooms, tyro.conf.subcommand("rooms")]
        | Annotated[CaptureLog, tyro.conf.subcommand("log")]
    )

    def run(self) -> None:
        """Records and saves."""
        self.world.run()


def _split_names(options: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for names in options for name in names.replace(" ", "").split(",") if name)


def _print_report(report: "RecordingReport") -> None:
    print(json.dumps(report.figures()))  # noqa: T201 - the command's result
