"""What the page is told and shown, without a browser: frames, cameras, tasks, files, and how the server opens."""

import io
import json
import math
import socket
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from balls import make_ball
from PIL import Image

from nfldm3d import Box, Camera, Rgb, Scene, VoxelField
from nfldm3d.cli import main
from nfldm3d.image_decoder import ImageDecoder
from nfldm3d.rendering import make_path
from nfldm3d.viewer.frames import Look, ShownScene, clip_box, draw, fit_size
from nfldm3d.viewer.keeping import FORMATS, Film, encode_scene, screenshot
from nfldm3d.viewer.live_view import FULL, LEAST, PREVIEW, SWIFT, pace
from nfldm3d.viewer.page_camera import first_camera, read_camera, vertical_fov, viser_pose
from nfldm3d.viewer.tasks import Cancelled, Progress, TaskRunner
from nfldm3d.viewer.viewer import open_server

PATIENCE = 600.0
"""Seconds, on a machine that does other work."""
BOX = Box((-1.0, 2.0, 0.5), (1.5, 5.0, 2.5))


@pytest.fixture
def scene() -> Scene:
    blank = VoxelField.zeros(BOX, (10, 12, 8), 3)
    centers = blank.voxel_centers()
    density = 60 * (0.9 - (centers - torch.tensor(BOX.center)).norm(dim=-1)).clamp(min=0)
    return Scene(VoxelField(density, torch.full((10, 12, 8, 3), 0.9), BOX), Rgb(), torch.tensor((0.1, 0.2, 0.9)))


@pytest.fixture
def camera() -> Camera:
    return Camera.orbit(BOX.center, 4.0, views=5, width=21, height=13)[1]


@pytest.mark.parametrize("kind", ["voxels", "formula"])
def test_every_look_at_every_kind_of_field(kind: str, scene: Scene, camera: Camera) -> None:
    if kind == "formula":
        scene = Scene(make_ball(0.8, 30.0), Rgb(), scene.background)
        camera = Camera.orbit(scene.box.center, 4.0, views=5, width=21, height=13)[1]
    shown, middle = ShownScene("ball", scene), (6, 10)
    for look, inside, outside in (
        (Look(), None, (26, 51, 230)),
        (Look("picture", backdrop="white"), None, (255, 255, 255)),
        (Look("opacity"), (255, 255, 255), (0, 0, 0)),
        (Look("depth", 1.0), None, (0, 0, 0)),
        (Look("normals"), None, (0, 0, 0)),
    ):
        image = draw(shown.seen(look), camera, look)
        assert image.shape == (13, 21, 3) and tuple(image[0, 0].tolist()) == outside
        assert inside is None or torch.allclose(image[middle].float(), torch.tensor(inside).float(), atol=4)
    normal = draw(shown.renderer, camera, Look("normals"))[middle].float() / 127.5 - 1
    assert normal @ -camera.forward > 0.9


def test_drafts_are_drawn_once_and_the_scene_keeps_its_decoder(scene: Scene, camera: Camera) -> None:
    decoder = ImageDecoder(3, widths=(8, 8), octaves=1).eval()
    for parameter in decoder.network.head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    renderer = ShownScene("drawn", replace(scene, appearance=decoder)).renderer
    whole, draft, again = (draw(renderer, camera, Look(), draft=draft) for draft in (False, True, False))
    assert decoder.averages and torch.equal(whole, again) and not torch.equal(whole, draft)
    decoder.averages = False
    assert torch.equal(draw(renderer, camera, Look(step_in_voxels=1.0)), draft)  # in steps twice as long


def test_a_clipping_box_cuts_the_scene_and_says_where(scene: Scene, camera: Camera) -> None:
    part = clip_box(BOX, ((0.2, 0.6), (0.0, 1.0), (0.5, 0.4)))
    assert part.lower == pytest.approx((-0.5, 2.0, 1.5)) and part.upper == pytest.approx((0.5, 5.0, 1.52))
    shown = ShownScene("ball", scene)
    half = Look("opacity", clip=((0.0, 1.0), (0.0, 1.0), (0.0, 0.5)))
    seen, whole = draw(shown.seen(half), camera, half), draw(shown.renderer, camera, Look("opacity"))
    assert seen[:4].max() < 64 < whole[3:5].max() and shown.seen(Look()) is shown.renderer


def test_looks_that_nobody_offered_are_refused() -> None:
    for wrong in ({"kind": "x"}, {"backdrop": "/etc"}, {"step_in_voxels": 1e-9}, {"clip": ()}):
        with pytest.raises(ValueError):
            replace(Look(), **wrong)


def test_sizes_follow_the_page_within_bounds() -> None:
    assert fit_size(4 / 3, PREVIEW) == (320, 240) and fit_size(4 / 3, FULL) == (960, 720)
    for aspect in (1e-6, 1e6, 0.5):
        width, height = fit_size(aspect, PREVIEW)
        assert min(width, height) >= 2 and width * height < 1.1 * PREVIEW


def test_slow_machines_show_smaller_frames_while_the_camera_moves() -> None:
    """A frame costs a little, and as much as its pixels."""
    for cost, least, most in ((4.0, LEAST, LEAST), (0.25, LEAST, PREVIEW - 1), (0.01, PREVIEW, PREVIEW)):
        pixels = PREVIEW
        for _ in range(20):
            seconds = 0.005 + cost * pixels / PREVIEW
            pixels = pace(pixels, seconds)
        assert least <= pixels <= most and (pixels == LEAST or seconds < 1.3 * SWIFT)
    assert pace(PREVIEW, 60.0) == PREVIEW // 2 and pace(LEAST, 1e-9) == 2 * LEAST  # one frame alone does not decide


def test_a_page_looks_where_a_camera_looks(camera: Camera) -> None:
    quaternion, position = viser_pose(camera)
    page = SimpleNamespace(wxyz=quaternion, position=position, fov=vertical_fov(camera))
    again = read_camera(page, camera.width, camera.height)  # type: ignore[arg-type]
    assert torch.allclose(again.world_from_camera, camera.world_from_camera, atol=1e-5)
    assert torch.allclose(again.focal, camera.focal) and torch.allclose(again.principal, camera.principal)


def test_rooms_are_first_seen_from_within_and_objects_from_without(scene: Scene) -> None:
    own = Camera.panorama((0.2, 3.0, 1.0), views=4, width=40, height=40)
    inside = first_camera(replace(scene, cameras=own), 64, 48)
    assert torch.equal(inside.centers, own[0].centers) and math.isclose(vertical_fov(inside), vertical_fov(own[0]))
    outside = first_camera(scene)
    assert not bool(BOX.contains(outside.centers)) and (outside.width, outside.height) == (320, 240)


def test_one_task_at_a_time_with_progress_and_a_way_to_stop() -> None:
    lines: list[str] = []
    shares: list[float | None] = []
    runner, step, told = TaskRunner(lines.append, shares.append), threading.Event(), threading.Event()

    def work(progress: Progress) -> str:
        while True:
            progress(0.4)
            told.set()
            step.wait(PATIENCE)

    runner.start("making", work)
    told.wait(PATIENCE)
    with pytest.raises(ValueError, match="wait for it, or cancel it"):
        runner.start("another", work)
    runner.cancel()
    step.set()
    runner.wait(PATIENCE)
    assert not runner.busy and lines[-1] == "making: cancelled" and 0.4 in shares and shares[-1] is None


def test_a_task_that_fails_leaves_one_line_and_room_for_the_next() -> None:
    lines: list[str] = []
    runner = TaskRunner(lines.append, lambda share: None)

    def fail(progress: Progress) -> str:
        raise ValueError("of two\nlines")

    for work, line in ((fail, "making failed: of two lines"), (lambda progress: "made", "made")):
        runner.start("making", work)
        runner.wait(PATIENCE)
        assert lines[-1] == line and not runner.busy


def test_scenes_are_given_away_in_every_format(scene: Scene, camera: Camera) -> None:
    begins = {"scene.nfld": None, "mesh.glb": b"glTF", "mesh.ply": b"ply", "mesh.usdz": b"PK", "splats.ply": b"ply"}
    for name in FORMATS:
        data = encode_scene(scene, name)
        assert len(data) > 500 and data.startswith(begins.get(name) or b"")
    with pytest.raises(ValueError, match="choose one of"):
        encode_scene(scene, "../../etc/passwd")
    with Image.open(io.BytesIO(screenshot(ShownScene("", scene).renderer, camera, Look()))) as image:
        assert image.size == (21, 13) and image.getpixel((0, 0)) == (26, 51, 230)
    with Image.open(io.BytesIO(scene._repr_png_())) as image:
        assert image.size == (320, 240) and image.getpixel((160, 120))[0] > 200  # type: ignore[index]


def test_key_frames_are_saved_as_nerfstudio_does_and_come_back(scene: Scene, tmp_path: Path) -> None:
    keys = Camera.orbit(BOX.center, 4.0, views=3, width=32, height=24)
    turn = torch.tensor([[0.0, -1, 0, 5], [1, 0, 0, -2], [0, 0, 1, 3], [0, 0, 0, 1]], dtype=torch.float64)
    moved = replace(scene, metadata={"scene_from_world": turn.tolist()})
    film = Film((keys[0], keys[1], keys[2]), seconds=0.5, fps=10)
    text = film.describe(moved, 40, 30)
    (tmp_path / "camera_path.json").write_text(text)
    again = make_path(moved, str(tmp_path / "camera_path.json"), width=40, height=30)
    wanted = film.cameras(40, 30)
    assert len(again) == film.frames == 5 and json.loads(text)["fps"] == 10
    assert torch.allclose(again.world_from_camera, wanted.world_from_camera, atol=1e-4)
    assert torch.allclose(again.focal, wanted.focal, atol=1e-3)
    with pytest.raises(ValueError, match="at least two key frames"):
        replace(film, keys=film.keys[:1]).cameras(40, 30)
    with pytest.raises(ValueError, match="too many"):
        replace(film, seconds=1e6).cameras(40, 30)


def test_a_film_is_made_and_can_be_stopped(scene: Scene) -> None:
    film = Film((first_camera(scene), first_camera(scene)), seconds=0.2, fps=10)
    shares: list[float] = []
    data = film.encode(scene, 33, 20, shares.append)
    assert data[4:8] == b"ftyp" and shares == [0.5, 1.0]
    progress = Progress(shares.append)
    progress.stop()
    with pytest.raises(Cancelled):
        film.encode(scene, 33, 20, progress)


def test_a_port_in_use_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} cannot be used"):
            open_server("127.0.0.1", port)
    with pytest.raises(ValueError, match="no address of this machine"):
        open_server("203.0.113.7", 8080)


@pytest.mark.parametrize(
    ("origin", "name", "welcome"),
    [
        (None, "127.0.0.1", True),  # a program
        ("http://{host}", "127.0.0.1", True),
        ("http://{host}", "localhost", True),
        ("https://hub.example.org", "127.0.0.1", True),
        ("https://evil.example.org", "127.0.0.1", False),
        ("http://{host}", "evil.example.org", False),  # a name that was made to mean this machine
        ("http://localhost:1", "127.0.0.1", False),
        ("null", "127.0.0.1", False),
        ("http://[", "127.0.0.1", False),
    ],
)
def test_pages_of_other_sites_cannot_connect(origin: str | None, name: str, welcome: bool) -> None:
    server = open_server("127.0.0.1", 0, ["https://hub.example.org"])
    try:
        host = f"{name}:{server.get_port()}"
        lines = ["GET / HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"]
        lines += [] if origin is None else [f"Origin: {origin.format(host=host)}"]
        with socket.create_connection(("127.0.0.1", server.get_port()), timeout=60) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            status = connection.recv(64).split(b"\r\n")[0]
        assert (b"101" in status) == welcome and (b"403" in status) != welcome
    finally:
        server.stop()


def test_the_command_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.nfld").write_bytes(b"no scene at all")
    for arguments, code, message in (
        ([], 2, "nothing to show"),
        ([str(tmp_path / "a.nfld")], 3, "a.nfld"),
        (["--weights", "vizdoom", "--port", "99999"], 2, "--port must lie between"),
    ):
        assert main(["view", *arguments]) == code
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_a_scene_shows_itself_in_a_notebook_and_two_of_a_name_are_told_apart(scene: Scene) -> None:
    pytest.importorskip("viser")
    inline = scene.show(height=300)
    try:
        viewer = inline.viewer
        assert inline.url == f"http://127.0.0.1:{viewer.port}" and viewer.make_panel is None
        assert f'src="{inline.url}"' in inline._repr_html_() and "height:300px" in inline._repr_html_()
        assert viewer.add("scene", scene) == "scene (2)" and set(viewer.scenes) == {"scene", "scene (2)"}
        viewer.choose("scene (2)")
        viewer.choose("../nowhere")
        assert viewer.require_current().name == "scene (2)"
        viewer.remove("scene (2)")
        viewer.remove("scene")
        with pytest.raises(ValueError, match="no scene yet"):
            viewer.require_current()
    finally:
        inline.close()
