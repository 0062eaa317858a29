"""Objects of a foreign JSON file whose fields are checked as they are read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.files import DataFormatError


@dataclass(frozen=True)
class Record:
    """One JSON object; every complaint names the file, the field, what it holds, and what to write instead."""

    source: Path
    values: dict[str, Any]
    where: str = ""
    """The place of the object in the file, e.g. ``frames[3]``; empty for the outermost."""

    @classmethod
    def of(cls, source: Path, values: Any, where: str = "") -> "Record":
        """The record, if ``values`` is a JSON object."""
        if not isinstance(values, dict):
            raise DataFormatError(source, f"{where or 'the file'} is {_shorten(values)}; write a JSON object")
        return cls(source, values, where)

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def problem(self, key: str, remedy: str) -> DataFormatError:
        """The complaint about a field."""
        name = f"{self.where}.{key}" if self.where else key
        found = f"is {_shorten(self.values[key])}" if key in self.values else "is missing"
        return DataFormatError(self.source, f"{name} {found}; {remedy}")

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e30:
            raise self.problem(key, "write a number")
        return float(value)

    def integer(self, key: str) -> int:
        """A positive whole number of pixels; ``1080.0`` counts."""
        value = self.number(key)
        if value != int(value) or not 0 < value < 2**20:
            raise self.problem(key, "write a whole number of pixels")
        return int(value)

    def truth(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.values.get(key, default)
        if value not in (True, False):
            raise self.problem(key, "write true or false")
        return bool(value)

    def text(self, key: str) -> str:
        """A string that is not empty and that a file name can hold."""
        value = self.values.get(key)
        if not isinstance(value, str) or not value or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise self.problem(key, "write a file name or other text")
        return value

    def items(self, key: str) -> list[Any]:
        """A list."""
        value = self.values.get(key)
        if not isinstance(value, list):
            raise self.problem(key, "write a list")
        return value

    def numbers(self, key: str) -> list[float]:
        """A list of finite numbers."""
        inner = Record(
            self.source, {str(i): v for i, v in enumerate(self.items(key))}, f"{self.where}.{key}".strip(".")
        )
        return [inner.number(name) for name in inner.values]

    def matrix(self, key: str) -> Float[Tensor, "4 4"]:
        """A 4x4 matrix in float64; a missing last row is [0, 0, 0, 1]."""
        rows = self.items(key)
        if len(rows) not in (3, 4) or not all(isinstance(row, list) and len(row) == 4 for row in rows):
            raise self.problem(key, "write four rows of four numbers")
        table = Record(self.source, {f"{key}[{i}]": row for i, row in enumerate(rows)}, self.where)
        numbers = [table.numbers(row) for row in table.values] + [[0.0, 0.0, 0.0, 1.0]][: 4 - len(rows)]
        return torch.tensor(numbers, dtype=torch.float64)


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]} ..."
