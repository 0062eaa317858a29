"""The page in a real browser: looking, painting, making, keeping; and what goes wrong there."""

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import trimesh
from browser import missing_browser, open_browser
from small_priors import write_own_texts
from small_rooms import scene_generator

from nfldm3d import Box, Rgb, Scene, VoxelField
from nfldm3d.guidance import load_prior
from nfldm3d.models.priors.image_denoiser import ImageDenoiser
from nfldm3d.models.priors.restorer import BESIDE, DEVIATION, Restorer
from nfldm3d.pipelines.dream import DreamOptions
from nfldm3d.pipelines.refining import RefineOptions
from nfldm3d.viewer.viewer import Viewer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing_browser() is not None, reason=str(missing_browser())),
]
SIZE = {"width": 760, "height": 560}
PATIENCE = 600.0
"""Seconds: browsers that draw with the CPU share it with other tests."""
BOX = Box((-1.0, 2.0, 0.5), (1.5, 5.0, 2.5))


def ball() -> Scene:
    blank = VoxelField.zeros(BOX, (10, 12, 8), 3)
    centers = blank.voxel_centers()
    density = 60 * (0.9 - (centers - torch.tensor(BOX.center)).norm(dim=-1)).clamp(min=0)
    return Scene(VoxelField(density, torch.full((10, 12, 8, 3), 0.9), BOX), Rgb(), torch.tensor((0.1, 0.2, 0.9)))


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    network = ImageDenoiser(16, widths=(8,), blocks=1, beside=BESIDE, deviation=DEVIATION)
    prior = load_prior(write_own_texts(tmp_path_factory.mktemp("prior")))
    viewer = Viewer([("ball", ball())], scene_generator(), restorer=Restorer(network), prior=prior)
    yield viewer
    viewer.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def page(viewer: Viewer, browser: Any) -> Iterator[Any]:
    page = open_page(viewer, browser)
    yield page
    page.close()


def open_page(viewer: Viewer, browser: Any) -> Any:
    page = browser.new_page(viewport=SIZE, accept_downloads=True)
    page.set_default_timeout(PATIENCE * 1000)
    before = set(viewer.views)
    page.goto(viewer.url)
    page.get_by_text("Status").wait_for()
    until(lambda: set(viewer.views) - before and viewer.views[max(viewer.views)].frames > 0)
    return page


def until(true: Callable[[], Any], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def press(page: Any, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def pixel(page: Any, x: int, y: int) -> tuple[int, ...]:
    from PIL import Image

    with Image.open(io.BytesIO(page.screenshot())) as image:
        return image.convert("RGB").getpixel((x, y))


def test_the_page_shows_the_scene_and_follows_the_camera(viewer: Viewer, page: Any) -> None:
    view = viewer.views[max(viewer.views)]
    until(lambda: pixel(page, 220, 280)[0] > 150 and pixel(page, 20, 500)[2] > 150)  # a white ball on blue
    before, frames = tuple(view.client.camera.position), view.frames
    page.mouse.move(220, 280)
    page.mouse.down()
    page.mouse.move(320, 300, steps=4)
    page.mouse.up()
    until(lambda: tuple(view.client.camera.position) != before and view.frames > frames)
    viewer.set_look(kind="depth")
    until(lambda: pixel(page, 20, 500) == (0, 0, 0))
    viewer.set_look(kind="picture")


def test_a_map_is_painted_and_a_scene_made_from_it_and_taken_home(viewer: Viewer, page: Any, tmp_path: Path) -> None:
    paint, make = viewer.paint_panel, viewer.make_panel
    assert paint is not None and make is not None
    tab(page, "Paint")
    page.get_by_label("Paint", exact=True).check()
    paint.tool.value, paint.kind.value = "rectangle", paint.map.names[1]
    client = viewer.views[max(viewer.views)].client
    until(lambda: client.camera.position[2] > viewer.make_panel.pipeline.box.upper[2])
    until(lambda: pixel(page, 220, 280) != pixel(page, 5, 5))
    page.mouse.move(190, 250)
    page.mouse.down()
    page.mouse.move(230, 290, steps=6)
    page.mouse.move(260, 320, steps=6)
    page.mouse.up()
    until(lambda: bool((paint.map.cells == 1).any()))
    until(lambda: not paint._strokes)
    painted = (paint.map.cells == 1).nonzero()
    (x0, y0), (x1, y1) = painted.amin(0).tolist(), painted.amax(0).tolist()
    assert len(painted) == (x1 - x0 + 1) * (y1 - y0 + 1) > 1 and x0 + x1 >= y0 + y1, (
        "to the right and down from the middle"
    )
    make.steps.value, make.from_map.value = 2, True
    names = set(viewer.scenes)
    tab(page, "Make")
    press(page, "Generate a scene")
    until(lambda: set(viewer.scenes) - names and not viewer.tasks.busy)
    assert viewer.chosen.value == "map, seed 0" and viewer.status.value == "made: map, seed 0"
    viewer.choose("ball")
    viewer.keep_panel.format.value = "mesh.glb"
    tab(page, "Keep")
    with page.expect_download() as download:
        press(page, "Download")
    path = tmp_path / "a.glb"
    download.value.save_as(path)
    assert download.value.suggested_filename == "mesh.glb"
    assert len(trimesh.load(path, force="mesh").faces) > 50
    tab(page, "Paint")
    page.get_by_label("Paint", exact=True).uncheck()


def test_a_scene_is_sharpened(viewer: Viewer, page: Any) -> None:
    make = viewer.make_panel
    assert make is not None
    make.refining = RefineOptions(views=2, views_per_step=1, steps=4, restoring_steps=1)
    viewer.choose("ball")
    tab(page, "Make")
    press(page, "Sharpen this scene")
    until(lambda: "has no cameras" in viewer.status.value and not viewer.tasks.busy)
    made = viewer.add("made", make.pipeline.generate(1, num_inference_steps=1).scenes[0])
    viewer.choose(made)
    press(page, "Sharpen this scene")
    until(lambda: viewer.status.value == f"made: {made}, sharper" and not viewer.tasks.busy)
    coarse, fine = (viewer.scenes[name].scene.field for name in (made, f"{made}, sharper"))
    assert isinstance(coarse, VoxelField) and isinstance(fine, VoxelField)
    assert fine.resolution == tuple(2 * count for count in coarse.resolution)


def test_an_object_is_dreamt(viewer: Viewer, page: Any) -> None:
    panel = viewer.dream_panel
    assert panel is not None
    panel.options = DreamOptions(size=8, coarse_size=8, detail=12)
    tab(page, "Dream")
    panel.prompt.value, panel.steps.value = "  ", 2
    press(page, "Dream")
    until(lambda: "the prompt is empty" in viewer.status.value)
    panel.prompt.value = 301 * "a"
    press(page, "Dream")
    until(lambda: "301 letters" in viewer.status.value)
    panel.prompt.value = "a red \n car"
    press(page, "Dream")
    until(lambda: viewer.status.value == "made: a red car" and not viewer.tasks.busy)
    scene = viewer.scenes["a red car"].scene
    assert isinstance(scene.field, VoxelField) and scene.metadata["prompt"] == "a red car"
    panel.steps.value = 20_000
    press(page, "Dream")
    until(lambda: viewer.tasks.busy)
    press(page, "Cancel")
    until(lambda: viewer.status.value == "dreaming of a red car: cancelled" and not viewer.tasks.busy)


def test_a_reload_in_mid_task_finds_it_running_and_it_can_be_cancelled(viewer: Viewer, browser: Any) -> None:
    make = viewer.make_panel
    assert make is not None
    make.steps.value, make.from_map.value = 100, False
    page, other = open_page(viewer, browser), open_page(viewer, browser)
    assert len(viewer.views) == 2
    tab(page, "Make")
    names = set(viewer.scenes)
    press(page, "Generate a scene")
    until(lambda: viewer.tasks.busy)
    page.reload()
    page.get_by_role("button", name="Cancel").wait_for()
    tab(other, "Make")
    press(other, "Generate a scene")  # refused: one at a time
    until(lambda: "wait for it" in viewer.status.value or not viewer.tasks.busy)
    press(page, "Cancel")
    until(lambda: not viewer.tasks.busy)
    viewer.tasks.wait(PATIENCE)
    assert viewer.status.value == "making seed 0: cancelled" and set(viewer.scenes) == names
    page.close()  # without a word
    other.close()
    until(lambda: not viewer.views)


def test_a_task_that_fails_says_so_in_one_line_and_the_page_lives(viewer: Viewer, page: Any) -> None:
    make = viewer.make_panel
    assert make is not None
    make.steps.value = 2
    make.region.shown.value = True
    make.region.place(Box((50.0, 50.0, 50.0), (51.0, 51.0, 51.0)))
    tab(page, "Make")
    page.get_by_text("A part anew").click()
    press(page, "Sample this part again")
    until(lambda: "lies outside the scene" in viewer.status.value)
    assert "\n" not in viewer.status.value and not viewer.tasks.busy
    make.region.shown.value = False
    view = viewer.views[max(viewer.views)]
    frames = view.frames
    view.wish()
    until(lambda: view.frames > frames)
