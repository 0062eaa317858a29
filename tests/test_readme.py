"""The README's code runs as it stands, and its map of modules is the package's."""

import re
from pathlib import Path

import pytest

import nfldm3d

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_there_is_code() -> None:
    assert BLOCKS


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.splitlines()[0])
def test_code_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    shapes = re.findall(r"^(\w+)\b.*#.*?\((\d[\d, ]*)\)", code, flags=re.MULTILINE)
    for name, shape in shapes:  # a comment such as `image = ...  # (3, 96, 128)` is a claim too
        assert tuple(names[name].shape) == tuple(int(size) for size in shape.split(",") if size.strip()), name


def test_public_names_are_explained() -> None:
    assert not [name for name in nfldm3d.__all__ if f"`{name}" not in README]


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert not [link for link in links if not (ROOT / link).exists()]


def test_commands_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z-]+)", README)) <= targets
