"""A field that is a formula, not a grid: a torus that is rendered, learned from pictures, and exported as a mesh.

Whatever has these nine members is a field: a network or a hash grid as well.

python examples/07_field_of_your_own.py --out out/torus
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from nfldm3d import Box, Camera, Rgb, Scene, export_mesh, prepare, render
from nfldm3d.pictures import save_image


@dataclass(frozen=True)
class Torus:
    """A ring of radius 1 m around z, in the colours of the directions; ``thickness`` in metres can be learned."""

    thickness: Tensor
    box = Box((-1.5, -1.5, -0.5), (1.5, 1.5, 0.5))
    channels, voxel_size = 3, (0.04, 0.04, 0.04)

    @property
    def device(self) -> torch.device:
        return self.thickness.device

    def to(self, target) -> "Torus":
        return replace(self, thickness=self.thickness.to(target))

    def from_ring(self, points: Tensor) -> Tensor:
        flat = torch.nn.functional.normalize(points * points.new_tensor((1.0, 1.0, 0.0)), dim=-1)
        return points - flat

    def query_density(self, points: Tensor) -> Tensor:
        return 60 * torch.sigmoid((self.thickness - self.from_ring(points).norm(dim=-1)) / 0.02)

    def query(self, points: Tensor) -> tuple[Tensor, Tensor]:
        return self.query_density(points), 0.5 + 0.5 * self.normals(points)

    def normals(self, points: Tensor) -> Tensor:
        return torch.nn.functional.normalize(self.from_ring(points), dim=-1)

    def occupancy(self, threshold: float = 0.0) -> Tensor:
        """True in every cell where the density may exceed the threshold: no more than half a diagonal from there."""
        cells = self.box.voxel_centers((48, 48, 16), like=self.thickness)
        return self.from_ring(cells).norm(dim=-1) < self.thickness + 0.15 + 0.06


def main(out: Path, steps: int) -> None:
    white = torch.ones(3)
    flight = Camera.orbit((0.0, 0.0, 0.0), radius=3.5, views=6, elevation_degrees=35.0, width=64, height=48)
    photographs = render(Scene(Torus(torch.tensor(0.35)), Rgb(), white), flight).image  # (6 3 48 64)

    thickness = torch.tensor(0.2, requires_grad=True)
    optimizer = torch.optim.Adam([thickness], lr=0.02)
    for step in range(steps):
        view = step % len(flight)
        picture = render(Scene(Torus(thickness), Rgb(), white), flight[view]).image
        optimizer.zero_grad()
        (picture - photographs[view]).square().mean().backward()
        optimizer.step()
    print(f"thickness {thickness.item():.3f} m, learned from pictures of one of 0.350 m")

    scene = Scene(Torus(thickness.detach()), Rgb(), white)
    renderer = prepare(scene)  # looks at empty space once, whatever the number of frames
    for view, camera in enumerate(flight.resized(320, 240)):
        save_image(renderer.render(camera).image, out / f"view{view}.png")
    print(export_mesh(scene, out / "torus.glb"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/torus"))
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    main(arguments.out, arguments.steps)
