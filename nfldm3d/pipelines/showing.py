"""Pictures of generated scenes that one would rather look at than at numbers."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from nfldm3d._moved import renamed_argument
from nfldm3d.data.bev_map import to_rows
from nfldm3d.editing import crop
from nfldm3d.fields import require_voxels
from nfldm3d.geometry import Box
from nfldm3d.models.nfldm.scene_voxels import occupancy_of
from nfldm3d.pipelines.bev_input import BevInput
from nfldm3d.pipelines.scene_generator import SceneGenerator
from nfldm3d.scene import Scene

HEAD_ROOM = 0.75
"""Metres above the cameras at which a scene is cut open to be looked into."""
GREY = 0.8
"""What is around a scene that is seen from outside."""
SCALE = 4
"""Pixels of a cell in pictures from above."""


def open_top(scene: Scene) -> Scene:
    """The scene on plain grey, without what lies above its cameras: sky and ceilings are for looks from inside."""
    box = scene.box
    scene = replace(scene, background=torch.full((3,), GREY, device=scene.field.device))
    if scene.cameras is None:
        return scene
    top = min(float(scene.cameras.centers[..., 2].median()) + HEAD_ROOM, box.upper[2])
    return crop(scene, Box(box.lower, (box.upper[0], box.upper[1], top)))


@renamed_argument("generator", "pipeline")
def picture_from_above(
    pipeline: SceneGenerator, scene: Scene, bev: BevInput | None = None
) -> Float[Tensor, "3 height width"]:
    """The ground's colours with the camera path in red, north up; left of it the map that was asked for, if any."""
    parts = [] if bev is None else [_paint_map(pipeline, bev)]
    return torch.cat([*parts, _look_down(scene)], dim=-1)


def _look_down(scene: Scene) -> Float[Tensor, "3 height width"]:
    """The colour of the uppermost matter below the cameras in each column; lower ground is darker."""
    field = require_voxels(open_top(scene).field, "a picture from above")
    solid = occupancy_of(field) > 0.8
    order = torch.arange(1, field.resolution[2] + 1, device=field.device)
    height = (solid * order).amax(-1)  # x y; 0 where there is none
    colors = field.features[..., :3].gather(2, (height - 1).clamp(min=0)[..., None, None].expand(-1, -1, 1, 3))[:, :, 0]
    shade = 0.4 + 0.6 * height / len(order)
    picture = (colors * shade[..., None]).clamp(0, 1) * (height > 0)[..., None]
    if scene.cameras is not None:
        place = scene.cameras.centers.reshape(-1, 3)[:, :2] - torch.tensor(field.box.lower[:2], device=field.device)
        cells = (place / torch.tensor(field.voxel_size[:2], device=field.device)).long()
        x, y = cells.clamp(min=0).minimum(torch.tensor(picture.shape[:2], device=cells.device) - 1).unbind(-1)
        picture[x, y] = torch.tensor((1.0, 0.1, 0.1), device=picture.device)
    rows = torch.stack([to_rows(channel) for channel in picture.unbind(-1)])
    return functional.interpolate(rows[None], scale_factor=float(SCALE), mode="nearest")[0].cpu()


def _paint_map(pipeline: SceneGenerator, bev: BevInput) -> Float[Tensor, "3 height width"]:
    """A bird's-eye map in its colours; what is left open is grey."""
    palette = torch.tensor([*pipeline.config["map_palette"], (128, 128, 128)])
    colors = palette[to_rows(pipeline.read_map(bev)[0]).cpu()].movedim(-1, 0) / 255
    size = round(SCALE * pipeline.scene_autoencoder.grid[0])
    return functional.interpolate(colors[None].float(), size=(size, size), mode="nearest")[0]


def picture_sheet(images: Float[Tensor, "views 3 height width"], columns: int) -> Float[Tensor, "3 rows line"]:
    """Pictures side by side, row after row; missing ones are black."""
    missing = -len(images) % columns
    images = torch.cat((images, images.new_zeros(missing, *images.shape[1:])))
    rows = [torch.cat(list(row), dim=-1) for row in images.split(columns)]
    return torch.cat(rows, dim=-2).cpu()
