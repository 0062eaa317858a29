"""Devices as users write them."""

import pytest
import torch

from nfldm3d.cli.devices import open_device


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_the_cpu_is_there() -> None:
    assert open_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "banana", "", "cuda:x", "meta", "cpu cuda"])
def test_without_a_gpu_nothing_else_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"--device.*(give cpu|leave --device out)"):
        open_device(name)


@pytest.mark.parametrize(("rank", "index"), [(None, 0), ("0", 0), ("1", 1), ("3", 1)])
def test_each_process_takes_a_gpu_of_its_own(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch, rank: str | None, index: int
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert open_device("cuda") == torch.device("cuda", index)
    assert open_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="--device cuda:7: the last CUDA device here is cuda:1"):
        open_device("cuda:7")
