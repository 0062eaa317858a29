"""Messages that repeat what strangers wrote: one line of bounded length, in which nothing steers a terminal."""

import re

LONGEST = 500
"""Characters of a message."""
ENDING = 200
"""Of these at least so many are left of the end, where the remedy is."""
CUT = " [...] "


def to_one_line(text: str) -> str:
    """The text with its lines joined, control characters escaped as Python writes them, and the middle left out."""
    line = " ".join(part for line in re.split("[\r\n]", text) if (part := line.strip()))
    if len(line) > LONGEST:  # before it is escaped, which is slow and makes it no shorter
        line = line[:LONGEST] + CUT + line[-LONGEST:]
    shown = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in line)
    return shown if len(shown) <= LONGEST else shown[: LONGEST - ENDING - len(CUT)] + CUT + shown[-ENDING:]
