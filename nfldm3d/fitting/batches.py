"""Random training rays with what their pixels show."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, Integer, UInt8
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.data.image_files import map_parallel
from nfldm3d.data.posed_images import PosedImages
from nfldm3d.fitting.backdrops import Backdrop, cut_out
from nfldm3d.fitting.hulls import Hull, find_hull
from nfldm3d.geometry import Rays
from nfldm3d.memory import require_bytes

DENSE_DEPTH = 0.5
"""Share of usable pixels with depth from which on depth maps are taken to show every surface."""


@dataclass(frozen=True)
class RayBatch:
    """Rays and their targets."""

    rays: Rays
    colors: Float[Tensor, "rays 3"]
    """sRGB in [0, 1]."""
    views: Int64[Tensor, " rays"]
    """Number of the view that each ray belongs to, group by group."""
    distances: Float[Tensor, " rays"] | None
    """Measured distance along the ray in metres, 0 where unknown; None without depth."""
    opacities: Float[Tensor, " rays"] | None = None
    """Opacity of the pictures, whose colours are laid over the background, below 0 where it is not known; None for
    opaque ones."""


@dataclass(frozen=True)
class SizedPixels:
    """All pixels of views of one size in memory, 8 bits a colour."""

    camera: Camera
    colors: UInt8[Tensor, "pixels 3"]
    depth: Float[Tensor, " pixels"] | None
    usable: Tensor | None
    """Indices of the pixels that masks leave, or None for all."""
    names: tuple[str, ...]
    """Of the views."""
    alpha: Integer[Tensor, " pixels"] | None = None
    """Opacity, 255 at most, below 0 where it is not known; None for opaque pictures."""

    @classmethod
    def load(cls, images: PosedImages, device: torch.device, backdrop: Backdrop | None = None) -> "SizedPixels":
        """Reads every image, depth map and mask of a group of views; opacity before a backdrop if there is one."""
        colors, alpha = _read_pictures(images, backdrop)
        depth, masks = images.load_depth(), images.load_masks()
        usable = None if masks is None else masks.reshape(-1).nonzero()[:, 0]
        return cls(
            images.camera.to(device),
            colors.to(device),
            None if depth is None else depth.reshape(-1).to(device),
            None if usable is None else usable.to(device),
            images.names,
            None if alpha is None else alpha.to(device),
        )

    def __len__(self) -> int:
        return len(self.colors) if self.usable is None else len(self.usable)

    def fingerprints(self) -> tuple[dict[str, str], dict[str, str]]:
        """Of what each view shows, by its name, and of its camera."""
        views, used = len(self.camera), torch.ones(len(self.colors), dtype=torch.bool)
        if self.usable is not None:
            used = torch.zeros_like(used).index_fill_(0, self.usable.cpu(), True)
        parts = [self.colors, used, *(part for part in (self.depth, self.alpha) if part is not None)]
        camera = self.camera
        lenses = [camera.world_from_camera, camera.focal, camera.principal]
        lenses += [] if camera.distortion is None else [camera.distortion]
        size = f"{camera.width}x{camera.height} {camera.lens}"
        pictures, cameras = {}, {}
        for number, name in enumerate(self.names):  # views of one name share an entry
            seen = [part.view(views, -1)[number] for part in parts]
            pictures[name] = pictures.get(name, "") + _digest(seen)
            cameras[name] = cameras.get(name, "") + _digest([lens[number] for lens in lenses], size)
        return pictures, cameras

    def usable_depth(self) -> Float[Tensor, " usable"]:
        """Of the pixels that masks leave."""
        assert self.depth is not None
        return self.depth if self.usable is None else self.depth[self.usable]

    def surface_points(self) -> tuple[Float[Tensor, "points 3"], Float[Tensor, "points 3"]]:
        """World positions and sRGB colours of all pixels with depth."""
        assert self.depth is not None
        positions, colors = [], []
        pixels = self.colors.view(len(self.camera), -1, 3)
        for view, depth in enumerate(self.depth.view(len(self.camera), -1)):
            camera = self.camera[view]
            rays = camera.rays().reshape(-1)
            known = depth > 0
            positions.append(rays.at(depth / (rays.directions @ camera.forward))[known])
            colors.append(pixels[view][known].float() / 255)
        return torch.cat(positions), torch.cat(colors)

    def batch(self, index: Int64[Tensor, " rays"], first_view: int = 0) -> RayBatch:
        """The rays and targets of some of the usable pixels; views are numbered from ``first_view``."""
        if self.usable is not None:
            index = self.usable[index]
        width, height = self.camera.width, self.camera.height
        views = index // (width * height)
        rows, columns = index // width % height, index % width
        chosen = self.camera[views]
        pixels = torch.stack((columns, rows), dim=-1).to(self.camera.focal.dtype) + 0.5
        rays = chosen.rays(pixels[:, None])[:, 0]
        distances = None
        if self.depth is not None:
            distances = self.depth[index] / (rays.directions * chosen.forward).sum(-1)
        opacities = None if self.alpha is None else self.alpha[index].float() / 255
        return RayBatch(rays, self.colors[index].float() / 255, views + first_view, distances, opacities)


@dataclass(frozen=True)
class PixelStore:
    """All pixels of a capture in memory, by the sizes of its views, ready to be drawn at random."""

    groups: tuple[SizedPixels, ...]
    hull: Hull | None = None
    """Where the object of pictures that show just one can be; None for others."""

    @classmethod
    def load(cls, images: PosedImages, device: torch.device, *, plain: bool = True) -> "PixelStore":
        """Reads every image, depth map and mask of the capture, each view in its own size.

        Args:
            plain: as for ``find_hull``.
        """
        hull = find_hull(images, plain=plain)
        backdrop = None if hull is None else hull.backdrop
        store = cls(tuple(SizedPixels.load(group, device, backdrop) for group in images.groups()), hull)
        if not any(len(group) for group in store.groups):
            raise ValueError("the masks leave no pixel to fit; white (True) marks what is used")
        return store

    @property
    def device(self) -> torch.device:
        """Where the pixels are."""
        return self.groups[0].colors.device

    @property
    def pixels(self) -> int:
        """That are used, of all views."""
        return sum(len(group) for group in self.groups)

    @property
    def centers(self) -> Float[Tensor, "views 3"]:
        """Where the cameras are, group by group."""
        return torch.cat([group.camera.centers for group in self.groups])

    @property
    def names(self) -> tuple[str, ...]:
        """Of the views, group by group."""
        return tuple(name for group in self.groups for name in group.names)

    def fingerprints(self) -> tuple[dict[str, str], dict[str, str]]:
        """Of what each view shows, by its name, and of its camera."""
        pictures, cameras = {}, {}
        for group in self.groups:
            some, lenses = group.fingerprints()
            pictures, cameras = pictures | some, cameras | lenses
        return pictures, cameras

    def surface_points(self) -> tuple[Float[Tensor, "points 3"], Float[Tensor, "points 3"]] | None:
        """World positions and sRGB colours of all pixels with depth; None unless most usable pixels have it."""
        depths = [group.usable_depth() for group in self.groups if group.depth is not None]
        if not depths or sum(int((d > 0).sum()) for d in depths) < DENSE_DEPTH * sum(len(d) for d in depths):
            return None
        positions, colors = zip(*(group.surface_points() for group in self.groups), strict=True)
        return torch.cat(positions), torch.cat(colors)

    def draw(self, count: int, generator: torch.Generator) -> RayBatch:
        """A batch of ``count`` pixels, drawn evenly with a CPU generator."""
        lengths = [len(group) for group in self.groups]
        index = torch.randint(sum(lengths), (count,), generator=generator).to(self.device)
        if len(lengths) == 1:
            return self.groups[0].batch(index)
        parts, start, view = [], 0, 0
        for group, length in zip(self.groups, lengths, strict=True):
            own = index[(index >= start) & (index < start + length)] - start
            if len(own):
                parts.append(group.batch(own, view))
            start, view = start + length, view + len(group.names)
        return RayBatch(
            Rays(torch.cat([part.rays.origins for part in parts]), torch.cat([part.rays.directions for part in parts])),
            torch.cat([part.colors for part in parts]),
            torch.cat([part.views for part in parts]),
            _join([part.distances for part in parts], parts, 0.0),
            _join([part.opacities for part in parts], parts, 1.0),
        )


def _read_pictures(
    images: PosedImages, backdrop: Backdrop | None
) -> tuple[UInt8[Tensor, "pixels 3"], Integer[Tensor, " pixels"] | None]:
    """Colours and opacity of all pixels, picture by picture: as floats, all at once would take thrice four times that.

    Opacity is None where no picture is transparent and no backdrop given.
    """
    views, size = len(images), images.camera.height * images.camera.width
    what = f"{views} views of {images.camera.width}x{images.camera.height} pixels"
    require_bytes(3 * views * size, what, "give fewer views or smaller ones with downscaled()", torch.device("cpu"))
    colors = torch.zeros(views, size, 3, dtype=torch.uint8)

    def read(number: int) -> Tensor | None:
        view = images[[number]]
        picture, alpha = view.load_images()[0], view.load_alpha()
        colors[number] = (picture * 255).round().to(torch.uint8).flatten(1).T
        if alpha is not None:
            return (alpha.flatten() * 255).round().to(torch.uint8)
        if backdrop is not None:
            return (255 * cut_out(picture, backdrop)).short().flatten()
        return None

    found = map_parallel(read, range(views))
    if all(alpha is None for alpha in found):
        return colors.flatten(0, 1), None
    blank = torch.full((size,), 255, dtype=torch.uint8)
    return colors.flatten(0, 1), torch.cat([blank if alpha is None else alpha for alpha in found])


def _join(values: Sequence[Tensor | None], parts: Sequence[RayBatch], blank: float) -> Tensor | None:
    """The values of all parts, ``blank`` for those that have none; None if no part has any."""
    if all(value is None for value in values):
        return None
    known = zip(values, parts, strict=True)
    return torch.cat([part.colors.new_full((len(part.rays),), blank) if v is None else v for v, part in known])


def _digest(tensors: Sequence[Tensor], text: str = "") -> str:
    """A short checksum of numbers."""
    digest = hashlib.blake2b(text.encode(), digest_size=8)
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
