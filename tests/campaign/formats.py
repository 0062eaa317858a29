"""A kind of file that the campaign attacks."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Step = Callable[[Path], None]


@dataclass(frozen=True)
class Format:
    """A kind of file."""

    make: Step
    """Fills a folder."""
    read: Step
    """Reads from the folder all that there is to read, and uses it a little."""
    changed: tuple[str, ...] = ("*",)
    """Glob patterns of the files that are changed."""
    sign: Step | None = None
    """Puts right what is only a sum over the rest, so that a reader looks further."""
    linked: bool = False
    """Its files may be links to other places: users name them, or they are of large data sets or download caches."""
    slow: bool = False
    """Reads take more than a tenth of a second."""
