"""Views that are of no use are refused with one clear message."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from jaxtyping import TypeCheckError
from small_rooms import BOX, HEIGHT, WIDTH, cameras, room_views, scene_autoencoder

from nfldm3d import Box, Camera
from nfldm3d.data import PosedImages
from nfldm3d.models.nfldm.views import Views, cubic_box


def change_camera(views: Views, change: Callable[[Camera], Camera]) -> Views:
    return replace(views, camera=change(views.camera))


def away(camera: Camera) -> Camera:
    poses = camera.world_from_camera.clone()
    poses[1, 0, 3] += 100.0
    poses[1, :3, :3] = torch.tensor([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])  # looks along +x
    return replace(camera, world_from_camera=poses)


def with_value(tensor: torch.Tensor, value: float) -> torch.Tensor:
    changed = tensor.clone()
    changed[0, ..., 3, 2] = value
    return changed


MISTAKES: dict[str, tuple[Callable[[Views], Views], str]] = {
    "NaN": (lambda v: replace(v, images=with_value(v.images, float("nan"))), "pictures hold NaN or infinity"),
    "bytes": (lambda v: replace(v, images=v.images * 255), "divide 8-bit pictures by 255"),
    "NaN depth": (lambda v: replace(v, depth=with_value(v.depth, float("nan"))), "depth holds NaN"),  # type: ignore[arg-type]
    "negative depth": (lambda v: replace(v, depth=with_value(v.depth, -1.0)), "negative numbers; put 0"),  # type: ignore[arg-type]
    "millimetres": (lambda v: replace(v, depth=v.depth * 1000), "depth is .* in the middle .* not in metres"),  # type: ignore[operator]
    "kilometres": (lambda v: replace(v, depth=v.depth / 1000), "not in metres; rescale"),  # type: ignore[operator]
    "no depth": (lambda v: replace(v, depth=v.depth * 0), "depth is 0 everywhere; give depth=None"),  # type: ignore[operator]
    "elsewhere": (lambda v: change_camera(v, away), r"view 1 at \(1.*shows nothing of the box .*1 of 3 views"),
    "NaN pose": (
        lambda v: change_camera(v, lambda c: replace(c, world_from_camera=c.world_from_camera * float("nan"))),
        "cameras hold NaN",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_useless_views_are_refused(mistake: str) -> None:
    change, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match=message):
        scene_autoencoder().encode(change(room_views(cameras(3))), BOX)


def test_views_belong_together() -> None:
    views = room_views(cameras(3))
    assert views.depth is not None
    for wrong in (
        lambda: Views(views.images[:2], views.camera, None),
        lambda: Views(views.images[..., 1:], views.camera, None),
        lambda: Views(views.images[:0], views.camera[:0], None),
        lambda: Views(views.images, views.camera, views.depth[..., 2:]),  # type: ignore[index]
    ):
        with pytest.raises((ValueError, TypeCheckError), match="views need|depth must have the shape|Type-check"):
            wrong()


def test_boxes_grow_until_voxels_are_cubes() -> None:
    flat = Box((1.0, 0.0, -1.0), (5.0, 2.0, 3.0))
    grown = cubic_box(flat, (8, 8, 4))
    assert grown.voxel_size((8, 8, 4)) == (1.0, 1.0, 1.0) and grown.center == flat.center
    assert cubic_box(grown, (8, 8, 4)) == grown


@torch.no_grad()
def test_a_box_of_any_proportions_is_encoded() -> None:
    tall = Box((1.0, -2.0, -3.0), (5.0, 2.0, 5.0))
    field = scene_autoencoder().encode(room_views(cameras(3)), tall).field
    assert field.voxel_size == (2.0, 2.0, 2.0) and field.box.center == tall.center


def test_a_capture_becomes_views_in_one_call() -> None:
    camera, images = cameras(3), torch.rand(3, 3, HEIGHT, WIDTH)
    depth, masks = torch.full((3, HEIGHT, WIDTH), 2.0), torch.ones(3, HEIGHT, WIDTH, dtype=torch.bool)
    masks[1, 0] = False
    capture = PosedImages.from_tensors(images, camera, depth=depth, masks=masks)
    views = Views.from_posed_images(capture)
    assert torch.equal(views.images, images)
    assert torch.equal(views.camera.world_from_camera, camera.world_from_camera)
    assert views.depth is not None and torch.equal(views.depth, depth * masks)
    assert views.mask is not None and torch.equal(views.mask, masks)
    assert Views.from_posed_images(capture, use_depth=False).depth is None
    assert Views.from_posed_images(PosedImages.from_tensors(images, camera)).mask is None
