"""Every kind of file that is read: how a whole one is made, which of its files are changed, and who reads them."""

import random
from pathlib import Path

from campaign import (
    picture_readers,
    prior_readers,
    recorder_readers,
    scene_readers,
    small_readers,
    training_readers,
)
from campaign.formats import Format

FORMATS = (
    scene_readers.FORMATS
    | training_readers.FORMATS
    | small_readers.FORMATS
    | recorder_readers.FORMATS
    | prior_readers.FORMATS
    | picture_readers.FORMATS
)


def files_of(folder: Path, format: Format) -> list[Path]:
    """The files of a whole one that are changed."""
    found = {path for pattern in format.changed for path in folder.glob(pattern) if path.is_file()}
    return sorted(path for path in found if path.name == ".nfldm3d.json" or not path.name.startswith(".nfldm3d"))


def mutate(folder: Path, format: Format, rng: random.Random) -> str:
    """Changes one file of a copy, sometimes what kind of thing it is; returns what was done, in words."""
    from campaign.mutations import mutator_of

    path = rng.choice(files_of(folder, format))
    name = path.relative_to(folder).as_posix()
    if rng.random() < 0.02:
        path.unlink()
        match rng.randrange(4):
            case 0:
                path.symlink_to("/dev/zero")
            case 1 if not format.linked:
                path.symlink_to(folder.parent / "outside" / "secret")
            case 2:
                path.mkdir()
        return f"{name}: gone, a link or a folder"
    path.write_bytes(mutator_of(path.name)(path.read_bytes(), rng))
    if format.sign is not None and rng.random() < 0.8:
        try:
            format.sign(folder)
        except Exception:  # the file is too far gone to be signed
            return f"{name}, unsigned"
    return name
