"""Names that lead outside, JSON that lies, and writes that are killed."""

import copy
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings, strategies as st

from nfldm3d import files
from nfldm3d.files import (
    NOTE,
    DataFormatError,
    atomic_folder,
    atomic_write,
    check_output,
    note_written,
    parse_json,
    read_json,
    require_free,
    resolve_inside,
    writing,
)

SOURCE = Path("capture/transforms.json")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["a.png", "./a.png", "images/b.png", "images\\b.png", "images/./b.png", "..a/b..png"])
def test_names_inside_are_followed(tmp_path: Path, name: str) -> None:
    path = resolve_inside(tmp_path, name, source=SOURCE)
    assert path.resolve().is_relative_to(tmp_path.resolve())
    assert path.name == name.replace("\\", "/").split("/")[-1]


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../a.png",
        "images/../../a.png",
        "images/..",
        "..\\a.png",
        "images\\..\\..\\a.png",
        "/etc/passwd",
        "\\\\server\\share\\a.png",
        "C:\\a.png",
        "C:a.png",
        "c:/a.png",
        "",
        "a\0.png",
    ],
)
def test_names_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataFormatError, match="leads outside") as caught:
        resolve_inside(tmp_path, name, source=SOURCE)
    assert str(caught.value).startswith(str(SOURCE)) and repr(name) in str(caught.value)


@given(
    st.text(max_size=30) | st.lists(st.sampled_from(["..", ".", "a", "/", "\\", "C:", "~"]), max_size=8).map("".join)
)
@example("\ud800.png")
@example("x" * 5000)
def test_no_name_leads_outside(name: str) -> None:
    root = Path(__file__).parent
    try:
        path = resolve_inside(root, name, source=SOURCE)
    except DataFormatError:
        return
    assert path.resolve().is_relative_to(root.resolve())


def test_links_may_not_lead_outside(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir(), outside.mkdir()
    (outside / "secret.png").touch()
    (root / "kept.png").touch()
    (root / "inner.png").symlink_to("kept.png")
    (root / "link.png").symlink_to(outside / "secret.png")
    (root / "folder").symlink_to(outside)
    assert resolve_inside(root, "inner.png", source=SOURCE).exists()
    for name in ("link.png", "folder/secret.png", "folder/new.png"):
        with pytest.raises(DataFormatError, match="link that leads outside"):
            resolve_inside(root, name, source=SOURCE)
    (tmp_path / "alias").symlink_to(root)
    assert resolve_inside(tmp_path / "alias", "kept.png", source=SOURCE).exists(), "the root itself may be a link"


def test_links_in_circles_are_refused_or_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    try:
        assert resolve_inside(tmp_path, "a/c.png", source=SOURCE).parent == tmp_path / "a"
    except DataFormatError as error:
        assert "cannot be followed" in str(error)


def test_json_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    content = {"w": 12, "größe": [1.5, -2e-3, None, True], "big": 123456789012345678}
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    assert read_json(path) == content
    path.write_text(json.dumps(content), encoding="utf-8-sig")
    assert read_json(str(path)) == content


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("{'a': 1}", "not valid JSON"),
        ("[" * 200_000, "not valid JSON"),
        ('{"a": NaN}', "a is NaN; write a finite number"),
        ('{"frames": [{"w": 1}, {"w": -Infinity}]}', r"frames\[1\]\.w is -Infinity"),
        ('{"a": [1, 1e999]}', r"a\[1\] is 1e999"),
        ('{"a": -1' + "0" * 400 + "}", "a is -1000"),
        ('{"a": 1' + "0" * 9000 + "}", "a is 1000"),
    ],
    ids=lambda value: value[:20],
)
def test_bad_json_is_refused(text: str, problem: str) -> None:
    with pytest.raises(DataFormatError, match=problem) as caught:
        parse_json(text, "some.json")
    assert str(caught.value).startswith("some.json: ") and len(str(caught.value)) < 300


def test_long_integers_become_numbers_that_floats_can_hold() -> None:
    assert parse_json("[18446744073709551616, 7]", "a") == [2.0**64, 7]


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_parses_or_is_refused(text: str) -> None:
    with suppress(DataFormatError):
        parse_json(text, "a.json")


def test_unreadable_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataFormatError, match=r"missing.json: cannot be read \(No such file"):
        read_json(tmp_path / "missing.json")
    with pytest.raises(DataFormatError, match="cannot be read"):
        read_json(tmp_path)
    (tmp_path / "latin.json").write_bytes('"größe"'.encode("latin-1"))
    with pytest.raises(DataFormatError, match="not UTF-8"):
        read_json(tmp_path / "latin.json")
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 2**20)
    (tmp_path / "huge.json").write_bytes(b" " * (2**20 + 1))
    with pytest.raises(DataFormatError, match="JSON above 1 MiB is refused"):
        read_json(tmp_path / "huge.json")


def test_errors_travel_between_processes() -> None:
    error = copy.copy(DataFormatError(Path("a") / "b.json", "is empty; fill it"))
    assert isinstance(error, DataFormatError) and str(error) == f"a{os.sep}b.json: is empty; fill it"


def test_a_written_file_is_whole_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.bin"
    with atomic_write(path) as temporary:
        assert temporary.suffix == ".bin" and temporary.parent == path.parent and not path.exists()
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"new" and names(path.parent) == ["a.bin"]
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert path.stat().st_mode == plain.stat().st_mode, "no tighter than other files"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failed_write_keeps_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_write(path) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_folder_keeps_the_old_one(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "scene"
    with atomic_folder(path) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "a").write_bytes(b"old")
    with pytest.raises(error), atomic_folder(path) as temporary:
        (temporary / "b").touch()
        raise error
    assert names(tmp_path) == ["scene"] and names(path) == [NOTE, "inner"]
    assert (path / "inner" / "a").read_bytes() == b"old"


def test_a_folder_replaces_all_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "scene"
    for name in ("a", "b"):
        with atomic_folder(path) as temporary:
            (temporary / name).touch()
    assert names(path) == [NOTE, "b"] and names(tmp_path) == ["scene"]


@pytest.mark.parametrize("change", ["added", "edited", "linked", "empty folder"])
def test_a_folder_with_files_of_others_is_not_replaced(tmp_path: Path, change: str) -> None:
    path = tmp_path / "scene"
    with atomic_folder(path) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "a").write_bytes(b"old")
    match change:
        case "added":
            (path / "thesis.txt").write_bytes(b"years")
        case "edited":
            (path / "inner" / "a").write_bytes(b"new")
        case "linked":
            (path / "inner" / "b").symlink_to("a")
        case _:
            (path / "mine").mkdir()
    before = {file: file.lstat().st_ino for file in path.rglob("*")}
    with pytest.raises(ValueError, match="cannot replace .*scene: .* was not written by nfldm3d"), atomic_folder(path):
        raise AssertionError("the work began")
    assert {file: file.lstat().st_ino for file in path.rglob("*")} == before and names(tmp_path) == ["scene"]


def test_a_file_that_comes_while_a_folder_is_written_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "scene"
    with pytest.raises(ValueError, match=r"mine\.txt was not written by nfldm3d"), atomic_folder(path) as temporary:
        (temporary / "a").touch()
        path.mkdir()
        (path / "mine.txt").touch()
    assert names(path) == ["mine.txt"] and names(tmp_path) == ["scene"]


def test_a_place_is_free_if_nothing_is_lost(tmp_path: Path) -> None:
    for overwrite in (False, True):
        require_free(tmp_path / "deep" / "a.glb", overwrite=overwrite)
        require_free(tmp_path / "deep", overwrite=overwrite)
    path = tmp_path / "a.glb"
    path.write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"cannot write .*a\.glb: it is there already; choose another name"):
        require_free(path)
    with pytest.raises(ValueError, match=r"cannot replace .*a\.glb: .* was not written by nfldm3d"):
        require_free(path, overwrite=True)
    note_written(path)
    require_free(path, overwrite=True)
    path.write_bytes(b"MINE")
    with pytest.raises(ValueError, match="has changed since"):
        require_free(path, overwrite=True)
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    with pytest.raises(ValueError, match="is there already"):
        require_free(link)
    with pytest.raises(ValueError, match="cannot replace"):
        require_free(link, overwrite=True)
    assert names(tmp_path) == [NOTE, "a.glb", "deep", "link"]


def test_what_was_written_may_be_overwritten(tmp_path: Path) -> None:
    paths = (tmp_path / "a.bin", None, tmp_path / "b")
    for overwrite in (False, True):
        with writing(*paths, overwrite=overwrite):
            paths[0].write_bytes(b"x" * (1 + overwrite))
            paths[2].mkdir(exist_ok=True)
            (paths[2] / "c").touch()
    with pytest.raises(ValueError, match="is there already"), writing(*paths, overwrite=False):
        raise AssertionError("the work began")
    assert names(tmp_path) == [NOTE, "a.bin", "b"] and paths[0].read_bytes() == b"xx"


@pytest.mark.parametrize("text", ["", "[]", '{"format": "nfldm3d.written"}', '{"files": {}}'])
def test_a_note_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / NOTE).write_text(text)
    (tmp_path / "a").touch()
    with pytest.raises(DataFormatError, match="note|JSON"):
        require_free(tmp_path / "a", overwrite=True)


def test_an_exchange_that_fails_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scene"
    path.mkdir()
    (path / "old").touch()
    note_written(path)
    replace = os.replace

    def fail_at_the_new_one(source, target):
        if Path(target) == path and Path(source).name != "scene":
            raise OSError("disk on fire")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_at_the_new_one)
    with pytest.raises(OSError, match="disk on fire"), atomic_folder(path) as temporary:
        (temporary / "new").touch()
    assert names(path) == [NOTE, "old"] and names(tmp_path) == ["scene"]


def test_a_killed_process_leaves_the_old_content(tmp_path: Path) -> None:
    """SIGKILL in the middle of both writes: no clean-up runs, yet the final names still hold the old bytes."""
    for path in (tmp_path / "file", tmp_path / "folder" / "file"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"old")
    note_written(tmp_path / "folder")
    code = (
        "import os, signal\n"
        "from nfldm3d.files import atomic_folder, atomic_write\n"
        "with atomic_write('file') as file, atomic_folder('folder') as folder:\n"
        "    file.write_bytes(b'half')\n"
        "    (folder / 'file').write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    assert run.returncode == -signal.SIGKILL
    assert (tmp_path / "file").read_bytes() == (tmp_path / "folder" / "file").read_bytes() == b"old"
    assert len(names(tmp_path)) == 4, "it was killed while both were being written"


@pytest.mark.parametrize("writer", [atomic_write, atomic_folder])
def test_places_that_cannot_be_written_are_named(tmp_path: Path, writer) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ValueError, match=r"cannot write .*target: .*choose another folder"),
        writer(tmp_path / "file" / "target"),
    ):
        pass
    with pytest.raises(ValueError, match="cannot write .*too long"), writer(tmp_path / ("x" * 300)):
        pass
    assert names(tmp_path) == ["file"]


def test_a_file_does_not_replace_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it is a folder; give a file name"), atomic_write(tmp_path):
        pass


@pytest.mark.parametrize("name", [".", "..", "a/.."])
def test_a_folder_needs_a_name(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no name of its own"), atomic_folder(name):
        pass


def test_a_good_output_is_checked_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "old.glb").write_bytes(b"mine")
    (tmp_path / "runs").mkdir()
    check_output(tmp_path / "new" / "deep" / "a.glb", suffixes=(".glb", ".obj"))
    check_output(tmp_path / "old.glb", suffixes=(".glb",))
    check_output(tmp_path / "a" / "b", folder=True)
    check_output(tmp_path / "runs", folder=True)
    assert names(tmp_path) == ["old.glb", "runs"] and (tmp_path / "old.glb").read_bytes() == b"mine"
    assert not names(tmp_path / "runs")


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("a.xyz", {"suffixes": (".glb", ".obj")}, "unknown suffix '.xyz'; choose .glb or .obj"),
        ("folder", {}, "is a folder; give a file name"),
        ("file", {"folder": True}, "is a file; give a folder"),
        ("file/a.glb", {}, "choose another folder"),
        ("file/a", {"folder": True}, "choose another folder"),
        ("n" * 300, {}, "choose another folder"),
    ],
)
def test_outputs_that_cannot_be_written_are_refused_beforehand(
    tmp_path: Path, name: str, options: dict, problem: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=problem):
        check_output(tmp_path / name, **options)
    assert names(tmp_path) == ["file", "folder"]


def test_places_without_room_are_refused_beforehand() -> None:
    with pytest.raises(ValueError, match="cannot write /proc/none/a.nfld"):
        check_output("/proc/none/a.nfld")
