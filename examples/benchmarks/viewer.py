"""What the browser page costs: frames while the camera moves, the picture when it rests, the start, and memory.

A headless browser (Debian's chromium-headless-shell, or playwright's) turns the camera of a generated scene by its
mouse; browser and server share the processor, as on a laptop. Memory is the server's own, read after warm-up moves and
again after ``--moves`` more, and after ``--scenes`` scenes that are made on the page and taken from the list again.

    python examples/benchmarks/viewer.py [--json] [--moves 1000] [--scenes 20] [--steps 10]
"""

import argparse
import ctypes
import gc
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nfldm3d.pipelines import SceneGenerator
from nfldm3d.viewer.viewer import Viewer

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
DRAWN_BY_PROCESSOR = (
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)
WINDOW = {"width": 1360, "height": 720}
PATIENCE = 120.0
WARM_MOVES = 100
MIB = 2**20


def main() -> None:
    """Prints a row for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--moves", type=int, default=1000)
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--steps", type=int, default=10, help="of the sampler, for each scene that is made")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    pipeline = SceneGenerator.from_pretrained("driving")
    scene = pipeline(num_inference_steps=options.steps, generator=torch.Generator().manual_seed(0)).scenes[0]
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        scene.save(Path(folder) / "scene.nfld")
        path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
        browser = playwright.chromium.launch(executable_path=path, args=list(DRAWN_BY_PROCESSOR))
        figures["start_s"] = min(start_once(browser, Path(folder) / "scene.nfld") for _ in range(2))
        viewer = Viewer([("scene", scene)], pipeline)
        page = open_page(browser, viewer.url)
        wait_for(lambda: viewer.views and next(iter(viewer.views.values())).frames >= 2)
        view = next(iter(viewer.views.values()))
        turn(page, WARM_MOVES)
        figures |= {"frames_per_s": measure_frames(page, view), "rest_s": measure_rest(page, view)}
        before = resident()
        turn(page, options.moves)
        figures["moves_mib"] = (resident() - before) / MIB
        make_scenes(viewer, pipeline, 2, options.steps)
        before = resident()
        make_scenes(viewer, pipeline, options.scenes, options.steps)
        figures["scenes_mib"] = (resident() - before) / MIB
        browser.close()
        viewer.close()
    if options.json:
        print(json.dumps({name: round(value, 2) for name, value in figures.items()}))
        return
    print(f"start of nfldm3d view to the first picture, warm caches  {figures['start_s']:8.1f} s")
    print(f"frames while the camera moves, about 320x240             {figures['frames_per_s']:8.1f} /s")
    print(f"from rest to the full picture, about 960x720             {figures['rest_s']:8.2f} s")
    print(f"memory after {options.moves:5d} moves of the camera               {figures['moves_mib']:+8.0f} MiB")
    print(f"memory after {options.scenes:5d} scenes made and removed            {figures['scenes_mib']:+8.0f} MiB")


def open_page(browser: Any, url: str) -> Any:
    """The page in a window whose picture has about 960 x 720 pixels beside the panel."""
    page = browser.new_page(viewport=WINDOW)
    page.set_default_timeout(PATIENCE * 1000)
    page.goto(url)
    return page


def start_once(browser: Any, scene: Path) -> float:
    """Seconds from the command to its first picture in a browser that is already open."""
    start = time.monotonic()
    command = [sys.executable, "-m", "nfldm3d.cli", "view", str(scene), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        while "http://" not in (line := process.stdout.readline()):
            if not line:
                raise RuntimeError("nfldm3d view ended before it was there")
        address = next(word for word in line.split() if word.startswith("http://"))
        page = open_page(browser, address)
        page.wait_for_function("() => document.body.innerText.includes('Status')")
        wait_for(lambda: is_drawn(page))
        seconds = time.monotonic() - start
        page.close()
        return seconds
    finally:
        process.terminate()
        process.wait()


def is_drawn(page: Any) -> bool:
    """Whether the middle of the page shows more than one colour."""
    shot = page.screenshot(clip={"x": 300, "y": 200, "width": 300, "height": 300})
    return len(shot) > 6000  # a plain PNG of this size takes some 1,000 bytes


def wait_for(true: Callable[[], Any]) -> None:
    """Until it is true."""
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            raise RuntimeError("the page did not answer in time")
        time.sleep(0.01)


def turn(page: Any, moves: int) -> None:
    """Drags the mouse over the picture to and fro."""
    page.mouse.move(400, 360)
    page.mouse.down()
    for number in range(moves):
        page.mouse.move(400 + 200 * (number % 40 - 20) / 20, 360 + 40 * (number % 20 - 10) / 10)
    page.mouse.up()


def measure_frames(page: Any, view: Any, seconds: float = 8.0) -> float:
    """Frames a second that a page is sent while its camera moves."""
    page.mouse.move(400, 360)
    page.mouse.down()
    start, before, number = time.monotonic(), view.frames, 0
    while time.monotonic() - start < seconds:
        page.mouse.move(400 + 200 * (number % 40 - 20) / 20, 360)
        number += 1
    rate = (view.frames - before) / (time.monotonic() - start)
    page.mouse.up()
    return rate


def measure_rest(page: Any, view: Any, times: int = 5) -> float:
    """The median of seconds from a last move to the second frame after it, which is the full one."""
    waits = []
    for number in range(times):
        time.sleep(1.5)
        before, start = view.frames, time.monotonic()
        page.mouse.move(400, 360)
        page.mouse.down()
        page.mouse.move(430 + number, 360)
        page.mouse.up()
        previous, seen = before, start
        while time.monotonic() - start < 3.0:
            if view.frames != previous:
                previous, seen = view.frames, time.monotonic()
            time.sleep(0.005)
        waits.append(seen - start)
    return sorted(waits)[times // 2]


def make_scenes(viewer: Viewer, pipeline: SceneGenerator, scenes: int, steps: int) -> None:
    """Makes scenes as the page does, shows each, and takes it from the list."""
    for seed in range(scenes):
        name = viewer.add("made", pipeline(num_inference_steps=steps, generator=torch.Generator().manual_seed(seed)).scenes[0])
        viewer.choose(name)
        frames = sum(view.frames for view in viewer.views.values())
        viewer.redraw()
        wait_for(lambda before=frames: sum(view.frames for view in viewer.views.values()) > before)
        viewer.remove(name)


def resident() -> int:
    """Bytes of memory that this process holds, without what the allocator keeps to itself."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmRSS:")).split()[1])


if __name__ == "__main__":
    main()
