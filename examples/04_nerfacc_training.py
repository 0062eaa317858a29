"""A training loop written for nerfacc, on any machine: instant-ngp's, with a voxel field in place of its hash grid.

python examples/04_nerfacc_training.py --out out/nerfacc

Everything between the lines of ``train`` is nerfacc's own interface; ``install`` gives it kernels that need neither a
GPU nor a compiler. The capture is made up on the spot.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import nerfacc
import torch
from torch import Tensor, nn

from nfldm3d import Box, Camera, Rays, Rgb, Scene, VoxelField, render
from nfldm3d.evaluation.metrics import psnr
from nfldm3d.interop.nerfacc import NerfaccCallbacks, from_nerfacc_rendering, install, occ_grid_estimator
from nfldm3d.pictures import save_contact_sheet

BOX = Box((-1.2, -0.8, 0.0), (1.2, 0.8, 0.9))  # metres
RESOLUTION = (72, 48, 27)
WHITE = torch.ones(3)


def make_truth() -> Scene:
    """A striped ball and a brick on a chequered floor, finer than what will be fitted."""
    field = VoxelField.zeros(BOX, (144, 96, 54), channels=3)
    points = field.voxel_centers()
    x, y, z = points.unbind(-1)
    ball = (points - torch.tensor([-0.45, 0.1, 0.42])).norm(dim=-1) < 0.34
    brick = ((points - torch.tensor([0.55, -0.1, 0.3])).abs() < torch.tensor([0.3, 0.35, 0.26])).all(-1)
    floor = (z < 0.05) & (x.abs() < 1.1) & (y.abs() < 0.7)
    check = ((x * 5).floor() + (y * 5).floor()) % 2
    stripes = 0.5 + 0.5 * torch.sin(30 * z)
    colors = torch.stack((0.3 + 0.5 * check, 0.35 + 0.3 * check, 0.5 + 0.2 * check), dim=-1)
    colors = torch.where(brick[..., None], torch.stack((x, 0.8 - z, 0.9 - x), dim=-1).clamp(0, 1), colors)
    colors = torch.where(ball[..., None], torch.stack((0.95 * stripes + 0.05, 0.3 + 0 * x, 0.2 + 0 * x), -1), colors)
    return Scene(VoxelField(60.0 * (ball | brick | floor), colors, BOX), Rgb(), WHITE)


class RadianceField(nn.Module):
    """Density and colour on a voxel grid, as logarithm and logit."""

    def __init__(self):
        super().__init__()
        self.log_density = nn.Parameter(torch.zeros(RESOLUTION))
        self.color_logits = nn.Parameter(torch.zeros(*RESOLUTION, 3))

    def forward(self) -> Scene:
        return Scene(VoxelField(self.log_density.exp(), self.color_logits.sigmoid(), BOX), Rgb(), WHITE)


def look(scene: Scene, rays: Rays, estimator: nerfacc.OccGridEstimator) -> tuple[Tensor, Tensor, Tensor]:
    """Colours, opacities and depths of rays, by nerfacc."""
    callbacks = NerfaccCallbacks(scene, rays)
    ray_indices, t_starts, t_ends = estimator.sampling(
        rays.origins,
        rays.directions,
        sigma_fn=callbacks.sigma_fn,
        t_min=callbacks.t_min,
        t_max=callbacks.t_max,
        render_step_size=callbacks.render_step_size,
        stratified=estimator.training,
    )
    return nerfacc.rendering(
        t_starts,
        t_ends,
        ray_indices,
        n_rays=len(rays),
        rgb_sigma_fn=callbacks.rgb_sigma_fn,
        render_bkgd=callbacks.render_bkgd,
    )[:3]


def train(camera: Camera, images: Tensor, steps: int) -> Scene:
    """Fits images (views 3 height width) by Adam on random pixels."""
    field = RadianceField()
    estimator = nerfacc.OccGridEstimator([*BOX.lower, *BOX.upper], resolution=list(RESOLUTION))
    optimizer = torch.optim.Adam(field.parameters(), lr=0.15, eps=1e-15)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1 ** (1 / steps))
    all_rays, all_pixels = camera.rays().reshape(-1), images.movedim(1, -1).reshape(-1, 3)
    for step in range(steps):
        batch = torch.randint(len(all_rays), (4096,))
        scene, rays = field(), all_rays[batch]
        estimator.update_every_n_steps(step, NerfaccCallbacks(scene, rays).occ_eval_fn, occ_thre=1e-2)
        colors, _, _ = look(scene, rays, estimator)
        loss = nn.functional.smooth_l1_loss(colors, all_pixels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step:4}  loss {loss.item():.5f}  occupied {estimator.binaries.float().mean().item():.1%}")
    with torch.no_grad():
        return without_haze(field(), estimator.binaries[0])


def without_haze(scene: Scene, occupied: Tensor) -> Scene:
    """The scene as the grid let it be seen: other voxels hold what no ray has ever asked about."""
    seen = nn.functional.max_pool3d(occupied[None].float(), 3, stride=1, padding=1)[0]
    return replace(scene, field=replace(scene.field, density=scene.field.density * seen))


def main(out: Path, steps: int) -> None:
    install()
    torch.manual_seed(0)  # nerfacc draws from the global generator
    views = Camera.orbit((0.0, 0.0, 0.3), radius=2.6, views=28, elevation_degrees=35.0, width=96, height=72)
    photographs = render(make_truth(), views).image  # (28 3 72 96)
    held_out = torch.arange(28) % 7 == 3
    start = time.perf_counter()
    scene = train(views[~held_out], photographs[~held_out], steps)
    print(f"{steps} steps in {time.perf_counter() - start:.1f} s")

    camera, truth = views[held_out], photographs[held_out]
    estimator = occ_grid_estimator(scene).eval()  # filled from the field, no updates needed
    with torch.no_grad():
        results = [look(scene, view.rays().reshape(-1), estimator) for view in camera]
    pictures = torch.stack([from_nerfacc_rendering(camera[k], *result).image for k, result in enumerate(results)])
    print(f"held-out PSNR {float(psnr(pictures, truth)):.2f} dB by nerfacc", end=", ")
    print(f"{float(psnr(render(scene, camera).image, truth)):.2f} dB by nfldm3d.render")
    save_contact_sheet({"truth": truth, "nerfacc on a voxel field": pictures}, out / "contact.png")
    scene.save(out / "scene.nfld")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/nerfacc"))
    parser.add_argument("--steps", type=int, default=400)
    arguments = parser.parse_args()
    main(arguments.out, arguments.steps)
