"""PosedImages: photographs with known cameras, and whatever else was recorded with them; pixels load when asked for."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Integer, UInt8
from torch import Tensor

from nfldm3d._types import PathName, Vector
from nfldm3d.camera import Camera
from nfldm3d.data import image_files
from nfldm3d.data.bev_map import BevMap
from nfldm3d.data.frame import Frame
from nfldm3d.data.transforms_json_writer import write_capture
from nfldm3d.memory import free_memory

WHITE: Vector = (1.0, 1.0, 1.0)
BLACK: Vector = (0.0, 0.0, 0.0)

Index = int | slice | Sequence[int] | Integer[Tensor, " chosen"] | Bool[Tensor, " views"]
"""What picks views: a number, a slice, a list of numbers, or a tensor of numbers or truths."""


@dataclass(frozen=True, eq=False)
class PosedImages:
    """Views of one place: cameras, pictures and what else is known; ``views[3]``, ``views[::2]``, ``views[[1, 5]]``.

    Nothing is decoded before a ``load_`` method is called; slicing and scaling are free. Pictures of several sizes load
    in the smallest width and the smallest height among them, scaled along each axis as their cameras are, so that all
    fit one tensor; ``groups`` gives them in their own sizes.
    """

    camera: Camera
    """One camera per view, batch shape ``(views,)``; its size is the size that pictures are loaded in."""
    frames: tuple[Frame, ...]
    timestamps: Float[Tensor, " views"] | None = None
    """Seconds, float64."""
    bev: BevMap | None = None
    """The ground from above."""
    points: Float[Tensor, "points 3"] | None = None
    """World points that the capture's own reconstruction found, e.g. COLMAP's."""
    metric: bool = True
    """Whether lengths are metres; False where the capture's scale is unknown."""
    background: Vector | None = None
    """The sRGB colour that transparent pictures are laid over; None where all are opaque."""
    metadata: dict[str, object] = field(default_factory=dict)
    """Anything else worth keeping, as plain JSON values."""
    sizes: tuple[tuple[int, int], ...] | None = None
    """Width and height of each view where they differ: what ``groups`` gives them in. None if all have the camera's."""
    scene_from_file: Float[Tensor, "4 4"] | None = None
    """What reading did to the coordinates in the files, in double precision (see ``placement``); None for nothing."""

    def __post_init__(self):
        if self.camera.shape != (len(self.frames),):
            raise ValueError(f"{len(self.frames)} images need as many cameras, got a batch {tuple(self.camera.shape)}")
        if not self.frames:
            raise ValueError("posed images need at least one view, got none; check the index or the capture")
        if self.timestamps is not None and len(self.timestamps) != len(self.frames):
            raise ValueError(f"{len(self.frames)} images need as many timestamps, got {len(self.timestamps)}")
        if self.sizes is not None and len(self.sizes) != len(self.frames):
            raise ValueError(f"{len(self.frames)} images need as many sizes, got {len(self.sizes)}")
        for kind in ("depth", "mask", "labels"):
            count = sum(getattr(frame, kind) is not None for frame in self.frames)
            if count not in (0, len(self.frames)):
                raise ValueError(f"{count} of {len(self.frames)} views have {kind}; give it for all views or for none")

    @classmethod
    def from_tensors(
        cls,
        images: Float[Tensor, "views 3 height width"] | UInt8[Tensor, "views 3 height width"],
        camera: Camera,
        *,
        depth: Float[Tensor, "views height width"] | None = None,
        masks: Bool[Tensor, "views height width"] | None = None,
        labels: UInt8[Tensor, "views height width"] | None = None,
        names: Sequence[str] | None = None,
    ) -> "PosedImages":
        """Views in CPU memory, wherever they come from; more with ``dataclasses.replace(views, bev=..., points=...)``.

        Args:
            images: sRGB in [0, 1], or uint8 in 0-255.
            depth: metres along the optical axis, 0 where unknown.
            masks: True where a pixel is to be used.
            labels: a class per pixel.
            names: of the files that ``save`` writes; numbers by default.
        """
        expected = (*camera.shape, camera.height, camera.width)
        for name, given in (("images", images[:, 0]), ("depth", depth), ("masks", masks), ("labels", labels)):
            if given is not None and given.shape != expected:
                raise ValueError(f"{name} must fit the camera, (views, height, width) = {expected}, got {given.shape}")
        if names is not None and len(names) != len(images):
            raise ValueError(f"{len(images)} images need as many names, got {len(names)}")
        images = images.cpu()
        depth, masks, labels = (None if t is None else t.cpu() for t in (depth, masks, labels))
        frames = tuple(
            Frame(
                f"{number:05d}.png" if names is None else names[number],
                (camera.width, camera.height),
                image,
                None if depth is None else depth[number],
                None if masks is None else masks[number],
                None if labels is None else labels[number],
            )
            for number, image in enumerate(images)
        )
        return cls(camera.to("cpu"), frames)

    @property
    def names(self) -> tuple[str, ...]:
        """The file name of each view, as the capture writes it."""
        return tuple(frame.name for frame in self.frames)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: Index) -> "PosedImages":
        numbers = torch.arange(len(self))
        if isinstance(index, int):
            chosen = [range(len(self))[index]]  # an IndexError ends iteration
        else:
            chosen = numbers[index if isinstance(index, slice | Tensor) else list(index)].tolist()
        return replace(
            self,
            camera=self.camera[chosen],
            frames=tuple(self.frames[number] for number in chosen),
            timestamps=None if self.timestamps is None else self.timestamps[chosen],
            sizes=None if self.sizes is None else tuple(self.sizes[number] for number in chosen),
        )

    def __str__(self) -> str:
        first, camera = self.frames[0], self.camera
        present = [kind for kind in ("depth", "mask", "labels") if getattr(first, kind) is not None]
        present += [kind for kind in ("timestamps", "bev", "points") if getattr(self, kind) is not None]
        lens = f"{camera.lens} lens{'' if camera.distortion is None else ' with distortion'}"
        span = " x ".join(f"{v:.3g}" for v in (camera.centers.amax(0) - camera.centers.amin(0)).tolist())
        return (
            f"PosedImages: {len(self)} views of {camera.width}x{camera.height} pixels{self._describe_sizes()}, {lens}, "
            f"with {', '.join(present) or 'nothing but colour'}; "
            f"camera centres span {span} {'metres' if self.metric else 'units of unknown size'}"
        )

    __repr__ = __str__

    def _describe_sizes(self) -> str:
        files = sorted({frame.size for frame in self.frames}, reverse=True)
        shown = ", ".join(f"{width}x{height}" for width, height in files[:3]) + (" ..." if len(files) > 3 else "")
        return "" if files == [(self.camera.width, self.camera.height)] else f" (files {shown})"

    def groups(self) -> tuple["PosedImages", ...]:
        """The views that share a size, in that size: what to work on picture by picture where none is to lose any.

        Groups come in the order of their first views. Views of one size are one group.
        """
        if self.sizes is None:
            return (self,)
        return tuple(self[numbers].resized(*self.sizes[numbers[0]]) for numbers in self.group_numbers())

    def group_numbers(self) -> tuple[list[int], ...]:
        """The numbers of the views in each of ``groups``."""
        members: dict[tuple[int, int] | None, list[int]] = {}
        for number in range(len(self)):
            members.setdefault(None if self.sizes is None else self.sizes[number], []).append(number)
        return tuple(members.values())

    def resized(self, width: int, height: int) -> "PosedImages":
        """All views at one other size; images are averaged, depth, masks and labels take the nearest pixel."""
        return replace(self, camera=self.camera.resized(width, height), sizes=None)

    def downscaled(self, factor: int | float) -> "PosedImages":
        """The same views ``factor`` times smaller along each side, rounded to whole pixels; see ``resized``."""
        if not (math.isfinite(factor) and factor >= 1):
            raise ValueError(f"downscaled needs a factor of at least 1, got {factor}")

        def divide(width: int, height: int) -> tuple[int, int]:
            return max(1, round(width / factor)), max(1, round(height / factor))

        sizes = None if self.sizes is None else tuple(divide(*size) for size in self.sizes)
        return replace(self.resized(*divide(self.camera.width, self.camera.height)), sizes=sizes)

    def split(self, holdout_every: int = 8) -> tuple["PosedImages", "PosedImages"]:
        """Views to fit and views to judge by: views 0, ``holdout_every``, 2 ``holdout_every`` ... are held out."""
        if holdout_every < 2 or len(self) < 2:
            raise ValueError(
                f"a split needs at least two views and holdout_every of at least 2, got {len(self)} and {holdout_every}"
            )
        held_out = torch.arange(len(self)) % min(holdout_every, len(self)) == 0
        return self[~held_out], self[held_out]

    def load_images(self) -> Float[Tensor, "views 3 height width"]:
        """All pictures, sRGB in [0, 1]."""
        return self._load_over(WHITE if self.background is None else self.background)

    def load_alpha(self) -> Float[Tensor, "views height width"] | None:
        """Opacity of the pictures, from 0 to 1; None if none of them is transparent anywhere."""
        if self.background is None:
            return None
        alpha = 1 - (self._load_over(WHITE) - self._load_over(BLACK))[:, 0].clamp(0, 1)
        return None if bool((alpha == 1).all()) else alpha

    def _load_over(self, background: Vector) -> Float[Tensor, "views 3 height width"]:
        size = self.camera.width, self.camera.height
        return self._load(
            lambda frame: image_files.resize_image(frame.load_image(background), *size), torch.float32, channels=(3,)
        )

    def load_depth(self, *, keep_masked: bool = False) -> Float[Tensor, "views height width"] | None:
        """Metres along the optical axis, 0 where unknown; None if there is no depth.

        Args:
            keep_masked: whether depth stays where masks say that a pixel is not to be used; by default it is 0 there.
        """
        if self.frames[0].depth is None:
            return None
        depth = self._load_nearest(Frame.load_depth, torch.float32)
        masks = None if keep_masked else self.load_masks()
        return depth if masks is None else depth.mul_(masks)

    def load_masks(self) -> Bool[Tensor, "views height width"] | None:
        """True where a pixel is to be used; None if all are. Transparency is not a mask: see ``background``."""
        return None if self.frames[0].mask is None else self._load_nearest(Frame.load_mask, torch.bool)

    def load_labels(self) -> UInt8[Tensor, "views height width"] | None:
        """A class per pixel; None if there are no labels."""
        return None if self.frames[0].labels is None else self._load_nearest(Frame.load_labels, torch.uint8)

    def save(self, folder: PathName, *, image_format: str = "png", overwrite: bool = False) -> None:
        """Writes ``transforms.json`` and the pictures in the size they load in, as nerfstudio and instant-ngp read it.

        The folder appears complete or not at all.

        Args:
            image_format: png, or jpg or webp, which are lossy (quality 95).
            overwrite: replace a capture that this program wrote there and nobody has changed.

        Raises:
            ValueError: unknown format, or a folder that holds anything but a capture that may be overwritten.
        """
        write_capture(self, folder, image_format, overwrite)

    def _load_nearest(self, read: Callable[[Frame], Tensor], dtype: torch.dtype) -> Tensor:
        size = self.camera.width, self.camera.height
        return self._load(lambda frame: image_files.resize_nearest(read(frame), *size), dtype)

    def _load(self, read: Callable[[Frame], Tensor], dtype: torch.dtype, channels: tuple[int, ...] = ()) -> Tensor:
        shape = (len(self), *channels, self.camera.height, self.camera.width)
        needed, free = math.prod(shape) * dtype.itemsize, free_memory(torch.device("cpu"))
        if needed > free:
            raise ValueError(
                f"{len(self)} views of {self.camera.width}x{self.camera.height} need {needed / 2**30:.1f} GiB, "
                f"{free / 2**30:.1f} GiB are free; load fewer views at a time or smaller ones with downscaled()"
            )
        result = torch.zeros(shape, dtype=dtype)

        def fill(number: int) -> None:
            result[number] = read(self.frames[number])

        image_files.map_parallel(fill, range(len(self)))
        return result
