"""Places on a track: where the ego car stands, the way it drives, and the cars around it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from nfldm3d.recording.driving.track import Ground, Track

EYE_HEIGHT = 1.6
"""Metres from the road to the cameras."""
STEP = 1.0
"""Metres between poses along the way."""
OFF_MIDDLE = 2.5
"""Metres by which the ego car drives off the middle of the track at most, and never nearer to a side than 2 m."""
STEEPEST = 0.45
"""Metres by which the road rises or falls over a step."""
BELOW = 1.5
"""Metres above the last pose below which the road goes on: bridges are higher."""
GOLDEN = 0.6180339887498949
"""Multiples of it, modulo 1, are spread evenly however many there are."""
CROWD = (1, 6)
"""Fewest and most cars; fewer where there is no room."""
CAR_DISTANCE, EYE_DISTANCE = 5.2, 3.2
"""Metres between the middles of two cars, and between a car and the way of the cameras."""
ACROSS_SHARE = 0.1
"""Of the cars stand in any direction, all others along the lane."""
WHEELBASE = 2.0
"""Metres between the places whose heights tilt a car."""


@dataclass(frozen=True, eq=False)
class Place:
    """An ego car on a road: the middle of a scene."""

    origin: Float[np.ndarray, " 3"]
    """On the road below the ego car, in the track's metres."""
    heading: float
    """Counter-clockwise from the track's x."""
    way: Float[np.ndarray, "poses 4"]
    """x, y, z on the road and heading in the scene's frame, a metre apart, from behind to ahead; the ego car's pose is
    in the middle."""
    half_width: float
    """Metres from the middle of the track to a side."""

    @property
    def track_from_scene(self) -> Float[np.ndarray, "4 4"]:
        """The scene's frame: its x along the heading, its z up."""
        return pose_matrix(self.origin, self.heading)

    def moved(self, stop: int) -> "Place":
        """The same road around the ego car at another pose of its way."""
        pose = self.track_from_scene @ pose_matrix(self.way[stop, :3], float(self.way[stop, 3]))
        return Place(pose[:3, 3], self.heading + float(self.way[stop, 3]), self.way, self.half_width)

    def to_scene(self, points: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """Points of the track in the scene's frame."""
        return (points - self.origin) @ self.track_from_scene[:3, :3]


@dataclass(frozen=True, eq=False)
class Standing:
    """A car on the road."""

    kind: int
    """Which car."""
    position: Float[np.ndarray, " 3"]
    """On the road, in the scene's frame."""
    heading: float
    tilt: tuple[float, float]
    """Rise of the road over a metre, ahead and to the left."""

    @property
    def scene_from_car(self) -> Float[np.ndarray, "4 4"]:
        """The car's frame: x ahead, y left, z up, tilted with the road."""
        pose = pose_matrix(self.position, self.heading)
        ahead, left = np.array((1.0, 0.0, self.tilt[0])), np.array((0.0, 1.0, self.tilt[1]))
        ahead /= np.linalg.norm(ahead)
        up = np.cross(ahead, left)
        up /= np.linalg.norm(up)
        pose[:3, :3] = pose[:3, :3] @ np.stack((ahead, np.cross(up, ahead), up), axis=1)
        return pose


def pose_matrix(position: Float[np.ndarray, " 3"], heading: float) -> Float[np.ndarray, "4 4"]:
    """A frame at a position, turned about z."""
    pose = np.eye(4)
    pose[:2, :2] = ((np.cos(heading), -np.sin(heading)), (np.sin(heading), np.cos(heading)))
    pose[:3, 3] = position
    return pose


def choose_stops(place: Place, stops: int, reach: float | None = None) -> list[int]:
    """Numbers of poses of the way, evenly spread from its first to its last, or so many metres from the middle one."""
    middle = len(place.way) // 2
    steps = middle if reach is None else min(middle, int(reach / STEP))
    return np.round(np.linspace(middle - steps, middle + steps, stops)).astype(int).tolist()


def find_place(track: Track, number: int, reach: float, generator: np.random.Generator) -> Place | None:
    """The place called ``number`` on a track; None if the road does not go on for ``reach`` metres both ways.

    The numbers 0, 1, 2, ... are spread evenly over the track.
    """
    line = track.line
    order = (float(generator.random()) / 64 + number * GOLDEN) % 1.0
    index = int(order * len(line))
    direction = line.directions[index] * generator.choice((-1.0, 1.0))
    room = max(0.0, min(OFF_MIDDLE, float(line.half_widths[index]) - 2.0))
    offset = float(generator.uniform(-room, room))
    start = line.points[index] + offset * np.array((-direction[1], direction[0], 0.0))
    ground = track.ground.near(start, reach + 8.0)
    found = ground.find_height(start, start[2] + BELOW)
    if found is None or not found[1]:
        return None
    start[2] = found[0]
    steps = int(reach / STEP)
    if _is_covered(ground, start):
        return None
    ahead = _drive(track, ground, start, direction, steps)
    behind = _drive(track, ground, start, -direction, steps)
    if ahead is None or behind is None:
        return None
    heading = float(np.arctan2(direction[1], direction[0]))
    behind[:, 3] += np.pi
    way = np.concatenate((behind[::-1], [[*start, heading]], ahead))
    place = Place(start, heading, way, float(line.half_widths[index]))
    local = np.column_stack((place.to_scene(way[:, :3]), np.angle(np.exp(1j * (way[:, 3] - heading)))))
    return Place(start, heading, local, place.half_width)


def _drive(
    track: Track,
    ground: Ground,
    start: Float[np.ndarray, " 3"],
    direction: Float[np.ndarray, " 2"],
    steps: int,
) -> Float[np.ndarray, "poses 4"] | None:
    """Poses along the track at a constant distance from its middle; None if the road ends."""
    poses, place = [], start
    for _ in range(steps):
        nearest = track.line.find_nearest(place)
        if nearest is None:
            return None
        along = track.line.directions[nearest]
        direction = along * np.sign(along @ direction)
        place = place + STEP * np.array((*direction, 0.0))
        found = ground.find_height(place, place[2] + BELOW)
        if found is None or abs(found[0] - place[2]) > STEEPEST:
            return None
        place = np.array((*place[:2], found[0]))
        if _is_covered(ground, place):
            return None
        poses.append((*place, float(np.arctan2(direction[1], direction[0]))))
    return np.array(poses).reshape(steps, 4)


def _is_covered(ground: Ground, place: Float[np.ndarray, " 3"]) -> bool:
    """Whether other ground lies above: a bridge, or a hill over a tunnel."""
    highest = ground.find_height(place)
    return highest is not None and highest[0] > float(place[2]) + BELOW


def scatter_cars(track: Track, place: Place, kinds: int, generator: np.random.Generator) -> list[Standing]:
    """Cars on the road around the way, those on its left mostly facing the ego car."""
    wanted = int(generator.integers(CROWD[0], CROWD[1] + 1))
    ground = track.ground.near(place.origin, float(np.abs(place.way[:, :2]).max()) + 12.0)
    cars: list[Standing] = []
    for _ in range(24 * wanted):
        if len(cars) == wanted:
            break
        x, y, z, heading = place.way[int(generator.integers(len(place.way)))]
        lateral = float(generator.uniform(-place.half_width - 3.0, place.half_width + 3.0))
        spot = np.array((x - lateral * np.sin(heading), y + lateral * np.cos(heading), z))
        near_car = any(np.linalg.norm((car.position - spot)[:2]) < CAR_DISTANCE for car in cars)
        if near_car or np.linalg.norm((place.way[:, :2] - spot[:2]), axis=1).min() < EYE_DISTANCE:
            continue
        if generator.random() < ACROSS_SHARE:
            heading = heading + float(generator.uniform(0, 2 * np.pi))
        else:
            heading = heading + np.pi * (generator.random() < (0.8 if lateral > 0 else 0.2))
            heading += float(generator.normal(0, 0.06))
        car = _stand(ground, place, spot, float(heading), int(generator.integers(kinds)))
        if car is not None:
            cars.append(car)
    return cars


def _stand(ground: Ground, place: Place, spot: Float[np.ndarray, " 3"], heading: float, kind: int) -> Standing | None:
    """A car at a spot if all of it is on the road."""
    pose, heights = pose_matrix(spot, heading), []
    for x, y in ((0.0, 0.0), (WHEELBASE, 0.0), (-WHEELBASE, 0.0), (0.0, WHEELBASE / 2), (0.0, -WHEELBASE / 2)):
        point = (place.track_from_scene @ pose @ (x, y, 0.0, 1.0))[:3]
        found = ground.find_height(point, point[2] + BELOW)
        if found is None or not found[1] or abs(found[0] - point[2]) > 1.0:
            return None
        heights.append(found[0] - place.origin[2])
    middle, front, rear, left, right = heights
    tilt = ((front - rear) / (2 * WHEELBASE), (left - right) / WHEELBASE)
    return Standing(kind, np.array((*spot[:2], middle)), heading, tilt)
