"""Tar shards of scenes in webdataset's layout, and the index that tells where each file of each scene lies.

A shard ``train-000000.tar`` holds scenes one after the other, each as files ``KEY.json``, ``KEY.rgb.png``,
``KEY.depth.png``, ``KEY.masks.png``, ``KEY.labels.png``, ``KEY.bev.png``, ``KEY.bev_height.npy``, of objects also
``KEY.alpha.png`` and ``KEY.normals.png`` (see ``sample_files``). ``index.json`` holds their offsets, so that a scene is
one read from the middle of a file; it can be rebuilt from the shards.
"""

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from nfldm3d._types import PathName
from nfldm3d.data.json_record import Record
from nfldm3d.data.sample_files import encode_scene
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.files import (
    DataFormatError,
    atomic_write,
    parse_json,
    read_json,
    refuse_outside,
    refuse_special,
    resolve_inside,
)
from nfldm3d.jobs import require_file_names

INDEX_NAME = "index.json"
FORMAT, VERSION = "nfldm3d scene shards", 1
END = bytes(2 * tarfile.BLOCKSIZE)
SHARD_NAME = re.compile(r"(?P<split>[a-z]+)-\d{6}\.tar")


@dataclass(frozen=True)
class ShardEntry:
    """One tar file."""

    name: str
    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True)
class SceneEntry:
    """Where one scene lies."""

    key: str
    shard: str
    map: str
    split: str
    views: int
    members: dict[str, tuple[int, int]]
    """Offset in the shard and size of each file, by extension; bytes."""


@dataclass(frozen=True)
class ShardIndex:
    """All shards of a folder and all scenes in them."""

    shards: tuple[ShardEntry, ...]
    scenes: tuple[SceneEntry, ...]


def shard_name(split: str, number: int) -> str:
    """The file name of a shard."""
    return f"{split}-{number:06d}.tar"


def write_shard(path: PathName, samples: Sequence[SceneSample]) -> tuple[ShardEntry, tuple[SceneEntry, ...]]:
    """Writes scenes to a tar file, which appears complete or not at all; equal scenes give equal bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            for extension, data in encode_scene(sample).items():
                member = tarfile.TarInfo(f"{sample.key}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    return index_shard(path)


def index_shard(path: PathName) -> tuple[ShardEntry, tuple[SceneEntry, ...]]:
    """What a shard holds, from its own headers.

    Raises:
        DataFormatError: it is damaged, or holds a scene without its JSON.
    """
    path = Path(path)
    members: dict[str, dict[str, tuple[int, int]]] = {}
    texts: dict[str, bytes] = {}
    refuse_special(path)
    try:
        content = path.read_bytes()
        if len(content) % tarfile.BLOCKSIZE or content[-len(END) :] != END:
            raise tarfile.ReadError("the mark of its end is missing")
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                members.setdefault(key, {})[extension] = (member.offset_data, member.size)
                if extension == "json":
                    texts[key] = content[member.offset_data : member.offset_data + member.size]
    except (OSError, tarfile.TarError) as error:
        raise DataFormatError(path, f"cannot be read to its end ({error}); copy or record the shard again") from error
    require_file_names(list(members), path)
    scenes = tuple(_describe(path, key, files, texts.get(key)) for key, files in members.items())
    return ShardEntry(path.name, len(content), hashlib.sha256(content).hexdigest()), scenes


def rebuild_index(folder: PathName) -> ShardIndex:
    """Writes ``index.json`` for the shards that lie in a folder."""
    folder = Path(folder)
    names = sorted(path.name for path in folder.glob("*.tar") if SHARD_NAME.fullmatch(path.name))
    if not names:
        raise DataFormatError(folder, "holds no shards such as train-000000.tar; check the name")
    refuse_outside(folder, *(folder / name for name in names))
    parts = [index_shard(folder / name) for name in names]
    index = ShardIndex(tuple(shard for shard, _ in parts), tuple(scene for _, scenes in parts for scene in scenes))
    write_index(folder, index)
    return index


def write_index(folder: PathName, index: ShardIndex) -> None:
    """Writes ``index.json``."""
    keys = [scene.key for scene in index.scenes]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataFormatError(Path(folder), f"holds scene {twice} twice; remove one of its shards")
    content = {"format": FORMAT, "version": VERSION, "shards": [asdict(shard) for shard in index.shards]}
    content["scenes"] = [asdict(scene) for scene in index.scenes]
    with atomic_write(Path(folder) / INDEX_NAME) as temporary:
        temporary.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")


def read_index(folder: PathName) -> ShardIndex:
    """The index of a folder of shards.

    Raises:
        DataFormatError: there is none, or it is damaged.
    """
    path = Path(folder) / INDEX_NAME
    if not path.exists():
        raise DataFormatError(path, "is missing; give a folder of scene shards, or write it with rebuild_index(folder)")
    refuse_outside(Path(folder), path)
    record = Record.of(path, read_json(path))
    if record.values.get("format") != FORMAT or record.values.get("version") != VERSION:
        raise record.problem("format", f"only {FORMAT!r} version {VERSION} can be read; run rebuild_index(folder)")
    shards = tuple(_read_shard(Record.of(path, v, f"shards[{n}]")) for n, v in enumerate(record.items("shards")))
    names = {shard.name for shard in shards}
    scenes = tuple(_read_scene(Record.of(path, v, f"scenes[{n}]"), names) for n, v in enumerate(record.items("scenes")))
    require_file_names([scene.key for scene in scenes], path)
    return ShardIndex(shards, scenes)


def read_members(folder: Path, scene: SceneEntry) -> dict[str, bytes]:
    """The files of a scene by extension, in one read."""
    path = resolve_inside(folder, scene.shard, source=folder / INDEX_NAME)
    refuse_special(path)
    start = min(offset for offset, _ in scene.members.values())
    end = max(offset + size for offset, size in scene.members.values())
    try:
        with open(path, "rb", buffering=0) as file:
            if end > os.fstat(file.fileno()).st_size:  # before as much is allocated as the index asks for
                raise DataFormatError(path, f"ends within scene {scene.key}; copy or record the shard again")
            file.seek(start)
            content = file.read(end - start)
    except OSError as error:
        raise DataFormatError(path, f"cannot be read ({error.strerror}); copy or record the shard again") from error
    if len(content) != end - start:
        raise DataFormatError(path, f"ends within scene {scene.key}; copy or record the shard again")
    return {name: content[offset - start : offset - start + size] for name, (offset, size) in scene.members.items()}


def _describe(path: Path, key: str, members: dict[str, tuple[int, int]], text: bytes | None) -> SceneEntry:
    if text is None:
        raise DataFormatError(path, f"has no {key}.json; record the shard again")
    record = Record.of(Path(f"{path}/{key}.json"), parse_json(text.decode("utf-8", errors="replace"), path))
    split, world = record.text("split"), str(record.values.get("map", ""))
    return SceneEntry(key, path.name, world, split, record.integer("views"), members)


def _read_shard(record: Record) -> ShardEntry:
    return ShardEntry(record.text("name"), int(record.number("size")), record.text("sha256"))


def _read_scene(record: Record, shards: set[str]) -> SceneEntry:
    members = Record.of(record.source, record.values.get("members"), f"{record.where}.members")
    places: dict[str, tuple[int, int]] = {}
    for extension in members.values:
        numbers = members.items(extension)
        if len(numbers) != 2 or not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise members.problem(extension, "write [offset, size] in bytes; run rebuild_index(folder)")
        places[extension] = (numbers[0], numbers[1])
    ends = sorted((offset, offset + size) for offset, size in places.values())
    if any(start < end for (_, end), (start, _) in pairwise(ends)):  # each would be a copy of its own
        raise record.problem("members", "name each file once; run rebuild_index(folder)")
    if not places or record.text("shard") not in shards:
        raise record.problem("shard", "name a shard of the index and the files in it; run rebuild_index(folder)")
    return SceneEntry(
        record.text("key"),
        record.text("shard"),
        str(record.values.get("map", "")),
        record.text("split"),
        record.integer("views"),
        places,
    )
