"""Tensors return from files as they went; whatever is no whole file is refused with its name and a remedy."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from nfldm3d.files import DataFormatError
from nfldm3d.tensor_files import (
    read_head,
    read_state,
    read_tensors,
    read_tensors_and_head,
    require_finite,
    require_tensors,
    unpack_tensors,
    write_tensors,
)

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "empty": torch.zeros(0, 4), "whole": torch.tensor([3, 1])}


def head(entry: dict, body: bytes = b"") -> bytes:
    text = json.dumps({"a": entry}).encode()
    return struct.pack("<Q", len(text)) + text + body


BROKEN = {
    "cut off": save(TENSORS)[:-3],
    "nothing": b"",
    "text": b"This is no file of tensors, but a letter.",
    "endless head": struct.pack("<Q", 2**60) + b"{}",
    "unknown kind": head({"dtype": "Q9", "shape": [1], "data_offsets": [0, 4]}, b"0000"),
    "more than there is": head({"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}, b"0000"),
    "a thousand axes": head({"dtype": "F32", "shape": [0] * 1000, "data_offsets": [0, 0]}),
    "an endless axis": head({"dtype": "F32", "shape": [0, 2**63], "data_offsets": [0, 0]}),
    "other shape": head({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}, b"0000"),
}


def test_tensors_return(tmp_path: Path) -> None:
    shared = {**TENSORS, "view": TENSORS["a"].T, "again": TENSORS["a"]}
    write_tensors(tmp_path / "t.safetensors", shared, {"version": "1"})
    found, about = read_tensors_and_head(tmp_path / "t.safetensors")
    assert about == {"version": "1"} and found.keys() == shared.keys()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in shared.items())
    unpacked = unpack_tensors((tmp_path / "t.safetensors").read_bytes(), "memory")
    assert all(torch.equal(unpacked[name], value) for name, value in shared.items())
    assert read_state(tmp_path / "t.safetensors").keys() == shared.keys()


def test_nothing_is_copied_but_what_shares_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    written: dict[str, torch.Tensor] = {}
    monkeypatch.setattr("safetensors.torch.save_file", lambda tensors, path, head: written.update(tensors))
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {"whole": whole, "tied": whole, "part": whole[1:], "other": torch.zeros(5)}
    write_tensors("nowhere", tensors)
    pointers = {name: value.untyped_storage().data_ptr() for name, value in written.items()}
    assert len(set(pointers.values())) == len(tensors) and all(torch.equal(written[n], tensors[n]) for n in tensors)
    assert all(pointers[name] == tensors[name].untyped_storage().data_ptr() for name in ("whole", "other"))
    assert written["part"].untyped_storage().nbytes() == written["part"].nbytes


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize(
    "read",
    [
        lambda path, data: read_tensors(path, remedy="bake it again"),
        lambda path, data: unpack_tensors(data, path, remedy="bake it again"),
        lambda path, data: read_state(path, remedy="bake it again"),
    ],
)
def test_what_is_no_whole_file_is_refused(read: Callable[[Path, bytes], object], data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cake.safetensors"
    path.write_bytes(data)
    with pytest.raises(DataFormatError, match=r"cake.safetensors: is no whole safetensors file.*; bake it again"):
        read(path, data)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match=r"none.safetensors: does not exist; copy"):
        read_tensors(tmp_path / "none.safetensors")
    with pytest.raises(DataFormatError, match=r"none.pth: does not exist"):
        read_state(tmp_path / "none.pth")
    with pytest.raises(DataFormatError, match="is no whole safetensors file"):
        read_tensors(tmp_path)


class Bomb:
    """Would run code in careless hands."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("exploded"),)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a letter", "is no PyTorch file"), (b"", "is no PyTorch file"), ([1], "something else than named tensors")],
)
def test_other_files_hold_no_state(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "state.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(DataFormatError, match=message):
        read_state(path)


def test_states_run_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.ones(2)}, "good.pth")
    torch.save({"a": Bomb()}, "bad.pth")
    assert torch.equal(read_state("good.pth")["a"], torch.ones(2))
    with pytest.raises(DataFormatError, match="bad.pth: is no PyTorch file of tensors"):
        read_state("bad.pth")
    assert not Path("exploded").exists()


def test_tensors_are_named_that_are_missing_or_of_no_use() -> None:
    with pytest.raises(DataFormatError, match="cake: lacks the tensor b; eat it"):
        require_tensors(TENSORS, ["a", "b"], "cake", "eat it")
    require_finite(TENSORS, "cake")
    with pytest.raises(DataFormatError, match="cake: a holds NaN or infinity"):
        require_finite({"a": torch.tensor([1.0, torch.nan])}, "cake")
    with pytest.raises(DataFormatError, match=r"cake: a is kept as torch.float8_e4m3fn; save it as torch.float32"):
        require_finite({"a": torch.zeros(2).to(torch.float8_e4m3fn)}, "cake")


def test_the_head_is_read_alone(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.safetensors", TENSORS, {"identity": "me"})
    assert read_head(tmp_path / "a.safetensors") == {"identity": "me"}
    write_tensors(tmp_path / "b.safetensors", TENSORS)
    assert read_head(tmp_path / "b.safetensors") == {}
    (tmp_path / "c.safetensors").write_bytes(b"nonsense")
    for name, problem in (("c.safetensors", "is no whole safetensors file"), ("d.safetensors", "does not exist")):
        with pytest.raises(DataFormatError, match=f"{name}: {problem}.*; look again"):
            read_head(tmp_path / name, remedy="look again")
