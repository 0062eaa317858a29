"""Signals and lack of memory or disk end a command with one line and the right code."""

import errno
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path

import pytest

from nfldm3d import cli
from nfldm3d.cli import main
from nfldm3d.cli.info import Info
from nfldm3d.files import DataFormatError

ENDINGS = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]


@pytest.fixture(autouse=True)
def as_in_a_terminal() -> Iterator[None]:
    """Shells let programs in the background ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(self: Info) -> None:
        raise error

    monkeypatch.setattr(Info, "run", run)


@pytest.mark.parametrize(("number", "code", "told"), ENDINGS)
def test_signals_end_a_command_with_one_line(
    number: int, code: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Info, "run", lambda self: signal.raise_signal(number))
    before = signal.getsignal(number)
    assert main(["info", "a.nfld"]) == code
    assert capsys.readouterr().err == f"nfldm3d: {told}\n"
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(("number", "code", "told"), ENDINGS)
def test_libraries_that_turn_a_signal_into_an_error_do_not_hide_it(
    number: int, code: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(self: Info) -> None:
        try:
            signal.raise_signal(number)
        except BaseException as stop:
            raise DataFormatError("a.nfld", "is no whole file") from stop

    monkeypatch.setattr(Info, "run", run)
    assert main(["info", "a.nfld"]) == code
    assert capsys.readouterr().err == f"nfldm3d: {told}\n"


@pytest.mark.parametrize(("number", "code", "told"), ENDINGS)
def test_signals_while_starting_end_it_at_once(
    number: int, code: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    with cli._hearing(partial(cli._leave, sys.stderr), number), redirect_stderr(io.StringIO()):
        signal.raise_signal(number)
    assert left == [code] and capsys.readouterr().err == f"nfldm3d: {told}\n"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "not enough memory (MemoryError); ask for less"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "not enough memory (DefaultCPU"),
        (RuntimeError("Invalid thread pool!"), "not enough memory (Invalid thread pool!)"),
        (OSError(errno.ENOMEM, "Cannot allocate memory", "a.bin"), "not enough memory (a.bin: Cannot"),
        (OSError(errno.ENOSPC, "No space left on device", "a.bin"), "a.bin: No space left on device; make room"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system; make room or choose another disk"),
    ],
)
def test_what_runs_short_is_told_with_a_remedy(
    error: Exception, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, error)
    assert main(["info", "a.nfld"]) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1


def test_networks_that_cannot_be_set_up_are_a_lack_of_memory_only_where_there_is_little(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, RuntimeError("could not create a primitive"))
    monkeypatch.setattr("nfldm3d.memory.free_memory", lambda device: 2**28)
    assert main(["info", "a.nfld"]) == 2
    assert "not enough memory (could not create a primitive)" in capsys.readouterr().err
    monkeypatch.setattr("nfldm3d.memory.free_memory", lambda device: 2**34)
    with pytest.raises(RuntimeError):
        main(["info", "a.nfld"])


def test_errors_of_ours_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, RuntimeError("a shape is wrong"))
    with pytest.raises(RuntimeError):
        main(["info", "a.nfld"])


def test_a_command_is_light_until_it_hears_signals() -> None:
    code = "import sys, nfldm3d.cli\nprint(*{'torch', 'numpy', 'tyro'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0 and not done.stdout.split(), done.stderr
