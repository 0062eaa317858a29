"""Tracks: classes of surfaces, the ground, the driving line, and places along it."""

import math
from pathlib import Path

import numpy as np
import pytest
import small_tracks
from small_tracks import GRADE, HALF_WIDTH, HEADING, START, TRACK, place

from nfldm3d.files import DataFormatError
from nfldm3d.recording.driving.driving_line import find_line
from nfldm3d.recording.driving.places import choose_stops, find_place, scatter_cars
from nfldm3d.recording.driving.surfaces import (
    BUILDING,
    KERB,
    ROAD,
    TERRAIN,
    TREE,
    classify,
    classify_steep,
    find_markings,
)
from nfldm3d.recording.driving.torcs import (
    TEST_BODIES,
    TEST_TRACKS,
    TRACKS,
    TRAINING_BODIES,
    TorcsData,
    bodies_of,
    split_of,
)
from nfldm3d.recording.driving.track import Track

REACH = 13.0


def read_track(root: Path, extra: list[str] | None = None) -> Track:
    small_tracks.write_track(root, extra)
    data = TorcsData(root)
    return Track.read(TRACK, data.track_model(TRACK), data.texture_folders(data.track_model(TRACK)))


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Track:
    return read_track(tmp_path_factory.mktemp("torcs"))


@pytest.mark.parametrize(
    ("part", "texture", "kind"),
    [
        ("TKMN12", "tr-asphalt-aa-bw1_n.rgb", ROAD),
        ("T3RB1", "tr-curb-r.rgb", KERB),
        ("TKLS3", "tr-b-road1-grass6-l2.rgb", TERRAIN),
        ("TKLS3", "gconcrete.rgb", ROAD),
        ("PITS1", "gconcrete.rgb", BUILDING),
        ("TREEP3", "treeg10_n.rgb", TREE),
        ("B3LT1", "allborg-trees_n.rgb", BUILDING),
        ("OBJECT9", "treeC3_n.png", BUILDING),  # spectators
        ("OBJECT9", "GBtree_n.png", BUILDING),  # a flag
        ("TERR4", "rock1-w1.png", TERRAIN),
        ("TOIT1", None, BUILDING),
        ("TKMN1", "lava.png", None),
    ],
)
def test_names_tell_classes(part: str, texture: str | None, kind: int | None):
    assert classify(part, texture) == kind


def test_a_steep_road_is_a_wall():
    assert [classify_steep(kind) for kind in (ROAD, KERB, TERRAIN, TREE)] == [BUILDING, BUILDING, TERRAIN, TREE]


def test_markings_are_bright_or_yellow_and_gravel_does_not_sparkle():
    pixels = np.full((32, 24, 4), 90, np.uint8)
    pixels[4:8], pixels[20:24, :, :2], pixels[20:24, :, 2] = 230, 200, 40
    pixels[12, 3] = 255
    expected = np.zeros((32, 24), bool)
    expected[4:8] = True
    found = find_markings("asphalt.png", pixels)
    assert found[5:7].all() and found[21:23].all() and not found[10:16].any() and not found[26:].any()
    assert np.array_equal(find_markings("tr-b-road1-grass6-l2.rgb", pixels)[:20], expected[:20])
    assert not find_markings("tr-b-road1-grass6-l2.rgb", pixels)[20:].any()  # yellow grass is no line
    for other in ("grass.png", "road-snow.png", "house.rgb"):
        assert not find_markings(other, pixels).any()


def test_the_line_of_a_ring_is_its_middle_circle():
    angle = np.linspace(0, 2 * math.pi, 121)
    ring = [np.stack((r * np.cos(angle), r * np.sin(angle), np.full(121, 3.0)), axis=1) for r in (35.0, 45.0)]
    inner, outer = ring
    near = np.stack((inner[:-1], outer[:-1], outer[1:]), axis=1)
    far = np.stack((inner[:-1], outer[1:], inner[1:]), axis=1)
    line = find_line(np.concatenate((near, far)))
    radius = np.hypot(line.points[:, 0], line.points[:, 1])
    assert len(line) > 200 and np.abs(radius - 40).max() < 0.05 and np.abs(line.half_widths - 5).max() < 0.05
    radial = (line.directions * line.points[:, :2]).sum(1) / radius
    assert np.abs(radial).max() < 0.03 and np.allclose(np.linalg.norm(line.directions, axis=1), 1)
    assert line.find_nearest(np.array((40.0, 0.0, 3.5))) is not None
    assert line.find_nearest(np.array((40.0, 0.0, 9.0))) is None  # on a bridge above
    assert line.find_nearest(np.zeros(3)) is None


def test_one_triangle_has_no_two_sides():
    with pytest.raises(ValueError, match="no two sides that face each other"):
        find_line(np.array([[(0.0, 0.0, 0.0), (30.0, 0.0, 0.0), (0.0, 1.0, 0.0)]]))


def test_sides_without_end_are_refused():
    with pytest.raises(ValueError, match="sides are 600 km long"):
        find_line(np.array([[(0.0, 0.0, 0.0), (3e5, 0.0, 0.0), (3e5, 1.0, 0.0)]]))


def test_a_track_has_its_ground_and_line(track: Track):
    direction = np.array((math.cos(HEADING), math.sin(HEADING)))
    assert np.allclose(np.abs(track.line.directions @ direction), 1, atol=1e-4)
    assert np.allclose(track.line.half_widths, HALF_WIDTH, atol=1e-3)
    across = (track.line.points[:, :2] - START[:2]) @ (-direction[1], direction[0])
    assert np.abs(across).max() < 1e-3
    for along, left, is_road in ((50.0, 3.0, True), (51.0, -6.5, True), (52.0, 9.0, False), (53.0, -12.0, False)):
        x, y, z = place(along, left)
        found = track.ground.near(np.array((x, y, z)), 5.0).find_height(np.array((x, y, z)))
        assert found is not None and abs(found[0] - z) < 1e-4 and found[1] is is_road
    assert track.ground.find_height(np.array(place(50.0, 30.0))) is None
    assert {surface.kind for surface in track.surfaces} == {ROAD, KERB, TERRAIN, BUILDING, TREE}


def test_the_highest_ground_below_a_height_is_found(tmp_path: Path):
    bridge = [[place(60, -9, 7), place(72, -9, 7), place(72, 9, 7), place(60, 9, 7)]]
    track = read_track(tmp_path, [small_tracks.polygons("ROAD9", "asphalt.png", bridge)])
    spot = np.array(place(65.0, 1.0))
    over, under = track.ground.find_height(spot), track.ground.find_height(spot, spot[2] + 2)
    assert over is not None and under is not None and abs(over[0] - under[0] - 7) < 1e-3
    assert all(found is None or np.abs(found.to_scene(spot)[0]) > REACH for found in places_of(track, 40))


def places_of(track: Track, count: int):
    return [find_place(track, number, REACH, np.random.default_rng(number)) for number in range(count)]


def test_unknown_and_missing_textures_are_listed(tmp_path: Path):
    odd = small_tracks.strip_of("TKRS7", "lava.png", 20, 30)
    other = small_tracks.strip_of("TKRS8", "acid.png", 30, 40)
    with pytest.raises(DataFormatError, match="not known what they show: acid.png, lava.png; add them"):
        read_track(tmp_path, [odd, other])
    with pytest.raises(DataFormatError, match="names textures that are missing: gravel.png"):
        read_track(tmp_path, [small_tracks.strip_of("TKRS7", "gravel.png", 20, 30)])


def test_a_track_without_its_main_surface_is_refused(tmp_path: Path):
    model = small_tracks.write_model(
        tmp_path / "x.acc", [small_tracks.polygons("HUT", None, [[(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)]])]
    )
    with pytest.raises(DataFormatError, match=r"parts named TKMN .the main track.: .* no two sides"):
        Track.read("x", model, [tmp_path])


def test_places_lie_all_over_the_road_and_follow_it(track: Track):
    found = [found for found in places_of(track, 60) if found is not None]
    assert len(found) > 40
    for spot in found:
        assert len(spot.way) == 27 and np.allclose(spot.way[13], 0, atol=1e-9)
        assert np.allclose(spot.way[:, 0], np.arange(-13, 14), atol=1e-3) and np.allclose(spot.way[:, 1], 0, atol=1e-3)
        assert np.allclose(np.abs(spot.way[:, 2]), GRADE * np.abs(spot.way[:, 0]), atol=1e-3)
        assert np.allclose(spot.way[:, 3], 0, atol=1e-4) and spot.half_width == pytest.approx(HALF_WIDTH, abs=1e-3)
        moved = spot.moved(20)
        assert np.allclose(moved.to_scene(spot.origin), (-7, 0, -spot.way[20, 2]), atol=1e-3)
    along = sorted(float((s.origin[:2] - START[:2]) @ (math.cos(HEADING), math.sin(HEADING))) for s in found)
    assert along[0] < 25 and along[-1] > 215 and np.diff(along).max() < 15
    assert {round(math.cos(s.heading - HEADING)) for s in found} == {-1, 1}  # both ways
    assert choose_stops(found[0], 4) == [0, 9, 17, 26] and choose_stops(found[0], 3, reach=5.0) == [8, 13, 18]


def test_cars_stand_on_the_road_apart_and_tilted_with_it(track: Track):
    generator, seen = np.random.default_rng(3), 0
    for spot in filter(None, places_of(track, 25)):
        cars = scatter_cars(track, spot, 3, generator)
        for number, car in enumerate(cars):
            x, y, z, _ = spot.track_from_scene @ (*car.position, 1.0)
            ground = track.ground.find_height(np.array((x, y, z)))
            assert ground is not None and ground[1] and abs(ground[0] - z) < 1e-3
            assert all(np.linalg.norm((car.position - other.position)[:2]) >= 5.2 for other in cars[:number])
            assert np.linalg.norm(spot.way[:, :2] - car.position[:2], axis=1).min() >= 3.2
            up = spot.track_from_scene[:3, :3] @ car.scene_from_car[:3, 2]
            slope = np.array((-GRADE * math.cos(HEADING), -GRADE * math.sin(HEADING), 1.0))
            assert np.allclose(up, slope / np.linalg.norm(slope), atol=2e-3) and 0 <= car.kind < 3
            assert np.isclose(np.linalg.det(car.scene_from_car), 1)
        seen += len(cars)
    assert seen > 30


def test_test_tracks_and_their_cars_are_apart(tmp_path: Path):
    assert len(TRACKS) == 21 and {split_of(name) for name in TEST_TRACKS} == {"test"}
    assert split_of("street-1") == "train" and bodies_of("street-1") == TRAINING_BODIES
    assert bodies_of("wheel-1") == TEST_BODIES and not set(TEST_BODIES) & set(TRAINING_BODIES)


def test_missing_data_say_how_to_get_them(tmp_path: Path):
    with pytest.raises(ValueError, match=r"sudo apt install torcs-data.*dpkg-deb -x .* give --data FOLDER"):
        TorcsData.find(tmp_path)
    small_tracks.write_data(tmp_path / "usr" / "share" / "games" / "torcs")
    with pytest.raises(DataFormatError, match=r"lacks aalborg, alpine-1, .* and \d+ more: it is not torcs-data 1.3.7"):
        TorcsData.find(tmp_path)
