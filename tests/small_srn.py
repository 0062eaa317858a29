"""Objects as SRN's archives hold them: three tiny views each."""

from pathlib import Path

from small_captures import picture

from nfldm3d import Camera
from nfldm3d.geometry import flip_opencv

SIZE = 8
CAMERAS = Camera.orbit((0.0, 0.0, 0.0), 1.3, views=3, width=SIZE, height=SIZE).world_from_camera.double()


def write_object(folder: Path, *, channels: int = 3, stated: int = SIZE) -> Path:
    """As the archives hold them: grey pictures of 10 times their number, a lens for ``stated`` pixels."""
    for number, pose in enumerate(flip_opencv(CAMERAS)):
        picture(folder / f"rgb/{number:06d}.png", 10 * number, channels, (SIZE, SIZE))
        (folder / "pose").mkdir(exist_ok=True)
        text = " ".join(repr(value) for value in pose.flatten().tolist())
        (folder / f"pose/{number:06d}.txt").write_text(text)
    focal = 131.25 / 128 * stated
    (folder / "intrinsics.txt").write_text(
        f"{focal} {stated / 2} {stated / 2} 0.\n0. 0. 0.\n1.\n{stated} {stated}\n0\n"
    )
    return folder
