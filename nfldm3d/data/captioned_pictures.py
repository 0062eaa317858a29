"""Pictures of single things before nothing, with captions: recorded objects, or a folder of pictures with a list.

Such a folder holds pictures with transparency and ``metadata.jsonl``, a JSON object a line with ``file_name`` and
``text``: the layout of Hugging Face's image folders.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeGuard

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from nfldm3d._types import PathName
from nfldm3d.data.image_files import open_picture
from nfldm3d.data.scene_dataset import SceneDataset
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.files import DataFormatError, parse_json, read_lines, resolve_inside

LIST_NAME = "metadata.jsonl"
MAX_BYTES = 256 * 2**20
"""Of a list."""
TEST_SHARE = 10
COLORS = {
    "red": (0.82, 0.11, 0.1),
    "orange": (0.95, 0.5, 0.08),
    "yellow": (0.95, 0.83, 0.12),
    "green": (0.13, 0.55, 0.18),
    "blue": (0.1, 0.25, 0.8),
    "purple": (0.48, 0.14, 0.62),
    "pink": (0.96, 0.55, 0.7),
    "brown": (0.42, 0.25, 0.12),
    "black": (0.1, 0.1, 0.1),
    "white": (0.97, 0.97, 0.97),
    "grey": (0.5, 0.5, 0.5),
}
"""English's basic colour terms (Berlin & Kay 1969), in sRGB."""
LUMINANCE = (0.2126, 0.7152, 0.0722)
UNSEEN_SHARE = 8
AMBIENT, DIFFUSE = 0.1, 0.9

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Subject:
    """Pictures of one thing."""

    caption: str
    """With an article, without the side."""
    pixels: UInt8[Tensor, "pictures 4 height width"]
    """Red, green and blue before white, and opacity."""
    sides: tuple[str, ...] = ()
    """From where each picture was taken, as front, side, back or overhead; empty if that is not known."""
    angles: Float[Tensor, "pictures 2"] | None = None
    """Azimuth and elevation of each picture's camera in degrees, from the front (+x) to the left (+y) and upwards."""
    relief: UInt8[Tensor, "pictures height width"] | None = None
    """The shape without its colours, as a lamp at the camera lights it, before black; None if it is not known."""

    def brightness(self) -> float:
        """The mean luminance of what is seen, 0 to 1."""
        plain = self.pixels.float() / 255
        covered = plain[:, 3].sum().clamp(min=1e-6)
        own = plain[:, :3] - (1 - plain[:, 3:])
        return float((own * own.new_tensor(LUMINANCE)[:, None, None]).sum() / covered)


def read_objects(
    folder: PathName,
    split: Split,
    *,
    maps: Sequence[str] = (),
    leave_out: Sequence[str] = (),
    with_relief: bool = False,
) -> list[Subject]:
    """The objects of a recording in shards (``nfldm3d capture objects --layout shards``).

    Args:
        maps: only those of these sources, such as ``furniture``.
        leave_out: words; objects whose captions hold one are left out.
        with_relief: looks at their normals, too.

    Raises:
        DataFormatError: the recording is damaged, or not of objects, or nothing is left.
    """
    data, found = SceneDataset(folder, split=split, maps=maps), list[Subject]()
    for number in range(len(data)):
        sample = data[number]
        caption, sides = sample.metadata.get("caption"), sample.metadata.get("view_names")
        if sample.alpha is None or not _is_caption(caption) or not _are_texts(sides):
            raise DataFormatError(data.folder, f"scene {sample.key} is no object with a caption; record objects")
        if set(caption.split()) & set(leave_out):
            continue
        relief = _light_shape(sample) if with_relief else None
        pixels, angles = torch.cat((sample.images, sample.alpha[:, None]), dim=1), _angles(sample.camera.centers)
        found.append(Subject(caption, pixels, tuple(sides), angles, relief))
    if not found:
        words = f" without the words {', '.join(leave_out)}" if leave_out else ""
        raise DataFormatError(data.folder, f"holds no objects for {split}{words}; record some, or leave less out")
    return found


def keep_common(subjects: Sequence[Subject], least: int, among: Sequence[Subject] | None = None) -> list[Subject]:
    """Those whose kind, the last word of their captions, has ``least`` shapes or more, there or in ``among``: few
    pictures of many kinds teach a small network none of them."""
    shapes = Counter(_kind(subject) for subject in (subjects if among is None else among))
    return [subject for subject in subjects if shapes[_kind(subject)] >= least]


def read_picture_folder(folder: PathName, split: Split, *, size: int = 64) -> list[Subject]:
    """Captioned pictures, scaled to ``size`` pixels; one in ten, by its caption, is for tests.

    Raises:
        DataFormatError: there is no list, or a line or a picture that it names is damaged.
    """
    root, found = Path(folder), list[Subject]()
    path = root / LIST_NAME
    if not path.is_file():
        raise DataFormatError(path, "is missing; give a folder of pictures with a list of their captions")
    for number, line in enumerate(read_lines(path, MAX_BYTES, "write one picture a line")):
        row = parse_json(line, f"{path}:{number + 1}")
        name, caption = (row.get(key) for key in ("file_name", "text")) if isinstance(row, dict) else (None, None)
        if not isinstance(name, str) or not _is_caption(caption):
            raise DataFormatError(path, f"line {number + 1} has no file_name and text; write both")
        if (_hash(caption, "split") % TEST_SHARE == 0) == (split == "test"):
            found.append(Subject(caption, _read_pixels(resolve_inside(root, name, source=path), size)[None]))
    return found


def _is_caption(value: object) -> TypeGuard[str]:
    """Whether it is a text that says something, in letters that can be written."""
    return (
        isinstance(value, str) and bool(value.strip()) and not any(0xD800 <= ord(letter) < 0xE000 for letter in value)
    )


def _are_texts(values: object) -> TypeGuard[list[str]]:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def write_picture_list(folder: Path, captions: dict[str, str]) -> None:
    """Writes the list of a folder: captions by the names of files."""
    lines = [json.dumps({"file_name": name, "text": text}, ensure_ascii=False) for name, text in captions.items()]
    (folder / LIST_NAME).write_text("\n".join(lines) + "\n", encoding="utf-8")


def is_unseen(color: str, caption: str) -> bool:
    """Whether a colour is never put on what is called so, to ask for it in tests."""
    return _hash(caption, color) % UNSEEN_SHARE == 0


def add_color(caption: str, color: str) -> str:
    """``a chair`` in red is ``a red chair``."""
    article, _, rest = caption.partition(" ")
    if article not in ("a", "an"):
        return f"{color} {caption}"
    return f"{'an' if color[0] in 'aeiou' else 'a'} {color} {rest}"


def recolor(
    pixels: Float[Tensor, "pictures 4 height width"], color: str, brightness: float
) -> Float[Tensor, "pictures 4 height width"]:
    """Pictures in one of ``COLORS``, as bright as before relative to ``brightness``; see ``Subject``."""
    opacity = pixels[:, 3:]
    own = pixels[:, :3] - (1 - opacity)
    luminance = (own * own.new_tensor(LUMINANCE)[:, None, None]).sum(1, keepdim=True) / max(brightness, 0.02)
    painted = torch.minimum(luminance * own.new_tensor(COLORS[color])[:, None, None], opacity)
    return torch.cat((painted + 1 - opacity, opacity), dim=1)


def bare_pixels(
    pixels: Float[Tensor, "pictures 4 height width"], relief: UInt8[Tensor, "pictures height width"]
) -> Float[Tensor, "pictures 4 height width"]:
    """Pictures without colours; see ``Subject``."""
    opacity = pixels[:, 3:]
    grey = (relief.float() / 255)[:, None].minimum(opacity)
    return torch.cat((grey.expand(-1, 3, -1, -1) + 1 - opacity, opacity), dim=1)


def lay_over(
    pixels: Float[Tensor, "pictures 4 height width"], background: Float[Tensor, "pictures 3"]
) -> Float[Tensor, "pictures 3 height width"]:
    """What is seen before plain colours instead of white."""
    return (pixels[:, :3] - (1 - pixels[:, 3:]) * (1 - background[..., None, None])).clamp(0, 1)


def _angles(centers: Float[Tensor, "views 3"]) -> Float[Tensor, "views 2"]:
    x, y, z = functional.normalize(centers.float(), dim=-1).unbind(-1)
    return torch.rad2deg(torch.stack((torch.atan2(y, x), z.clamp(-1, 1).asin()), dim=-1))


def _light_shape(sample: SceneSample) -> UInt8[Tensor, "views height width"]:
    """What ``rendering.shading`` calls textureless, from recorded normals."""
    if sample.normals is None:
        raise DataFormatError(sample.key, "has no normals, which bare shapes are drawn from; record it again")
    normals = functional.normalize(sample.normals.float() / 127.5 - 1, dim=-1)
    towards = functional.normalize(sample.camera.centers, dim=-1)[:, None, None]
    light = AMBIENT + DIFFUSE * (normals * towards).sum(-1).clamp(min=0)
    seen = (sample.normals > 0).any(-1)
    return (255 * torch.where(seen, light, 0.0)).round().byte()


def _read_pixels(path: Path, size: int) -> UInt8[Tensor, "4 size size"]:
    from PIL import Image

    with open_picture(path) as image:
        straight = np.asarray(image.convert("RGBA"), dtype=np.float32) / 255
    opacity = straight[..., 3:]
    before_white = np.concatenate((straight[..., :3] * opacity + 1 - opacity, opacity), axis=-1)
    layers = [Image.fromarray(before_white[..., k]).resize((size, size), Image.Resampling.BOX) for k in range(4)]
    scaled = np.stack([np.asarray(layer) for layer in layers])
    return torch.from_numpy((scaled * 255).round().clip(0, 255).astype(np.uint8))


def _kind(subject: Subject) -> str:
    return subject.caption.split()[-1]


def _hash(text: str, salt: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{salt} {text}".encode()).digest()[:8], "big")
