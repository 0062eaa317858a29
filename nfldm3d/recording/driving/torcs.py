"""The files of TORCS, the open racing car simulator: where its tracks and cars lie, and what may be learnt from."""

from dataclasses import dataclass
from pathlib import Path

from nfldm3d.files import DataFormatError

PACKAGE_FOLDER = Path("/usr/share/games/torcs")
"""Where Debian's and Ubuntu's package ``torcs-data`` puts it."""
SHOWN = 8
"""Names of what is missing that an error lists."""
VERSION = "1.3.7"
TEST_TRACKS = ("e-track-6", "g-track-1", "ole-road-1", "wheel-1")
"""Never trained on."""
TRAINING_TRACKS = (
    *("aalborg", "alpine-1", "alpine-2", "brondehach", "corkscrew", "e-track-1", "e-track-2", "e-track-3", "e-track-4"),
    *("eroad", "forza", "g-track-2", "g-track-3", "ruudskogen", "spring", "street-1", "wheel-2"),
)
TRACKS = tuple(sorted(TEST_TRACKS + TRAINING_TRACKS))
TEST_BODIES = ("acura-nsx-sz", "p406")
"""Cars on test tracks, never seen on others."""
TRAINING_BODIES = (
    *("155-DTM", "baja-bug", "car1-stock1", "car1-stock2", "car1-trb1", "car1-trb3", "car2-trb1", "car3-trb1"),
    *("car4-trb1", "car5-trb1", "car6-trb1", "car7-trb1", "car8-trb1"),
)
"""All others with a roof and covered wheels."""
LICENCE = (
    f"torcs-data {VERSION} (http://torcs.sourceforge.net), copyright Eric Espié, Christophe Guionneau, Bernhard "
    "Wymann, Charalampos Alexopoulos, Torben Thellefsen, Andrew Sumner and others; Free Art License 1.3 and "
    "GPL-2.0-or-later"
)


@dataclass(frozen=True)
class TorcsData:
    """A folder with TORCS's tracks and cars."""

    root: Path

    @classmethod
    def find(cls, folder: Path | None = None) -> "TorcsData":
        """The data in ``folder``, or in an unpacked package there; by default the installed package.

        Raises:
            ValueError: there is none, or it is of a version without the tracks and cars that we know.
        """
        start = PACKAGE_FOLDER if folder is None else folder
        roots = (start, start / PACKAGE_FOLDER.relative_to("/"), start / "torcs")
        root = next((root for root in roots if (root / "tracks" / "road").is_dir()), None)
        if root is None:
            raise ValueError(
                f"{start} does not hold the data of TORCS: install their package (sudo apt install torcs-data), or "
                "unpack it (apt download torcs-data; dpkg-deb -x torcs-data_*.deb FOLDER) and give --data FOLDER"
            )
        data = cls(root)
        lacking = [name for name in TRACKS if not data.track_model(name).is_file()]
        lacking += [name for name in TRAINING_BODIES + TEST_BODIES if not data.car_model(name).is_file()]
        if lacking:
            shown = ", ".join(lacking[:SHOWN]) + (f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else "")
            raise DataFormatError(
                root, f"lacks {shown}: it is not torcs-data {VERSION}; install or unpack that version"
            )
        return data

    def track_model(self, name: str) -> Path:
        """The AC3D model of a track."""
        return self.root / "tracks" / "road" / name / f"{name}.acc"

    def car_model(self, body: str) -> Path:
        """The AC3D model of a car without wheels."""
        return self.root / "cars" / body / f"{body}.acc"

    def car_description(self, body: str) -> Path:
        """The XML file that says where a car's wheels are."""
        return self.root / "cars" / body / f"{body}.xml"

    def texture_folders(self, model: Path) -> tuple[Path, ...]:
        """Where the textures of a model are looked for, in this order."""
        return model.parent, self.root / "data" / "textures"


def split_of(track: str) -> str:
    """Whether a track is for training or for tests."""
    return "test" if track in TEST_TRACKS else "train"


def bodies_of(track: str) -> tuple[str, ...]:
    """The cars that may stand on a track."""
    return TEST_BODIES if track in TEST_TRACKS else TRAINING_BODIES
