"""What the view to draw shows on the whole, guessed from a summary of the given one and from where both were taken."""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nfldm3d.camera import Camera

HIDDEN = 256
POSES = 28
"""Numbers in which the places of two cameras are told."""


class Outline(nn.Module):
    """Draws a coarse map of features: of a place that the given view does not show attention finds nothing there, and
    convolutions cannot tell where in an unseen picture something should be. Says nothing at first."""

    def __init__(self, inputs: int, memory: int, channels: int, side: int, width: int):
        """``inputs`` are channels of a picture, ``memory`` numbers tell how noisy the drawn one is, and the map has
        ``channels`` at ``side`` x ``side`` places before it is widened to ``width``."""
        super().__init__()
        self.shape = (channels, side, side)
        self.look, self.stand, self.noise = Summary(inputs, HIDDEN), nn.Linear(POSES, HIDDEN), nn.Linear(memory, HIDDEN)
        self.join = nn.Sequential(nn.SiLU(), nn.Linear(HIDDEN, 2 * HIDDEN), nn.SiLU())
        self.draw, self.widen = nn.Linear(2 * HIDDEN, channels * side**2), nn.Conv2d(channels, width, 1)
        self.tell = nn.Linear(2 * HIDDEN, memory)
        for parameter in (*self.widen.parameters(), *self.tell.parameters()):
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
        joined = self.join(known + self.noise(noise))
        return self.widen(self.draw(joined).unflatten(-1, self.shape)), self.tell(joined)


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
    """Where two cameras (objects 2) stand about the origin and where they aim, as numbers without jumps."""
    x, y, z = camera.centers.float().unbind(-1)
    around, distance = torch.atan2(y, x), camera.centers.float().norm(dim=-1).clamp(min=1e-6)
    up = torch.asin((z / distance).clamp(-1, 1))
    between = around[:, 1] - around[:, 0]
    waves = [wave for order in (1, 2) for wave in ((order * around).cos(), (order * around).sin())]
    lens = 2 * camera.focal.float() / torch.tensor((camera.width, camera.height), device=x.device)
    each = torch.stack((*waves, up.cos(), up.sin(), distance.log()), dim=-1)
    told = torch.cat((each, camera.world_from_camera[..., :3, 2].float(), lens), dim=-1)
    turn = torch.stack([wave for order in (1, 2) for wave in ((order * between).cos(), (order * between).sin())], -1)
    return torch.cat((told.flatten(1), turn), dim=-1)
