"""A brush for bird's-eye maps in notebooks: ``pip install 'nfldm3d[notebook]'``."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Int64
from torch import Tensor

from nfldm3d._moved import renamed_argument
from nfldm3d.data.bev_map import from_rows, to_rows
from nfldm3d.pipelines.bev_input import BevInput, read_classes

try:
    import anywidget
    import traitlets
except ImportError as error:
    raise ImportError("painting in notebooks needs anywidget: pip install 'nfldm3d[notebook]'") from error

if TYPE_CHECKING:
    from nfldm3d.pipelines import SceneGenerator

SCRIPT = """
function render({ model, el }) {
  const size = model.get("size"), scale = Math.max(2, Math.floor(448 / size));
  const palette = model.get("palette"), names = model.get("names");
  let chosen = 0, brush = 2, cells = read(), past = [];
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size * scale;
  canvas.style.cssText = "cursor: crosshair; touch-action: none; border: 1px solid #888";
  const tools = document.createElement("div");
  tools.style.cssText = "display: flex; flex-wrap: wrap; gap: 4px; max-width: 460px; margin-bottom: 6px";
  el.append(tools, canvas);

  function read() {
    const view = model.get("cells");
    return new Uint8Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  }
  function color(number) {
    return number < palette.length ? `rgb(${palette[number].join(",")})` : "#808080";
  }
  function draw() {
    const context = canvas.getContext("2d");
    for (let i = 0; i < cells.length; i++) {
      context.fillStyle = color(cells[i]);
      context.fillRect((i % size) * scale, Math.floor(i / size) * scale, scale, scale);
    }
  }
  function send() {
    model.set("cells", new DataView(cells.slice().buffer));
    model.save_changes();
  }
  function remember() {
    past.push(cells.slice());
    past = past.slice(-50);
  }
  function stroke(event) {
    const box = canvas.getBoundingClientRect();
    const x = Math.floor((event.clientX - box.left) / box.width * size);
    const y = Math.floor((event.clientY - box.top) / box.height * size);
    for (let v = y - brush + 1; v < y + brush; v++)
      for (let u = x - brush + 1; u < x + brush; u++)
        if (u >= 0 && v >= 0 && u < size && v < size) cells[v * size + u] = chosen;
    draw();
  }
  function button(label, background, action) {
    const made = document.createElement("button");
    made.textContent = label;
    made.style.cssText = `border: 2px solid transparent; padding: 2px 8px; background: ${background}`;
    made.onclick = () => action(made);
    tools.append(made);
    return made;
  }
  const classes = [...names, "anything"].map((name, number) =>
    button(name, color(number), (made) => {
      chosen = number;
      classes.forEach((other) => (other.style.borderColor = "transparent"));
      made.style.borderColor = "#e00";
    }));
  classes.forEach((made, number) => {
    const [r, g, b] = palette[number] || [128, 128, 128];
    made.style.color = 0.3 * r + 0.6 * g + 0.1 * b > 128 ? "#000" : "#fff";
  });
  const width = document.createElement("input");
  Object.assign(width, { type: "range", min: 1, max: 8, value: brush, title: "width of the brush" });
  width.oninput = () => (brush = Number(width.value));
  tools.append(width);
  button("fill", "#eee", () => { remember(); cells.fill(chosen); draw(); send(); });
  button("undo", "#eee", () => { if (past.length) { cells = past.pop(); draw(); send(); } });

  let painting = false;
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    remember();
    painting = true;
    stroke(event);
  };
  canvas.onpointermove = (event) => { if (painting) stroke(event); };
  canvas.onpointerup = () => { if (painting) { painting = false; send(); } };
  model.on("change:cells", () => { cells = read(); draw(); });
  classes[0].click();
  draw();
}
export default { render };
"""


class BevPainter(anywidget.AnyWidget):
    """A canvas with one brush for each class, and one for cells that are left open; north is up.

    ``painter.bev`` is what has been painted, as ``SceneGenerator.generate`` takes it; setting it paints.
    """

    _esm = SCRIPT
    cells = traitlets.Bytes().tag(sync=True)
    """Class numbers as a picture, row after row, the northernmost first."""
    size = traitlets.Int().tag(sync=True)
    palette = traitlets.List().tag(sync=True)
    names = traitlets.List().tag(sync=True)

    @renamed_argument("generator", "pipeline")
    def __init__(self, pipeline: "SceneGenerator", bev: BevInput | None = None):
        """A canvas for the maps of a generator; empty ones are open everywhere.

        Raises:
            ValueError: the generator takes no maps, or ``bev`` does not fit it.
        """
        if not pipeline.map_size:
            raise ValueError(
                "these weights were trained without maps, so there is nothing to paint; take other weights"
            )
        names, palette, size = (
            list(pipeline.config["map_classes"]),
            pipeline.config["map_palette"],
            pipeline.map_size,
        )
        super().__init__(cells=bytes([len(names)]) * size**2, size=size, palette=palette, names=names)
        if bev is not None:
            self.bev = bev

    @property
    def bev(self) -> Int64[Tensor, "x y"]:
        """Class numbers [x, y]; ``len(names)`` where anything may be."""
        rows = torch.frombuffer(bytearray(self.cells), dtype=torch.uint8).view(self.size, self.size)
        return from_rows(rows).long()

    @bev.setter
    def bev(self, bev: BevInput) -> None:
        classes = read_classes(bev, self.names, self.palette, self.size)[0]
        self.cells = to_rows(classes.byte()).cpu().numpy().tobytes()
