"""Videos read back frame by frame."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
import torch
from imageio_ffmpeg import get_ffmpeg_exe

from nfldm3d.appearance import Rgb
from nfldm3d.camera import Camera
from nfldm3d.fields import VoxelField
from nfldm3d.geometry import Box
from nfldm3d.pictures import to_bytes
from nfldm3d.rendering import Renderer, render
from nfldm3d.rendering.video import render_video
from nfldm3d.scene import Scene


@pytest.fixture
def scene() -> Scene:
    """A dense orange block, off centre, before a blue background."""
    density = torch.zeros(6, 5, 4)
    density[1:4, 1:4, 1:3] = 50.0
    features = torch.tensor([0.9, 0.5, 0.1]).expand(6, 5, 4, 3).clone()
    return Scene(
        VoxelField(density, features, Box((0.0, 0.0, 0.0), (1.2, 1.0, 0.8))), Rgb(), torch.tensor([0.1, 0.2, 0.7])
    )


def orbit(views: int, width: int = 32, height: int = 24) -> Camera:
    return Camera.orbit((0.5, 0.5, 0.4), 2.0, views=views, width=width, height=height)


def read_frames(path: Path, width: int, height: int) -> torch.Tensor:
    command = [
        get_ffmpeg_exe(),
        "-v",
        "error",
        "-i",
        str(path),
        "-fps_mode",
        "passthrough",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-",
    ]
    run = subprocess.run(command, capture_output=True, check=True)
    return torch.frombuffer(bytearray(run.stdout), dtype=torch.uint8).reshape(-1, height, width, 3)


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_the_frames_are_the_renders(scene: Scene, tmp_path: Path, suffix: str) -> None:
    cameras, path = orbit(5), tmp_path / f"turn{suffix}"
    render_video(scene, cameras, path, fps=10, progress=False)
    frames = read_frames(path, 32, 24)
    truth = to_bytes(render(scene, cameras).image)
    assert frames.shape == truth.shape
    difference = (frames[:, None].float() - truth[None].float()).abs().mean((2, 3, 4))  # frames truth
    assert difference.argmin(1).tolist() == [0, 1, 2, 3, 4]
    assert difference.diagonal().max() < 8, "chroma is halved, so edges of so small a picture differ"
    assert [path.name for path in tmp_path.iterdir()] == [path.name]


def test_flat_colour_comes_through_h264(tmp_path: Path) -> None:
    """BT.709 said and BT.709 meant: confusing it with BT.601 moves this green by 20 levels."""
    empty = VoxelField(torch.zeros(2, 2, 2), torch.zeros(2, 2, 2, 3), Box((0, 0, 0), (1, 1, 1)))
    for color in ((0.1, 0.8, 0.2), (0.9, 0.1, 0.1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)):
        render_video(Scene(empty, Rgb(), torch.tensor(color)), orbit(1), tmp_path / "a.mp4", progress=False)
        frame = read_frames(tmp_path / "a.mp4", 32, 24)[0].float() / 255
        assert torch.allclose(frame, torch.tensor(color).expand_as(frame), atol=0.02)


def test_odd_sizes_are_made_even_for_mp4_alone(scene: Scene, tmp_path: Path) -> None:
    cameras = orbit(2, width=33, height=17)
    for suffix, width, height in ((".mp4", 34, 18), (".gif", 33, 17)):
        render_video(scene, cameras, tmp_path / f"a{suffix}", progress=False)
        assert len(read_frames(tmp_path / f"a{suffix}", width, height)) == 2


def test_only_one_view_is_rendered_at_a_time(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, look = [], Renderer.render

    def watch(renderer: Renderer, camera: Camera, **options):
        seen.append(camera.shape)
        return look(renderer, camera, **options)

    monkeypatch.setattr(Renderer, "render", watch)
    render_video(scene, orbit(3), tmp_path / "a.gif", progress=False)
    assert seen == [torch.Size([])] * 3


def test_progress_is_shown_on_request(scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    render_video(scene, orbit(2), tmp_path / "quiet.gif", progress=False)
    assert capsys.readouterr() == ("", "")
    render_video(scene, orbit(2), tmp_path / "turn.gif")
    shown = capsys.readouterr()
    assert shown.out == "" and "turn.gif: 100%" in shown.err


def test_an_interrupted_video_leaves_the_old_one(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Renderer, "render", interrupt)
    with pytest.raises(KeyboardInterrupt):
        render_video(scene, orbit(2), path, progress=False)
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_failing_encoder_is_reported(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\necho no room left >&2\nexit 3\n")
    os.chmod(fake, os.stat(fake).st_mode | stat.S_IXUSR)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))
    with pytest.raises(OSError, match=r"could not write .*no room left"):
        render_video(scene, orbit(40, 320, 240), tmp_path / "out" / "a.mp4", progress=False)
    assert not list((tmp_path / "out").iterdir())


def test_bad_requests_name_file_and_remedy(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.avi: unknown suffix '\.avi'; choose \.mp4 or \.gif"):
        render_video(scene, orbit(2), tmp_path / "a.avi")
    with pytest.raises(ValueError, match="no views"):
        render_video(scene, orbit(2)[:0], tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="fps must lie between 0 and 1000, got 0"):
        render_video(scene, orbit(2), tmp_path / "a.mp4", fps=0)
    with pytest.raises(ValueError, match="between 0 and 50, got 60"):
        render_video(scene, orbit(2), tmp_path / "a.gif", fps=60)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot write"):
        render_video(scene, orbit(2), tmp_path / "file" / "a.mp4", progress=False)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["file:a", "http:a", "take:1"])
def test_names_are_no_addresses(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    render_video(scene, orbit(2), Path(name, "a.mp4"), progress=False)
    assert [path.name for path in (tmp_path / name).iterdir()] == ["a.mp4"] and os.listdir() == [name]
    assert len(read_frames(tmp_path / name / "a.mp4", 32, 24)) == 2
