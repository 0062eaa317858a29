"""Names that lead outside, JSON that lies, and writes that are killed."""

import copy
import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings, strategies as st

from nfldm3d import files
from nfldm3d.files import DataFormatError, atomic_write, check_output, parse_json, read_json, resolve_inside

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
        ("[" * 65 + "]" * 65, "nests lists more than 64 deep; write it with fewer levels"),
        ('{"a":' * 65 + "NaN" + "}" * 65, "nests lists more than 64 deep"),
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


def test_nesting_up_to_the_limit_is_read() -> None:
    deep = parse_json("[" * 64 + "]" * 64, "a")
    while deep:
        deep = deep[0]
    assert parse_json('"["', "a") == "["


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
    with pytest.raises(DataFormatError, match="has 1048577 bytes, more than 1048576"):
        read_json(tmp_path / "huge.json")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_devices_and_pipes_are_refused(tmp_path: Path) -> None:
    """Read as files, the first would fill the memory and the second wait for ever."""
    os.symlink("/dev/zero", tmp_path / "zero.json")
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("zero.json", "pipe.json"):
        with pytest.raises(DataFormatError, match=f"{name}: is a device or a pipe; give a file"):
            read_json(tmp_path / name)


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


def test_a_file_does_not_replace_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it is a folder; give a file name"), atomic_write(tmp_path):
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
