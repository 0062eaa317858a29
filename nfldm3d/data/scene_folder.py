"""Many captures in one folder as a data set of scenes: each subfolder is a capture in any layout that can be read.

    scenes/kitchen/transforms.json, scenes/office0/traj.txt, scenes/drive/rig.json, ...
    scenes/splits.json      optional: {"train": ["kitchen", "office0"], "test": ["drive"]}

A driving rig is cut into windows of moments, each a scene; nuScenes and KITTI-360 into boxes along their drives, of
which each counts as a capture (see ``logs``). Without ``splits.json`` a tenth of the captures, chosen by the hash of
their names, is the test set, so that captures which come later change no one's side; drives of one route stay together.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d._types import PathName
from nfldm3d.data.capture_files import natural_key
from nfldm3d.data.driving_rig import DrivingRig
from nfldm3d.data.image_files import SUFFIXES
from nfldm3d.data.json_record import Record
from nfldm3d.data.layouts import find_layout, read_posed_images
from nfldm3d.data.logs import LogCut, find_log, open_log, read_place
from nfldm3d.data.logs.cutting import Place, cut_drive
from nfldm3d.data.logs.drive import Drive
from nfldm3d.data.posed_images import PosedImages
from nfldm3d.data.rig_file import RIG_FILE, RigFile
from nfldm3d.data.scene_box import find_box
from nfldm3d.data.scene_dataset import check_share
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.data.scenes import hash_content, spread_views
from nfldm3d.file_names import compose
from nfldm3d.files import DataFormatError, read_json
from nfldm3d.geometry import Box

Side = Literal["train", "test", "all"]

SPLITS_NAME = "splits.json"
CAPTURED = (*SUFFIXES, ".npy", ".bin", ".txt", ".ply")
DESCRIPTIONS = (RIG_FILE, "transforms*.json")
TEST_SHARE = 10
"""One in so many captures is for testing."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderScene:
    """One scene of the folder, not read yet."""

    key: str
    """The capture's name, for rigs with the number of the first moment, for drives with that of the middle one."""
    place: str
    """The capture's name: scenes of one place stay on one side of the split."""
    split: str
    """``train`` or ``test``."""
    path: Path
    moments: range | None = None
    """Of a driving rig."""
    stretch: Place | None = None
    """Of a drive."""


@dataclass(frozen=True)
class _Source:
    """One capture or drive of the folder."""

    path: Path
    route: str
    """What is hashed to choose a side."""
    drive: Drive | None = None


class SceneFolder:
    """A map-style data set: ``folder[i]`` reads scene i, iterating leaves bad ones out.

    For fast training write the samples to shards once, with ``scene_shards.write_shard``.
    """

    def __init__(
        self,
        path: PathName,
        *,
        split: Side = "train",
        views: int | None = 24,
        size: tuple[int, int] | None = None,
        window: int = 4,
        stride: int = 4,
        read: Callable[[Path], PosedImages] = read_posed_images,
        cut: LogCut | None = None,
    ):
        """Lists the captures; their pictures are read when asked for.

        Args:
            path: the folder of captures, one capture, or the folder of a log.
            split: ``all`` for both sides.
            views: at most so many of a scene, spread over the capture; None takes all.
            size: width and height in pixels that pictures are scaled to; None leaves them as they are.
            window: moments of a scene of a driving rig.
            stride: moments from one such scene to the next.
            read: how a capture is read, such as ``functools.partial(read_posed_images, up="-y")``.
            cut: how drives of logs become scenes; by default as ``LogCut()`` says.

        Raises:
            DataFormatError: there are no captures, the split is empty, or more than 5 % of the captures are bad.
        """
        if (views is not None and views < 2) or (size is not None and min(size) < 1):
            raise ValueError(f"a scene needs at least 2 views and pictures 1 pixel, got views={views}, size={size}")
        self.folder, self.views, self.size, self.read, self.cut = Path(path), views, size, read, cut or LogCut()
        self.problems: dict[str, str] = {}
        """What is wrong with the scenes found bad so far, by key."""
        self._rigs: dict[Path, DrivingRig] = {}
        self._captures: dict[str, PosedImages] = {}
        self._drives: dict[str, Drive] = {}
        places = _list_sources(self.folder)
        sides = _read_sides(self.folder, {name: place.route for name, place in places.items()})
        chosen = [name for name in places if name in sides and split in ("all", sides[name])]
        if not chosen:
            raise DataFormatError(
                self.folder,
                f"has no capture on the {split} side of {len(places)}; name some in {SPLITS_NAME}, or read split='all'",
            )
        self.scenes = [
            scene for name in chosen for scene in self._list_scenes(name, places[name], sides[name], window, stride)
        ]
        check_share(self.folder, self.problems, self._count())

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the scenes."""
        return tuple(scene.key for scene in self.scenes)

    @property
    def fingerprint(self) -> str:
        """Tells these scenes from others: a sha256 of the names, sizes and times of the captures' files, which are not
        read, and of how they are read."""
        windows = [(scene.key, *_ends(scene.moments)) for scene in self.scenes]
        files = [_describe_files(path) for path in sorted({scene.path for scene in self.scenes})]
        return hash_content([windows, files, self.views, self.size, _describe_reader(self.read)])

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> SceneSample:
        """Scene ``index`` in memory; a DataFormatError says what makes it useless."""
        scene = self.scenes[index]
        try:
            sample = _to_sample(scene, self.read_views(index))
        except ValueError as error:
            raise error if isinstance(error, DataFormatError) else DataFormatError(scene.path, str(error)) from error
        problem = sample.find_problem()
        if problem:
            raise DataFormatError(scene.path, f"scene {scene.key} {problem}")
        return sample

    def __iter__(self) -> Iterator[SceneSample]:
        """The usable scenes in order; bad ones are counted in ``problems`` and logged, above 5 % it stops."""
        for index, scene in enumerate(self.scenes):
            try:
                sample = self[index]
            except DataFormatError as error:
                self._note(scene.key, str(error))
                check_share(self.folder, self.problems, self._count())
                continue
            self.problems.pop(scene.key, None)
            yield sample

    def read_views(self, index: int) -> PosedImages:
        """The chosen views of scene ``index``, in size; their pixels load when asked for."""
        scene = self.scenes[index]
        if scene.moments is not None:
            return self._choose(scene.key, self._rigs[scene.path].local_scene(scene.moments))
        if scene.stretch is not None:
            return self._choose(scene.key, read_place(self._drives[scene.place], scene.stretch, self.cut))
        if scene.key not in self._captures:  # long walks have thousands of files to look at
            self._captures[scene.key] = self._choose(scene.key, self.read(scene.path))
        return self._captures[scene.key]

    def _choose(self, key: str, views: PosedImages) -> PosedImages:
        if self.views is not None and len(views) > self.views:
            views = views[torch.tensor(spread_views(len(views), self.views, key))]
        return views if self.size is None else views.resized(*self.size)

    def _list_scenes(self, name: str, source: _Source, side: str, window: int, stride: int) -> list[FolderScene]:
        place, drive = source.path, source.drive
        if drive is not None:
            self._drives[name] = drive
            stretches = cut_drive(drive.vehicle_poses(), self.cut)
            return [FolderScene(f"{name}_{s.middle:04d}", name, side, place, stretch=s) for s in stretches]
        if find_layout(place) != "driving_rig":
            return [FolderScene(name, name, side, place)]
        try:
            rig = DrivingRig(RigFile.read(place))
            windows = rig.windows(window, stride)
        except DataFormatError as error:
            self._note(name, str(error))
            return []
        self._rigs[place] = rig
        return [FolderScene(f"{name}_{moments.start:06d}", name, side, place, moments) for moments in windows]

    def _note(self, key: str, problem: str) -> None:
        logger.warning("a scene is left out: %s", problem)
        self.problems[key] = problem

    def _count(self) -> int:
        """Scenes and captures of which not even the scenes are known."""
        return len(self.problems.keys() | set(self.keys))


def _list_sources(root: Path) -> dict[str, _Source]:
    """The captures and drives by their names: ``root`` itself, or its subfolders."""
    if find_log(root) is not None:
        return {compose(drive.name): _Source(root, drive.route, drive) for drive in open_log(root)}
    sources = dict[str, _Source]()
    for place in _list_places(root):
        name = compose(place.name or place.resolve().name)
        if find_layout(place) is not None:
            sources[name] = _Source(place, name)
            continue
        sources |= {f"{name}_{compose(drive.name)}": _Source(place, drive.route, drive) for drive in open_log(place)}
    return sources


def _list_places(root: Path) -> list[Path]:
    """Captures and logs: ``root`` itself, or its subfolders."""
    if find_layout(root) is not None:
        return [root]
    folders = sorted((path for path in root.glob("[!.]*") if path.is_dir()), key=lambda path: natural_key(path.name))
    places = [folder for folder in folders if find_layout(folder) is not None or find_log(folder) is not None]
    if not places:
        raise DataFormatError(
            root,
            f"{'holds' if root.is_dir() else 'does not exist or holds'} no folder with a capture "
            "(transforms.json, COLMAP, Replica or rig.json) and no log (nuScenes, KITTI-360); give the folder above "
            "the captures, or that of a log",
        )
    return places


def _read_sides(root: Path, names: Mapping[str, str]) -> dict[str, str]:
    """``train`` or ``test`` for each capture, as ``splits.json`` says or by the hash of its route."""
    source = root / SPLITS_NAME
    if not source.is_file():
        hashes = {name: hashlib.sha256(route.encode()).digest() for name, route in names.items()}
        return {name: "train" if int.from_bytes(hashes[name], "big") % TEST_SHARE else "test" for name in names}
    record, sides = Record.of(source, read_json(source)), {}
    for side in record.values:
        for name in (compose(item) if isinstance(item, str) else repr(item) for item in record.items(side)):
            if side not in ("train", "test") or name not in names or sides.get(name, side) != side:
                raise record.problem(
                    side, f"list names of captures under train and test, each on one side; {name!r} does not fit"
                )
            sides[name] = side
    return sides


def _to_sample(scene: FolderScene, views: PosedImages) -> SceneSample:
    depth = views.load_depth()
    metadata = dict(views.metadata)
    box, path, name = (metadata.pop(key, None) for key in ("box", "trajectory", "map"))
    return SceneSample(
        scene.key,
        (views.load_images() * 255).round().to(torch.uint8),
        depth,
        views.camera,
        find_box(views, depth, scene.path) if box is None else _read_box(box, scene.path),
        views.load_labels(),
        views.bev,
        str(name or scene.place),
        scene.split,
        trajectory=None if path is None else _read_trajectory(path, scene.path),
        metadata=metadata,
        masks=views.load_masks(),
        metric=views.metric,
    )


def _ends(moments: range | None) -> tuple[int, ...]:
    return () if moments is None else (moments.start, moments.stop)


def _describe_files(place: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of change of what a capture may consist of. Results that lie there as well do not count."""
    root = place.parent if place.is_file() else place
    found = [
        path
        for path in root.rglob("[!.]*")
        if path.suffix.lower() in CAPTURED or path == place or any(map(path.match, DESCRIPTIONS))
    ]
    looks = [(path.relative_to(root).as_posix(), path.stat()) for path in found if path.is_file()]
    return sorted((name, look.st_size, look.st_mtime_ns) for name, look in looks)


def _describe_reader(read: Callable[[Path], PosedImages]) -> list[str]:
    """The name of a reader, and what options ``functools.partial`` gave it."""
    given = read.keywords if isinstance(read, partial) else {}
    function = read.func if isinstance(read, partial) else read
    return [getattr(function, "__qualname__", type(function).__name__), *sorted(f"{k}={v}" for k, v in given.items())]


def _read_box(values: object, source: Path) -> Box:
    record = Record.of(source, values, "box")
    return Box(tuple(record.numbers("lower")), tuple(record.numbers("upper")))  # type: ignore[arg-type]


def _read_trajectory(values: object, source: Path) -> Float[Tensor, "poses 5"]:
    record = Record.of(source, {"trajectory": values})
    poses = [Record.of(source, {"pose": pose}, "trajectory").numbers("pose") for pose in record.items("trajectory")]
    if not poses or any(len(pose) != 5 for pose in poses):
        raise record.problem("trajectory", "write poses [x, y, z, cosine, sine of the heading]")
    return torch.tensor(poses)
