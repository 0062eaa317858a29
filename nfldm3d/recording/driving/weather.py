"""The light and the air of a scene: time of day, sun, sky, haze and the tint of the pictures, drawn by chance."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

TIMES = ("day", "overcast", "dusk", "night")
ODDS = (0.5, 0.2, 0.18, 0.12)
SKY_POWER = 0.6
"""How fast the colour of the sky changes above the horizon."""
TINT = 0.05
"""Spread of the factors on red, green and blue."""


@dataclass(frozen=True, eq=False)
class Weather:
    """What the light and the air are like; colours from 0 to 1."""

    time: str
    """One of ``TIMES``."""
    towards_sun: Float[np.ndarray, " 3"]
    """Unit vector in the scene's frame."""
    sun: Float[np.ndarray, " 3"]
    ambient: Float[np.ndarray, " 3"]
    horizon: Float[np.ndarray, " 3"]
    zenith: Float[np.ndarray, " 3"]
    visibility: float
    """Metres after which haze leaves 1/e of what is behind it."""
    tint: Float[np.ndarray, " 3"]
    """Factors on the finished picture, as a camera's white balance."""

    def describe(self) -> dict[str, object]:
        """As plain JSON values."""

        def rounded(vector: Float[np.ndarray, " 3"]) -> list[float]:
            return [round(float(value), 4) for value in vector]

        return {
            "time_of_day": self.time,
            "towards_sun": rounded(self.towards_sun),
            "sun": rounded(self.sun),
            "ambient": rounded(self.ambient),
            "horizon": rounded(self.horizon),
            "zenith": rounded(self.zenith),
            "visibility": round(self.visibility, 1),
            "tint": rounded(self.tint),
        }

    def sky(self, up: Float[np.ndarray, "*pixels"]) -> Float[np.ndarray, "*pixels 3"]:
        """The colour of the sky in directions whose sine of elevation is ``up``."""
        share = np.clip(up, 0.0, 1.0)[..., None] ** SKY_POWER
        return self.horizon + share * (self.zenith - self.horizon)


def draw_weather(generator: np.random.Generator) -> Weather:
    """Weather by chance; the four times of day differ in all of it."""
    time = TIMES[int(generator.choice(len(TIMES), p=ODDS))]
    sun, ambient, horizon, zenith, elevation, (clear, clearest) = _TIMES_OF_DAY[time]
    azimuth, height = generator.uniform(0, 2 * np.pi), generator.uniform(*elevation)
    flat = np.cos(height)

    def vary(color: tuple[float, float, float], low: float, high: float) -> np.ndarray:
        return np.array(color) * generator.uniform(low, high)

    return Weather(
        time,
        np.array((np.cos(azimuth) * flat, np.sin(azimuth) * flat, np.sin(height))),
        vary(sun, 0.8, 1.15),
        vary(ambient, 0.8, 1.12),
        np.clip(vary(horizon, 0.85, 1.05), 0, 1),
        np.clip(vary(zenith, 0.8, 1.12), 0, 1),
        float(np.exp(generator.uniform(np.log(clear), np.log(clearest)))),
        np.clip(generator.normal(1.0, TINT, 3), 0.85, 1.15),
    )


def develop(
    weather: Weather,
    image: UInt8[np.ndarray, "fine_height fine_width 3"],
    depth: Float[np.ndarray, "fine_height fine_width"],
    world_from_camera: Float[np.ndarray, "4 4"],
    supersampling: int,
) -> UInt8[np.ndarray, "height width 3"]:
    """The finished picture: haze and sky put in, tinted, and averaged to its final size.

    Args:
        depth: metres, 0 where there is sky.
        world_from_camera: of a camera 90 degrees wide.
    """
    size = image.shape[0]
    small, empty = size // supersampling, depth == 0
    across = ((np.arange(size, dtype=np.float32) + 0.5) / size) * 2 - 1
    length = np.sqrt(1 + across[None, :] ** 2 + across[:, None] ** 2)
    kept = np.exp(depth.astype(np.float32) * length * np.float32(-1 / weather.visibility))
    kept[empty] = 0
    color = image * np.float32(1 / 255)
    behind = np.broadcast_to(weather.horizon.astype(np.float32), color.shape).copy()
    right, up, back = world_from_camera[2, :3].astype(np.float32)
    elevation = (right * across[None, :] - up * across[:, None] - back) / length
    behind[empty] = weather.sky(elevation[empty])
    color = behind + kept[..., None] * (color - behind)
    mean = color.reshape(small, supersampling, small, supersampling, 3).mean((1, 3)) * weather.tint
    return (np.clip(mean, 0, 1) * 255 + 0.5).astype(np.uint8)


_TIMES_OF_DAY = {
    # sun, sky light, horizon, zenith, elevation of the sun in radians, visibility in metres
    "day": ((0.76, 0.72, 0.66), (0.45, 0.5, 0.58), (0.74, 0.83, 0.92), (0.25, 0.45, 0.8), (0.5, 1.2), (300, 2500)),
    "overcast": ((0.25, 0.25, 0.25), (0.57, 0.6, 0.62), (0.62, 0.64, 0.66), (0.5, 0.53, 0.56), (0.8, 1.2), (50, 500)),
    "dusk": ((0.88, 0.55, 0.31), (0.4, 0.36, 0.42), (0.94, 0.6, 0.36), (0.33, 0.34, 0.6), (0.12, 0.35), (150, 1500)),
    "night": ((0.3, 0.36, 0.5), (0.32, 0.36, 0.52), (0.17, 0.21, 0.36), (0.04, 0.06, 0.15), (0.6, 1.0), (150, 1500)),
}
