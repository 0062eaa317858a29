"""What fits into memory and what does not."""

from pathlib import Path

import pytest
import torch

from nfldm3d import memory
from nfldm3d.memory import free_memory, require_memory

CPU = torch.device("cpu")


def test_a_grid_needs_four_bytes_for_each_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    require_memory((5, 5, 5), 1, CPU)
    for resolution, channels, copies in (((5, 5, 6), 1, 1), ((5, 5, 5), 2, 1), ((5, 5, 5), 1, 2)):
        with pytest.raises(ValueError, match="lower the resolution or the number of channels"):
            require_memory(resolution, channels, CPU, copies)


def test_the_refusal_says_how_much_is_needed() -> None:
    with pytest.raises(ValueError, match=r"9999x9999x9999 voxels with 3 channels needs 14896.7 GiB on cpu, [\d.]+ GiB"):
        require_memory((9999, 9999, 9999), 3, CPU)


@pytest.mark.parametrize(("resolution", "channels"), [((0, 5, 5), 3), ((5, 5, -1), 3), ((5, 5, 5), 0)])
def test_an_empty_grid_is_refused(resolution: tuple[int, int, int], channels: int) -> None:
    with pytest.raises(ValueError, match="at least one voxel and one channel"):
        require_memory(resolution, channels, CPU)


def test_the_machine_knows_its_memory() -> None:
    assert 2**20 < free_memory(CPU) < 2**50


def test_the_limit_of_a_container_counts(tmp_path: Path) -> None:
    assert memory._free_in_container(tmp_path) == 2**50
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 300\ninactive_file 250\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._free_in_container(tmp_path) == 2**50
    (tmp_path / "memory.max").write_text("1000\n")
    assert memory._free_in_container(tmp_path) == 550


@pytest.mark.cuda
def test_blocks_that_torch_keeps_for_later_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    before = free_memory(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 700)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 300)
    assert before > 2**20 and free_memory(torch.device("cuda")) == 1400


def test_limits_of_this_process_count(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (used + 2**26, resource.RLIM_INFINITY))
    assert free_memory(CPU) <= 2**26
    with pytest.raises(ValueError, match=r"a library needs 1.0 GiB .* \(ulimit -v\), or write a .glb"):
        memory.require_address_space(2**30, "a library", "write a .glb")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    memory.require_address_space(2**49, "a library", "write a .glb")
