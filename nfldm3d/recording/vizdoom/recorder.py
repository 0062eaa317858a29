"""Records Freedoom maps with ViZDoom: pictures in steady light, exact depth, a class per pixel, the ground from above.

The engine gives the pictures. Depth and classes come from the map's own geometry, cast along the rays of the
picture's camera; the engine's coarse depth buffer checks every view, and decides where a grating hides what is behind
it. The world is in metres with its origin at the middle of the place; 32 map units are a metre.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nfldm3d._types import Vector
from nfldm3d.camera import Camera
from nfldm3d.data.posed_images import PosedImages
from nfldm3d.geometry import Box
from nfldm3d.recording.vizdoom.doom_bev import BEV_CELL, draw_bev
from nfldm3d.recording.vizdoom.doom_grid import build_grid
from nfldm3d.recording.vizdoom.doom_map import UNITS_PER_METRE, DoomMap
from nfldm3d.recording.vizdoom.doom_rays import LABEL_NAMES, LABEL_PALETTE
from nfldm3d.recording.vizdoom.doom_rooms import Room, find_room
from nfldm3d.recording.vizdoom.engine_views import View, measure_view, to_camera
from nfldm3d.recording.vizdoom.game import SCREENS, Game, choose_screen, find_wad, load_vizdoom, open_game
from nfldm3d.recording.vizdoom.poses import Pose, scatter_poses, walk_poses

DEFAULT_RADIUS = 160.0
"""Map units from the centre to the farthest camera, 5 m: 60 views then overlap enough to fit what they show."""
RADIUS_SHARE = 0.375
"""The same in a box of given extent, as a share of its width."""
MAX_BOX = (32.0, 32.0, 16.0)
"""Metres: the largest box that is chosen around what the views show."""
SEEN_QUANTILE = 0.02
"""What lies farther out than this share of the surfaces is seen through a door, or none."""
MAX_DISAGREEMENT = 0.08
"""The share of pixels whose depth may differ from the engine's: edges, and textures of odd scale."""
MEAN_BRIGHTNESS = 0.3
MAX_GAIN = 2.5
BRIGHT_QUANTILE = 0.9
"""What the mean of the pixels is raised to; the most that they are multiplied by to reach it; and the share of pixels
that must not be cut off by it in any colour."""
MOST_VIEWS = 10_000
LICENCE = (
    "Freedoom (https://freedoom.github.io), copyright the contributors to the Freedoom project, "
    "SPDX-License-Identifier: BSD-3-Clause"
)


@dataclass(frozen=True)
class CaptureOptions:
    """What to record; the defaults suit the fitting of one room."""

    views: int = 60
    """Number of views."""
    size: int = 128
    """Width and height of the pictures in pixels, at most 800, of a view 90 degrees wide."""
    seed: int = 0
    """Seeds the choice of views; equal options give equal captures to the bit."""
    center_units: tuple[float, float] | None = None
    """Where: x and y in map units, as map editors show them; by default the best enclosed place of the map."""
    extent: Vector | None = None
    """Size of the box in metres; by default it holds what the views show."""
    walk: bool = False
    """Walk along a path, with time stamps, instead of scattering the views."""
    keep_things: bool = False
    """Leave items and decoration in place; as cardboards that turn with the camera they are masked out."""
    exposure: float | None = None
    """Factor on the pictures; by default what brings their mean towards 0.3, from 1 to 2.5."""

    def __post_init__(self):
        if not 1 <= self.views <= MOST_VIEWS:
            raise ValueError(f"views must be 1 to {MOST_VIEWS}, got {self.views}")
        if not 8 <= self.size <= SCREENS[-1].width:
            raise ValueError(f"size must lie between 8 and {SCREENS[-1].width} pixels, got {self.size}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if self.extent is not None and not all(math.isfinite(v) and v >= BEV_CELL for v in self.extent):
            raise ValueError(f"extent must be at least {BEV_CELL} metres along x, y and z, got {self.extent}")
        if self.exposure is not None and not (math.isfinite(self.exposure) and self.exposure > 0):
            raise ValueError(f"exposure must be a factor above 0, got {self.exposure}")


def record_vizdoom(
    map_name: str = "MAP01", *, options: CaptureOptions | None = None, progress: bool = True
) -> PosedImages:
    """Posed images of one place in a Freedoom map, MAP01 to MAP32 or E1M1 to E4M9.

    Images are what ViZDoom draws with a light amplifier, at one light level everywhere, times the ``exposure`` in the
    metadata. ``load_depth`` is exact, and 0 where there is sky; ``load_labels`` are indices into the metadata's
    ``label_names``. The metadata's ``box`` is the recorded place in world metres.

    Raises:
        ValueError: if there is no such map, or no room for a camera around the given centre.
        ImportError: if ViZDoom is missing.
    """
    options = CaptureOptions() if options is None else options
    doom_map = DoomMap.read(find_wad(map_name), map_name)
    grid = build_grid(doom_map, avoid_things=options.keep_things)
    width = None if options.extent is None else min(options.extent[:2]) * UNITS_PER_METRE
    radius = DEFAULT_RADIUS if width is None else RADIUS_SHARE * width
    room = find_room(doom_map, grid, center=options.center_units, radius=radius)
    generator = np.random.default_rng(options.seed)
    if options.walk:
        poses = walk_poses(grid, room, options.views, generator)
    else:
        poses = scatter_poses(doom_map, room, generator)
    screen = choose_screen(options.size)
    with open_game(map_name, keep_things=options.keep_things, screen=screen) as game:
        taken = record_views(game, doom_map, poses, options, progress=progress)
    return assemble_capture(doom_map, room, taken, options)


def record_views(
    game: Game, doom_map: DoomMap, poses: Iterator[Pose], options: CaptureOptions, *, progress: bool = True
) -> list[tuple[Pose, View]]:
    """The first ``options.views`` views that the map's geometry explains, with their poses."""
    from tqdm.auto import tqdm

    taken: list[tuple[Pose, View]] = []
    refused = 0
    title = f"record {doom_map.name}"
    with tqdm(total=options.views, desc=title, unit="view", leave=False, disable=not progress) as bar:
        for pose in poses:
            shot = game.shoot(pose.x, pose.y, pose.yaw_degrees)
            view = None if shot is None else measure_view(doom_map, shot, options.size)
            if view is not None and view.disagreement <= MAX_DISAGREEMENT:
                taken.append((pose, view))
                bar.update()
            else:
                refused += 1
            if len(taken) == options.views or refused > options.views + 20:
                break
    if len(taken) < options.views:
        raise ValueError(
            f"{doom_map.name}: the engine's depth contradicts the map's geometry, or the player cannot stand, in "
            f"{refused} of {refused + len(taken)} views; choose another centre"
        )
    return taken


def assemble_capture(
    doom_map: DoomMap, room: Room, taken: list[tuple[Pose, View]], options: CaptureOptions
) -> PosedImages:
    """Posed images of the views taken in a room, with the room's box, ground and description."""
    views = [view for _, view in taken]
    pictures = np.stack([view.image for view in views])
    exposure = choose_exposure(pictures) if options.exposure is None else options.exposure
    images = expose(pictures, exposure)
    camera = to_camera(views, room.center)
    depth = torch.from_numpy(np.stack([view.depth for view in views]))
    box = _find_box(camera, depth) if options.extent is None else Box.from_center((0.0, 0.0, 0.0), options.extent)
    seconds = [pose.seconds for pose, _ in taken if pose.seconds is not None]
    shape = box.resolution(BEV_CELL)
    capture = PosedImages.from_tensors(
        images,
        camera,
        depth=depth,
        masks=torch.from_numpy(np.stack([view.free for view in views])) if options.keep_things else None,
        labels=torch.from_numpy(np.stack([view.labels for view in views])),
    )
    return replace(
        capture,
        timestamps=torch.tensor(seconds, dtype=torch.float64) if seconds else None,
        bev=draw_bev(doom_map, room.center, box.lower[:2], shape[:2], with_things=options.keep_things),
        metadata=_describe(doom_map, room, box, exposure, options),
    )


def choose_exposure(
    pictures: UInt8[np.ndarray, "views height width 3"], *, bright_quantile: float = BRIGHT_QUANTILE
) -> float:
    """The factor that brings the mean of the pictures towards 0.3 and cuts off few of their pixels."""
    brightest = np.quantile(pictures.max(-1), bright_quantile)
    wanted = min(MEAN_BRIGHTNESS * 255 / max(float(pictures.mean()), 1.0), 255 / max(float(brightest), 1.0))
    return round(min(max(wanted, 1.0), MAX_GAIN), 3)


def expose(
    pictures: UInt8[np.ndarray, "views height width 3"], exposure: float
) -> UInt8[Tensor, "views 3 height width"]:
    """The pictures, brighter by a factor."""
    brighter = np.minimum(np.arange(256) * exposure + 0.5, 255).astype(np.uint8)[pictures]
    return torch.from_numpy(brighter).permute(0, 3, 1, 2).contiguous()


def _find_box(camera: Camera, depth: Float[Tensor, "views height width"]) -> Box:
    """The box around the cameras and nearly all surfaces that are seen, in whole cells of the ground map."""
    points = camera.unproject(depth)[depth > 0]
    points = points[:: max(1, len(points) // 100_000)]
    lower, upper = (points.quantile(q, dim=0) for q in (SEEN_QUANTILE, 1 - SEEN_QUANTILE))
    lower = torch.minimum(lower, camera.centers.amin(0)) - BEV_CELL / 2
    upper = torch.maximum(upper, camera.centers.amax(0)) + BEV_CELL / 2
    half = torch.tensor(MAX_BOX) / 2
    lower = (lower / BEV_CELL).floor().mul(BEV_CELL).maximum(-half)
    upper = (upper / BEV_CELL).ceil().mul(BEV_CELL).minimum(half)
    return Box.around(torch.stack((lower, upper)))


def _describe(doom_map: DoomMap, room: Room, box: Box, exposure: float, options: CaptureOptions) -> dict[str, object]:
    return describe_place(doom_map, room, exposure) | {
        "box": {"lower": list(box.lower), "upper": list(box.upper)},
        "options": asdict(options),
    }


def describe_place(doom_map: DoomMap, room: Room, exposure: float) -> dict[str, object]:
    """What anybody needs to know about pictures of a room, as plain JSON values."""
    return {
        "source": f"ViZDoom {load_vizdoom().__version__}, Freedoom",
        "licence": LICENCE,
        "map": doom_map.name,
        "origin_units": list(room.center),
        "units_per_metre": UNITS_PER_METRE,
        "label_names": list(LABEL_NAMES),
        "label_palette": [list(color) for color in LABEL_PALETTE],
        "exposure": exposure,
        "view_dependent": False,  # with the light amplifier a surface looks the same from everywhere
    }
