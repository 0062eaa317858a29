"""Light and air: the developed picture."""

from dataclasses import replace

import numpy as np

from nfldm3d.recording.driving.poses import RIG, look_along, rig_poses
from nfldm3d.recording.driving.weather import TIMES, Weather, develop, draw_weather


def clear(**changes: object) -> Weather:
    plain = replace(draw_weather(np.random.default_rng(0)), tint=np.ones(3), visibility=1e9)
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_times_of_day_differ_and_are_told():
    generator = np.random.default_rng(1)
    drawn = [draw_weather(generator) for _ in range(80)]
    mean = {time: np.mean([w.horizon.mean() for w in drawn if w.time == time]) for time in TIMES}
    assert {w.time for w in drawn} == set(TIMES) and mean["night"] < 0.4 < mean["overcast"] < mean["day"]
    for weather in drawn[:20]:
        assert np.isclose(np.linalg.norm(weather.towards_sun), 1) and weather.towards_sun[2] > 0.1
        described = weather.describe()
        assert described["time_of_day"] == weather.time and set(described) == set(vars(weather)) - {"time"} | {
            "time_of_day"
        }


def test_without_haze_and_sky_the_picture_is_its_mean():
    image = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    pose = look_along(np.zeros(3), 0.3, -0.2)
    small = develop(clear(), image, np.full((12, 12), 5.0), pose, 3)
    assert np.abs(small - image.reshape(4, 3, 4, 3, 3).mean((1, 3))).max() <= 0.51
    tinted = develop(clear(tint=np.array((0.5, 1.0, 1.0))), image, np.full((12, 12), 5.0), pose, 3)
    assert np.abs(tinted[..., 0] - small[..., 0] / 2).max() <= 1 and np.array_equal(tinted[..., 1:], small[..., 1:])


def test_the_sky_is_the_horizon_below_and_darker_or_bluer_above():
    weather, black, nothing = clear(), np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40))
    level = develop(weather, black, nothing, look_along(np.zeros(3), 1.0, 0.0), 1) / 255
    assert np.abs(level[20:] - weather.horizon).max() < 0.003
    up = develop(weather, black, nothing, look_along(np.zeros(3), 1.0, np.pi / 2 - 1e-9), 1) / 255
    assert np.abs(up[19:21, 19:21] - weather.zenith).max() < 0.03
    other = develop(weather, black, nothing, look_along(np.zeros(3), -2.0, 0.0), 1) / 255
    assert np.array_equal(level, other)  # the same all round


def test_haze_follows_the_distance_along_the_ray():
    weather = clear(visibility=50.0)
    image, size = np.zeros((30, 30, 3), np.uint8), 30
    pose = look_along(np.zeros(3), 0.0, 0.0)
    hazy = develop(weather, image, np.full((size, size), 20.0), pose, 1) / 255
    across = (np.arange(size) + 0.5) / size * 2 - 1
    distance = 20.0 * np.sqrt(1 + across[None] ** 2 + across[:, None] ** 2)
    expected = (1 - np.exp(-distance / 50.0))[..., None] * weather.horizon
    assert np.abs(hazy - expected).max() < 0.003


def test_the_rig_looks_all_round_at_the_height_of_eyes():
    vehicle = np.array((3.0, -2.0, 0.5, 0.7))
    poses = rig_poses(vehicle)
    assert len(poses) == len(RIG) == 6
    for number, pose in enumerate(poses):
        yaw = 0.7 + number * np.pi / 3
        assert np.allclose(-pose[:3, 2], (np.cos(yaw), np.sin(yaw), 0)) and np.allclose(pose[:3, 3], (3, -2, 2.1))
        assert np.isclose(np.linalg.det(pose[:3, :3]), 1) and pose[2, 1] > 0.999  # upright
