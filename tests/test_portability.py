"""As far as one can tell on one system: nothing that other systems lack, and text is UTF-8 everywhere."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nfldm3d import files

ROOT = Path(__file__).parents[1]
UNIX_MODULES = {"crypt", "fcntl", "grp", "nis", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
UNIX_NAMES = {"os.fork", "os.getuid", "os.geteuid", "os.setsid", "os.killpg", "os.sysconf", "os.chown", "os.uname"}
UNIX_NAMES |= {"signal.SIGKILL", "signal.SIGHUP", "signal.SIGPIPE", "signal.SIGALRM", "signal.alarm", "os.WNOHANG"}


def unportable(code: str) -> list[str]:
    """What Windows lacks, and text files whose encoding depends on the system."""
    tree, wrong = ast.parse(code), []
    for node in tree.body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        wrong += [f"imports {name}" for name in names if name.split(".")[0] in UNIX_MODULES]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in UNIX_NAMES:
            wrong.append(ast.unparse(node))
        if isinstance(node, ast.Call):
            call, options = ast.unparse(node.func), {word.arg for word in node.keywords}
            binary = call == "open" and len(node.args) > 1 and "b'" in ast.unparse(node.args[1])
            if call.endswith((".read_text", ".write_text")) or (call == "open" and not binary):
                wrong += [] if "encoding" in options else [ast.unparse(node)]
    return wrong


def test_nothing_is_for_one_system_only() -> None:
    paths = [path for folder in ("nfldm3d", "examples") for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(paths) > 100
    wrong = [f"{path}: {text}" for path in paths for text in unportable(path.read_text(encoding="utf-8"))]
    wrong = [text for text in wrong if "/proc/self" not in text and "benchmarks" not in text]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("code", ["import resource", "from fcntl import a", "os.fork()", "p.read_text()", "open(p)"])
def test_what_other_systems_lack_is_caught(code: str) -> None:
    assert unportable(code)


def test_what_other_systems_have_is_allowed() -> None:
    guarded = "def f():\n    import fcntl\n    return open(p, 'rb'), p.read_text(encoding='ascii')"
    assert not unportable(guarded)


def test_files_are_flushed_as_each_system_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"content")
    for system in ("posix", "nt"):
        monkeypatch.setattr(os, "name", system)
        files.flush_file(path)
        files.flush_folder(tmp_path)
    monkeypatch.undo()
    assert path.read_bytes() == b"content"


@pytest.mark.slow
def test_every_module_starts_without_what_windows_lacks() -> None:
    """Other packages are loaded first: they have their own ways there."""
    modules = [path.relative_to(ROOT).with_suffix("") for path in sorted((ROOT / "nfldm3d").rglob("*.py"))]
    names = [".".join(path.parts).removesuffix(".__init__") for path in modules if path.name != "__main__"]
    code = (
        "import importlib, os, signal, sys\n"
        "import accelerate, diffusers, PIL.Image, safetensors.torch, torch, torchvision, tqdm.auto, tyro, warp\n"
        "import diffusers.pipelines.pipeline_utils  # brings transformers along, where it is installed\n"
        f"for name in {sorted(UNIX_MODULES)}: sys.modules[name] = None\n"
        f"for name in {sorted(UNIX_NAMES)}:\n"
        "    module = {'os': os, 'signal': signal}[name.split('.')[0]]\n"
        "    if hasattr(module, name.split('.')[1]): delattr(module, name.split('.')[1])\n"
        f"for name in {names}: importlib.import_module(name)\n"
        "from nfldm3d.cli import main\n"
        "from nfldm3d.cli.fit import peak_memory_mb\n"
        "assert peak_memory_mb() is None and main(['info', 'nowhere.nfld']) == 3\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
