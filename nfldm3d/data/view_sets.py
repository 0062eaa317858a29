"""Views of many objects, some of an object at a time: what networks that draw views learn from.

Read are tar shards of ``nfldm3d capture objects --layout shards``, SRN's cars and chairs, categories of CO3Dv2, and
folders of captures. Pictures are square; what surrounds objects that have a mask is white, unless it is asked for.

One training shape in twenty is held out to choose checkpoints by (``val``), so that tests stay unseen until the end.
"""

import glob
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nfldm3d._types import PathName
from nfldm3d.camera import Camera
from nfldm3d.data import image_files
from nfldm3d.data.co3d import POINTS, Co3dCategory, is_co3d
from nfldm3d.data.posed_images import PosedImages
from nfldm3d.data.sample_files import decode_views, read_metadata
from nfldm3d.data.scene_dataset import SceneDataset
from nfldm3d.data.scene_folder import SceneFolder
from nfldm3d.data.scene_shards import INDEX_NAME, SceneEntry, read_members
from nfldm3d.data.srn import CARS_RADIUS, Side, list_srn, read_srn
from nfldm3d.files import DataFormatError

SIDES: tuple[Side, ...] = ("train", "val", "test")
Choose: TypeAlias = Callable[[Camera], Int64[Tensor, " views"]]
"""The numbers of the views to read, of an object that such cameras (views) have seen."""
TEST_SHARE = 10
"""One sequence of CO3D in so many is for testing."""
STRAYS = 0.005
"""Share of an object's points that may lie further out than the object, on each side of each axis."""
LEAST_POINTS, MOST_POINTS = 100, 100_000
"""With fewer the object's box is not known; more are not looked at."""
VALIDATION_SHARE = 20
"""One shape to learn from in so many is held out to choose by, at least one."""
GIVEN_DEGREES = 20.0
"""Height above the horizon from which pictures of things are taken, as ``assume_camera`` has it."""


@dataclass(frozen=True)
class ViewSet:
    """Some views of one object."""

    images: Float[Tensor, "views 3 height width"]
    """sRGB in [0, 1]."""
    camera: Camera
    """(views)."""
    key: str = ""
    caption: str = ""
    """What it is, in words; empty where nobody has said."""

    def __getitem__(self, chosen: slice | Tensor) -> "ViewSet":
        return replace(self, images=self.images[chosen], camera=self.camera[chosen])

    def to(self, device: torch.device | str) -> "ViewSet":
        """The same on another device."""
        return replace(self, images=self.images.to(device), camera=self.camera.to(device))


@runtime_checkable
class ViewSets(Protocol):
    """Objects by number."""

    def __len__(self) -> int: ...

    def read(self, index: int, choose: Choose) -> ViewSet:
        """Views of object ``index``.

        Raises:
            DataFormatError: they cannot be used.
        """
        ...


class ShardViews:
    """Objects of tar shards, of which only pictures and cameras are decoded; see ``ViewSets``."""

    def __init__(self, folder: PathName, side: Side, size: int | None = None):
        self.scenes = SceneDataset(folder, split="test" if side == "test" else "train")
        self.size, self.entries = size, self.scenes.scenes
        if side != "test":
            shapes = [self._name_shape(entry) for entry in self.entries]
            self.entries = tuple(self.entries[number] for number in hold_out(shapes, side, self.scenes.folder))

    def __len__(self) -> int:
        return len(self.entries)

    def read(self, index: int, choose: Choose) -> ViewSet:
        """See ``ViewSets``."""
        entry = self.entries[index]
        members = read_members(self.scenes.folder, _only(entry, "json", "rgb.png"))
        images, camera, metadata = decode_views(entry.key, members, self.scenes.folder / entry.shard)
        chosen = choose(camera)
        images, camera = make_square(images[chosen].float() / 255, camera[chosen], self.size)
        return ViewSet(images, camera, entry.key, str(metadata.get("caption", "")))

    def _name_shape(self, entry: SceneEntry) -> str:
        """Equal for liveries of one mesh, as far as what the recorder notes of it tells."""
        try:
            members = read_members(self.scenes.folder, _only(entry, "json"))
            metadata = read_metadata(entry.key, members, self.scenes.folder / entry.shard)
        except DataFormatError:  # as whoever reads the object is told
            return entry.key
        noted = [metadata.get(name) for name in ("triangles", "object_box")]
        return entry.key if None in noted else str(noted)


class CaptureViews:
    """Objects that are captures of their own; only the chosen pictures are read. See ``ViewSets``."""

    def __init__(
        self, captures: dict[str, Callable[[], PosedImages]], size: int | None = None, *, surroundings: bool = False
    ):
        """``captures`` are how each is read, by name."""
        self.captures, self.size, self.surroundings = list(captures.items()), size, surroundings

    def __len__(self) -> int:
        return len(self.captures)

    def read(self, index: int, choose: Choose) -> ViewSet:
        """See ``ViewSets``."""
        key, capture = self.captures[index]
        views = capture()
        views = views[choose(views.camera)]
        parts = [_load(group, self.size, self.surroundings) for group in views.groups()]
        if len({images.shape for images, _ in parts}) > 1:
            raise DataFormatError(key, "has pictures of several sizes; give the size that they are to be brought to")
        order = torch.tensor([number for numbers in views.group_numbers() for number in numbers]).argsort()
        images, camera = torch.cat([part[0] for part in parts])[order], Camera.cat([part[1] for part in parts])[order]
        caption = views.metadata.get("caption", views.metadata.get("category", ""))
        return ViewSet(images, camera, key, str(caption))


def open_view_sets(path: PathName, side: Side, *, size: int | None = None, surroundings: bool = False) -> ViewSets:
    """The objects of one side of a data set, in whichever layout it is.

    Of CO3D's sequences one in ten is on the side of tests. They are moved and scaled so that the box of the object's
    points has its middle at the origin and a diagonal of 1, or, where there are no points, so that cameras lie some 1.3
    from what they look at. SRN's own ``cars_val`` is the side to choose by, where it is there; see ``hold_out``.

    Args:
        size: pixels along each side to which pictures are brought; None leaves them as they are.
        surroundings: shows what is around objects that have a mask, too.

    Raises:
        DataFormatError: there are none.
    """
    path = Path(path)
    if size is not None and size < 1:
        raise ValueError(f"pictures need at least 1 pixel a side, got size={size}")
    if (path / INDEX_NAME).is_file():
        return ShardViews(path, side, size)
    captures, held_out = _list_captures(path, side)
    if side != "test" and not held_out:
        names = list(captures)
        captures = {names[number]: captures[names[number]] for number in hold_out(names, side, path)}
    return CaptureViews(captures, size, surroundings=surroundings)


def hold_out(shapes: Sequence[str], side: Side, source: PathName) -> list[int]:
    """The numbers of the objects to learn from or, where ``side`` is ``val``, to choose by, given their shapes' names.

    One shape in ``VALIDATION_SHARE`` is held out with all objects of that shape, at least one; which ones, their names'
    hashes tell.

    Raises:
        DataFormatError: there is but one shape, and it is asked to be held out.
    """
    names = sorted(set(shapes), key=lambda name: hashlib.sha256(name.encode()).digest())
    if len(names) == 1 and side == "val":
        raise DataFormatError(source, "has a single shape to learn from, none can be held out to judge by; add more")
    held = set(names[: max(1, len(names) // VALIDATION_SHARE)] if len(names) > 1 else ())
    return [number for number, shape in enumerate(shapes) if (shape in held) == (side == "val")]


def find_given(camera: Camera) -> int:
    """The number of the view (views) that is most like a picture of a thing: seen from ``GIVEN_DEGREES`` above."""
    centers = camera.centers
    sine = centers[:, 2] / centers.norm(dim=-1).clamp(min=1e-6)
    return int((sine.clamp(-1, 1).asin().rad2deg() - GIVEN_DEGREES).abs().argmin())


def make_square(
    images: Float[Tensor, "views channels _ _"], camera: Camera, size: int | None
) -> tuple[Float[Tensor, "views channels side side"], Camera]:
    """The middles of pictures, brought to ``size`` pixels a side, with the cameras that see them."""
    side = min(camera.width, camera.height)
    left, top = (camera.width - side) // 2, (camera.height - side) // 2
    images = images[..., top : top + side, left : left + side]
    camera = camera.cropped(left, top, side, side)
    if size is None or size == side:
        return images, camera
    return torch.stack([image_files.resize_image(image, size, size) for image in images]), camera.resized(size, size)


def center_cameras(camera: Camera, distance: float) -> Camera:
    """Cameras in a world moved and scaled so that the point that they look at best is its origin, and lies at
    ``distance`` from them in the median."""
    centers, ahead = camera.centers.double(), camera.forward.double()
    across = torch.eye(3).to(ahead) - ahead[:, :, None] * ahead[:, None]  # views 3 3, along no optical axis
    point = torch.linalg.lstsq(across.sum(0), (across @ centers[..., None]).sum(0)).solution[:, 0]
    moved = centers - point
    poses = camera.world_from_camera.clone()
    poses[:, :3, 3] = (moved * (distance / moved.norm(dim=-1).median())).to(poses)
    return replace(camera, world_from_camera=poses)


def place_points(camera: Camera, points: Float[Tensor, "points 3"], source: PathName) -> Camera:
    """Cameras in a world moved and scaled so that the box of an object's points has its middle at the origin and a
    diagonal of 1; the outermost points may be strays.

    Raises:
        DataFormatError: the points of ``source`` lie in one place.
    """
    low, high = (points.double().quantile(share, dim=0) for share in (STRAYS, 1 - STRAYS))
    diagonal = (high - low).norm()
    if not diagonal > 0:
        raise DataFormatError(source, "holds points that lie in one place; restore or remove it")
    poses = camera.world_from_camera.clone()
    poses[:, :3, 3] = ((camera.centers.double() - (low + high) / 2) / diagonal).to(poses)
    return replace(camera, world_from_camera=poses)


def _load(views: PosedImages, size: int | None, surroundings: bool) -> tuple[Tensor, Camera]:
    """Pictures before white, or with what is around."""
    images, masks = views.load_images(), None if surroundings else views.load_masks()
    if masks is not None:
        images = torch.where(masks[:, None], images, 1.0)
    return make_square(images, views.camera, size)


def _only(entry: SceneEntry, *extensions: str) -> SceneEntry:
    """A scene of whose files no others need to be read; whoever decodes them says what is missing."""
    kept = {name: entry.members[name] for name in extensions if name in entry.members}
    return replace(entry, members=kept or entry.members)


def _list_captures(path: Path, side: Side) -> tuple[dict[str, Callable[[], PosedImages]], bool]:
    """How each object is read, and whether the data set itself holds some out to choose by, that side aside."""
    tested: Literal["train", "test"] = "test" if side == "test" else "train"
    if is_co3d(path):
        return _list_co3d(path, tested), False
    name = path.name.rpartition("_")[0] if path.name.endswith(tuple(f"_{each}" for each in SIDES)) else ""
    root, kinds = (path.parent, glob.escape(name)) if name else (path, "*")
    folders = {each: sorted(root.glob(f"{kinds}_{each}")) for each in SIDES}
    has_own = bool(folders["train"] and folders["val"])
    taken: Side = side if has_own else tested
    if name or folders[taken]:
        kept = folders[taken] or [root / f"{name}_{taken}"]
        return {place.name: partial(read_srn, place) for folder in kept for place in list_srn(folder, taken)}, has_own
    folder = SceneFolder(path, split=tested, views=None)
    return {key: partial(folder.read_views, number) for number, key in enumerate(folder.keys)}, False


def _list_co3d(path: Path, side: str) -> dict[str, Callable[[], PosedImages]]:
    category = Co3dCategory(path)
    tested = set(category.sequences[::TEST_SHARE])
    chosen = [name for name in category.sequences if (name in tested) == (side == "test")]
    if not chosen:
        raise DataFormatError(path, f"has {len(category.sequences)} sequences, none for {side}; give a whole category")
    return {name: partial(_read_centered, category, name) for name in chosen}


def _read_centered(category: Co3dCategory, name: str) -> PosedImages:
    views = category.read(name)
    if views.points is None or len(views.points) < LEAST_POINTS:
        return replace(views, camera=center_cameras(views.camera, CARS_RADIUS))
    some = views.points[:: -(-len(views.points) // MOST_POINTS)]
    return replace(views, camera=place_points(views.camera, some, category.folder / name / POINTS))
