"""A projection layer fills its volume where views agree, in the order of axes, from the views that it may look at."""

import pytest
import torch
from torch import nn

from nfldm3d import Camera
from nfldm3d.models.views.multiview.batches import ViewBatch
from nfldm3d.models.views.multiview.projection import FOG, ProjectionLayer, VolumeDecoder
from nfldm3d.models.views.multiview.volume import Fetched, voxel_points

GRID, WIDTH, SIDE = 16, 4, 24
EYES = torch.tensor([[3.0, 0.4, 0.3], [-0.5, 3.0, 0.6], [0.3, -0.6, 3.0], [-2.0, -2.0, 1.0]])


def layer_of(*, unbounded: bool = False) -> ProjectionLayer:
    torch.manual_seed(0)
    return ProjectionLayer(8, 6, width=WIDTH, grid=GRID, unbounded=unbounded).eval()


def batch_of(left_out: int = 1) -> ViewBatch:
    camera = Camera.look_at(EYES, (0.0, 0.0, 0.0), width=SIDE, height=SIDE).reshape(1, 4)
    return ViewBatch(camera, torch.zeros(1, 4, 10), torch.zeros(1, 4, 6), left_out)


@torch.no_grad()
def fill(layer: ProjectionLayer, features: torch.Tensor, left_out: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    return layer.fill(features, batch_of(left_out), 0)


class Mean(nn.Module):
    """Fuses views evenly."""

    def forward(self, fetched: Fetched, times: torch.Tensor) -> torch.Tensor:
        return fetched.values.mean(0)


class Same(nn.Module):
    """Leaves a volume as it is."""

    def forward(self, volume: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return volume


class Bare(nn.Module):
    """Takes features for colours, and their sum for density."""

    def forward(self, volume: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return volume.sum(-1), volume


def seen_at(point: torch.Tensor) -> torch.Tensor:
    """Features that are 1 around where views see a point, 0 elsewhere."""
    pixels, _ = batch_of().camera[0].project(point.expand(4, 1, 3))
    offsets = batch_of().camera[0].pixel_centers() - pixels[:, :, None]
    return (offsets.norm(dim=-1) < 1.8).float()[:, None].expand(-1, WIDTH, -1, -1)


@pytest.mark.parametrize("unbounded", [False, True])
@pytest.mark.parametrize("point", [(0.5, -0.3, 0.1), (-0.4, 0.2, 0.6), (0.1, 0.65, -0.45)])
def test_what_all_views_see_lies_where_it_is(point: tuple[float, float, float], unbounded: bool) -> None:
    layer, place = layer_of(unbounded=unbounded), torch.tensor(point)
    layer.fusion, layer.network, layer.decoder = Mean(), Same(), Bare()
    density, colors = fill(layer, seen_at(place))
    assert density.shape == (GRID,) * 3 and colors.shape == (GRID, GRID, GRID, WIDTH)
    points, _ = voxel_points(GRID, density, unbounded=unbounded)
    solid = points[density.flatten() > 0.8 * WIDTH]  # seen there by all
    assert len(solid) and (solid.mean(0) - place).norm() < 0.2  # of a cube of 2 a side


def test_views_that_are_left_out_do_not_fill() -> None:
    layer, features = layer_of(), torch.randn(4, WIDTH, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    other, first = features.clone(), features.clone()
    other[3] += 1
    first[0] += 1
    assert torch.equal(fill(layer, other)[1], fill(layer, features)[1])
    assert not torch.allclose(fill(layer, other, left_out=0)[1], fill(layer, features, left_out=0)[1])
    assert not torch.allclose(fill(layer, first)[1], fill(layer, features)[1])
    with pytest.raises(ValueError, match="4 of 4 views are left out"):
        fill(layer, features, left_out=4)


def test_corners_that_are_nowhere_are_empty() -> None:
    density, _ = fill(layer_of(unbounded=True), torch.randn(4, WIDTH, SIDE, SIDE))
    known = voxel_points(GRID, density, unbounded=True)[1].reshape(density.shape)
    assert (density[~known] == 0).all() and (density[known] > 0).all() and not known.all()


def test_densities_begin_as_fog_and_are_noisy_in_training_alone() -> None:
    torch.manual_seed(0)
    decoder = VolumeDecoder(WIDTH)
    torch.nn.init.zeros_(decoder.density.weight)
    volume = torch.zeros(20, 20, 20, WIDTH)
    logits = torch.expm1(decoder(volume)[0].detach()).log()
    assert float(logits.mean()) == pytest.approx(FOG, abs=0.05) and float(logits.std()) == pytest.approx(1, abs=0.05)
    assert torch.allclose(torch.expm1(decoder.eval()(volume)[0].detach()).log(), torch.tensor(FOG), atol=1e-3)
