"""A ball, pictures of it, and options that fit it in a second."""

from dataclasses import replace

import torch

from nfldm3d import Box, Camera, Rgb, Scene, VoxelField
from nfldm3d.data import PosedImages
from nfldm3d.fitting import FitOptions
from nfldm3d.rendering import render

QUICK = FitOptions(steps=120, rays_per_step=1024, voxels=24**3, surroundings=0, background="none", degree=0)


def ball_scene() -> Scene:
    """A ball, red on one side and green on the other, off the origin."""
    box = Box((-1.0, 0.0, 1.0), (2.0, 2.5, 3.0))
    field = VoxelField.zeros(box, (30, 25, 20), 3)
    centers = field.voxel_centers()
    inside = (centers - torch.tensor(box.center)).norm(dim=-1) < 0.8
    colors = torch.where(
        (centers[..., :1] > box.center[0]), torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.8, 0.2])
    )
    return Scene(VoxelField(inside * 40.0, colors.contiguous(), box), Rgb())


def views_of(scene: Scene, count: int = 12, size: tuple[int, int] = (48, 36)) -> PosedImages:
    """Pictures of a scene from a circle, with depth."""
    orbit = [
        Camera.orbit(scene.box.center, 4.0, views=count // 2, elevation_degrees=angle, width=size[0], height=size[1])
        for angle in (-20.0, 40.0)
    ]
    camera = Camera.cat(orbit)
    picture = render(scene, camera)
    depth = torch.where(picture.opacity > 0.9, picture.depth, 0.0)
    images = PosedImages.from_tensors(picture.image, camera, depth=depth)
    return replace(images, metadata={"box": {"lower": list(scene.box.lower), "upper": list(scene.box.upper)}})
