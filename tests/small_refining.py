"""A scene with a learned decoder and cameras, and restorers, small enough for tests of refinement."""

import torch

from nfldm3d import Box, Camera, EnvironmentMap, Scene, VoxelField
from nfldm3d.image_decoder import ImageDecoder
from nfldm3d.models.priors.image_denoiser import ImageDenoiser
from nfldm3d.models.priors.restorer import BESIDE, Restorer

BOX = Box((-3.0, -2.0, 0.0), (5.0, 4.0, 2.0))
SIZE = 16
"""Pixels of the restorer's pictures."""


def make_scene(channels: int = 5) -> Scene:
    """A floor with a wall, painted, below a sky, in a decoder's channels; cameras stand in the middle."""
    with torch.random.fork_rng([]):
        torch.manual_seed(4)
        decoder = ImageDecoder(channels, widths=(8, 8), octaves=1).eval()
        field = VoxelField.zeros(BOX, (16, 12, 4), channels)
        field.density[:, :, 0] = 8.0
        field.density[12:, :, :3] = 8.0
        field.features.copy_(torch.rand(field.features.shape))
        sky = EnvironmentMap(torch.rand(4, 8, channels))
    yaw = torch.arange(5) * 1.3
    ahead = torch.stack((yaw.cos(), yaw.sin(), torch.full((5,), -0.2)), dim=-1)
    eyes = torch.tensor((0.8, 1.0, 1.2)) + 0.3 * ahead
    cameras = Camera.look_at(eyes, eyes + ahead, width=24, height=20, horizontal_fov_degrees=80.0)
    return Scene(field, decoder, sky, cameras=cameras)


def make_restorer(brighter: float = 0.0) -> Restorer:
    """Untrained, it leaves pictures as they are; or it makes them brighter by so much."""
    network = ImageDenoiser(size=SIZE, widths=(8, 16), blocks=1, beside=BESIDE, memory=16, deviation=1.0)
    with torch.no_grad():
        network.network.head.bias.fill_(-2 * brighter)  # v = -clean where all is noise
    return Restorer(network.eval())
