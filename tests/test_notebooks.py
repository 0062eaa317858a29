"""The notebooks run from top to bottom, with networks too small to be of use."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_rooms import scene_generator

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples" / "notebooks").glob("*.ipynb"))


def save_world_of_roads(folder: Path) -> None:
    """A generator of roads with cars, and a map of one of them."""
    scene_generator(map_classes=4).save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text())
    index["map_classes"] = ["road", "terrain", "tree", "car"]
    (folder / "model_index.json").write_text(json.dumps(index))
    classes = np.ones((8, 8), int)
    classes[3:6], classes[4, 2:4] = 0, 3
    (folder / "maps").mkdir()
    colors = np.array(index["map_palette"], np.uint8)
    Image.fromarray(colors[classes]).save(folder / "maps" / "wheel-1.png")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    save_world_of_roads(tmp_path / "weights")
    monkeypatch.setenv("NFLDM3D_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("NFLDM3D_STEPS", "2")
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "clear the outputs before committing"
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "after.glb").stat().st_size > 1000 and (tmp_path / "before.nfld").is_file()
