"""What a stranger, or a failing disk, might do to bytes, JSON and tables: seeded mutations."""

import json
import random
import re
import struct
from collections.abc import Iterator
from typing import Any

NUMBERS = (0, -1, 1, 2, 255, 2**16, 2**31, 2**63, 2**70, -(2**63), 10**40, 1e-300, 1e308, -0.0, 0.5, float("nan"))
NUMBERS += (float("inf"), float("-inf"))
TEXTS = (
    "",
    " ",
    "..",
    "../outside/secret",
    "/etc/passwd",
    "/dev/zero",
    "/dev/stdin",
    "C:\\x",
    "a\0b",
    "\x1b[31mred\x1b]0;x\a",
)
TEXTS += (
    "x" * 5000,
    "\n\n",
    "é" * 300,
    "\ud800",
    "nan",
    "1e999",
    "__class__",
    "{0}",
    "%s",
    "-1",
    "None",
    "true",
    "inf",
)
OTHERS = (None, True, False, [], {}, [[]], [None], {"": 0}, [0] * 1000, ["x"] * 20)


def hostile_value(rng: random.Random) -> Any:
    """A JSON value that nobody expects."""
    kind = rng.randrange(4)
    if kind == 3:
        value: Any = rng.choice(NUMBERS)
        for _ in range(rng.choice((1, 3, 80))):
            value = [value] if rng.random() < 0.5 else {"a": value}
        return value
    return rng.choice((NUMBERS, TEXTS, OTHERS)[kind])


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Bits flipped, parts cut, doubled, moved or overwritten."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        size = len(data)
        start = rng.randrange(min(size, rng.choice((64, 512, 2**30)))) if size else 0
        length = min(rng.choice((1, 4, 16, 200)), size - start)
        match rng.randrange(8):
            case 0 if size:
                data[start] ^= 1 << rng.randrange(8)
            case 1 if size:
                data[start : start + length] = bytes(rng.randrange(256) for _ in range(length))
            case 2:
                del data[start:]
            case 3:
                del data[start : start + length]
            case 4:
                data[start:start] = bytes(rng.randrange(256) for _ in range(length or 4))
            case 5:
                data[start : start + length] = rng.choice((b"\0", b"\xff", b"9", b"\n")) * length
            case 6:
                data[start:start] = data[start : start + length] * rng.choice((1, 50))
            case _:
                number = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1))
                data[start : start + 8] = struct.pack(rng.choice("<>") + "Q", number)
    return bytes(data)


def _places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield way
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _places(inner, (*way, key))


def mutate_value(value: Any, rng: random.Random) -> Any:
    """JSON with one place changed: another value, none, a wrong name, an entry doubled."""
    value = json.loads(json.dumps(value))
    way = rng.choice(list(_places(value)))
    if not way:
        return hostile_value(rng)
    outer = value
    for key in way[:-1]:
        outer = outer[key]
    key = way[-1]
    old = outer[key]
    match rng.randrange(8):
        case 0:
            del outer[key]
        case 1 if isinstance(outer, dict):
            outer[rng.choice(TEXTS)] = outer.pop(key)
        case 1:
            outer.insert(key, old)
        case 2 if isinstance(old, list) and old:
            outer[key] = old[: rng.randrange(len(old))] if rng.random() < 0.5 else [*old, hostile_value(rng)]
        case 3 if isinstance(old, int | float) and not isinstance(old, bool):
            outer[key] = rng.choice((-old, old * 1000, old + 0.5, old * 1e30, str(old), old + 1, float("nan")))
        case 4 if isinstance(old, str):
            outer[key] = rng.choice((old + "\0", "../" + old, "/" + old, old.upper(), old * 100, old[1:], "./" + old))
        case _:
            outer[key] = hostile_value(rng)
    return value


def mutate_json(content: bytes, rng: random.Random) -> bytes:
    """Sometimes the text of JSON, mostly what it says."""
    if rng.random() < 0.15:
        return mutate_bytes(content, rng)
    try:
        value = json.loads(content)
    except ValueError:
        return mutate_bytes(content, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        value = mutate_value(value, rng)
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    return text.encode("utf-8", errors="surrogatepass")


def mutate_lines(content: bytes, rng: random.Random) -> bytes:
    """A JSON value a line: another value, or other text."""
    lines = content.split(b"\n")
    if rng.random() < 0.5:
        return mutate_text(content, rng)
    number = rng.randrange(len(lines))
    lines[number] = mutate_json(lines[number] or b"{}", rng)
    return b"\n".join(lines)


def mutate_text(content: bytes, rng: random.Random) -> bytes:
    """Tables: a number or word changed, lines lost, doubled or cut."""
    if rng.random() < 0.15:
        return mutate_bytes(content, rng)
    lines = content.split(b"\n")
    number = rng.randrange(len(lines))
    words = [match.span() for match in re.finditer(rb"[^\s,;:=\"<>]+", lines[number])]
    match rng.randrange(6):
        case 0:
            del lines[number]
        case 1:
            lines.insert(number, lines[number])
        case 2 if words:
            lines[number] = lines[number][: rng.choice(words)[0]]
        case 3:
            lines[number] += b" " + str(rng.choice((*NUMBERS, *TEXTS))).encode(errors="surrogatepass")
        case _ if words:
            start, end = rng.choice(words)
            new = str(rng.choice((*NUMBERS, *NUMBERS, *TEXTS))).encode(errors="surrogatepass")
            lines[number] = lines[number][:start] + new + lines[number][end:]
    return b"\n".join(lines)
