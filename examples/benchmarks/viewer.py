"""What the browser page costs: frames while the camera moves, the picture when it rests, the start, and memory.

A headless browser (Debian's chromium-headless-shell, or playwright's) turns the camera of a generated scene by its
mouse; it draws with the processor, too, of which it takes more than ``nfldm3d view``. Memory is that command's, read
after warm-up moves and again after ``--moves`` more, and that of a page after ``--scenes`` scenes that are made, looked
at and taken from its list again.

    python examples/benchmarks/viewer.py [--json] [--moves 1000] [--scenes 20] [--steps 10]
"""

import argparse
import gc
import io
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from nfldm3d import Camera, Scene
from nfldm3d.pipelines import SceneGenerator
from nfldm3d.viewer.frames import Look, ShownScene, draw
from nfldm3d.viewer.live_view import LiveView
from nfldm3d.viewer.page_camera import first_camera, vertical_fov, viser_pose
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
JPEG = b"\xff\xd8\xff"


def main() -> None:
    """Prints a row for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--moves", type=int, default=1000)
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--steps", type=int, default=10, help="of the sampler, for each scene that is made")
    options = parser.parse_args()

    pipeline = SceneGenerator.from_pretrained("driving")
    scene = make_scene(pipeline, 0, options.steps)
    with tempfile.TemporaryDirectory() as folder:
        scene.save(Path(folder) / "scene.nfld")
        figures = look_at(Path(folder) / "scene.nfld", options.moves)
    figures["drawn_per_s"] = measure_server(scene)
    figures["scenes_mib"] = make_scenes(pipeline, options.scenes, options.steps)
    if options.json:
        print(json.dumps({name: round(value, 2) for name, value in figures.items()}))
        return
    print(f"start of nfldm3d view to the first picture, warm caches  {figures['start_s']:8.1f} s")
    print(f"frames that the server draws and packs of a moving camera{figures['drawn_per_s']:8.1f} /s")
    print(f"frames that this browser is shown of a moving camera     {figures['frames_per_s']:8.1f} /s")
    print(f"from rest to the full picture, about 960x720             {figures['rest_s']:8.2f} s")
    print(f"memory after {options.moves:5d} moves of the camera               {figures['moves_mib']:+8.0f} MiB")
    print(f"memory after {options.scenes:5d} scenes made and removed            {figures['scenes_mib']:+8.0f} MiB")


def look_at(scene: Path, moves: int) -> dict[str, float]:
    """What a user of ``nfldm3d view`` waits for, and the memory of that process."""
    from playwright.sync_api import sync_playwright

    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(DRAWN_BY_PROCESSOR))
        starts = []
        for again in (True, False):
            start = time.monotonic()
            with serve(scene) as (process, address):
                page = Page(browser, address)
                page.wait_for_frames(1)
                starts.append(time.monotonic() - start)
                if again:  # the first start filled the caches
                    continue
                page.turn(WARM_MOVES)
                figures = {"frames_per_s": page.measure_frames(), "rest_s": page.measure_rest()}
                before = resident(process.pid)
                page.turn(moves)
                figures["moves_mib"] = (resident(process.pid) - before) / MIB
        browser.close()
    return {"start_s": min(starts)} | figures


@contextmanager
def serve(scene: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``nfldm3d view`` and its address, until it is no longer needed."""
    command = [sys.executable, "-m", "nfldm3d.cli", "view", str(scene), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if "http://" not in line:
            raise RuntimeError("nfldm3d view ended before it was there")
        yield process, next(word for word in line.split() if word.startswith("http://"))
    finally:
        process.terminate()
        process.wait()


class Page:
    """The page in a browser, and when pictures came."""

    def __init__(self, browser: Any, address: str):
        self.frames: list[float] = []
        self.page = browser.new_page(viewport=WINDOW)
        self.page.set_default_timeout(PATIENCE * 1000)
        self.page.on("websocket", lambda socket: socket.on("framereceived", self._receive))
        self.page.goto(address)

    def _receive(self, payload: Any) -> None:
        if isinstance(payload, bytes) and JPEG in payload:
            self.frames.append(time.monotonic())

    def wait_for_frames(self, count: int) -> None:
        """Until so many have come."""
        end = time.monotonic() + PATIENCE
        while len(self.frames) < count:
            if time.monotonic() > end:
                raise RuntimeError("the page was sent no picture in time")
            self.page.wait_for_timeout(10)

    def turn(self, moves: int) -> None:
        """Drags the mouse over the picture to and fro."""
        self.page.mouse.move(400, 360)
        self.page.mouse.down()
        for number in range(moves):
            self.page.mouse.move(400 + 10 * (number % 40 - 20), 360 + 4 * (number % 20 - 10))
        self.page.mouse.up()

    def measure_frames(self, seconds: float = 8.0) -> float:
        """Frames a second while the camera moves."""
        self.page.mouse.move(400, 360)
        self.page.mouse.down()
        start, before, number = time.monotonic(), len(self.frames), 0
        while time.monotonic() - start < seconds:
            self.page.mouse.move(400 + 10 * (number % 40 - 20), 360)
            number += 1
        rate = (len(self.frames) - before) / (time.monotonic() - start)
        self.page.mouse.up()
        return rate

    def measure_rest(self, times: int = 5) -> float:
        """The median of seconds from a last move of the mouse to the last frame after it, which is the full one."""
        waits = []
        for number in range(times):
            self.page.wait_for_timeout(1500)
            self.page.mouse.move(400, 360)
            self.page.mouse.down()
            self.page.mouse.move(430 + number, 360)
            start = time.monotonic()
            self.page.mouse.up()
            self.page.wait_for_timeout(3000)
            waits.append(self.frames[-1] - start)
        return sorted(waits)[times // 2]


def measure_server(scene: Scene, seconds: float = 6.0) -> float:
    """Frames a second for a page whose browser costs nothing, as one on another machine or with a graphics card."""
    start, moved = first_camera(scene), []
    wxyz, position = viser_pose(start)
    camera = SimpleNamespace(wxyz=wxyz, position=position, fov=vertical_fov(start), image_width=960, image_height=720)
    camera.on_update = moved.append
    shown = SimpleNamespace(set_background_image=pack_frame)
    client = SimpleNamespace(client_id=0, camera=camera, scene=shown, flush=lambda: None)
    renderer = ShownScene("scene", scene).renderer
    view = LiveView(client, lambda: (renderer, Look()), threading.Lock())  # type: ignore[arg-type]
    before, begin = 0, time.monotonic()
    while (now := time.monotonic() - begin) < 2 * seconds:
        before = view.frames if now < seconds else before  # the first half warms it up
        camera.position = position + 0.2 * np.array((math.sin(3 * now), math.cos(3 * now), 0.0))
        moved[0](None)
        time.sleep(1 / 60)
    rate = (view.frames - before) / seconds
    view.close()
    view.wait(PATIENCE)
    return rate


def pack_frame(image: Any, *, format: str, jpeg_quality: int) -> bytes:
    """What viser does with a frame."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format, quality=jpeg_quality)
    return file.getvalue()


def make_scene(pipeline: SceneGenerator, seed: int, steps: int) -> Scene:
    """One scene."""
    draws = torch.Generator().manual_seed(seed)
    return pipeline(num_inference_steps=steps, generator=draws).scenes[0]


def make_scenes(pipeline: SceneGenerator, scenes: int, steps: int) -> float:
    """MiB of this process, with the page in it, after scenes that are made, drawn and taken from the list; the first
    two do not count."""
    viewer, before = Viewer((), pipeline), 0
    camera = Camera.orbit((0.0, 0.0, 0.0), 20.0, views=1, width=320, height=240)[0]
    for seed in range(2 + scenes):
        if seed == 2:
            before = resident(os.getpid())
        name = viewer.add("made", make_scene(pipeline, seed, steps))
        viewer.choose(name)
        seen = viewer.seen()
        assert seen is not None
        draw(seen[0], camera, seen[1])
        del seen
        viewer.remove(name)
    grown = (resident(os.getpid()) - before) / MIB
    viewer.close()
    return grown


def resident(process: int) -> int:
    """Bytes of memory that a process holds."""
    gc.collect()
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmRSS:")).split()[1])


if __name__ == "__main__":
    main()
