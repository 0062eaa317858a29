"""The learned appearance: a network that turns composited features into a picture."""

import copy
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nfldm3d.blocks import UNet
from nfldm3d.geometry import Rays, invert_pose, transform_points


class ImageDecoder(nn.Module):
    """Channels 0 to 2 are sRGB; a network adds what it makes of all channels and of where each ray ends.

    The last layer starts small: an untrained decoder shows about the plain colours. Fine texture comes from sines and
    cosines of the surface's position, in octaves from ``finest`` metres upwards.
    """

    anchor: Float[Tensor, "4 4"]
    """World from the axes in which positions are coded; changes when the scene is moved."""

    def __init__(
        self, channels: int = 12, *, widths: tuple[int, ...] = (48, 64), octaves: int = 4, finest: float = 0.5
    ):
        super().__init__()
        if channels < 3:
            raise ValueError(f"an image decoder needs at least the 3 colour channels, got {channels}")
        self.widths, self.octaves, self.finest = tuple(widths), octaves, finest
        self._channels = channels
        self.network = UNet(channels + 4 + 6 * octaves, 3, self.widths, blocks=2, local=True)
        with torch.no_grad():
            for parameter in self.network.head.parameters():
                parameter *= 0.1  # not 0: every layer learns from the first step on
        self.register_buffer("anchor", torch.eye(4), persistent=False)

    @property
    def channels(self) -> int:
        """Number of feature channels that a field must have."""
        return self._channels

    @property
    def per_ray(self) -> bool:
        """It looks at neighbouring pixels."""
        return False

    def __str__(self) -> str:
        weights = sum(parameter.numel() for parameter in self.parameters())
        return f"ImageDecoder of {self.channels} channels, {weights} weights"

    def forward(
        self,
        features: Float[Tensor, "*views height width channels"],
        opacity: Float[Tensor, "*views height width"],
        rays: Rays,
        distance: Float[Tensor, "*views height width"],
    ) -> Float[Tensor, "*views 3 height width"]:
        """Pictures over black of composited features; ``distance`` is the mean along the ray, 0 if it meets nothing."""
        with torch.autocast(distance.device.type, enabled=False):  # half precision would blur positions
            inward = invert_pose(self.anchor)
            points = transform_points(inward, rays.at(distance).flatten(0, -2)).unflatten(0, rays.shape)
            directions = rays.directions @ inward[:3, :3].T
        parts = [features, torch.log1p(distance)[..., None], directions]
        for octave in range(self.octaves):
            phase = points * (2 * math.pi / (self.finest * 2**octave))
            parts += [torch.sin(phase), torch.cos(phase)]
        inputs = torch.cat(parts, dim=-1).movedim(-1, -3)
        detail = self.network(inputs.flatten(0, -4) if inputs.dim() > 3 else inputs[None])
        return features[..., :3].movedim(-1, -3) + opacity[..., None, :, :] * detail.reshape(
            *opacity.shape[:-2], 3, *opacity.shape[-2:]
        )

    def image(
        self,
        features: Float[Tensor, "*views height width channels"],
        opacity: Float[Tensor, "*views height width"],
        rays: Rays,
        distance: Float[Tensor, "*views height width"] | None = None,
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
        other.anchor = motion.to(self.anchor) @ self.anchor
        return other

    def config(self) -> dict[str, object]:
        """Constructor arguments and anchor as plain JSON values; the weights live in a file of their own."""
        return {
            "channels": self.channels,
            "widths": list(self.widths),
            "octaves": self.octaves,
            "finest": self.finest,
            "anchor": self.anchor.tolist(),
        }
