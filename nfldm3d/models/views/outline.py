"""What the view to draw shows on the whole, guessed from a summary of the given one and from where both were taken."""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nfldm3d.camera import Camera
from nfldm3d.models.priors.image_denoiser import Layout
from nfldm3d.models.priors.told import tell_viewpoint

HIDDEN = 256
POSES = 31
"""Numbers in which the places of two cameras are told."""


class Outline(nn.Module):
    """Draws a coarse map of features: attention finds nothing in the given view of a place that it does not show, and
    convolutions cannot tell where in an unseen picture something should be. Says nothing at first."""

    def __init__(self, inputs: int, memory: int, channels: int, side: int, width: int):
        """``inputs`` are channels of a picture, ``memory`` numbers tell how noisy the drawn one is, and the map has
        ``channels`` at ``side`` x ``side`` places before it is widened to ``width``."""
        super().__init__()
        self.look, self.stand, self.noise = Summary(inputs, HIDDEN), nn.Linear(POSES, HIDDEN), nn.Linear(memory, HIDDEN)
        self.layout, self.tell = Layout(HIDDEN, channels, side, width), nn.Linear(HIDDEN, memory)
        for parameter in self.tell.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        given: Float[Tensor, "objects inputs height width"],
        shown: Float[Tensor, "objects 1"],
        poses: Float[Tensor, "objects poses"],
        noise: Float[Tensor, "objects memory"],
    ) -> tuple[Float[Tensor, "objects width side side"], Float[Tensor, "objects memory"]]:
        """The map, and what every place is told; ``shown`` is 0 for a view that is noise, 1 for one that is clean."""
        known = shown * (self.look(given) + self.stand(poses))
        joined = known + self.noise(noise)
        return self.layout(joined), self.tell(functional.silu(joined))


class Summary(nn.Module):
    """What a picture shows on the whole, in its quarters."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        widths = (inputs, 96, 192, 384)
        layers = [nn.Conv2d(first, second, 3, padding=1) for first, second in itertools.pairwise(widths)]
        self.layers, self.answer = nn.ModuleList(layers), nn.Linear(4 * widths[-1], outputs)

    def forward(self, hidden: Float[Tensor, "pictures inputs height width"]) -> Float[Tensor, "pictures outputs"]:
        for number, layer in enumerate(self.layers):
            hidden = functional.silu(layer(hidden))
            if number < len(self.layers) - 1 and min(hidden.shape[2:]) > 2:
                hidden = functional.avg_pool2d(hidden, 2)
        return self.answer(functional.adaptive_avg_pool2d(hidden, 2).flatten(1))


def tell_poses(camera: Camera) -> Float[Tensor, "objects poses"]:
    """Where two cameras (objects 2) stand about the origin and how far apart, where they aim, and their lenses."""
    x, y, z = camera.centers.float().unbind(-1)
    azimuth, elevation = torch.rad2deg(torch.atan2(y, x)), torch.rad2deg(torch.atan2(z, torch.hypot(x, y)))
    distance = camera.centers.float().norm(dim=-1, keepdim=True).clamp(min=1e-6)
    lens = 2 * camera.focal.float() / torch.tensor((camera.width, camera.height), device=x.device)
    aims = camera.world_from_camera[..., :3, 2].float()
    each = torch.cat((tell_viewpoint(azimuth, elevation)[..., 1:], distance.log(), aims, lens), dim=-1)
    apart = tell_viewpoint(azimuth[:, 1] - azimuth[:, 0], elevation[:, 1] - elevation[:, 0])
    return torch.cat((each.flatten(1), apart[:, :5]), dim=-1)  # its first number is 1, of what is known
