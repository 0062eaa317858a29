"""Which of many views picture a point best."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nfldm3d.ops.checks import require
from nfldm3d.ops.launch import launch
from nfldm3d.ops.records import MOST_VIEWS, PinholeViews


def rank_views(
    points: Float[Tensor, "points 3"],
    normals: Float[Tensor, "points 3"],
    views: PinholeViews,
    *,
    pictured: Bool[Tensor, "views points"] | None = None,
) -> tuple[Int[Tensor, "points nearest"], Float[Tensor, "points nearest"]]:
    """Numbers of the up to ``MOST_VIEWS`` views that picture each point best, and weights of sum one, or zero.

    A view counts by cosine over squared distance, and not at all where the point is behind it, outside its picture or
    turned away; points without a normal face all. Of the kept weights that of the next best view is subtracted.

    Args:
        pictured: which points lie in each picture, for lenses that are no pinholes; None asks the views.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
    """
    from nfldm3d.ops import view_kernels as kernels

    device, count = points.device, len(views.camera_from_world)
    for name, tensor, shape in (
        ("points", points, ("points", 3)),
        ("normals", normals, (len(points), 3)),
        ("camera_from_world", views.camera_from_world, ("views", 4, 4)),
        ("centers", views.centers, (count, 3)),
        ("focal", views.focal, (count, 2)),
        ("principal", views.principal, (count, 2)),
    ):
        require(name, tensor, shape, device, torch.float32)
    seen = torch.zeros(0, 0, dtype=torch.uint8, device=device)
    if pictured is not None:
        require("pictured", pictured, (count, len(points)), device, torch.bool)
        seen = pictured.to(torch.uint8).contiguous()
    nearest = min(MOST_VIEWS, count)
    order = torch.zeros(len(points), nearest, dtype=torch.long, device=device)
    weights = points.new_zeros(len(points), nearest)
    if not count:
        return order, weights
    tensors = [points, normals, views.camera_from_world, views.centers, views.focal, views.principal]
    inputs = [tensor.detach().contiguous() for tensor in tensors]
    size = (float(views.width), float(views.height))
    launch(kernels.rank_views, len(points), [*inputs, *size, seen, order, weights], device)
    return order, weights
