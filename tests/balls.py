"""A field that is a formula: what a class of one's own needs, and no more than ``Field`` asks for."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nfldm3d import Box
from nfldm3d.fields import FieldState

BOX = Box((-0.6, 1.0, -1.1), (1.4, 3.2, 1.3))


@dataclass(frozen=True)
class Ball:
    """Density that falls from the middle to the surface, k (1 - r² / R²), and features that are places."""

    radius: Tensor
    density: Tensor
    box: Box = BOX
    voxel_size: tuple[float, float, float] = (0.1, 0.1, 0.1)
    channels = 3

    @property
    def device(self) -> torch.device:
        return self.radius.device

    def to(self, target) -> "Ball":
        return replace(self, radius=self.radius.to(target), density=self.density.to(target))

    def within(self, points: Tensor) -> Tensor:
        """The same points; nobody may ask a field what is outside its box."""
        assert self.box.scaled(1 + 1e-5).contains(points).all(), "a field was asked outside its box"
        return points

    def offset(self, points: Tensor) -> Tensor:
        return points - points.new_tensor(self.box.center)

    def query_density(self, points: Tensor) -> Tensor:
        return self.density * (1 - self.offset(self.within(points)).square().sum(-1) / self.radius**2).relu()

    def query(self, points: Tensor) -> tuple[Tensor, Tensor]:
        return self.query_density(points), 0.5 + 0.4 * self.offset(points)

    def normals(self, points: Tensor) -> Tensor:
        return torch.nn.functional.normalize(self.offset(self.within(points)), dim=-1)

    def occupancy(self, threshold: float = 0.0) -> Tensor:
        cells = self.box.voxel_centers((8, 9, 7), like=self.radius)
        return self.offset(cells).norm(dim=-1) < self.radius + 0.3  # half a cell's diagonal and more


class SolidBall(Ball):
    """The same density everywhere inside."""

    def query_density(self, points: Tensor) -> Tensor:
        return self.density * (self.offset(self.within(points)).norm(dim=-1) < self.radius)


class StoredBall(Ball):
    """One that scene files can keep."""

    def state(self) -> FieldState:
        return FieldState(
            {"lower": self.box.lower, "upper": self.box.upper}, {"sizes": torch.stack((self.radius, self.density))}
        )

    @classmethod
    def from_state(cls, state: FieldState) -> "StoredBall":
        return cls(*state.tensors["sizes"], Box(tuple(state.config["lower"]), tuple(state.config["upper"])))


def make_ball(radius: float = 0.8, density: float = 3.0, kind: type[Ball] = Ball) -> Ball:
    return kind(torch.tensor(radius), torch.tensor(density))


class Network(torch.nn.Module):
    """Density and features from a few sines and two layers."""

    box, channels, voxel_size = BOX, 4, (0.1, 0.1, 0.1)

    def __init__(self):
        super().__init__()
        layers = (torch.nn.Linear(6, 16), torch.nn.Softplus(), torch.nn.Linear(16, 5), torch.nn.Softplus())
        self.layers = torch.nn.Sequential(*layers)

    @property
    def device(self) -> torch.device:
        return self.layers[0].weight.device

    def query(self, points: Tensor) -> tuple[Tensor, Tensor]:
        values = self.layers(torch.cat((points.sin(), points.cos()), dim=-1))
        return values[..., 0], values[..., 1:]

    def query_density(self, points: Tensor) -> Tensor:
        return self.query(points)[0]

    def normals(self, points: Tensor) -> Tensor:
        with torch.enable_grad():
            places = points.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.query_density(places).sum(), places)
        return -torch.nn.functional.normalize(slope, dim=-1)

    def occupancy(self, threshold: float = 0.0) -> Tensor:
        return torch.ones(4, 5, 6, dtype=torch.bool, device=self.device)
