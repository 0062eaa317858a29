"""A room with painted walls, and networks small enough for tests: 20x16 pixels, 8x8x4 voxels away from the origin."""

from dataclasses import replace

import torch
from torch import Tensor

from nfldm3d import Box, Camera
from nfldm3d.data.bev_map import BevMap
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.models.nfldm.denoisers import GlobalDenoiser, GridDenoiser
from nfldm3d.models.nfldm.latent_autoencoder import LatentAutoencoder
from nfldm3d.models.nfldm.scene_autoencoder import SceneAutoencoder
from nfldm3d.models.nfldm.trajectories import POSES
from nfldm3d.models.nfldm.views import Views
from nfldm3d.pipelines.scene_generator import SceneGenerator
from nfldm3d.training.denoiser_stage import make_schedule

BOX = Box((1.0, -2.0, 0.5), (5.0, 2.0, 2.5))
GRID = (8, 8, 4)
ROOM = BOX.scaled(0.8)
"""Its walls run through the outermost voxels."""
WIDTH, HEIGHT = 20, 16


def cameras(views: int, *, eye: tuple[float, float, float] = (2.8, 0.1, 1.45)) -> Camera:
    """Cameras that look all around; the first ones look level, every second a little down."""
    angles = torch.arange(views) * (2 * torch.pi / views) + 0.3
    ahead = torch.stack((angles.cos(), angles.sin(), -0.4 * (torch.arange(views) % 2)), dim=-1)
    eyes = torch.tensor(eye) + 0.2 * torch.stack((angles.sin(), angles.cos(), torch.zeros(views)), dim=-1)
    return Camera.look_at(eyes, eyes + ahead, width=WIDTH, height=HEIGHT, horizontal_fov_degrees=80.0)


def paint(points: Tensor) -> Tensor:
    """The sRGB of surface points, which varies over about a metre."""
    return 0.5 + 0.4 * torch.sin(points * torch.tensor([1.7, 2.1, 2.4]) + torch.tensor([0.0, 1.0, 2.0]))


def room_views(camera: Camera) -> Views:
    """What the cameras see of the room, with exact depth."""
    rays = camera.rays()
    _, distance = ROOM.clip(rays)
    cosine = (rays.directions * camera.forward[:, None, None]).sum(-1)
    return Views(paint(rays.at(distance)).movedim(-1, 1), camera, distance * cosine)


def room_sample(number: int = 0, views: int = 6) -> SceneSample:
    """The room as a sample of a data set; other numbers are seen from other places."""
    seen = room_views(cameras(views, eye=(2.6 + 0.2 * number, 0.3 - 0.1 * number, 1.45)))
    assert seen.depth is not None
    return SceneSample(f"room_{number:04d}", (seen.images * 255).round().byte(), seen.depth, seen.camera, BOX)


def scene_autoencoder(**options: object) -> SceneAutoencoder:
    """A tiny network with seeded weights, not those that it starts from: zero layers would hide mistakes."""
    arguments: dict = {
        "resolution": GRID,
        "channels": 5,
        "bins": 24,
        "image_widths": (8, 8),
        "grid_widths": (8, 8),
        "decoder_widths": (8, 8),
        "octaves": 2,
        "sky_rows": 4,
    }
    with torch.random.fork_rng([]):
        torch.manual_seed(3)
        model = SceneAutoencoder(**(arguments | options)).eval()
        for parameter in model.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def latent_autoencoder(**options: object) -> LatentAutoencoder:
    """A tiny network with seeded weights and codes."""
    arguments: dict = {
        "resolution": GRID,
        "channels": 5,
        "sky_rows": 4,
        "width": 16,
        "fine_width": 8,
        "global_dimensions": 6,
        "latent_channels": 4,
        "coarse_codes": 8,
        "fine_codes": 6,
    }
    with torch.random.fork_rng([]):
        torch.manual_seed(4)
        model = LatentAutoencoder(**(arguments | options)).eval()
        books = [tensor for name, tensor in model.named_buffers() if name.endswith("codebook")]
        for tensor in (*model.parameters(), *books):
            tensor.data.add_(0.2 * torch.randn_like(tensor))
    return model


def disturb(network: torch.nn.Module, seed: int = 5) -> torch.nn.Module:
    """Seeded weights in layers that start from zero, which would hide mistakes."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if not bool(parameter.any()):
                parameter += 0.05 * torch.randn(parameter.shape, generator=draws)
    return network.eval()


def scene_generator(map_classes: int = 3, embedding_dimensions: int = 0, **options: object) -> SceneGenerator:
    """Tiny untrained networks in all places: 8x8x4 voxels, c of 4x2x2 and f of 4x8x8."""
    names = tuple(f"class {number}" for number in range(map_classes))
    colors = tuple((60 * number, 255 - 60 * number, 10) for number in range(map_classes))
    with torch.random.fork_rng([]):
        torch.manual_seed(4)
        latent = latent_autoencoder()
        dimensions = latent.vector_size + 5 * POSES
        condition = {"dimensions": dimensions, "map_classes": map_classes, "map_size": 8, "map_width": 32}
        condition["embedding_dimensions"] = embedding_dimensions
        g = GlobalDenoiser(widths=(16, 16), **condition)
        shape: dict = {"widths": (32,), "attention": (True,), "layers": 1} | condition
        c = GridDenoiser(channels=4 * latent.coarse_heights, size=2, path_beside=True, **shape)
        f = GridDenoiser(channels=4, size=8, parent_channels=4 * latent.coarse_heights, patch=2, **shape)
    for number, network in enumerate((g, c, f)):
        disturb(network, number)
    generator = SceneGenerator(
        scene_autoencoder(), latent, c, make_schedule(), g, f, (4.0, 4.0, 2.0), names, colors, **options
    )
    generator.set_progress_bar_config(disable=True)
    return generator


def labelled(number: int) -> SceneSample:
    """Two worlds: a dark one, whose map is all class 0, and a bright one."""
    sample = room_sample(number, views=4)
    bright = number % 2
    labels = torch.full(sample.images[:, 0].shape, bright, dtype=torch.uint8)
    classes = torch.full((8, 8), bright, dtype=torch.uint8)
    classes[0, 3] = 2
    colors = ((0, 0, 0), (255, 255, 255), (9, 9, 9))
    bev = BevMap(classes, None, (1.0, -2.0), 0.5, ("dark", "bright", "mark"), colors)
    images = sample.images // 4 + 180 * bright
    about = {"label_names": ["dark", "bright"]}
    return replace(sample, images=images, labels=labels, bev=bev, map=f"world {bright}", metadata=about)
