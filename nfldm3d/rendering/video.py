"""Videos of camera paths, rendered and encoded frame by frame."""

import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from nfldm3d._types import PathName
from nfldm3d.camera import Camera
from nfldm3d.files import atomic_write
from nfldm3d.pictures import to_bytes
from nfldm3d.rendering.renderer import prepare
from nfldm3d.scene import Scene

ENCODINGS = {
    # H.264 that every player takes; converted to and labelled as BT.709, which ffmpeg does not do by itself
    ".mp4": (
        "-vf scale=out_color_matrix=bt709:flags=accurate_rnd+full_chroma_int -pix_fmt yuv420p -codec:v libx264 -crf 18 "
        "-colorspace bt709 -color_primaries bt709 -color_trc bt709 -movflags +faststart"
    ),
    # a palette for each frame: one for all would need all frames in memory
    ".gif": "-vf split[a][b];[a]palettegen=stats_mode=single[palette];[b][palette]paletteuse=new=1",
}
MAX_GIF_FPS = 50
"""The format counts hundredths of a second, and browsers slow down shorter delays than two."""


def render_video(
    scene: Scene,
    cameras: Camera,
    path: PathName,
    *,
    fps: float | int = 30,
    step_in_voxels: float = 0.5,
    progress: bool = True,
    tell: Callable[[float], None] | None = None,
    draw: Callable[[Scene, Camera], Float[Tensor, "3 height width"]] | None = None,
) -> None:
    """Renders the views of a camera path, in order, to an .mp4 (H.264) or .gif; writes the whole file or none.

    Only one frame is in memory at a time. An .mp4 needs even sizes: the last column or row of odd ones is doubled.

    Args:
        tell: hears after each frame which share is done; if it raises, no file is written.
        draw: makes a frame where plain rendering should not, such as ``Restorer.draw``.

    Raises:
        ValueError: if the suffix is unknown, there is no view, fps is out of range, or the path cannot be written.
        OSError: if the encoder fails; the message is ffmpeg's own.
    """
    cameras = cameras.reshape(-1)
    renderer = prepare(scene)

    def render(_: Scene, camera: Camera) -> Tensor:
        return renderer.render(camera, step_in_voxels=step_in_voxels).image

    frames = _draw_frames(scene, cameras, draw or render, Path(path).name if progress else None)
    write_video(frames, path, size=(cameras.width, cameras.height), count=len(cameras), fps=fps, tell=tell)


@torch.no_grad()
def _draw_frames(
    scene: Scene, cameras: Camera, draw: Callable[[Scene, Camera], Tensor], bar: str | None
) -> Iterator[Float[Tensor, "3 height width"]]:
    from tqdm.auto import tqdm

    for number in tqdm(range(len(cameras)), desc=bar, unit="frame", disable=bar is None):
        yield draw(scene, cameras[number])


def write_video(
    frames: Iterable[Float[Tensor, "3 height width"]],
    path: PathName,
    *,
    size: tuple[int, int],
    count: int,
    fps: float | int = 30,
    tell: Callable[[float], None] | None = None,
) -> None:
    """Encodes ``count`` pictures of ``size`` (width, height), in order, as ``render_video`` does."""
    path = Path(path)
    _check(path, count, fps)
    unit = 2 if path.suffix.lower() == ".mp4" else 1
    width, height = (side + side % unit for side in size)
    with atomic_write(path) as temporary, _open_encoder(temporary, width, height, fps) as encoder:
        for number, image in enumerate(frames):
            encoder.write(to_bytes(_pad_to(image, width, height)).numpy().tobytes())
            if tell is not None:
                tell((number + 1) / count)


def _check(path: Path, views: int, fps: float | int) -> None:
    if path.suffix.lower() not in ENCODINGS:
        raise ValueError(f"cannot write {path}: unknown suffix {path.suffix!r}; choose {' or '.join(ENCODINGS)}")
    if views < 1:
        raise ValueError(f"cannot write {path}: the camera path holds no views; give at least one")
    limit = MAX_GIF_FPS if path.suffix.lower() == ".gif" else 1000
    if not 0 < fps <= limit:
        raise ValueError(f"cannot write {path}: fps must lie between 0 and {limit}, got {fps}")


def _pad_to(image: Float[Tensor, "3 height width"], width: int, height: int) -> Float[Tensor, "3 _ _"]:
    return functional.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]), mode="replicate")


@contextmanager
def _open_encoder(path: Path, width: int, height: int, fps: float | int) -> Iterator[IO[bytes]]:
    """A pipe that takes RGB frames; a file that ffmpeg has not finished raises OSError."""
    from imageio_ffmpeg import get_ffmpeg_exe

    command = [get_ffmpeg_exe(), "-y", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    command += ["-r", f"{fps}", "-i", "-", *ENCODINGS[path.suffix.lower()].split(), f"file:{path}"]
    with tempfile.TemporaryFile() as messages:
        # a session of its own: an interrupt reaches this process alone, which then ends the encoder
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=messages, start_new_session=True
        )
        assert process.stdin is not None
        try:
            with suppress(BrokenPipeError):  # the encoder gave up; its exit status says so
                yield process.stdin
                process.stdin.close()
            failed = process.wait() != 0
        finally:
            process.kill()
            process.wait()
            with suppress(BrokenPipeError):
                process.stdin.close()
        if failed:
            messages.seek(0)
            raise OSError(f"ffmpeg could not write {path}: {messages.read().decode(errors='replace').strip()}")
