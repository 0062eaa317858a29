"""Random training rays with what their pixels show."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.data.posed_images import PosedImages
from nfldm3d.geometry import Rays

DENSE_DEPTH = 0.5
"""Share of pixels with depth from which on depth maps are taken to show every surface."""


@dataclass(frozen=True)
class RayBatch:
    """Rays and their targets."""

    rays: Rays
    colors: Float[Tensor, "rays 3"]
    """sRGB in [0, 1]."""
    distances: Float[Tensor, " rays"] | None
    """Measured distance along the ray in metres, 0 where unknown; None without depth."""


@dataclass(frozen=True)
class PixelStore:
    """All pixels of a capture in memory, 8 bits a colour, ready to be drawn at random."""

    camera: Camera
    colors: UInt8[Tensor, "pixels 3"]
    depth: Float[Tensor, " pixels"] | None
    usable: Tensor | None
    """Indices of the pixels that masks leave, or None for all."""

    @classmethod
    def load(cls, images: PosedImages, device: torch.device) -> "PixelStore":
        """Reads every image, depth map and mask of the capture."""
        pictures = images.load_images()  # (views 3 height width)
        colors = (pictures * 255).round().to(torch.uint8).movedim(1, -1).reshape(-1, 3)
        depth, masks = images.load_depth(), images.load_masks()
        usable = None if masks is None else masks.reshape(-1).nonzero()[:, 0]
        if usable is not None and len(usable) == 0:
            raise ValueError("the masks leave no pixel to fit; white (True) marks what is used")
        return cls(
            images.camera.to(device),
            colors.contiguous().to(device),
            None if depth is None else depth.reshape(-1).to(device),
            None if usable is None else usable.to(device),
        )

    def surface_points(self) -> tuple[Float[Tensor, "points 3"], Float[Tensor, "points 3"]] | None:
        """World positions and sRGB colours of all pixels with depth; None unless most pixels have it."""
        if self.depth is None or (self.depth > 0).float().mean() < DENSE_DEPTH:
            return None
        positions, colors = [], []
        pixels = self.colors.view(len(self.camera), -1, 3)
        for view, depth in enumerate(self.depth.view(len(self.camera), -1)):
            camera = self.camera[view]
            rays = camera.rays().reshape(-1)
            known = depth > 0
            positions.append(rays.at(depth / (rays.directions @ camera.forward))[known])
            colors.append(pixels[view][known].float() / 255)
        return torch.cat(positions), torch.cat(colors)

    def draw(self, count: int, generator: torch.Generator) -> RayBatch:
        """A batch of ``count`` pixels, drawn evenly with a CPU generator."""
        limit = len(self.colors) if self.usable is None else len(self.usable)
        index = torch.randint(limit, (count,), generator=generator).to(self.colors.device)
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
        return RayBatch(rays, self.colors[index].float() / 255, distances)
