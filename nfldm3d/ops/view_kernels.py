# pyright: basic, reportInvalidTypeForm=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false

"""The Warp kernel that finds the views which picture a point best, one thread a point."""

import typing

import warp as wp

from nfldm3d.ops.grid_functions import point_at
from nfldm3d.ops.records import MOST_VIEWS

wp.set_module_options({"enable_backward": False})

KEPT = wp.constant(MOST_VIEWS + 1)
weights_of = wp.types.vector(length=MOST_VIEWS + 1, dtype=float)
views_of = wp.types.vector(length=MOST_VIEWS + 1, dtype=int)


@wp.func
@typing.no_type_check
def is_pictured(local: wp.vec3, focal: wp.vec2, principal: wp.vec2, size: wp.vec2) -> bool:
    """Whether a point in camera axes lies in front of a pinhole camera and within its picture."""
    depth = -local[2]
    if depth <= 0.0:
        return False
    x = local[0] / depth * focal[0] + principal[0]
    y = -local[1] / depth * focal[1] + principal[1]
    return x >= 0.0 and y >= 0.0 and x <= size[0] and y <= size[1]


@wp.kernel(grid_stride=False)
@typing.no_type_check
def rank_views(
    offset: int,
    points: wp.array2d(dtype=float),
    normals: wp.array2d(dtype=float),
    poses: wp.array(dtype=wp.mat44),
    centers: wp.array(dtype=wp.vec3),
    focal: wp.array(dtype=wp.vec2),
    principal: wp.array(dtype=wp.vec2),
    width: float,
    height: float,
    pictured: wp.array2d(dtype=wp.uint8),
    views: wp.array2d(dtype=wp.int64),
    weights: wp.array2d(dtype=float),
):
    """Sorts the views of point ``offset`` + tid by cosine over squared distance and keeps the first."""
    index = offset + wp.tid()
    point, normal = point_at(points, index), point_at(normals, index)
    has_normal = wp.length(normal) > 0.5
    best = weights_of()
    order = views_of()
    for view in range(centers.shape[0]):
        way = centers[view] - point
        facing = wp.dot(way, normal)
        weight = float(0.0)
        if facing > 0.0 or not has_normal:  # about half of the views are spared the square root
            distance = wp.max(wp.length(way), 1.0e-9)
            weight = wp.where(has_normal, facing / distance, 1.0) / (distance * distance)
        if weight > best[KEPT - 1]:
            seen = bool(False)
            if pictured.shape[0] > 0:
                seen = pictured[view, index] != wp.uint8(0)
            else:
                local = wp.transform_point(poses[view], point)
                seen = is_pictured(local, focal[view], principal[view], wp.vec2(width, height))
            if seen:
                at = int(KEPT - 1)
                while at > 0 and best[wp.max(at - 1, 0)] < weight:
                    best[at] = best[at - 1]
                    order[at] = order[at - 1]
                    at -= 1
                best[at] = weight
                order[at] = view
    kept = views.shape[1]
    least = float(0.0)
    if centers.shape[0] > kept:
        least = 0.999 * best[kept]  # the rest decides where all are alike
    total = float(0.0)
    for at in range(kept):
        total += best[at] - least
    for at in range(kept):
        views[index, at] = wp.int64(order[at])
        weights[index, at] = (best[at] - least) / wp.max(total, 1.0e-30)
