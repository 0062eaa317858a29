"""The aircraft of FlightGear's traffic: AC3D models in the liveries of many airlines."""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

from nfldm3d.data.xml_files import read_xml
from nfldm3d.files import DataFormatError

PACKAGE = "flightgear-data-ai"
LICENCE = "GPL-2.0-or-later (FlightGear, https://www.flightgear.org)"
AIRCRAFT_FOLDER = Path("usr/share/games/flightgear/AI/Aircraft")
"""Below the root where the package is installed or unpacked."""
DEEPEST = 8
"""Descriptions include others, some themselves."""
MAX_BYTES = 2**24
"""Of a description."""
NOUNS = {
    "fighter plane": (
        r"A6M2|Buccaneer|F-1[58]|F-4|JA37|Jaguar|Lightning|MiG|Mirage|Polikarpov|Spitfire|T-38|bf109|eurofighter|f-14b|f16"
        r"|seahawk"
    ),
    "jet bomber": r"vulcan",
    "jet plane": r"SR-71",
    "space shuttle": r"SpaceShuttle",
    "hot air balloon": r"balloon",
    "ferry boat": r"Ferry",
    "glider": r"centrair",
    "business jet": r"BAe-125|Bombardier|Citation|Embraer-Legacy",
    "small propeller plane": (
        r"Arup|Beechcraft|beech|Cessna|Cub|DH82|DR400|Diamond|Dragonfly|Dromader|FK9|Fokker-S|G-164|c1[78]|c310|cri-cri"
        r"|ercoupe|flash2a|pa-28|DH[34]$|DHT"
    ),
    "flying saucer": r"bluebird",
    "propeller airliner": r"AT[47]|DH7|SF3|Saab|JS41|Fokker-50|b1900|E-2C",
}
"""What airframes are called, by how the names of their folders begin; all others are airliners."""

Plane = tuple[str, str, str, Path, tuple[Path, ...], str]
"""Airframe, livery, noun, model, folders with textures, author."""


def list_aircraft(folder: Path) -> list[Plane]:
    """All pairs of an airframe and a livery.

    Raises:
        ValueError: the folder does not hold the package's data; the message says how to get it.
    """
    root = next((place for place in (folder / AIRCRAFT_FOLDER, folder) if place.name == "Aircraft"), None)
    if root is None or not root.is_dir():
        raise ValueError(
            f"{folder} does not hold FlightGear's aircraft: install the package (sudo apt install {PACKAGE}), or "
            f"unpack it (apt download {PACKAGE}; dpkg-deb -x {PACKAGE}_*.deb FOLDER) and give FOLDER"
        )
    found: dict[tuple[Path, tuple[Path, ...]], Plane] = {}
    for frame in sorted(path for path in root.iterdir() if path.is_dir()):
        for description in sorted(frame.rglob("*.xml")):
            plane = _read_plane(description, frame, root)
            if plane is not None:
                found.setdefault(plane[3:5], plane)
    painted = {plane[3] for plane in found.values() if plane[4]}
    return [plane for plane in found.values() if plane[4] or plane[3] not in painted]


def name_airframe(name: str) -> str:
    """What people call such a thing."""
    return next((noun for noun, pattern in NOUNS.items() if re.match(pattern, name)), "airliner")


def _read_plane(description: Path, frame: Path, root: Path) -> Plane | None:
    """The aircraft that an XML file describes; None if it is none: parts, lights, sounds."""
    model = texture = author = None
    for place, tree in _includes(description, root):
        values = {name: tree.findtext(name, "").strip() for name in ("path", "texture-path", "author")}
        if model is None and values["path"].lower().endswith(".ac"):
            model = _resolve(values["path"], place.parent, root)
        if texture is None and values["texture-path"]:
            texture = _resolve(values["texture-path"], place.parent, root)
        author = author or values["author"]
    inside = {part.lower() for part in description.relative_to(frame).parts[:-1]}
    if model is None or not inside <= {"models"}:
        return None
    livery = description.stem.removeprefix(frame.name).strip("-_") or "plain"
    textures = () if texture is None else (texture,)
    return frame.name, livery, name_airframe(frame.name), model, textures, author or "unknown"


def _includes(description: Path, root: Path) -> Iterator[tuple[Path, Element]]:
    """A description and those that it includes, its own first."""
    seen: list[Path] = []
    while description not in seen and len(seen) < DEEPEST:
        seen.append(description)
        try:
            tree = read_xml(description, MAX_BYTES, "unpack the data again")
        except DataFormatError:
            return  # some are no XML; FlightGear leaves them out, too
        yield description, tree
        if "include" not in tree.attrib:
            return
        included = _resolve(tree.attrib["include"], description.parent, root)
        if included is None:
            return
        description = included


def _resolve(name: str, folder: Path, root: Path) -> Path | None:
    """A file or folder by its name relative to a description, or to the folder above AI."""
    parts = PurePosixPath(name).parts
    if ".." in parts or name.startswith("/"):
        return None
    places = (folder.joinpath(*parts), root.parents[1].joinpath(*parts))
    return next((place for place in places if os.path.exists(place)), None)
