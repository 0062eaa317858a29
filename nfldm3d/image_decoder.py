"""The learned appearance: a network that turns composited features into a picture."""

import copy
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nfldm3d.blocks import UNet
from nfldm3d.geometry import Rays, invert_pose, transform_points


class ImageDecoder(nn.Module):
    """Channels 0 to 2 are sRGB; a network adds what it makes of all channels and of where each ray ends.

    The last layer starts small: an untrained decoder shows about the plain colours. Fine texture comes from sines and
    cosines of the surface's position, in octaves from ``finest`` metres upwards. Strokes are as wide as they were in
    training: pictures with finer pixels get the same detail, enlarged, over colours of their own resolution.

    Where features are smooth, a network that halves pictures draws a grid of its own. Except in training, the mean over
    the offsets of that halving is taken, which is free of it (cycle spinning, Coifman & Donoho 1995).
    """

    anchor: Float[Tensor, "4 4"]
    """World from the axes in which positions are coded; changes when the scene is moved."""

    def __init__(
        self,
        channels: int = 12,
        *,
        widths: tuple[int, ...] = (48, 64),
        octaves: int = 4,
        finest: float = 0.5,
        pixel_angle: float = 1 / 32,
    ):
        """An untrained decoder.

        Args:
            finest: wavelength of the first octave, in metres.
            pixel_angle: radians between neighbouring rays in the middle of the pictures that it is trained on.
        """
        super().__init__()
        if channels < 3:
            raise ValueError(f"an image decoder needs at least the 3 colour channels, got {channels}")
        if not (0 < finest < math.inf and 0 < pixel_angle < math.inf):
            raise ValueError(f"finest and pixel_angle of an image decoder must be above 0, got {finest}, {pixel_angle}")
        self.widths, self.octaves, self.finest, self.pixel_angle = tuple(widths), octaves, finest, pixel_angle
        self._channels, self.averages = channels, True
        self.network = UNet(channels + 4 + 6 * octaves, 3, self.widths, blocks=2, local=True)
        with torch.no_grad():
            for parameter in self.network.head.parameters():
                parameter *= 0.1  # not 0: every layer learns from the first step on
        identity = torch.eye(4, device="cpu")  # where shapes alone are asked for, torch would import its compiler
        self.register_buffer("anchor", identity, persistent=False)

    @property
    def channels(self) -> int:
        """Number of feature channels that a field must have."""
        return self._channels

    @property
    def per_ray(self) -> bool:
        """It looks at neighbouring pixels."""
        return False

    @property
    def needs_normals(self) -> bool:
        """It sees positions, from which it learns what it needs of shape."""
        return False

    def __str__(self) -> str:
        weights = sum(parameter.numel() for parameter in self.parameters())
        return f"ImageDecoder of {self.channels} channels, {weights} weights"

    def quick(self) -> "ImageDecoder":
        """The same weights, drawing once instead of averaging over the offsets of its halvings: for previews.

        It takes about half the time, and shows a faint grid on smooth surfaces.
        """
        other = copy.copy(self)
        other.averages = False
        return other

    def forward(
        self,
        features: Float[Tensor, "*views height width channels"],
        opacity: Float[Tensor, "*views height width"],
        rays: Rays,
        distance: Float[Tensor, "*views height width"],
    ) -> Float[Tensor, "*views 3 height width"]:
        """Pictures over black of composited features; ``distance`` is the mean along the ray, 0 if it meets nothing."""
        with torch.autocast(distance.device.type, enabled=False):  # half precision would blur positions
            inward = invert_pose(self.anchor.to(distance.dtype))
            points = transform_points(inward, rays.at(distance).flatten(0, -2)).unflatten(0, rays.shape)
            directions = rays.directions @ inward[:3, :3].T
            seen = torch.cat((features, torch.log1p(distance)[..., None], directions, points), dim=-1)
            seen = seen.reshape(-1, *seen.shape[-3:]).movedim(-1, 1)  # (views channels+7 height width)
            coarse = self._coarsen(seen, rays)
            parts, places = [coarse[:, :-3]], coarse[:, -3:]
            for octave in range(self.octaves):
                phase = places * (2 * math.pi / (self.finest * 2**octave))
                parts += [torch.sin(phase), torch.cos(phase)]
        detail = self._draw(torch.cat(parts, dim=1)).to(features.dtype)
        if detail.shape[-2:] != seen.shape[-2:]:
            detail = functional.interpolate(detail, seen.shape[-2:], mode="bilinear", align_corners=False)
        return features[..., :3].movedim(-1, -3) + opacity[..., None, :, :] * detail.reshape(
            *opacity.shape[:-2], 3, *opacity.shape[-2:]
        )

    def _draw(self, inputs: Float[Tensor, "views inputs height width"]) -> Float[Tensor, "views 3 height width"]:
        inputs = inputs.to(self.network.stem.weight.dtype)
        if self.training or not self.averages:
            return self.network(inputs)
        offsets = 2 ** (len(self.widths) - 1)
        total = torch.zeros_like(inputs[:, :3])
        for offset in range(offsets):  # along the diagonal: all pairs cost far more and gain little
            moved = functional.pad(inputs, (offset, 0, offset, 0), mode="replicate")
            total += self.network(moved)[..., offset:, offset:]
        return total / offsets

    def _coarsen(
        self, seen: Float[Tensor, "views inputs height width"], rays: Rays
    ) -> Float[Tensor, "views inputs rows columns"]:
        """What pixels of about ``pixel_angle`` would see; the same if they are not finer already."""
        height, width = seen.shape[-2:]
        if min(height, width) < 2:
            return seen
        factor = round(self.pixel_angle / _pixel_angle(rays.directions.reshape(-1, height, width, 3)))
        if factor < 2:
            return seen
        return functional.interpolate(seen, (-(-height // factor), -(-width // factor)), mode="area")

    def image(
        self,
        features: Float[Tensor, "*views height width channels"],
        opacity: Float[Tensor, "*views height width"],
        rays: Rays,
        distance: Float[Tensor, "*views height width"] | None = None,
        normals: Float[Tensor, "*views height width 3"] | None = None,
    ) -> Float[Tensor, "*views height width 3"]:
        """Colour over black of whole pictures of composited features, not clamped."""
        if distance is None or features.dim() < 3:
            raise ValueError("a learned decoder needs whole pictures (height, width, channels) and the rays' distances")
        return self(features, opacity, rays, distance).movedim(-3, -1)

    def point_color(
        self,
        features: Float[Tensor, "*batch channels"],
        directions: Float[Tensor, "*batch 3"],
        normals: Float[Tensor, "*batch 3"] | None = None,
    ) -> Float[Tensor, "*batch 3"]:
        """sRGB in [0, 1] of single points: the first three channels, without the network's detail."""
        return features[..., :3].clamp(0, 1)

    def moved(self, motion: Float[Tensor, "4 4"]) -> "ImageDecoder":
        """The decoder of a scene that has been turned and shifted; it shares its weights with this one."""
        other = copy.copy(self)
        other._buffers = dict(self._buffers)
        other.anchor = motion.to(self.anchor.device, torch.float32) @ self.anchor.float()
        return other

    def config(self) -> dict[str, object]:
        """Constructor arguments and anchor as plain JSON values; the weights live in a file of their own."""
        return {
            "channels": self.channels,
            "widths": list(self.widths),
            "octaves": self.octaves,
            "finest": self.finest,
            "pixel_angle": self.pixel_angle,
            "anchor": self.anchor.tolist(),
        }


def _pixel_angle(directions: Float[Tensor, "views height width 3"]) -> float:
    """One over the focal length in pixels, of pinhole cameras, from any rectangle of their rays.

    Corners p of a rectangle on the image plane satisfy p00 + p11 = p01 + p10, which says how far along its ray each is.
    """
    width = directions.shape[2]
    corners = directions.detach()[:, [0, -1, 0, -1], [0, -1, -1, 0]].double()  # (views corners 3): 00, 11, 01, 10
    signs = corners.new_tensor((1.0, 1.0, -1.0, -1.0))
    lengths = torch.linalg.svd((corners * signs[:, None]).transpose(1, 2)).Vh[:, -1]  # (views corners)
    p00, _, p01, p10 = (corners * lengths[..., None]).unbind(1)
    normal = functional.normalize(torch.linalg.cross(p01 - p00, p10 - p00), dim=-1)
    away = (normal * p00).sum(-1).abs().clamp(min=1e-12)
    return float(((p01 - p00).norm(dim=-1) / (width - 1) / away).median().clamp(min=1e-9))
