"""How kernels are run: guards, quiet start, every index once, and a process that was forked."""

import os
import subprocess
import sys

import pytest
import torch

from nfldm3d.ops import build_occupancy, interpolate
from nfldm3d.ops.checks import require
from nfldm3d.ops.launch import quiet_warp


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 5000])
def test_every_index_is_run_once(count: int) -> None:
    values = torch.ones(1, 1, 1, 1)
    assert bool((interpolate(values, torch.full((count, 3), 0.5), ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))) == 1).all())


def test_misfits_are_named() -> None:
    device = torch.device("cpu")
    with pytest.raises(ValueError, match=r"rows must have the shape \(rows, 3\), got \(2, 4\)"):
        require("rows", torch.zeros(2, 4), ("rows", 3), device, torch.float32)
    with pytest.raises(ValueError, match=r"rows must have the shape \(rows, 3\), got \(3,\)"):
        require("rows", torch.zeros(3), ("rows", 3), device, torch.float32)
    with pytest.raises(ValueError, match=r"rows is on meta, but must be on cpu"):
        require("rows", torch.zeros(2, 3, device="meta"), ("rows", 3), device, torch.float32)
    with pytest.raises(ValueError, match=r"rows must be torch.float32 or torch.float16 on cpu, got torch.int64"):
        require("rows", torch.zeros(2, 3).long(), ("rows", 3), device, torch.float32, torch.float16)


def test_other_devices_are_refused_in_words() -> None:
    density = torch.ones(2, 3, 4, device="meta")  # as Apple's would be
    with pytest.raises(ValueError, match=r"the kernels run on CPU and CUDA, not on meta: move .* with .to\('cpu'\)"):
        build_occupancy(density)
    with pytest.raises(ValueError, match="not on meta"):
        interpolate(density[..., None], density.new_zeros(5, 3), ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))


COMPILE = """
import importlib, pathlib, tempfile, torch, warp
from nfldm3d.ops.launch import kernel_for, quiet_warp

package = pathlib.Path(importlib.import_module("nfldm3d").__file__).parent
for path in sorted(package.rglob("*.py")):
    if "@wp.kernel" not in path.read_text(encoding="utf-8"):
        continue
    module = importlib.import_module(".".join(("nfldm3d", *path.relative_to(package).with_suffix("").parts)))
    kernels = [value for value in vars(module).values() if isinstance(value, warp.Kernel)]
    for kernel in kernels:
        for scalar in (torch.float32, torch.float16) if kernel.is_generic else ():
            kernel_for(kernel, scalar)
    with tempfile.TemporaryDirectory() as folder:
        quiet_warp().compile_aot_module(kernels[0].module, arch=ARCH, module_dir=folder, use_ptx=True)
        (code,) = pathlib.Path(folder).glob("*.ptx")
        print(path.stem, code.read_text().count("fma."))
"""
ROUNDING = {"entry_kernels", "traversal_kernels"}
"""What promises to round as the torch twin does, or alike in each of its kernels: no product is fused with a sum."""


@pytest.mark.slow
@pytest.mark.parametrize("arch", [80, 90])
def test_all_kernels_compile_for_cuda_without_a_gpu(arch: int) -> None:
    code = COMPILE.replace("ARCH", str(arch))
    done = subprocess.run([sys.executable, "-c", code], timeout=600, check=True, capture_output=True, text=True)
    fused = dict(line.split() for line in done.stdout.splitlines())
    assert len(fused) >= 10 and fused.keys() >= ROUNDING and int(fused["march_kernels"]) > 0
    assert {name: fused[name] for name in ROUNDING} == dict.fromkeys(ROUNDING, "0")


SCRIPT = """
import torch
from nfldm3d.ops import build_occupancy
build_occupancy(torch.ones(5, 6, 7))
"""


def test_kernels_start_without_a_word() -> None:
    build = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=600, check=True)
    assert build.stdout == "" and build.stderr == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_forked_process_runs_kernels_too() -> None:
    box, points = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), torch.full((5000, 3), 0.5)
    interpolate(torch.ones(1, 1, 1, 1), points, box)  # starts this process's threads
    child = os.fork()
    if child == 0:
        os._exit(0 if bool((interpolate(torch.ones(1, 1, 1, 1), points, box) == 1).all()) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_kernel_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch) -> None:
    """Containers run with --user have no home."""
    warp = quiet_warp()
    monkeypatch.setattr(warp.config, "kernel_cache_dir", str(tmp_path / "none"))
    with pytest.raises(OSError, match=r"cannot write the cache of compiled kernels, .*none \(No such.*WARP_CACHE_PATH"):
        quiet_warp.__wrapped__()
