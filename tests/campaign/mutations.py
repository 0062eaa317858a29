"""What a stranger, or a failing disk, might do to a file: seeded mutations, by what the file holds."""

import gzip
import io
import json
import random
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import PurePath

from campaign.text_mutations import TEXTS, mutate_bytes, mutate_json, mutate_lines, mutate_text, mutate_value

Mutate = Callable[[bytes, random.Random], bytes]


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


def mutate_glb(content: bytes, rng: random.Random) -> bytes:
    """A GLB: bytes, or what its JSON says."""
    if rng.random() < 0.3 or len(content) < 20:
        return mutate_bytes(content, rng)
    size = struct.unpack("<I", content[12:16])[0]
    text, rest = mutate_json(content[20 : 20 + size], rng), content[20 + size :]
    text += b" " * (-len(text) % 4)
    head = struct.pack("<III", 2, 20 + len(text) + len(rest), len(text))
    return b"glTF" + head + content[16:20] + text + rest


def mutate_gzip(content: bytes, rng: random.Random) -> bytes:
    """Gzipped JSON: bytes, what it says, or many zeros."""
    if rng.random() < 0.2:
        return mutate_bytes(content, rng)
    if rng.random() < 0.01:
        return gzip.compress(bytes(2**28), 1)
    return gzip.compress(mutate_json(gzip.decompress(content), rng), 1)


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
    ".jsonl": mutate_lines,
    ".safetensors": mutate_tensors,
    ".npy": mutate_array,
    ".nfld": mutate_zip,
    **dict.fromkeys((".zip", ".sh3f", ".jar"), mutate_zip),
    ".tar": mutate_tar,
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".tif"), mutate_picture),
    **dict.fromkeys(
        (".txt", ".csv", ".xml", ".yaml", ".obj", ".mtl", ".acc", ".ply", ".off", ".ac", ".properties"), mutate_text
    ),
    ".glb": mutate_glb,
    ".gltf": mutate_json,
    ".jgz": mutate_gzip,
    ".rgb": mutate_picture,
}


def mutator_of(name: str) -> Mutate:
    """How files of this name are changed."""
    return BY_SUFFIX.get(PurePath(name).suffix.lower(), mutate_bytes)
