"""Folders that are replaced whole, and what is kept because it is not ours."""

import errno
import os
import signal
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest
from safetensors import SafetensorError

from nfldm3d.files import DataFormatError, atomic_write
from nfldm3d.temporary_files import temporary_file
from nfldm3d.written_files import LOCK, NOTE, atomic_folder, note_written, require_free, writing


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_an_interrupted_command_wrote_is_its_own(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.glb"
    with pytest.raises(error), writing(path, tmp_path / "never.png", overwrite=False):
        path.write_bytes(b"whole")
        raise error
    require_free(path, overwrite=True)
    assert names(tmp_path) == [NOTE, "a.glb"]


def write_and_note(folder: Path, first: int) -> None:
    for number in range(first, first + 10):
        (folder / f"{number}.png").write_bytes(b"mine")
        note_written(folder / f"{number}.png")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the children touch files alone
def test_commands_beside_each_other_lose_no_notes(tmp_path: Path) -> None:
    processes = [get_context("fork").Process(target=write_and_note, args=(tmp_path, 10 * n)) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    for number in range(40):
        require_free(tmp_path / f"{number}.png", overwrite=True)
    assert len(names(tmp_path)) == 41


def test_a_lock_that_a_killed_command_left_is_no_file_of_others(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "scene") as temporary:
        (temporary / "a").touch()
    (tmp_path / "scene" / LOCK).touch()
    require_free(tmp_path / "scene", overwrite=True)


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


def test_a_signal_between_the_renames_of_an_exchange_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with atomic_folder(path := tmp_path / "scene") as temporary:
        (temporary / "a").write_bytes(b"old")
    replace = os.replace

    def interrupt(source, target):
        replace(source, target)
        if Path(source) == path:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt), atomic_folder(path) as temporary:
        (temporary / "a").write_bytes(b"new")
    assert (path / "a").read_bytes() == b"old" and names(tmp_path) == ["scene"]


def test_a_name_that_another_writer_has_taken_meanwhile_is_left_to_it(tmp_path: Path) -> None:
    with temporary_file(tmp_path / "a.bin") as first:
        os.replace(first, tmp_path / "a.bin")
        other = temporary_file(tmp_path / "a.bin")
        assert other.__enter__() == first
    assert first.exists()
    other.__exit__(None, None, None)
    assert names(tmp_path) == ["a.bin"]


def test_what_a_user_changes_while_a_command_fails_stays_his(tmp_path: Path) -> None:
    with writing(path := tmp_path / "a.glb", overwrite=False), atomic_write(path) as file:
        file.write_bytes(b"ours")
    with pytest.raises(RuntimeError), writing(path, overwrite=True):
        path.write_bytes(b"edited")
        raise RuntimeError
    with pytest.raises(ValueError, match="was not written by nfldm3d"):
        require_free(path, overwrite=True)


def test_a_killed_process_leaves_the_old_content(tmp_path: Path) -> None:
    """SIGKILL in the middle of both writes: no clean-up runs, yet the final names still hold the old bytes."""
    for path in (tmp_path / "file", tmp_path / "folder" / "file"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"old")
    note_written(tmp_path / "folder")
    code = (
        "import os, signal\n"
        "from nfldm3d.files import atomic_write\n"
        "from nfldm3d.written_files import atomic_folder\n"
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
    with atomic_write(tmp_path / "file") as file, atomic_folder(tmp_path / "folder") as folder:
        assert len(names(tmp_path)) == 4, "what the killed process left has made way"
        file.write_bytes(b"new")
        (folder / "file").write_bytes(b"new")
    assert names(tmp_path) == ["file", "folder"]


def run_killed(folder: Path, code: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment).returncode == -signal.SIGKILL


def test_a_folder_that_had_just_been_moved_away_comes_back(tmp_path: Path) -> None:
    """Killed between the two renames of an exchange."""
    with atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "a").write_bytes(b"old")
    code = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from nfldm3d.written_files import atomic_folder\n"
        "replace = os.replace\n"
        "os.replace = lambda *ends: os.kill(os.getpid(), signal.SIGKILL) if ends[1] == path else replace(*ends)\n"
        "path = Path('folder')\n"
        "with atomic_folder(path) as folder:\n"
        "    (folder / 'a').write_bytes(b'new')\n"
    )
    run_killed(tmp_path, code)
    assert "folder" not in names(tmp_path)
    with pytest.raises(ValueError, match="is there already"):
        require_free(tmp_path / "folder")
    assert (tmp_path / "folder" / "a").read_bytes() == b"old" and names(tmp_path) == ["folder"]


@pytest.mark.parametrize("killed", ["before", "after"])
def test_a_command_killed_around_the_rename_of_its_file_may_be_repeated(tmp_path: Path, killed: str) -> None:
    with writing(path := tmp_path / "a.glb", overwrite=False), atomic_write(path) as file:
        file.write_bytes(b"old")
    code = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from nfldm3d.files import atomic_write\n"
        "from nfldm3d.written_files import writing\n"
        "replace, path = os.replace, Path('a.glb')\n"
        "def die(source, target):\n"
        f"    if target == path and {killed == 'before'}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    replace(source, target)\n"
        "    if target == path: os.kill(os.getpid(), signal.SIGKILL)\n"
        "os.replace = die\n"
        "with writing(path, overwrite=True), atomic_write(path) as file:\n"
        "    file.write_bytes(b'new')\n"
    )
    run_killed(tmp_path, code)
    assert path.read_bytes() == {"before": b"old", "after": b"new"}[killed]
    require_free(path, overwrite=True)
    path.write_bytes(b"mine")
    with pytest.raises(ValueError, match="was not written by nfldm3d"):
        require_free(path, overwrite=True)


def test_what_another_process_writes_is_no_leftover(tmp_path: Path) -> None:
    for writer in (atomic_write, atomic_folder):
        path = tmp_path / writer.__name__
        with writer(path) as first, writer(path) as second:
            for written in (first, second) if writer is atomic_write else ():
                written.write_bytes(b"whole")
            assert first != second and first.exists() and second.exists()
        assert first.exists() is second.exists() is False


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: No space left (os error 28)")],
)
@pytest.mark.parametrize("writer", [atomic_write, atomic_folder])
def test_full_disks_are_told_with_the_name_and_a_remedy(tmp_path: Path, error: Exception, writer) -> None:
    with (
        pytest.raises(OSError, match="cannot write .*target: No space left on device; make room"),
        writer(tmp_path / "target"),
    ):
        raise error
    assert names(tmp_path) == []


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


@pytest.mark.parametrize("name", [".", "..", "a/.."])
def test_a_folder_needs_a_name(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no name of its own"), atomic_folder(name):
        pass


def test_a_link_in_what_looks_like_a_leftover_moves_nothing(tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "thesis").write_bytes(b"precious")
    leftover = tmp_path / "downloaded" / ".nfldm3d-scene.0"
    leftover.mkdir(parents=True)
    (leftover / ".nfldm3d-retired").symlink_to(tmp_path / "documents")
    with atomic_folder(tmp_path / "downloaded" / "scene"):
        pass
    assert (tmp_path / "documents" / "thesis").read_bytes() == b"precious"
    assert names(tmp_path / "downloaded") == ["scene"]


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps folders that somebody is in")
def test_a_current_folder_that_was_deleted_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ValueError, match="cannot write a.obj: No such file"), atomic_write("a.obj"):
        pass


def test_outputs_of_one_name_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="twice: give each output a name of its own"),
        writing(tmp_path / "a.ply", None, tmp_path / "b" / ".." / "a.ply", overwrite=True),
    ):
        pass
