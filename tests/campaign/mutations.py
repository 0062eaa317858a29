"""What a stranger, or a failing disk, might do to a file: seeded mutations, by what the file holds."""

import io
import json
import random
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any

Mutate = Callable[[bytes, random.Random], bytes]

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


def mutate_tensors(content: bytes, rng: random.Random) -> bytes:
    """A safetensors file: its head says something else, or its numbers are no numbers."""
    if rng.random() < 0.2 or len(content) < 8:
        return mutate_bytes(content, rng)
    size = struct.unpack("<Q", content[:8])[0]
    try:
        head = json.loads(content[8 : 8 + size])
    except ValueError:
        return mutate_bytes(content, rng)
    body = bytearray(content[8 + size :])
    names = [name for name in head if name != "__metadata__"]
    what = rng.randrange(6)
    if what == 0 and names:  # NaN, infinity or nonsense in place of some numbers
        first, last = head[rng.choice(names)]["data_offsets"]
        for _ in range(rng.choice((1, 3, 50))):
            start = first + 4 * rng.randrange(max(1, (last - first) // 4))
            body[start : start + 4] = rng.choice((b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff\xff\xff\xff", b"\0\0\0\0"))[
                : last - start
            ]
    elif what == 1 and names:
        head[rng.choice(names)]["dtype"] = rng.choice(
            ("F64", "F16", "BF16", "I64", "I32", "I8", "U8", "BOOL", "F8_E4M3", "C64")
        )
    elif what == 2 and names:  # other numbers of the same kind for each of its sizes
        entry = head[rng.choice(names)]
        shape = entry["shape"]
        entry["shape"] = rng.choice((shape[::-1], [*shape, 1], shape[1:], [1, *shape], [2**40], [0], []))
    elif what == 3 and len(names) > 1:
        one, other = rng.sample(names, 2)
        head[one], head[other] = head[other], head[one]
    elif what == 4 and names:
        head[rng.choice((*TEXTS, "extra.tensor"))] = head.pop(rng.choice(names))
    else:
        head = mutate_value(head, rng)
    text = json.dumps(head).encode("utf-8", errors="surrogatepass")
    return struct.pack("<Q", len(text)) + text + bytes(body)


def mutate_array(content: bytes, rng: random.Random) -> bytes:
    """A .npy file: another header, or bytes."""
    head = re.search(rb"\{[^}]*\}", content[:300])
    if rng.random() < 0.3 or head is None:
        return mutate_bytes(content, rng)
    new = rng.choice(
        (
            b"{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
            b"{'descr': '<f8', 'fortran_order': True, 'shape': (), }",
            b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999,), }",
            b"((((((((((",
            b"{'shape': __import__('os')}",
            b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }",
            b"{'descr': '<c16', 'fortran_order': 0, 'shape': (2,)}",
            mutate_text(head[0], rng),
            mutate_bytes(head[0], rng),
            head[0].replace(b"<f4", b"<f8"),
            head[0].replace(b"(", b"(-"),
        )
    )
    return content.replace(head[0], new, 1)


def mutate_picture(content: bytes, rng: random.Random) -> bytes:
    """A picture: bytes, sizes in its head, another mode, or another format under the same name."""
    if rng.random() < 0.5:
        if content[:4] == b"\x89PNG" and rng.random() < 0.4:
            sizes = struct.pack(">II", rng.choice((0, 1, 9, 70000, 2**31)), rng.choice((0, 1, 7, 70000)))
            head = b"IHDR" + sizes + bytes(rng.choice((content[24 + n], rng.randrange(20))) for n in range(5))
            return content[:12] + head + struct.pack(">I", zlib.crc32(head)) + content[33:]
        return mutate_bytes(content, rng)
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except Exception:  # it was no picture already
        return mutate_bytes(content, rng)
    size = (rng.choice((1, image.width, image.width + 1, 2 * image.width)), rng.choice((1, image.height, 3)))
    if rng.random() < 0.5:
        image = image.resize(size)
    mode, form = (
        rng.choice(("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "I")),
        rng.choice(("PNG", "JPEG", "TIFF", "GIF", "EPS", "BMP", "ICO", "WEBP", "PPM", "PDF", "TGA")),
    )
    file = io.BytesIO()
    try:
        image.convert(mode).save(file, form)
    except Exception:  # not every format holds every mode
        image.convert("RGB").save(file, "PNG")
    return file.getvalue()


def mutate_zip(content: bytes, rng: random.Random) -> bytes:
    """A zip: bytes, or members that are changed, lost, doubled, renamed or compressed."""
    if rng.random() < 0.25:
        return mutate_bytes(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    file = io.BytesIO()
    kind = rng.choice((zipfile.ZIP_STORED,) * 6 + (zipfile.ZIP_DEFLATED,))
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, data in _change_members(members, rng):
            archive.writestr(zipfile.ZipInfo(name.replace("\0", "") or "x"), data)
    return file.getvalue()


def mutate_tar(content: bytes, rng: random.Random) -> bytes:
    """A tar: bytes, or members that are changed, lost, doubled, renamed, or no files."""
    if rng.random() < 0.2:
        return mutate_bytes(content, rng)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = [(info.name, file.read()) for info in archive if (file := archive.extractfile(info)) is not None]
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in _change_members(members, rng):
            info = tarfile.TarInfo(name.replace("\0", ""))
            info.size = len(data)
            if rng.random() < 0.02:
                info.type, info.linkname, info.size = (
                    rng.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE)),
                    "../outside/secret",
                    0,
                )
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def _change_members(members: list[tuple[str, bytes]], rng: random.Random) -> list[tuple[str, bytes]]:
    number = rng.randrange(len(members))
    name, data = members[number]
    match rng.randrange(10):
        case 0:
            del members[number]
        case 1:
            members.insert(number, members[rng.randrange(len(members))])
        case 2:
            members[number] = (rng.choice(TEXTS).encode(errors="replace").decode()[:90], data)
        case 3:
            members[number] = (
                name.replace(name.split(".")[0], rng.choice(("../../outside/a", "/tmp/outside", "CON"))),
                data,
            )
        case _:
            members[number] = (name, mutator_of(name)(data, rng))
    return members


BY_SUFFIX: dict[str, Mutate] = {
    ".json": mutate_json,
    ".safetensors": mutate_tensors,
    ".npy": mutate_array,
    ".nfld": mutate_zip,
    ".zip": mutate_zip,
    ".tar": mutate_tar,
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".tif"), mutate_picture),
    **dict.fromkeys((".txt", ".csv", ".jsonl", ".xml", ".yaml", ".obj", ".mtl", ".acc", ".ply", ".xmls"), mutate_text),
}


def mutator_of(name: str) -> Mutate:
    """How files of this name are changed."""
    return BY_SUFFIX.get(PurePath(name).suffix.lower(), mutate_bytes)
