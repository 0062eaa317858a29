"""Tables as JSON lists of objects, of any length: rows are read one by one, and only those that are wanted are kept."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfldm3d.data.json_record import Record
from nfldm3d.files import DataFormatError, refuse_special

CHUNK = 2**22
"""Characters read at a time."""
LONGEST_ROW = 2**20
"""Characters: a row is one record of a few fields."""
BLANK = " \t\r\n"


@dataclass(frozen=True)
class Table:
    """The rows of one file that were kept, by their tokens."""

    source: Path
    rows: dict[str, Record]

    @classmethod
    def read(cls, path: Path, fields: Sequence[str], keep: Callable[[dict[str, Any]], bool] | None = None) -> "Table":
        """Some fields of the wanted rows; a DataFormatError if one of these lacks its token."""
        rows: dict[str, Record] = {}
        for number, values in enumerate(iterate_rows(path)):
            if keep is not None and not keep(values):
                continue
            token = Record(path, values, f"[{number}]").text("token")
            rows[token] = Record(path, {key: values[key] for key in fields if key in values}, f"[{number}]")
        return cls(path, rows)

    def get(self, asking: Record, key: str) -> Record:
        """The row whose token a field of another row holds."""
        token = asking.text(key)
        if token not in self.rows:
            raise asking.problem(key, f"{self.source.name} has no such token; unpack the tables of one version again")
        return self.rows[token]


def iterate_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a list in order, in as much memory as one of them needs.

    Raises:
        DataFormatError: the file cannot be read, or holds anything else.
    """
    refuse_special(path)
    decoder, text, place = json.JSONDecoder(parse_constant=_refuse), "", 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(CHUNK)
            place = _skip(text, 0)
            if text[place : place + 1] != "[":
                raise ValueError("it does not begin a list")
            place, expected = place + 1, "first"
            while True:
                if len(text) - place < LONGEST_ROW:
                    text, place = text[place:] + file.read(CHUNK), 0
                place = _skip(text, place)
                if text[place : place + 1] == "]" and expected != "row":
                    return
                if expected == "more":
                    if text[place : place + 1] != ",":
                        raise ValueError("a comma or the end of the list is missing")
                    place, expected = place + 1, "row"
                    continue
                row, place = decoder.raw_decode(text, place)
                if not isinstance(row, dict):
                    raise ValueError(f"a row is {str(row)[:40]}, not an object")
                yield row
                expected = "more"
    except (OSError, UnicodeDecodeError) as error:
        raise DataFormatError(path, f"cannot be read ({error}); restore the table") from error
    except (ValueError, RecursionError) as error:
        problem = f"is no JSON list of objects ({error}, near {text[place : place + 40]!r})"
        raise DataFormatError(path, f"{problem}; restore the table") from error


def _skip(text: str, place: int) -> int:
    while text[place : place + 1] in BLANK and place < len(text):
        place += 1
    return place


def _refuse(literal: str) -> float:
    raise ValueError(f"{literal} is no finite number")
