"""A track with cars on a stage, and what chance decides about each of its scenes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from nfldm3d.data.bev_map import BevMap
from nfldm3d.geometry import Box
from nfldm3d.recording.driving.bird_view import CELL, FINE, Footprint, Upright, draw_map
from nfldm3d.recording.driving.cars import Car, draw_paint, paint_over, read_car
from nfldm3d.recording.driving.drawing import Stage
from nfldm3d.recording.driving.models import Model, Textures
from nfldm3d.recording.driving.places import EYE_HEIGHT, Place, Standing, find_place, scatter_cars
from nfldm3d.recording.driving.poses import RIG
from nfldm3d.recording.driving.surfaces import VOID
from nfldm3d.recording.driving.torcs import TRACKS, TorcsData, bodies_of
from nfldm3d.recording.driving.track import Track
from nfldm3d.recording.driving.weather import Weather, draw_weather
from nfldm3d.recording.engine import to_texture

GROUND_SHARE = 0.25
"""Of the box's height lies below the road under the ego car."""
HILLS = 100.0
"""Metres above and below the road: what is looked for where the ground is not in the box."""
END = 3.0
"""Metres from the ends of the way to the sides of the box."""
CLEARANCE = 0.2
"""Metres from roads and eyes to the floor and the lid of the box."""
TRAJECTORY_POSES = 16


@dataclass(frozen=True)
class SceneShape:
    """What a scene consists of."""

    size: int = 64
    """Width and height of the pictures in pixels, of views 90 degrees wide."""
    box: tuple[float, float, float] = (32.0, 32.0, 8.0)
    """Extents in metres."""
    stops: int = 4
    """Places along the way where the rig's six cameras take a view each."""
    free: int = 12
    """Views from random poses."""
    supersampling: int = 3

    def __post_init__(self):
        if not 8 <= self.size <= 1024:
            raise ValueError(f"size must lie between 8 and 1024 pixels, got {self.size}")
        whole = all(value > 0 and value % CELL == 0 for value in self.box)
        if not whole or self.box[0] != self.box[1] or self.box[0] < 12 or self.box[2] < 6:
            raise ValueError(
                f"box must be as long as wide, at least 12 x 12 x 6 metres, in steps of {CELL}; got {self.box}"
            )
        if not 1 <= self.stops <= TRAJECTORY_POSES or self.free < 0 or not 1 <= self.supersampling <= 8:
            raise ValueError(
                f"stops must lie between 1 and {TRAJECTORY_POSES}, supersampling between 1 and 8, and free be 0 or "
                f"more, got {self.stops}, {self.supersampling} and {self.free}"
            )

    @property
    def views(self) -> int:
        """All views of a scene."""
        return self.stops * len(RIG) + self.free

    @property
    def room(self) -> Box:
        """The box around the ego car, which stands at the origin."""
        x, y, z = self.box
        return Box((-x / 2, -y / 2, -GROUND_SHARE * z), (x / 2, y / 2, (1 - GROUND_SHARE) * z))


@dataclass(frozen=True, eq=False)
class Plan:
    """All that chance decides about a scene before its free views."""

    place: Place
    cars: list[Standing]
    kinds: list[tuple[str, tuple[float, float, float]]]
    """Body and paint of each car."""
    weather: Weather
    generator: np.random.Generator
    """Decides on all that follows."""


class World:
    """A track and cars on a stage."""

    def __init__(self, track: Track, cars: dict[str, Car], shape: SceneShape, seed: int):
        """``cars`` are those that may stand on the track, by their bodies."""
        self.track, self.cars, self.shape, self.seed = track, cars, shape, seed
        self.upright, self.textures = Upright.of(track), Textures()
        map_size = round(shape.box[0] / CELL) * FINE
        self.stage = Stage(shape.size, supersampling=shape.supersampling, map_size=map_size)
        model = Model(track.name)
        for surface in track.surfaces:
            model.add(surface, self.textures)
        self.stage.build(model)
        self.models = {body: car.model(self.textures) for body, car in cars.items()}

    @classmethod
    def open(cls, data: TorcsData, name: str, shape: SceneShape, seed: int) -> "World":
        """The track called ``name`` with the cars of its split."""
        model = data.track_model(name)
        track = Track.read(name, model, data.texture_folders(model))
        cars = {}
        for body in bodies_of(name):
            path = data.car_model(body)
            cars[body] = read_car(body, path, data.car_description(body), data.texture_folders(path))
        return cls(track, cars, shape, seed)

    def plan(self, number: int) -> Plan | None:
        """The scene at the place ``number``; None if the road does not go on in its box."""
        track = self.track.name
        generator = np.random.default_rng((TRACKS.index(track) if track in TRACKS else 0, self.seed, number))
        place, room = find_place(self.track, number, self.shape.box[0] / 2 - END, generator), self.shape.room
        if place is None:
            return None
        cars = scatter_cars(self.track, place, len(self.cars), generator)
        bodies = list(self.cars)
        kinds = [(bodies[car.kind], draw_paint(generator)) for car in cars]
        weather = draw_weather(generator)
        heights = place.way[:, 2]
        low, high = room.lower[2] + CLEARANCE, room.upper[2] - CLEARANCE
        if heights.min() < low or heights.max() + EYE_HEIGHT > high:
            return None
        return Plan(place, cars, kinds, weather, generator)

    @contextmanager
    def furnished(self, plan: Plan) -> Iterator[Stage]:
        """The stage with the cars and in the light of a plan."""
        turn, weather = plan.place.track_from_scene, plan.weather
        self.stage.light(turn[:3, :3] @ weather.towards_sun, weather.sun, weather.ambient)
        for car, (body, paint) in zip(plan.cars, plan.kinds, strict=True):
            skin = to_texture(paint_over(self.cars[body].skin, paint))
            self.stage.put(self.models[body], turn @ car.scene_from_car, skin=skin)
        try:
            yield self.stage
        finally:
            self.stage.clear()

    def draw_bev(self, plan: Plan, place: Place | None = None) -> BevMap:
        """The map around a place; by default the plan's."""
        place, room = place or plan.place, self.shape.room
        half = (self.shape.box[0] / 2, self.shape.box[1] / 2)
        place_from_scene = np.linalg.inv(place.track_from_scene) @ plan.place.track_from_scene
        footprints = [
            Footprint.of(place_from_scene @ car.scene_from_car, self.cars[body].size)
            for car, (body, _) in zip(plan.cars, plan.kinds, strict=True)
        ]
        ground = _draw_ground(self.stage, place, room, half)
        return draw_map(*ground, self.upright.points(place, room), footprints, room)


def _draw_ground(
    stage: Stage, place: Place, room: Box, half_width: tuple[float, float]
) -> tuple[UInt8[np.ndarray, "height width"], Float[np.ndarray, "height width"]]:
    """What lies on the ground in the box, and where hills rise or fall out of it, what they are covered with."""
    turn = place.track_from_scene
    classes, height = stage.draw_above(turn, half_width, room.lower[2], room.upper[2])
    outside = classes == VOID
    if outside.any():
        beyond, heights = stage.draw_above(turn, half_width, -HILLS, HILLS)
        classes[outside], height[outside] = beyond[outside], heights[outside].clip(room.lower[2], room.upper[2])
    return classes, height
