"""Doom maps: rays, grids, ground maps, places and poses, against closed forms in maps that are made here."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nfldm3d.files import DataFormatError
from nfldm3d.recording.vizdoom import doom_bev
from nfldm3d.recording.vizdoom.doom_bev import draw_bev
from nfldm3d.recording.vizdoom.doom_grid import CELL, build_grid, rasterise_sectors, walk_distance
from nfldm3d.recording.vizdoom.doom_map import LINE, SECTOR, SIDE, THING, VERTEX, DoomMap
from nfldm3d.recording.vizdoom.doom_rays import CEILING, FLOOR, SKY, VOID, WALL, cast_rays
from nfldm3d.recording.vizdoom.doom_rooms import find_room
from nfldm3d.recording.vizdoom.doom_wad import MAP_LUMPS, write_wad
from nfldm3d.recording.vizdoom.poses import WALK_SPEED, WALK_STEP, scatter_poses, walk_poses


class Plan:
    """A map under construction: corners and rooms in map units, with one player start."""

    def __init__(self, start: tuple[int, int]):
        self.things = [(*start, 0, 1, 7)]
        self.vertices: list[tuple[int, int]] = []
        self.lines: list[tuple] = []
        self.sides: list[tuple] = []
        self.sectors: list[tuple] = []

    def sector(
        self, floor: int, ceiling: int, floor_flat: str = "FLOOR0_1", ceiling_flat: str = "CEIL1_1", tag: int = 0
    ):
        self.sectors.append((floor, ceiling, floor_flat.encode(), ceiling_flat.encode(), 160, 0, tag))
        return len(self.sectors) - 1

    def line(self, start, end, right: int, left: int | None = None, *, middle="-", flags=0, special=0, tag=0):
        """A line whose right side faces the sector ``right``."""
        for corner in (start, end):
            if corner not in self.vertices:
                self.vertices.append(corner)
        sides = [self._side(right, middle), 0xFFFF if left is None else self._side(left, middle)]
        ends = [self.vertices.index(start), self.vertices.index(end)]
        self.lines.append((ends, flags, special, tag, sides))

    def loop(self, corners, right: int, left: int | None = None):
        """Lines around a room whose inside is to the right: corners go clockwise."""
        for start, end in zip(corners, [*corners[1:], corners[0]], strict=True):
            self.line(start, end, right, left)

    def _side(self, sector: int, middle: str) -> int:
        self.sides.append((0, 0, b"-", b"-", middle.encode(), sector))
        return len(self.sides) - 1

    def write(self, path: Path) -> Path:
        sides = np.zeros(len(self.sides), SIDE)
        for number, side in enumerate(self.sides):
            sides[number] = (side[:2], *side[2:])
        tables = {
            "THINGS": np.array(self.things, THING),
            "LINEDEFS": np.array([(tuple(e), f, s, t, tuple(d)) for e, f, s, t, d in self.lines], LINE),
            "SIDEDEFS": sides,
            "VERTEXES": np.array(self.vertices, VERTEX),
            "SECTORS": np.array(self.sectors, SECTOR),
        }
        lumps = [(name, tables[name].tobytes() if name in tables else b"") for name in MAP_LUMPS]
        write_wad(path, [("OTHER", b"x"), ("MAP01", b""), *lumps])
        return path

    def read(self, folder: Path) -> DoomMap:
        return DoomMap.read(self.write(folder / "plan.wad"), "MAP01")


def rectangle(west: int, south: int, east: int, north: int) -> list[tuple[int, int]]:
    return [(west, south), (west, north), (east, north), (east, south)]


@pytest.fixture
def hall(tmp_path: Path) -> DoomMap:
    """One room from (-100, -50) to (300, 150), 128 high, on a floor at 8."""
    plan = Plan((0, 0))
    plan.loop(rectangle(-100, -50, 300, 150), plan.sector(8, 136))
    return plan.read(tmp_path)


def picture_rays(yaw_degrees: float, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Directions and slopes of a picture 90 degrees wide, and the sideways part of each column."""
    cosine, sine = np.cos(np.radians(yaw_degrees)), np.sin(np.radians(yaw_degrees))
    across = (np.arange(width) + 0.5) * 2 / width - 1
    down = (np.arange(height) + 0.5) * 2 / height - 1
    return np.array((cosine, sine)) + across[:, None] * np.array((sine, -cosine)), -down


@pytest.mark.parametrize("yaw", [0.0, 37.5, 90.0, 180.0, 271.0])
def test_rays_in_a_rectangular_room_have_the_closed_form(hall: DoomMap, yaw: float):
    eye = (20.0, 10.0, 49.0)
    directions, slopes = picture_rays(yaw, 24, 16)
    hits = cast_rays(hall, eye, directions, slopes)
    with np.errstate(divide="ignore"):
        x = np.where(directions[:, 0] > 0, 300 - eye[0], -100 - eye[0]) / directions[:, 0]
        y = np.where(directions[:, 1] > 0, 150 - eye[1], -50 - eye[1]) / directions[:, 1]
    wall = np.minimum(x, y)
    plane = np.where(slopes > 0, 136 - eye[2], 8 - eye[2]) / slopes
    np.testing.assert_allclose(hits.depth, np.minimum(wall, plane[:, None]), rtol=1e-12)
    expected = np.where(wall < plane[:, None], WALL, np.where(slopes > 0, CEILING, FLOOR)[:, None])
    np.testing.assert_array_equal(hits.labels, expected)
    assert hits.screens.shape == (0, 16, 24) and (hits.sector == 0).all()


def test_no_ray_slips_through_a_corner(tmp_path: Path):
    corners = [(-64, -32), (-96, 40), (-8, 104), (72, 72), (120, -24), (40, -88)]
    plan = Plan((0, 0))
    plan.loop(corners, plan.sector(0, 128))
    room = plan.read(tmp_path)
    for eye in ((0.0, 0.0, 41.0), (8.0, -24.0, 41.0), (-40.0, 16.0, 41.0)):
        aims = np.array([corner - np.array(eye[:2]) for corner in corners])
        hits = [cast_rays(room, eye, aim[None], np.array([0.0])) for aim in aims]  # one direction at each corner
        np.testing.assert_allclose([float(hit.depth[0, 0]) for hit in hits], 1.0, rtol=1e-12)


def step_and_lintel(tmp_path: Path, *, outdoors: bool = False) -> DoomMap:
    """A room from x = 0 to 128, from 0 to 128 high, and behind it one to x = 320, from 16 to 80 high."""
    plan = Plan((64, 64))
    flats = ("FLOOR0_1", "F_SKY1" if outdoors else "CEIL1_1")
    near, far = plan.sector(0, 128, *flats), plan.sector(16, 80, *flats)
    plan.line((128, 128), (128, 0), near, far)
    for start, end in (((128, 0), (0, 0)), ((0, 0), (0, 128)), ((0, 128), (128, 128))):
        plan.line(start, end, near)
    for start, end in (((128, 128), (320, 128)), ((320, 128), (320, 0)), ((320, 0), (128, 0))):
        plan.line(start, end, far)
    return plan.read(tmp_path)


def test_steps_and_lintels_are_walls(tmp_path: Path):
    room = step_and_lintel(tmp_path)
    eye = (28.0, 64.0, 41.0)
    arrival = np.array([-60.0, -30.0, -20.0, 0.0, 38.0, 60.0, 100.0])  # height at x = 128, relative to the eye
    hits = cast_rays(room, eye, np.array([[1.0, 0.0]]), arrival / 100)
    np.testing.assert_array_equal(hits.labels[:, 0], [FLOOR, WALL, FLOOR, WALL, CEILING, WALL, CEILING])
    behind = [41 * 100 / 60, 100.0, 25 * 100 / 20, 292.0, 39 * 100 / 38, 100.0, 87.0]
    np.testing.assert_allclose(hits.depth[:, 0], behind, rtol=1e-12)


def test_the_sky_has_no_walls_and_no_depth(tmp_path: Path):
    room = step_and_lintel(tmp_path, outdoors=True)
    # the far wall ends at its own sky, 80 high; the near sector's higher sky draws no wall above the line
    arrival = np.array([-30.0, 0.0, 38.0, 60.0, 300.0])
    hits = cast_rays(room, (28.0, 64.0, 41.0), np.array([[1.0, 0.0]]), arrival / 100)
    np.testing.assert_array_equal(hits.labels[:, 0], [WALL, WALL, SKY, SKY, SKY])
    np.testing.assert_allclose(hits.depth[:, 0], [100.0, 292.0, np.inf, np.inf, np.inf])


def test_gratings_are_reported_but_do_not_stop_a_ray(tmp_path: Path):
    plan = Plan((64, 64))
    inside = plan.sector(0, 128)
    plan.loop(rectangle(0, 0, 256, 128), inside)
    plan.line((96, 128), (96, 0), inside, inside, middle="MIDGRATE")
    plan.line((160, 128), (160, 0), inside, inside, middle="MIDGRATE")
    hits = cast_rays(plan.read(tmp_path), (32.0, 64.0, 41.0), np.array([[1.0, 0.0]]), np.array([0.0, -0.5]))
    np.testing.assert_allclose(hits.depth[:, 0], [224.0, 82.0])
    np.testing.assert_allclose(hits.screens[:, :, 0], [[64.0, 64.0], [128.0, np.inf]])


def test_void_is_void(hall: DoomMap):
    hits = cast_rays(hall, (400.0, 10.0, 49.0), np.array([[1.0, 0.0], [0.0, -1.0]]), np.array([0.0]))
    assert (hits.labels == VOID).all() and np.isinf(hits.depth).all()


def test_sectors_by_point_and_by_grid_agree(tmp_path: Path):
    room = step_and_lintel(tmp_path)
    points = np.array([[64.0, 64.0], [200.0, 20.0], [-8.0, 64.0], [64.0, 140.0], [321.0, 8.0]])
    np.testing.assert_array_equal(room.sector_at(points), [0, 1, -1, -1, -1])
    lower, shape = np.array([-40.0, -24.0]), np.array([25, 12])
    grid = rasterise_sectors(room, lower, shape)
    middles = (np.argwhere(grid > -9) + 0.5) * CELL + lower
    np.testing.assert_array_equal(grid.ravel(), room.sector_at(middles + 0.1))


def two_rooms(tmp_path: Path, *, door: bool = False, ledge: int = 0, fence: bool = False) -> DoomMap:
    """Rooms west and east of x = 256, joined by an opening from y = 96 to 160; the player starts in the west."""
    plan = Plan((64, 128))
    west, east = plan.sector(0, 128), plan.sector(ledge, 128 + ledge)
    opening, special = (plan.sector(0, 0), 1) if door else (plan.sector(0, 96), 0)
    plan.line((256, 160), (256, 96), west, opening, special=special, flags=1 if fence else 0)
    plan.line((272, 96), (272, 160), east, opening, special=special)
    plan.line((272, 96), (256, 96), opening)
    plan.line((256, 160), (272, 160), opening)
    for start, end in (((256, 96), (256, 0)), ((256, 0), (0, 0)), ((0, 0), (0, 256)), ((0, 256), (256, 256))):
        plan.line(start, end, west)
    plan.line((256, 256), (256, 160), west)
    for start, end in (
        ((272, 160), (272, 256)),
        ((272, 256), (512, 256)),
        ((512, 256), (512, 0)),
        ((512, 0), (272, 0)),
    ):
        plan.line(start, end, east)
    plan.line((272, 0), (272, 96), east)
    return plan.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "in_play", "as_built"),
    [({}, True, True), ({"door": True}, True, False), ({"ledge": 32}, False, False), ({"fence": True}, False, False)],
)
def test_walking_stops_at_doors_ledges_and_fences(tmp_path: Path, change: dict, in_play: bool, as_built: bool):
    grid = build_grid(two_rooms(tmp_path, **change))
    far = grid.cell_at(np.array([400.0, 128.0]))
    near = grid.cell_at(np.array([64.0, 128.0]))
    assert grid.standable[near]
    assert bool(grid.standable[far]) == in_play  # a closed door can be opened in play
    assert (walk_distance(grid.open_steps, np.array([near]))[far] >= 0) == as_built


@pytest.mark.parametrize(("change", "lines"), [({"door": True}, 8), ({"ledge": 40}, 0), ({"fence": True}, 0)])
def test_rays_need_no_lines_behind_shut_doors(tmp_path: Path, change: dict, lines: int):
    doom_map = two_rooms(tmp_path, **change)
    near = doom_map.seen_from(int(doom_map.sector_at(np.array([[64.0, 72.0]]))[0]))
    assert len(doom_map.line_vertices) - len(near.line_vertices) == lines
    for yaw in (-30.0, 10.0, 200.0):
        directions, slopes = picture_rays(yaw, 20, 14)
        hits, same = (cast_rays(part, (64.0, 72.0, 41.0), directions, slopes) for part in (doom_map, near))
        assert np.array_equal(hits.depth, same.depth) and np.array_equal(hits.labels, same.labels)
        assert np.array_equal(hits.sector, same.sector) and np.array_equal(hits.screens, same.screens)


def test_a_drop_is_a_way_down_only(tmp_path: Path):
    grid = build_grid(two_rooms(tmp_path, ledge=-32))
    near, far = (grid.cell_at(np.array([x, 128.0])) for x in (64.0, 400.0))
    assert walk_distance(grid.open_steps, np.array([near]))[far] == far[0] - near[0]
    assert walk_distance(grid.open_steps, np.array([far]))[near] == -1


def test_cameras_keep_clear_of_walls(hall: DoomMap):
    grid = build_grid(hall)
    points = grid.centers(grid.standable)
    clear = np.minimum(points - (-100, -50), (300, 150) - points).min()
    assert CELL < clear < 3 * CELL
    assert len(points) > 0.6 * 400 * 200 / CELL**2


def test_cameras_keep_clear_of_things(tmp_path: Path):
    plan = Plan((0, 0))
    plan.loop(rectangle(-100, -50, 300, 150), plan.sector(8, 136))
    plan.things.append((170, 60, 0, 2012, 7))
    doom_map = plan.read(tmp_path)
    free, careful = build_grid(doom_map), build_grid(doom_map, avoid_things=True)
    points = free.centers(free.standable & ~careful.standable)
    distance = np.linalg.norm(free.centers(free.standable) - (170, 60), axis=1)
    assert len(points) == (distance < 56).sum() > 20  # the player start is no thing
    assert np.linalg.norm(points - (170, 60), axis=1).max() < 56


def test_ground_map_is_indexed_by_x_then_y(tmp_path: Path):
    plan = Plan((32, 32))
    ground, pool, podium = plan.sector(8, 200), plan.sector(8, 200, "FWATER1"), plan.sector(48, 200)
    plan.loop(rectangle(0, 0, 384, 256), ground)
    plan.loop(rectangle(256, 32, 352, 96), pool, ground)  # in the south-east
    plan.loop(rectangle(32, 160, 128, 224), podium, ground)  # in the north-west
    plan.things.append((200, 40, 0, 2012, 7))
    bev = draw_bev(plan.read(tmp_path), (64.0, 64.0, 72.0), (-3.0, -3.0), (30, 26), with_things=True)

    def at(x: float, y: float) -> tuple[str, float]:
        i, j = (int((value / 32 - 2 + 3) / bev.cell_size) for value in (x, y))
        assert bev.height is not None
        return bev.class_names[int(bev.classes[i, j])], float(bev.height[i, j])

    assert bev.class_names == doom_bev.BEV_NAMES and bev.cell_size == 0.5
    assert at(40, 40) == ("floor", -2.0)
    assert at(300, 60) == ("liquid", -2.0)
    assert at(80, 200) == ("raised", -0.75)
    assert at(80, 160)[0] == "ledge" and at(0, 100)[0] == "wall"
    assert at(200, 40)[0] == "pickup"
    assert at(-20, 100) == ("void", -2.0)
    north, west = bev.picture()[:, :8], bev.picture()[:, :, :8]
    raised = torch.tensor(doom_bev.BEV_PALETTE[doom_bev.RAISED], dtype=torch.uint8)[:, None, None]
    assert not (north == raised).all(0).any() or (west == raised).all(0).any()  # north is up, west is left


def test_the_best_place_is_indoors(tmp_path: Path):
    plan = Plan((700, 200))
    yard, room = plan.sector(0, 256, ceiling_flat="F_SKY1"), plan.sector(0, 128)
    plan.line((512, 448), (512, 0), room, yard)  # open between the two
    for corner in (((512, 0), (0, 0)), ((0, 0), (0, 448)), ((0, 448), (512, 448))):
        plan.line(*corner, room)
    for corner in (((512, 448), (1024, 448)), ((1024, 448), (1024, 0)), ((1024, 0), (512, 0))):
        plan.line(*corner, yard)
    doom_map = plan.read(tmp_path)
    grid = build_grid(doom_map)
    best = find_room(doom_map, grid, radius=384.0)
    assert best.center[0] < 512 and best.center[2] == 64.0
    assert len(best.points) > 200
    with pytest.raises(
        ValueError, match=r"no camera can stand at \(-50, 20\).*nearest point that suits is \(\d+, \d+\)"
    ):
        find_room(doom_map, grid, center=(-50.0, 20.0), radius=384.0)
    with pytest.raises(ValueError, match="cells of 16 map units"):
        find_room(doom_map, grid, center=(256.0, 200.0), radius=20.0)


def test_scattered_poses_spread_and_avoid_walls(tmp_path: Path):
    doom_map = two_rooms(tmp_path)
    room = find_room(doom_map, build_grid(doom_map), center=(128.0, 128.0), radius=384.0)
    poses, again = (scatter_poses(doom_map, room, np.random.default_rng(3)) for _ in range(2))
    chosen = [next(poses) for _ in range(24)]
    assert chosen == [next(again) for _ in range(24)]
    points = np.array([(pose.x, pose.y) for pose in chosen])
    assert np.abs(points[:, None] - room.points).max(-1).min(1).max() <= 8  # within its cell
    turned = np.sort([pose.yaw_degrees for pose in chosen])
    assert np.diff(turned, append=turned[0] + 360).max() < 90
    assert all(pose.seconds is None for pose in chosen)


def test_a_walk_moves_evenly_on_cells_for_cameras(tmp_path: Path):
    doom_map = two_rooms(tmp_path)
    grid = build_grid(doom_map)
    room = find_room(doom_map, grid, center=(128.0, 128.0), radius=500.0)
    poses = list(walk_poses(grid, room, 40, np.random.default_rng(1)))
    assert len(poses) >= 52
    points = np.array([(pose.x, pose.y) for pose in poses], dtype=float)
    assert all(grid.standable[grid.cell_at(point)] for point in points)
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert np.median(steps) == pytest.approx(WALK_STEP, abs=1.5) and steps.max() < WALK_STEP + 2
    np.testing.assert_allclose(np.diff([pose.seconds or 0.0 for pose in poses]), WALK_STEP / WALK_SPEED)
    turns = (np.diff([pose.yaw_degrees for pose in poses]) + 180) % 360 - 180
    assert np.median(np.abs(turns)) < 15


def test_damaged_wads_are_refused(tmp_path: Path):
    plan = Plan((0, 0))
    plan.loop(rectangle(0, 0, 64, 64), plan.sector(0, 128))
    path = plan.write(tmp_path / "good.wad")
    data = path.read_bytes()
    cases = {
        "neither IWAD nor PWAD": b"RIFF" + data[4:],
        "too short": data[:-20],
        "check the file and the name": data.replace(b"MAP01", b"MAP02"),
        "only maps in Doom's binary format": data.replace(b"VERTEXES", b"TEXTMAP\0"),
        "outside the file": data[:-16] + b"\xff\xff\xff\x7f" + data[-12:],
    }
    for message, damaged in cases.items():
        (tmp_path / "bad.wad").write_bytes(damaged)
        with pytest.raises(DataFormatError, match=message):
            DoomMap.read(tmp_path / "bad.wad", "MAP01")
    plan.line((0, 0), (8, 8), 7)
    with pytest.raises(DataFormatError, match="refers to sector 7 of 1"):
        plan.read(tmp_path)
