"""panda3d without a screen: the one engine of a process, buffers to draw into, and how to read them back."""

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

if TYPE_CHECKING:
    from panda3d.core import NodePath, Texture

SETTINGS = (
    "load-display p3headlessgl",
    "window-type offscreen",
    "audio-library-name null",
    "notify-level error",
    "notify-level-egldisplay fatal",  # it complains when a process ends
    "textures-power-2 none",
    "model-cache-dir",
)
NO_EGL = (
    "panda3d finds no EGL to draw without a screen: install Mesa's (sudo apt install libegl1 libgl1-mesa-dri), or the "
    "driver of your graphics card with EGL"
)


@cache
def open_engine() -> tuple[Any, Any]:
    """The one engine of this process, and a buffer whose context all share: panda3d draws nothing in a second one.

    Raises:
        ImportError: panda3d is missing.
        OSError: the machine has no EGL.
    """
    try:
        from panda3d.core import GraphicsEngine, GraphicsPipeSelection, load_prc_file_data
    except ImportError as error:
        raise ImportError("drawing worlds to record needs panda3d: pip install nfldm3d[driving]") from error
    load_prc_file_data("nfldm3d", "\n".join(SETTINGS))
    pipe = GraphicsPipeSelection.get_global_ptr().make_module_pipe("p3headlessgl")
    if pipe is None or not pipe.is_valid():
        raise OSError(NO_EGL)
    engine = GraphicsEngine(pipe)
    host = _make_buffer(engine, pipe, (1, 1), None, 0)
    host.set_active(False)
    return engine, host


def make_buffer(width: int, height: int, *, extra: int = 0) -> Any:
    """Something to draw into, of colours, 24-bit depth and ``extra`` more pictures; inactive."""
    engine, host = open_engine()
    buffer = _make_buffer(engine, host.get_pipe(), (width, height), host, extra)
    buffer.set_active(False)
    return buffer


def aim(camera: "NodePath", lens: Any, world_from_camera: Float[np.ndarray, "4 4"]) -> None:
    """Turns a camera; panda3d's own looks along +y, z up."""
    from panda3d.core import Mat4

    right, up, back, eye = world_from_camera.T
    rows = np.stack((right, -back, up, eye))  # panda3d multiplies rows with matrices
    camera.node().set_lens(lens)
    camera.set_mat(Mat4(*rows.ravel().tolist()))


def read_colors(texture: "Texture") -> UInt8[np.ndarray, "height width 4"]:
    """Red, green, blue and alpha, row 0 on top; a view of what the next picture overwrites."""
    shape = (texture.get_y_size(), texture.get_x_size(), -1)
    return np.frombuffer(texture.get_ram_image(), np.uint8).reshape(shape)[::-1, :, (2, 1, 0, 3)]


def read_depth(texture: "Texture", pixels: slice = slice(None)) -> Float[np.ndarray, "height width"]:
    """What a depth buffer holds, from 0 to 1, row 0 on top; ``pixels`` chooses some along both sides."""
    from panda3d.core import Texture

    shape, wide = (texture.get_y_size(), texture.get_x_size()), texture.get_component_width()
    whole = texture.get_component_type() != Texture.T_float
    kind = {2: np.uint16, 4: np.uint32}[wide] if whole else np.float32
    levels = np.frombuffer(texture.get_ram_image(), kind).reshape(shape)[::-1][pixels, pixels]
    return levels / (2.0 ** (8 * wide) - 1) if whole else levels.copy()


def to_metres(level: Float[np.ndarray, "*pixels"], near: float, far: float) -> Float[np.ndarray, "*pixels"]:
    """Distance along the optical axis of what a perspective camera's depth buffer holds; 0 where nothing is drawn."""
    return np.where(level < 1.0, (near * far) / (far - level * (far - near)), 0.0)


def to_texture(pixels: UInt8[np.ndarray, "height width 4"], *, smooth: bool = True) -> Any:
    """Pixels as panda3d holds them."""
    from panda3d.core import SamplerState, Texture

    texture = Texture()
    texture.setup_2d_texture(pixels.shape[1], pixels.shape[0], Texture.T_unsigned_byte, Texture.F_rgba)
    texture.set_ram_image(np.ascontiguousarray(pixels[::-1, :, (2, 1, 0, 3)]).tobytes())
    texture.set_wrap_u(SamplerState.WM_repeat)
    texture.set_wrap_v(SamplerState.WM_repeat)
    texture.set_minfilter(SamplerState.FT_linear_mipmap_linear if smooth else SamplerState.FT_nearest)
    texture.set_magfilter(SamplerState.FT_linear if smooth else SamplerState.FT_nearest)
    return texture


def _make_buffer(engine: Any, pipe: Any, size: tuple[int, int], host: Any, extra: int) -> Any:
    from panda3d.core import FrameBufferProperties, GraphicsPipe, WindowProperties

    properties = FrameBufferProperties()
    properties.set_rgba_bits(8, 8, 8, 8)
    properties.set_depth_bits(24)
    properties.set_aux_rgba(extra)
    how, sharing = GraphicsPipe.BF_refuse_window, () if host is None else (host.get_gsg(), host)
    buffer = engine.make_output(pipe, "target", 0, properties, WindowProperties.size(*size), how, *sharing)
    if buffer is None:
        raise OSError(NO_EGL)
    return buffer
