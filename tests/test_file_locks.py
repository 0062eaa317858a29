"""One process at a time, whoever dies, and whatever lies in the lock's place."""

import errno
import os
import sys
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import pytest

from nfldm3d.file_locks import locked

fork = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the children touch files alone


def count_up(path: Path, times: int) -> None:
    for _ in range(times):
        with locked(path.with_name("lock")):
            path.write_text(str(int(path.read_text()) + 1))


def die_inside(path: Path) -> None:
    with locked(path):
        os._exit(9)


@fork
def test_processes_take_turns(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    processes = [get_context("fork").Process(target=count_up, args=(tmp_path / "number", 50)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "number").read_text() == "200"
    assert [path.name for path in tmp_path.iterdir()] == ["number"], "the lock is gone"


@fork
def test_a_dead_process_holds_nothing(tmp_path: Path) -> None:
    process = get_context("fork").Process(target=die_inside, args=(tmp_path / "lock",))
    process.start()
    process.join()
    assert process.exitcode == 9 and f"process {process.pid} on " in (tmp_path / "lock").read_text()
    with locked(tmp_path / "lock", wait=False):
        assert f"process {os.getpid()} on " in (tmp_path / "lock").read_text()
    assert not list(tmp_path.iterdir())


def test_what_a_link_points_to_stays(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("years")
    (tmp_path / "lock").symlink_to("thesis")
    with pytest.raises(ValueError, match=r"cannot write .*lock: it is a link; remove it"), locked(tmp_path / "lock"):
        pass
    assert (tmp_path / "thesis").read_text() == "years" and (tmp_path / "lock").is_symlink()


def test_only_a_file_is_a_lock(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder", "missing/lock"):
        with pytest.raises(ValueError, match=f"cannot write .*{name}: "), locked(tmp_path / name):
            pass


def test_a_block_that_fails_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "lock"):
        raise KeyboardInterrupt
    with locked(tmp_path / "lock", wait=False):
        pass


def test_file_systems_without_locks_are_taken_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file, mode):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.lockf", refuse)
    with locked(tmp_path / "lock", wait=False):
        assert (tmp_path / "lock").exists()
    monkeypatch.setattr("fcntl.lockf", lambda file, mode: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken"), locked(tmp_path / "lock"):
        pass


@pytest.mark.parametrize(("wait", "mode"), [(True, 1), (False, 2)])
def test_windows_locks_a_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait: bool, mode: int) -> None:
    asked: list[tuple[int, int]] = []
    fake = SimpleNamespace(LK_LOCK=1, LK_NBLCK=2, locking=lambda handle, mode, count: asked.append((mode, count)))
    monkeypatch.setitem(sys.modules, "msvcrt", fake)
    monkeypatch.setattr(sys, "platform", "win32")
    with locked(tmp_path / "lock", wait=wait):
        assert asked == [(mode, 1)]
