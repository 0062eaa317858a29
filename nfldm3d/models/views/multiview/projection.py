"""The projection layer: a U-Net's features of all views into a volume, and rendered from it into every view.

Views are fused as IBRNet does (Wang et al. 2021): each voxel weighs what the views show of it by how well they agree. A
small 3-D network completes the volume, and volume rendering with a foreground and a background brings it back, so that
what all views are told is one thing (ViewDiff, section 3.2).
"""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nfldm3d.models.views.multiview.batches import ViewBatch
from nfldm3d.models.views.multiview.volume import Fetched, render_volume, unproject, voxel_points

FOG = -5.0
"""Where the softplus of a volume's density begins: thin enough to see through."""
NOISE = 1.0
"""Deviation of what training adds to densities before their softplus, so that they do not stay half opaque."""


class ViewFusion(nn.Module):
    """Features of a voxel from those of the views that see it."""

    def __init__(self, width: int, memory: int):
        super().__init__()

        def layers(*sizes: int) -> nn.Sequential:
            pairs = itertools.pairwise(sizes)
            return nn.Sequential(*(part for a, b in pairs for part in (nn.Linear(a, b), nn.ELU())))

        self.ray = layers(4, width // 2, width)
        self.time = layers(memory, memory // 2, width)
        self.base = layers(3 * width, 2 * width, width)
        self.agreement = nn.Sequential(*layers(width, width), nn.Linear(width, width + 1))
        self.weight = nn.Sequential(*layers(width, width), nn.Linear(width, 1))
        self.out = layers(2 * width + 1, width)

    def forward(self, fetched: Fetched, times: Float[Tensor, "views memory"]) -> Float[Tensor, "points width"]:
        """``times`` are the embeddings of the views' time steps."""
        seen = fetched.seen[..., None].to(fetched.values)
        rays = torch.cat((fetched.directions, fetched.depths[..., None]), dim=-1).to(fetched.values)
        shown = fetched.values + self.ray(rays) + self.time(times.to(fetched.values))[:, None]
        evenly = seen / seen.sum(0).clamp(min=1)
        mean, variance = _moments(shown, evenly)
        pooled = torch.cat((mean, variance), dim=-1).expand(len(shown), -1, -1)
        hidden = self.base(torch.cat((pooled, shown), dim=-1))
        change, logit = self.agreement(hidden * evenly).split((hidden.shape[-1], 1), dim=-1)
        hidden = hidden + change
        weights = torch.sigmoid(self.weight(hidden * torch.sigmoid(logit))) * seen
        total = weights.sum(0)
        mean, variance = _moments(hidden, weights / total.clamp(min=1e-6))
        return self.out(torch.cat((mean, variance, total / len(shown)), dim=-1))


class VolumeNetwork(nn.Module):
    """A U-Net of two levels on a volume, told a time step."""

    def __init__(self, width: int, memory: int):
        super().__init__()
        self.fine, self.coarse = _VolumeBlock(width, width, memory), _VolumeBlock(2 * width, 2 * width, memory)
        self.shrink, self.last = nn.Conv3d(width, 2 * width, 3, 2, 1), _VolumeBlock(3 * width, width, memory)

    def forward(
        self, volume: Float[Tensor, "1 width x y z"], time: Float[Tensor, "1 memory"]
    ) -> Float[Tensor, "1 width x y z"]:
        fine = self.fine(volume, time)
        coarse = functional.interpolate(self.coarse(self.shrink(fine), time), size=volume.shape[2:])
        return self.last(torch.cat((fine, coarse), dim=1), time)


class VolumeDecoder(nn.Module):
    """Density and colours from features of a volume, by the layers of the authors' renderer.

    Theirs decodes each sample of a ray and is told its direction; this one decodes voxels, so that all views are shown
    one thing and ``ops.integrate_rays`` can march it.
    """

    def __init__(self, width: int):
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.density = nn.Linear(width, 1)
        self.colors = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        nn.init.constant_(self.density.bias, FOG)

    def forward(
        self, volume: Float[Tensor, "x y z width"]
    ) -> tuple[Float[Tensor, "x y z"], Float[Tensor, "x y z width"]]:
        """Density per unit of length, and colours between 0 and 1."""
        hidden = self.hidden(volume)
        thickness = self.density(hidden)[..., 0]
        if self.training:
            thickness = thickness + NOISE * torch.randn(thickness.shape).to(thickness)  # seeded by the loop
        return functional.softplus(thickness), torch.sigmoid(self.colors(hidden))


class ProjectionLayer(nn.Module):
    """What one transformer of a U-Net is added."""

    def __init__(
        self,
        channels: int,
        memory: int,
        *,
        width: int = 16,
        grid: int = 32,
        unbounded: bool = True,
        replace: bool = False,
    ):
        """For features of ``channels``.

        Args:
            memory: width of the embeddings of time steps.
            width: channels of the volume.
            grid: voxels along each side, a multiple of 4.
            unbounded: whether the outer half of the volume is what lies beyond the cube.
            replace: whether what is rendered takes the place of what the transformer gives, as in the authors' runs,
                or is added to it, from nothing at first.
        """
        super().__init__()
        if grid < 4 or grid % 4 or width < 2:
            raise ValueError(f"a volume needs a multiple of 4 voxels a side and 2 channels, got {grid} and {width}")
        self.grid, self.unbounded, self.replace = grid, unbounded, replace
        self.norm = nn.GroupNorm(1, channels)
        self.compress = nn.Conv2d(channels, width, 1)
        self.fusion, self.network = ViewFusion(width, memory), VolumeNetwork(width, memory)
        self.decoder = VolumeDecoder(width)
        self.near, self.far = (_scale(width, channels) for _ in range(2))
        if not replace:
            for head in (self.near, self.far):
                nn.init.zeros_(head[-1].weight)  # type: ignore[arg-type]
                nn.init.zeros_(head[-1].bias)  # type: ignore[arg-type]

    def forward(
        self, hidden: Float[Tensor, "all channels height width"], batch: ViewBatch
    ) -> Float[Tensor, "all channels height width"]:
        """What is rendered into all views of all objects."""
        compressed = self.compress(self.norm(hidden)).unflatten(0, (-1, batch.views))
        rendered, opacity = zip(*(self._project(each, batch, k) for k, each in enumerate(compressed)), strict=True)
        features, mask = torch.cat(rendered).to(hidden), torch.cat(opacity).to(hidden)
        return mask * self.near(features) + (1 - mask) * self.far(features)

    def fill(
        self, features: Float[Tensor, "views width height width_"], batch: ViewBatch, number: int
    ) -> tuple[Float[Tensor, "x y z"], Float[Tensor, "x y z width"]]:
        """Density and features of the volume of object ``number``; the last views may be left out."""
        looked_at = batch.views - batch.left_out
        if looked_at < 1:
            raise ValueError(
                f"{batch.left_out} of {batch.views} views are left out, so that none is seen; leave out fewer"
            )
        assert batch.times is not None
        times = batch.times[number].float()
        points, known = voxel_points(self.grid, features, unbounded=self.unbounded)
        fetched = unproject(features[:looked_at].float(), batch.camera[number][:looked_at], points)
        fused = self.fusion(fetched, times[:looked_at]) * known[:, None]
        volume = fused.T.reshape(1, -1, self.grid, self.grid, self.grid)  # points are x first: 1 width x y z
        density, colors = self.decoder(self.network(volume, times[-1:])[0].movedim(0, -1))
        return density * known.reshape(density.shape), colors

    def _project(
        self, features: Float[Tensor, "views width height width_"], batch: ViewBatch, number: int
    ) -> tuple[Float[Tensor, "views width height width_"], Float[Tensor, "views 1 height width_"]]:
        views, _, height, width = features.shape
        with torch.autocast(features.device.type, enabled=False):  # sums over rays need single precision
            density, colors = self.fill(features.float(), batch, number)
            rays = batch.camera[number].resized(width, height).rays().reshape(-1)
            made = render_volume(density, colors, rays, unbounded=self.unbounded)
        picture = made.together().unflatten(0, (views, height, width)).movedim(-1, 1)
        return picture, made.opacity.reshape(views, 1, height, width)


class _VolumeBlock(nn.Module):
    """Norm, activation, convolution, twice, told a time in between."""

    def __init__(self, inputs: int, outputs: int, memory: int):
        super().__init__()
        self.norm_in, self.norm_out = nn.GroupNorm(1, inputs), nn.GroupNorm(1, outputs)
        self.conv_in, self.conv_out = nn.Conv3d(inputs, outputs, 3, 1, 1), nn.Conv3d(outputs, outputs, 3, 1, 1)
        self.time = nn.Linear(memory, outputs)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv3d(inputs, outputs, 1)

    def forward(self, volume: Tensor, time: Float[Tensor, "1 memory"]) -> Tensor:
        hidden = self.conv_in(functional.silu(self.norm_in(volume)))
        hidden = self.norm_out(hidden + self.time(functional.silu(time))[..., None, None, None])
        return self.skip(volume) + self.conv_out(functional.silu(hidden))


def _moments(
    values: Float[Tensor, "views points width"], weights: Float[Tensor, "views points 1"]
) -> tuple[Float[Tensor, "points width"], Float[Tensor, "points width"]]:
    mean = (weights * values).sum(0)
    return mean, (weights * (values - mean).square()).sum(0)


def _scale(width: int, channels: int) -> nn.Sequential:
    """From rendered features, which lie between 0 and 1, to those of a U-Net: no pixel sees its neighbours."""
    first, second, last = nn.Conv2d(width, width, 1), nn.Conv2d(width, channels, 1), nn.Conv2d(channels, channels, 1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)
