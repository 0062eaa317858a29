"""Drives ViZDoom as a camera: opens a map in steady light without things in the way, and takes pictures at given poses.

The engine draws a view 116 degrees wide with pixels 1.2 times taller than wide. The middle 5/8 of its columns are a
square picture, about 90 degrees wide and high. Its vertical image plane never tilts.
"""

import os
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from nfldm3d.memory import require_address_space
from nfldm3d.recording.vizdoom.doom_map import PLAYER_THINGS, SECTOR, THING
from nfldm3d.recording.vizdoom.doom_wad import MAP_LUMPS, read_map_lumps, write_wad

MAP_NAMES = {
    "freedoom1.wad": tuple(f"E{episode}M{number}" for episode in range(1, 5) for number in range(1, 10)),
    "freedoom2.wad": tuple(f"MAP{number:02d}" for number in range(1, 33)),
}
"""The maps that come with ViZDoom, by file."""
NEEDED = 2**28
"""Bytes of address space that the engine takes; with less it may end the process."""


@dataclass(frozen=True)
class Screen:
    """A resolution of the engine, and the camera of its square picture.

    Intrinsics are in widths (or heights) of that picture, with pixel centres at +0.5, fitted to the edges between
    walls and floors: 0.17, 0.14 and 0.08 % of the pixels are on the wrong side of one.
    """

    name: str
    """As ViZDoom calls it."""
    width: int
    """Of the square picture: the middle 5/8 of the screen."""
    height: int
    center_x: float
    center_y: float
    wall_depth: float
    """The depth of walls at level 0 of the depth buffer, in map units."""
    saturated: int = 255
    """The level of the depth buffer that means: this far, or farther."""
    focal: float = 0.500875

    @property
    def columns(self) -> slice:
        """Those of the square picture."""
        return slice(self.width * 3 // 10, self.width * 13 // 10)


SCREENS = (
    Screen("RES_512X384", 320, 384, center_x=0.50109375, center_y=0.498698, wall_depth=9.05, saturated=204),
    Screen("RES_640X480", 400, 480, center_x=0.500875, center_y=0.498958, wall_depth=9.0),
    Screen("RES_1280X960", 800, 960, center_x=0.5004375, center_y=0.499479, wall_depth=18.2),
)
OVERSAMPLING = 5
"""The engine takes one texel per pixel; so many of its columns per column keep distant floors from shimmering: pictures
are then 38 dB from ones with twice as many, and 33 dB with three."""
FOV_DEGREES = 116
SETTLING_TICS = 25
"""After the start: the field of view glides to its value, and turns are ignored at first."""
LIGHT_TICS = 2000
"""The light amplifier lasts 4200."""
EYE_HEIGHT = 41.0


@dataclass(frozen=True, eq=False)
class Shot:
    """One picture with what the engine says about it."""

    image: UInt8[np.ndarray, "height width 3"]
    depth_level: UInt8[np.ndarray, "height width"]
    labels: UInt8[np.ndarray, "height width"]
    """0 on walls, 1 on floors and ceilings, above that on things."""
    thing_position: dict[int, Float[np.ndarray, " 3"]]
    """Where the things in the picture are, by their value in ``labels``; map units."""
    eye: tuple[float, float, float]
    """Map units."""
    yaw_degrees: float
    screen: Screen


@dataclass(frozen=True)
class Game:
    """A running engine."""

    engine: Any
    screen: Screen
    light_tics: list[int]
    """When the light was last renewed."""

    def shoot(self, x: int, y: int, yaw_degrees: float) -> Shot | None:
        """The view from the eye of a player who stands at (x, y); None if there is no standing there."""
        engine = self.engine
        if engine.get_episode_time() - self.light_tics[0] > LIGHT_TICS:
            self._renew_light()
        turn = (_variable(engine, "ANGLE") - yaw_degrees + 180) % 360 - 180  # positive is to the right
        engine.send_game_command(f"warp {x} {y}")
        engine.set_action([turn])
        engine.advance_action(1, False)
        engine.set_action([0.0])
        engine.advance_action(2, True)
        for _ in range(4):  # the eye comes up after a fall
            if _variable(engine, "VIEW_HEIGHT") == EYE_HEIGHT:
                break
            engine.advance_action(1, True)
        position = _variable(engine, "POSITION_X"), _variable(engine, "POSITION_Y")
        if position != (x, y) or _variable(engine, "VIEW_HEIGHT") != EYE_HEIGHT:
            return None
        return _take_shot(engine, self.screen)

    def _renew_light(self) -> None:
        self.engine.send_game_command("take PowerLightAmp")  # given twice, it would not last longer
        self.engine.send_game_command("give PowerLightAmp")
        self.light_tics[0] = self.engine.get_episode_time()


@contextmanager
def open_game(map_name: str, *, keep_things: bool = False, screen: Screen = SCREENS[0]) -> Iterator[Game]:
    """ViZDoom on the given map, frozen; it is closed, and its files are removed, at the end of the block.

    Raises:
        ChildProcessError: if the engine dies meanwhile.
    """
    vizdoom = load_vizdoom()
    with tempfile.TemporaryDirectory(prefix="nfldm3d-vizdoom-") as folder:
        engine = vizdoom.DoomGame()
        _prepare_files(engine, vizdoom, Path(folder), map_name, keep_things)
        _configure(engine, vizdoom, screen)
        try:
            engine.init()
            for command in ("god", "notarget", "freeze", "give PowerLightAmp", f"fov {FOV_DEGREES}"):
                engine.send_game_command(command)
            engine.advance_action(SETTLING_TICS)
            yield Game(engine, screen, [engine.get_episode_time()])
        except (vizdoom.ViZDoomErrorException, vizdoom.ViZDoomUnexpectedExitException) as error:
            raise ChildProcessError(f"ViZDoom stopped while drawing {map_name} ({error}); record again") from error
        finally:
            engine.close()


def load_vizdoom() -> Any:
    """The vizdoom package.

    Raises:
        ImportError: it is missing.
        ValueError: the address space is limited to less than it takes; it would crash.
    """
    require_address_space(NEEDED, "ViZDoom", "record elsewhere")
    try:
        import vizdoom
    except ImportError as error:
        raise ImportError("recording from Doom needs ViZDoom: pip install nfldm3d[vizdoom]") from error
    return vizdoom


def find_wad(map_name: str) -> Path:
    """The Freedoom file that holds the map."""
    for wad, names in MAP_NAMES.items():
        if map_name in names:
            return Path(load_vizdoom().__file__).parent / wad
    raise ValueError(f"no Freedoom map is called {map_name!r}; choose one of MAP01 to MAP32 or E1M1 to E4M9")


def choose_screen(size: int) -> Screen:
    """The smallest screen that is fine enough for pictures of ``size`` pixels, or the finest."""
    return next((screen for screen in SCREENS if screen.width >= OVERSAMPLING * size), SCREENS[-1])


def _prepare_files(engine: Any, vizdoom: Any, folder: Path, map_name: str, keep_things: bool) -> None:
    wad, patch = find_wad(map_name), folder / "patch.wad"
    _write_patch(patch, wad, map_name, keep_things)
    engine.set_doom_game_path(str(wad))
    engine.set_doom_scenario_path(str(patch))
    engine.set_doom_map(map_name)
    engine.set_doom_config_path(str(folder / "engine.ini"))
    if os.name == "posix":
        launcher = _write_launcher(folder, Path(vizdoom.__file__).with_name("vizdoom"))
        if os.access(launcher, os.X_OK):  # temporary folders may forbid programs
            engine.set_vizdoom_path(str(launcher))


def _configure(engine: Any, vizdoom: Any, screen: Screen) -> None:
    engine.set_window_visible(False)
    engine.set_mode(vizdoom.Mode.PLAYER)
    engine.set_screen_resolution(getattr(vizdoom.ScreenResolution, screen.name))
    engine.set_screen_format(vizdoom.ScreenFormat.RGB24)
    engine.set_depth_buffer_enabled(True)
    engine.set_labels_buffer_enabled(True)
    for part in (
        *("hud", "minimal_hud", "crosshair", "weapon", "decals", "particles", "effects_sprites", "messages"),
        *("corpses", "screen_flashes"),
    ):
        getattr(engine, f"set_render_{part}")(False)
    engine.add_game_args("-nomonsters +sv_cheats 1")
    engine.set_episode_timeout(0)
    engine.set_episode_start_time(1)
    engine.set_seed(1)
    engine.set_available_buttons([vizdoom.Button.TURN_LEFT_RIGHT_DELTA])


def _write_patch(path: Path, wad: Path, map_name: str, keep_things: bool) -> None:
    """The map without its things and without flickering or secret sectors (finding one writes across the picture),
    and an empty list of animated textures, which holds water and slime still."""
    lumps = read_map_lumps(wad, map_name)
    sectors = np.frombuffer(lumps["SECTORS"], SECTOR).copy()
    sectors["special"] = 0
    lumps["SECTORS"] = sectors.tobytes()
    if not keep_things:
        things = np.frombuffer(lumps["THINGS"], THING)
        lumps["THINGS"] = things[np.isin(things["type"], PLAYER_THINGS)].tobytes()
    level = [(name, lumps[name]) for name in MAP_LUMPS if name in lumps]
    write_wad(path, [(map_name, b""), *level, ("ANIMATED", b"\xff")])


def _write_launcher(folder: Path, program: Path) -> Path:
    """A script that starts the engine in ``folder``, because it leaves a folder where it is started."""
    launcher = folder / "vizdoom"
    text = f'#!/bin/sh\ncd {shlex.quote(str(folder))} && exec {shlex.quote(str(program))} "$@"\n'
    launcher.write_text(text, encoding="utf-8")
    launcher.chmod(0o700)
    return launcher


def _take_shot(engine: Any, screen: Screen) -> Shot:
    state = engine.get_state()
    place = [_variable(engine, f"CAMERA_POSITION_{axis}") for axis in "XYZ"]
    return Shot(
        state.screen_buffer[:, screen.columns].copy(),  # the next tic overwrites the engine's own
        state.depth_buffer[:, screen.columns].copy(),
        state.labels_buffer[:, screen.columns].copy(),
        {
            label.value: np.array((label.object_position_x, label.object_position_y, label.object_position_z))
            for label in state.labels
        },
        (place[0], place[1], place[2]),
        _variable(engine, "CAMERA_ANGLE"),
        screen,
    )


def _variable(engine: Any, name: str) -> float:
    return engine.get_game_variable(getattr(load_vizdoom().GameVariable, name))
