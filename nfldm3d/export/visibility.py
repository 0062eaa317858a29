"""Which faces of a mesh are worth keeping: those that the scene's cameras, or somebody who walks there, can see.

Generated and fitted scenes are made of matter that nobody ever saw from behind: from outside they are closed slabs.
What is kept faces the space it is seen from, and ceilings go, so that from above one looks into rooms.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.export.coloring import find_pictured, spread_views
from nfldm3d.export.occluders import Occluder, see
from nfldm3d.export.regions import find_pieces, number_regions
from nfldm3d.export.viewpoints import Viewpoints, find_viewpoints
from nfldm3d.geometry import Box
from nfldm3d.rendering.paths import look_inwards

LIFT = 0.6
"""How far above a face it is looked at, in voxels: below one, so that narrow gaps count, and enough for flat looks."""
VOTES = 3
"""So many viewpoints must see a face that is in no camera's picture: one alone may do so through a gap that should not
be there."""
VIEWPOINTS_PER_VOTE = 6
"""But no more than one for so many viewpoints that there are."""
RINGS = 2
"""Half the width in faces of gaps between seen faces that are closed: what falls between the samples."""
LOOKS = 2**15
"""Lines of sight that are followed at once, or one for each point."""
SCRAP = 100
"""Pieces of fewer faces that were cut from larger ones go: glimpses through gaps, and fringes of ceilings."""
CEILING = -0.25
"""Faces whose normal has a smaller z look down."""
DOWN = (0.0, 0.0, -1.0)

Triangles = tuple[Float[Tensor, "_ 3"], Int[Tensor, "_ 3"]]
"""Vertices and faces."""


@torch.no_grad()
def find_visible(
    parts: Sequence[Triangles],
    occluders: Sequence[Occluder],
    box: Box | None,
    cameras: Camera,
    *,
    ceilings: bool,
) -> tuple[list[Bool[Tensor, " faces"]], bool]:
    """The faces to keep of meshes, each the boundary of the occluder of the same number; and whether eyes are inside.

    Walls in which a box, that of the grid or ``box``, cuts through matter go, but for those with cameras beyond. With
    cameras around an object all else stays but what lies in closed hollows of the matter. Otherwise eyes are inside:
    faces stay that cameras, or somebody who stands where these could walk to, see; and ceilings, which look down on
    such places, go.

    Args:
        ceilings: whether ceilings stay.
    """
    cameras = spread_views(cameras).to(occluders[0].device)
    kept = []
    for (vertices, faces), own in zip(parts, occluders, strict=True):
        boxes, slack = [own.box] if box is None else [own.box, box], 1e-3 * min(own.voxel_size)
        cuts = [find_cuts(vertices[faces], each, cameras.centers, slack) for each in boxes]
        kept.append(~torch.stack(cuts).any(0))
    if look_inwards(cameras, occluders[0].box):
        for (vertices, faces), own, inner in zip(parts, occluders, kept, strict=True):
            inner &= find_bordering(vertices[faces], own, cameras.centers)
        return kept, False
    viewpoints = find_viewpoints(cameras, occluders[0])
    if not len(viewpoints.cameras):
        return kept, False
    for number, ((vertices, faces), inner) in enumerate(zip(parts, kept, strict=True)):
        corners, order = vertices[faces], [occluders[number], *occluders[:number], *occluders[number + 1 :]]
        seen = close_gaps(faces, inner, find_seen(faces, corners, order, viewpoints))
        if viewpoints.height is not None and not ceilings:
            seen &= ~find_ceilings(corners, order, viewpoints.height)
        inner &= drop_scraps(faces, inner, seen)
    return kept, True


def find_cuts(
    corners: Float[Tensor, "faces 3 3"], box: Box, eyes: Float[Tensor, "eyes 3"], slack: float
) -> Bool[Tensor, " faces"]:
    """Faces that lie in a wall of the box, where it cuts through matter, unless an eye stands beyond that wall."""
    lower, upper = corners.new_tensor(box.lower), corners.new_tensor(box.upper)
    low = (corners < lower + slack).all(1) & ~(eyes < lower).any(0)
    high = (corners > upper - slack).all(1) & ~(eyes > upper).any(0)
    return (low | high).any(-1)


def find_bordering(
    corners: Float[Tensor, "faces 3 3"], occluder: Occluder, eyes: Float[Tensor, "eyes 3"]
) -> Bool[Tensor, " faces"]:
    """Faces on the space that reaches the border of the grid or an eye; not those of closed hollows in the matter."""
    number = number_regions(~occluder.solid)
    sides = [number.narrow(axis, side * (size - 1), 1) for axis, size in enumerate(number.shape) for side in (0, 1)]
    voxel = tuple(occluder.locate(eyes).unbind(-1))
    outer = torch.cat([number[voxel], *(side.reshape(-1) for side in sides)]).unique()
    # a point in a solid voxel, in a gap narrower than a voxel, tells nothing: it counts as seen
    front = number[tuple(occluder.locate(lift(corners, occluder)).unbind(-1))]
    return torch.isin(front, outer) | (front == 0)


def find_seen(
    faces: Int[Tensor, "faces 3"],
    corners: Float[Tensor, "faces 3 3"],
    occluders: Sequence[Occluder],
    viewpoints: Viewpoints,
) -> Bool[Tensor, " faces"]:
    """Faces of the first occluder's boundary that a camera pictures, or three viewpoints see, past all occluders.

    Faces of a voxel that look the same way are looked at together; first those of eight voxels, and where nobody sees
    any of these, nor of those beside, nobody looks again.
    """
    normals, points = find_normals(corners), lift(corners, occluders[0])
    sample, member = _group(points, normals, occluders[0], 2)
    hopeful = spread(faces, (_count_votes(points[sample], normals[sample], occluders, viewpoints, 1) > 0)[member])
    seen, chosen = torch.zeros_like(hopeful), hopeful.nonzero()[:, 0]
    points, normals = points[chosen], normals[chosen]
    sample, member = _group(points, normals, occluders[0], 1)
    needed = max(1, min(VOTES, (len(viewpoints.cameras) + len(viewpoints.places)) // VIEWPOINTS_PER_VOTE))
    votes = _count_votes(points[sample], normals[sample], occluders, viewpoints, needed)
    seen[chosen] = (votes >= needed)[member]
    return seen


def _count_votes(
    points: Float[Tensor, "points 3"],
    normals: Float[Tensor, "points 3"],
    occluders: Sequence[Occluder],
    viewpoints: Viewpoints,
    enough: int,
) -> Int[Tensor, " points"]:
    """How many viewpoints see the front of each point; those who have it in their picture count three times."""
    eyes = torch.cat((viewpoints.cameras.centers, viewpoints.places))
    votes = torch.zeros(len(points), dtype=torch.long, device=points.device)
    for some in torch.arange(len(eyes), device=eyes.device).split(max(1, LOOKS // max(1, len(points)))):
        facing = ((eyes[some, None] - points) * normals).sum(-1) > 0
        eye, point = (facing & (votes < enough)).nonzero().unbind(1)
        for occluder in occluders:
            clear = see(occluder, points[point], eyes[some][eye])
            eye, point = eye[clear], point[clear]
        votes += torch.bincount(point, minlength=len(points))
        own = some[some < len(viewpoints.cameras)]
        by_camera = eye < len(own)  # they come first
        eye, point = eye[by_camera], point[by_camera]
        votes[point[find_pictured(viewpoints.cameras[own], points)[eye, point]]] = VOTES
    return votes


def find_ceilings(
    corners: Float[Tensor, "faces 3 3"], occluders: Sequence[Occluder], height: float
) -> Bool[Tensor, " faces"]:
    """Faces that look down and leave more than ``height`` metres of space below."""
    down = (find_normals(corners)[:, 2] < CEILING).nonzero()[:, 0]
    points = lift(corners[down], occluders[0])
    direction = points.new_tensor(DOWN).expand_as(points)
    room = torch.stack([occluder.measure(points, direction) for occluder in occluders]).amin(0)
    ceilings = torch.zeros(len(corners), dtype=torch.bool, device=corners.device)
    ceilings[down[room > height]] = True
    return ceilings


def close_gaps(
    faces: Int[Tensor, "faces 3"], allowed: Bool[Tensor, " faces"], chosen: Bool[Tensor, " faces"]
) -> Bool[Tensor, " faces"]:
    """The chosen faces, those in gaps between them, and a rim of one face around, as far as they are allowed."""
    for _ in range(RINGS):
        chosen = allowed & spread(faces, allowed & chosen)
    for _ in range(RINGS - 1):
        chosen = chosen & ~spread(faces, allowed & ~chosen)
    return chosen


def spread(faces: Int[Tensor, "faces 3"], chosen: Bool[Tensor, " faces"]) -> Bool[Tensor, " faces"]:
    """The chosen faces and those that share a vertex with one."""
    return _mark(faces, chosen)[faces].any(1)


def drop_scraps(
    faces: Int[Tensor, "faces 3"], allowed: Bool[Tensor, " faces"], chosen: Bool[Tensor, " faces"]
) -> Bool[Tensor, " faces"]:
    """The chosen faces without small pieces that have been cut from larger ones."""
    cut = _mark(faces, allowed & ~chosen)
    piece, size = find_pieces(faces[chosen], len(cut))
    torn = torch.zeros_like(size, dtype=torch.bool)
    torn[piece[cut[faces[chosen]].any(1)]] = True
    kept = chosen.clone()
    kept[chosen] = ~(torn & (size < SCRAP))[piece]
    return kept


def _mark(faces: Int[Tensor, "faces 3"], chosen: Bool[Tensor, " faces"]) -> Bool[Tensor, " vertices"]:
    """The vertices of the chosen faces."""
    marked = torch.zeros(int(faces.max()) + 1 if len(faces) else 0, dtype=torch.bool, device=faces.device)
    marked[faces[chosen].reshape(-1)] = True
    return marked


def _group(
    points: Float[Tensor, "faces 3"], normals: Float[Tensor, "faces 3"], occluder: Occluder, voxels: int
) -> tuple[Int[Tensor, " groups"], Int[Tensor, " faces"]]:
    """One of the faces of each cube of voxels and main direction, and the group of each face."""
    voxel, axis = occluder.locate(points) // voxels, normals.abs().argmax(1)
    way = 2 * axis + (normals.gather(1, axis[:, None])[:, 0] > 0)
    _, y, z = occluder.solid.shape
    key = ((voxel[:, 0] * y + voxel[:, 1]) * z + voxel[:, 2]) * 6 + way
    _, member = key.unique(return_inverse=True)
    sample = torch.zeros(int(member.max()) + 1 if len(member) else 0, dtype=torch.long, device=member.device)
    sample[member] = torch.arange(len(member), device=member.device)
    return sample, member


def lift(corners: Float[Tensor, "faces 3 3"], occluder: Occluder) -> Float[Tensor, "faces 3"]:
    """Points a little in front of the faces' middles."""
    return corners.mean(1) + LIFT * min(occluder.voxel_size) * find_normals(corners)


def find_normals(corners: Float[Tensor, "faces 3 3"]) -> Float[Tensor, "faces 3"]:
    a, b, c = corners.unbind(1)
    return torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
