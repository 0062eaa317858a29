"""Names of files that were written on one system and are looked for on another.

macOS spells an umlaut as two characters and Windows as one, and neither tells ``IMG_1.JPG`` from ``img_1.jpg``; a file
that came from there is found here by the name that was written there, as long as only one file can be meant.
"""

import os
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

DIGITS = "0123456789\u00b9\u00b2\u00b3"
RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in DIGITS)})
"""Names that belong to devices on Windows, whatever suffix follows."""


def compose(name: str) -> str:
    """The name with every accent joined to its letter (Unicode NFC)."""
    return unicodedata.normalize("NFC", name)


def is_utf8(name: str) -> bool:
    """Whether a name is text: Python keeps other bytes of file names as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_reserved(name: str) -> bool:
    """Whether Windows gives no file this name."""
    return name.split(".")[0].rstrip(" ").lower() in RESERVED or name.endswith((".", " "))


def find_spelling(root: Path, parts: tuple[str, ...]) -> Path:
    """The path of ``parts`` below ``root`` as the disk spells it; as it was given where nothing or too much fits."""
    path = root.joinpath(*parts)
    if not parts or os.path.lexists(path):
        return path
    found = root
    for number, part in enumerate(parts):
        exact = found / part
        other = None if os.path.lexists(exact) else _find_entry(found, part)
        if other is None and not os.path.lexists(exact):
            return found.joinpath(*parts[number:])
        found = exact if other is None else found / other
    return found


def _find_entry(folder: Path, name: str) -> str | None:
    """The one entry that is the name but for accents, or if there is none but for accents and case."""
    try:
        composed, folded = _list_entries(os.fspath(folder), folder.stat().st_mtime_ns)
    except (OSError, ValueError):
        return None
    entries = composed.get(compose(name)) or folded.get(_fold(name), ())
    return entries[0] if len(entries) == 1 else None


@lru_cache(maxsize=16)
def _list_entries(folder: str, changed: int) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The entries of a folder that was last changed at a time, by their composed and by their folded names."""

    def group(key: Callable[[str], str]) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for name in names:
            groups.setdefault(key(name), []).append(name)
        return groups

    names = os.listdir(folder)
    return group(compose), group(_fold)


def _fold(name: str) -> str:
    return compose(compose(name).casefold())
