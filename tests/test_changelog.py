"""The changelog has each section once, each line once, and names that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
SECTIONS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


def versions() -> list[str]:
    return re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]


def test_each_version_has_each_section_once_and_in_order() -> None:
    assert versions()
    for version in versions():
        found = re.findall(r"^### (.*)$", version, flags=re.MULTILINE)
        assert found == [name for name in SECTIONS if name in found], version.splitlines()[0]


def test_sections_are_lists_without_gaps_and_say_nothing_twice() -> None:
    for version in versions():
        for section in re.split(r"^### .*\n", version, flags=re.MULTILINE)[1:]:
            lines = section.strip().splitlines()
            assert all(line.startswith("- ") for line in lines), [line for line in lines if not line.startswith("- ")]
            assert len(set(lines)) == len(lines), [line for line in lines if lines.count(line) > 1]


def test_functions_of_files_are_where_it_says() -> None:
    named = re.findall(r"`(files|written_files|file_locks|tensor_files)\.(\w+)", TEXT)
    assert named
    missing = [f"{module}.{name}" for module, name in named if f" {name}(" not in _source(module)]
    assert not missing


def _source(module: str) -> str:
    return (ROOT / "nfldm3d" / f"{module}.py").read_text(encoding="utf-8")
