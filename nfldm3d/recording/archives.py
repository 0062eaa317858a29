"""Zips of other programs: read by their members' names, each as large as it says and no larger than is let."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

from nfldm3d.data.image_files import DAMAGED
from nfldm3d.files import DataFormatError, refuse_special
from nfldm3d.messages import to_one_line

_ENTRY = re.compile(r"\s*(\w+)#(\d{1,9})\s*=\s*(.*)", re.ASCII)
LARGEST_MEMBER = 256 * 2**20
"""Bytes, when unpacked."""
BROKEN = (*DAMAGED, zipfile.BadZipFile, RuntimeError)
"""What zipfile raises on zips that are none, encrypted or packed in other ways."""

Read = Callable[[str], bytes | None]
"""Reads a member by its name, whatever its case; None if there is none."""


def open_archive(path: Path) -> Read:
    """A zip whose members are asked for one by one; a DataFormatError, then and now, says what is damaged."""
    refuse_special(path)
    try:
        opened = zipfile.ZipFile(path)
    except BROKEN as error:
        raise DataFormatError(path, f"is no zip file ({error}); get it again") from error
    names = {name.lower(): name for name in opened.namelist()}

    def read(name: str) -> bytes | None:
        found = names.get(name.lower())
        if found is None:
            return None
        member = Path(f"{path}/{to_one_line(found)}")
        if opened.getinfo(found).file_size > LARGEST_MEMBER:
            raise DataFormatError(member, f"has more than {LARGEST_MEMBER} bytes; leave it out")
        try:
            return opened.read(found)
        except BROKEN as error:
            raise DataFormatError(member, f"is damaged ({error}); get the zip again") from error

    return read


def read_properties(content: bytes) -> tuple[dict[str, str], dict[int, dict[str, str]]]:
    """A catalogue of Sweet Home 3D: what stands in it once, and the entries by their numbers (``name#12=a chair``)."""
    shared: dict[str, str] = {}
    entries: dict[int, dict[str, str]] = {}
    for line in content.decode("latin-1").splitlines():
        found = _ENTRY.fullmatch(line)
        if found:
            entries.setdefault(int(found[2]), {})[found[1]] = _unescape(found[3].strip())
        elif "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            shared[key.strip()] = _unescape(value.strip())
    return shared, entries


def _unescape(text: str) -> str:
    """Java's escapes in property files: backslashed letters and \\uXXXX."""
    return re.sub(r"\\(?:u([0-9a-fA-F]{4})|(.))", lambda m: chr(int(m[1], 16)) if m[1] else m[2], text)
