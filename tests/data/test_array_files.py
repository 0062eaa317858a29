"""Arrays return as numpy wrote them; headers that lie are refused before anything is allocated."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from nfldm3d.data.array_files import map_array, parse_array
from nfldm3d.files import DataFormatError

NUMBERS = np.arange(24.0).reshape(4, 6)


def saved(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version, allow_pickle=True)
    return buffer.getvalue()


def forged(header: str, body: bytes = bytes(192)) -> bytes:
    text = header.encode("latin-1")
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


@pytest.mark.parametrize("kind", ["<f4", ">f8", "<f2", "<i8", "|u1", ">u2"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_numbers_return(kind: str, version: tuple[int, int], tmp_path: Path) -> None:
    for array in (NUMBERS.astype(kind), np.asfortranarray(NUMBERS.astype(kind)), np.zeros((0, 3), kind), np.array(7.0)):
        content = saved(array, version)
        (tmp_path / "a.npy").write_bytes(content)
        for found in (map_array(tmp_path / "a.npy"), parse_array(content, "a.npy")):
            assert found.dtype == array.dtype and found.shape == array.shape and np.array_equal(found, array)


def shaped(shape: str, kind: str = "'<f8'") -> bytes:
    return forged(f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}")


def a_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", saved(NUMBERS))
    return buffer.getvalue()


HOSTILE = {
    "empty": b"",
    "zip": a_zip(),
    "broken zip": b"PK\x03\x04" + bytes(60),
    "pickle": saved(np.array([{}], dtype=object)),
    "words": saved(np.array(["a"])),
    "records": saved(np.zeros(2, dtype=[("a", "<f4")])),
    "complex": saved(np.zeros(2, dtype=complex)),
    "truncated": saved(NUMBERS)[:-1],
    "within the header": saved(NUMBERS)[:40],
    "terabytes": shaped("(99999999999, 99999)"),
    "overflow": shaped("(999999999999999, 999999999999999, 999999999999999)"),
    "long number": shaped(f"({'9' * 3000},)"),
    "negative": shaped("(-4, 6)"),
    "text": shaped("'ab'"),
    "not a type": shaped("(4, 6)", "'<f3'"),
    "no type": shaped("(4, 6)", "None"),
    "tokens": forged("{'descr': (((((("),
    "version 9": saved(NUMBERS).replace(b"NUMPY\x01", b"NUMPY\x09"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_everything_else_is_refused_in_one_way(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(HOSTILE[name])
    for read in (lambda: map_array(tmp_path / "a.npy"), lambda: parse_array(HOSTILE[name], "a.npy")):
        with pytest.raises(DataFormatError, match=r"a\.npy: is no readable \.npy array") as caught:
            read()
        assert len(str(caught.value)) <= 500


def test_shapes_that_do_not_fit_say_by_how_much() -> None:
    with pytest.raises(DataFormatError, match=r"shape \(4, 7\) of float64 takes 224 bytes, 192 are there"):
        parse_array(shaped("(4, 7)"), "a.npy")
