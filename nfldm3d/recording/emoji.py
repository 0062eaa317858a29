"""Emoji that look like renders of things, as captioned pictures: npm's fluent-emoji-3d with the names of emojibase."""

from pathlib import Path

from nfldm3d._types import PathName
from nfldm3d.data.captioned_pictures import write_picture_list
from nfldm3d.data.image_files import open_picture
from nfldm3d.files import DataFormatError, read_json
from nfldm3d.recording.objects.sources import describe
from nfldm3d.written_files import atomic_folder

PICTURES, NAMES = "@lobehub/fluent-emoji-3d", "emojibase-data"
HOW_TO_GET = f"npm pack {PICTURES} {NAMES}, unpack both and give their folders"
THINGS = (3, 4, 5, 6, 7)
"""Emojibase's groups of animals and plants, food, places and vehicles, sports, and objects: no faces, no symbols."""


def record_emoji(folder: PathName, pictures: PathName, names: PathName, *, size: int = 64) -> int:
    """Writes pictures of ``size`` pixels and the list of their captions into a new folder; returns how many.

    Args:
        pictures: the unpacked package with ``assets/*.webp``.
        names: the unpacked package with ``en/data.json``.

    Raises:
        ValueError: a folder is not that package; the message says how to get it.
    """
    assets, data = Path(pictures) / "assets", Path(names) / "en" / "data.json"
    if not assets.is_dir() or not data.is_file():
        missing = data if assets.is_dir() else assets
        raise ValueError(f"{missing} is missing: {HOW_TO_GET}")
    found = _list_things(data, assets)
    if not found:
        raise DataFormatError(data, f"names none of the pictures in {assets}: {HOW_TO_GET}")
    with atomic_folder(folder) as temporary:
        for path in found:
            _write_picture(path, temporary / f"{path.stem}.png", size)
        write_picture_list(temporary, {f"{path.stem}.png": caption for path, caption in found.items()})
    return len(found)


def _list_things(data: Path, assets: Path) -> dict[Path, str]:
    """Pictures with their captions."""
    by_code = {path.stem.lower().replace("-fe0f", ""): path for path in sorted(assets.glob("*.webp"))}
    rows, found = read_json(data), dict[Path, str]()
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, dict) or row.get("group") not in THINGS:
            continue
        path = by_code.get(str(row.get("hexcode", "")).lower().replace("-fe0f", ""))
        if path is not None and isinstance(row.get("label"), str):
            found[path] = describe(row["label"])
    return found


def _write_picture(source: Path, target: Path, size: int) -> None:
    from PIL import Image

    with open_picture(source) as image:
        scaled = image.convert("RGBA").resize((size, size), Image.Resampling.BOX)
    scaled.save(target)
