"""The pictures that a glTF holds or names, to be looked at before a library opens them in any format and size."""

import base64
import binascii
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nfldm3d.data.json_record import Record
from nfldm3d.files import DataFormatError, parse_json

MAGIC, JSON_CHUNK = b"glTF", b"JSON"
MARK = "base64,"
"""In the names of what lies within the file."""


def list_pictures(data: bytes, fetch: Callable[[str], bytes | None], source: Path) -> Iterator[bytes]:
    """The pictures of a glTF or GLB; files that are missing are left to whoever needs them.

    Args:
        fetch: reads a file beside it.

    Raises:
        DataFormatError: it is no glTF, or its JSON is refused.
    """
    text, body = _split(data, source)
    try:
        header = Record.of(source, parse_json(text.decode("utf-8"), source))
    except UnicodeDecodeError as error:
        raise DataFormatError(source, f"is no glTF ({error.reason}); export it again") from error
    for number, values in enumerate(header.items("images") if "images" in header else ()):
        image = Record.of(source, values, f"images[{number}]")
        if "bufferView" in image:
            yield _read_view(header, image.values["bufferView"], body, fetch)
        elif "uri" in image and MARK in image.text("uri"):
            yield _unpack(image.text("uri"), source)
        elif "uri" in image and (found := fetch(image.text("uri"))) is not None:
            yield found


def _split(data: bytes, source: Path) -> tuple[bytes, bytes]:
    """The JSON, and the numbers behind it."""
    if data[:4] != MAGIC:
        return data, b""
    if len(data) < 20 or data[16:20] != JSON_CHUNK:
        raise DataFormatError(source, "is no GLB of version 2; export it again")
    size = struct.unpack("<I", data[12:16])[0]
    return data[20 : 20 + size], data[28 + size :]


def _read_view(header: Record, number: Any, body: bytes, fetch: Callable[[str], bytes | None]) -> bytes:
    view = _entry(header, "bufferViews", number)
    buffer = _entry(header, "buffers", view.values.get("buffer"))
    if "uri" not in buffer and view.values["buffer"] != 0:
        raise view.problem("buffer", "only the first lies in the file itself; export it again")
    if "uri" not in buffer:
        content = body
    elif MARK in buffer.text("uri"):
        content = _unpack(buffer.text("uri"), header.source)
    else:
        content = fetch(buffer.text("uri")) or b""
    start, size = view.values.get("byteOffset", 0), view.values.get("byteLength")
    if type(start) is not int or type(size) is not int or not 0 <= start <= start + size <= len(content):
        raise view.problem("byteLength", "a picture lies beyond its buffer; export it again")
    return content[start : start + size]


def _entry(header: Record, key: str, number: Any) -> Record:
    entries = header.items(key)
    if type(number) is not int or not 0 <= number < len(entries):
        raise header.problem(key, f"it has no entry {str(number)[:40]}; export it again")
    return Record.of(header.source, entries[number], f"{key}[{number}]")


def _unpack(uri: str, source: Path) -> bytes:
    try:
        return base64.b64decode(uri.partition(MARK)[2])
    except (binascii.Error, ValueError) as error:
        raise DataFormatError(source, f"holds a picture that is no base64 ({error}); export it again") from error
