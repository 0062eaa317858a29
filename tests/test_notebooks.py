"""The notebooks run from top to bottom, with networks too small to be of use."""

from pathlib import Path

import pytest
from small_rooms import scene_generator

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples" / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    generator = scene_generator()
    generator.save_pretrained(tmp_path / "weights")
    monkeypatch.setenv("NFLDM3D_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("NFLDM3D_STEPS", "2")
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "clear the outputs before committing"
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "after.glb").stat().st_size > 1000 and (tmp_path / "before.nfld").is_file()
