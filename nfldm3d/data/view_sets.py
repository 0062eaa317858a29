"""Views of many objects, some of an object at a time: what networks that draw views learn from.

Read are tar shards of ``nfldm3d capture objects --layout shards``, SRN's cars and chairs, categories of CO3Dv2, and
folders of captures. Pictures are square; what surrounds objects that have a mask is white.
"""

from collections.abc import Callable
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
from nfldm3d.data.co3d import Co3dCategory, is_co3d
from nfldm3d.data.posed_images import PosedImages
from nfldm3d.data.sample_files import decode_views
from nfldm3d.data.scene_dataset import SceneDataset
from nfldm3d.data.scene_folder import SceneFolder
from nfldm3d.data.scene_shards import INDEX_NAME, read_members
from nfldm3d.data.srn import list_srn, read_srn
from nfldm3d.files import DataFormatError

Choose: TypeAlias = Callable[[int], Int64[Tensor, " views"]]
"""Which of so many views to read."""
CO3D_DISTANCE = 1.3
"""To which sequences are scaled: median distance of the cameras from what they look at, that of SRN's cars."""
TEST_SHARE = 10
"""One sequence of CO3D in so many is for testing."""


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

    def __init__(self, scenes: SceneDataset, size: int | None = None):
        self.scenes, self.size = scenes, size

    def __len__(self) -> int:
        return len(self.scenes)

    def read(self, index: int, choose: Choose) -> ViewSet:
        """See ``ViewSets``."""
        entry = self.scenes.scenes[index]
        members = read_members(self.scenes.folder, entry)
        images, camera, metadata = decode_views(entry.key, members, self.scenes.folder / entry.shard)
        chosen = choose(len(images))
        images, camera = make_square(images[chosen].float() / 255, camera[chosen], self.size)
        return ViewSet(images, camera, entry.key, str(metadata.get("caption", "")))


class CaptureViews:
    """Objects that are captures of their own; only the chosen pictures are read. See ``ViewSets``."""

    def __init__(self, captures: dict[str, Callable[[], PosedImages]], size: int | None = None):
        """``captures`` are how each is read, by name."""
        self.captures, self.size = list(captures.items()), size

    def __len__(self) -> int:
        return len(self.captures)

    def read(self, index: int, choose: Choose) -> ViewSet:
        """See ``ViewSets``."""
        key, capture = self.captures[index]
        views = capture()
        views = views[choose(len(views))]
        parts = [_load(group, self.size) for group in views.groups()]
        if len({images.shape for images, _ in parts}) > 1:
            raise DataFormatError(key, "has pictures of several sizes; give the size that they are to be brought to")
        order = torch.tensor([number for numbers in views.group_numbers() for number in numbers]).argsort()
        images, camera = torch.cat([part[0] for part in parts])[order], Camera.cat([part[1] for part in parts])[order]
        caption = views.metadata.get("caption", views.metadata.get("category", ""))
        return ViewSet(images, camera, key, str(caption))


def open_view_sets(path: PathName, side: Literal["train", "test"], *, size: int | None = None) -> ViewSets:
    """The objects of one side of a data set, in whichever layout it is.

    Of CO3D's sequences one in ten is on the side of tests, which are scaled so that cameras lie some 1.3 from what they
    look at, in the middle.

    Args:
        size: pixels along each side to which pictures are brought; None leaves them as they are.

    Raises:
        DataFormatError: there are none.
    """
    path = Path(path)
    if size is not None and size < 1:
        raise ValueError(f"pictures need at least 1 pixel a side, got size={size}")
    if (path / INDEX_NAME).is_file():
        return ShardViews(SceneDataset(path, split=side), size)
    if is_co3d(path):
        return CaptureViews(_list_co3d(path, side), size)
    if path.name.endswith(("_train", "_test")):  # one side of a class, beside the other
        path = path.with_name(f"{path.name.rpartition('_')[0]}_{side}")
    if path.name.endswith(f"_{side}") or any(path.glob(f"*_{side}")):
        return CaptureViews({place.name: partial(read_srn, place) for place in list_srn(path, side)}, size)
    folder = SceneFolder(path, split=side, views=None)
    return CaptureViews({key: partial(folder.read_views, number) for number, key in enumerate(folder.keys)}, size)


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


def _load(views: PosedImages, size: int | None) -> tuple[Tensor, Camera]:
    """Pictures before white."""
    images, masks = views.load_images(), views.load_masks()
    if masks is not None:
        images = torch.where(masks[:, None], images, 1.0)
    return make_square(images, views.camera, size)


def _list_co3d(path: Path, side: str) -> dict[str, Callable[[], PosedImages]]:
    category = Co3dCategory(path)
    tested = set(category.sequences[::TEST_SHARE])
    chosen = [name for name in category.sequences if (name in tested) == (side == "test")]
    if not chosen:
        raise DataFormatError(path, f"has {len(category.sequences)} sequences, none for {side}; give a whole category")
    return {name: partial(_read_centered, category, name) for name in chosen}


def _read_centered(category: Co3dCategory, name: str) -> PosedImages:
    views = category.read(name)
    return replace(views, camera=center_cameras(views.camera, CO3D_DISTANCE))
