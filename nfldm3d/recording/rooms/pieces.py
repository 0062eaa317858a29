"""What stands in a room: the furniture of Sweet Home 3D by what it is for, and how many of it each kind of room has."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from nfldm3d.files import DataFormatError
from nfldm3d.recording.furniture import Furniture, read_furniture
from nfldm3d.recording.meshes import Mesh

CLASS_NAMES = (
    *("void", "floor", "wall", "ceiling", "opening", "seat", "table"),
    *("bed", "storage", "lamp", "plant", "fixture", "thing"),
)
"""Of bird's-eye maps and of pixels. Openings are doors and windows, fixtures are of kitchens and bathrooms."""
VOID, FLOOR, WALL, CEILING, OPENING, SEAT, TABLE, BED, STORAGE, LAMP, PLANT, FIXTURE, THING = range(len(CLASS_NAMES))
PALETTE = (
    *((0, 0, 0), (170, 140, 105), (225, 220, 210), (250, 250, 250), (120, 180, 230), (200, 60, 60), (220, 150, 50)),
    *((150, 80, 190), (120, 80, 50), (250, 230, 80), (50, 150, 60), (90, 160, 170), (130, 130, 130)),
)
ROOMS = ("bedroom", "living room", "kitchen", "office", "bathroom")
MOST_TRIANGLES = 60_000
"""Of a piece: more take longer to draw than they are seen."""
TEST_SHARE = 6
"""One in so many pieces of each role is for test rooms alone, at least one."""
LARGEST = (2.4, 2.6, 2.35)
"""Metres: depth, width and height of what fits."""


@dataclass(frozen=True)
class Role:
    """What furniture is for."""

    kind: int
    names: str
    """A pattern of its name in the catalogue."""
    rooms: tuple[str, ...]
    place: Literal["wall", "free", "around", "hung"]
    """Against a wall, anywhere, at the sides of what stands free, or in a wall."""
    count: tuple[int, int]
    """Fewest and most in a room."""


ROLES = (
    Role(OPENING, r"\bdoor\b", ROOMS, "hung", (1, 1)),
    Role(OPENING, r"window", ROOMS, "hung", (1, 2)),
    Role(BED, r"\bbed\b|futon", ("bedroom",), "wall", (1, 1)),
    Role(TABLE, r"bedside|night ?stand", ("bedroom",), "wall", (1, 2)),
    Role(STORAGE, r"wardrobe|dresser|chest\b|drawers", ("bedroom",), "wall", (1, 2)),
    Role(SEAT, r"sofa|couch", ("living room",), "wall", (1, 2)),
    Role(TABLE, r"coffee table|living room table", ("living room",), "free", (1, 1)),
    Role(SEAT, r"armchair", ("living room", "office"), "wall", (1, 2)),
    Role(STORAGE, r"tv (stand|cabinet|unit)|television (stand|cabinet)|piano", ("living room",), "wall", (0, 1)),
    Role(STORAGE, r"bookcase|shelves|shelf", ("living room", "office", "bedroom"), "wall", (0, 2)),
    Role(TABLE, r"(?<!coffee )(?<!bedside )(?<!tennis )\btable$", ("kitchen",), "free", (1, 1)),
    Role(SEAT, r"\bchair$|stool", ("kitchen",), "around", (2, 4)),
    Role(TABLE, r"desk$|office table", ("office",), "wall", (1, 2)),
    Role(SEAT, r"office chair|\bchair$", ("office", "bedroom"), "free", (1, 2)),
    Role(FIXTURE, r"fridge|refrigerator|oven|cooker|stove|dishwasher|washing", ("kitchen",), "wall", (2, 3)),
    Role(FIXTURE, r"sink|lower cabinet|kitchen cabinet", ("kitchen",), "wall", (1, 3)),
    Role(FIXTURE, r"\bbath$|bathtub|shower", ("bathroom",), "wall", (1, 1)),
    Role(FIXTURE, r"toilets? unit|washbasin|bidet|vanity|basin|toilet$", ("bathroom",), "wall", (2, 3)),
    Role(FIXTURE, r"washing machine|radiator|towel rail", ("bathroom",), "wall", (0, 1)),
    Role(LAMP, r"lamp", ("living room", "bedroom", "office"), "wall", (0, 1)),
    Role(PLANT, r"plant|ficus|bamboo|yucca|cactus|palm", ROOMS, "wall", (0, 1)),
    Role(THING, r"guitar|bike|speaker|globe|dustbin|basket|box|suitcase|fan", ROOMS, "wall", (0, 1)),
)


def sort_pieces(furniture: Sequence[Furniture], split: str) -> list[list[Furniture]]:
    """The pieces of each role that are for rooms of a split: ``train`` and ``test`` share none, in whatever role."""
    fitting = [sorted((piece for piece in furniture if _fits(piece, role)), key=_order) for role in ROLES]
    held = {piece for pieces in fitting if len(pieces) > 1 for piece in pieces[: -(-len(pieces) // TEST_SHARE)]}
    return [[piece for piece in pieces if (piece in held) == (split == "test")] for pieces in fitting]


@lru_cache(maxsize=200)
def read_piece(piece: Furniture) -> Mesh | None:
    """Its mesh; None if it cannot be drawn, or not fast."""
    try:
        mesh = read_furniture(piece)
    except DataFormatError:
        return None
    return mesh if mesh.count_triangles() <= MOST_TRIANGLES else None


def _fits(piece: Furniture, role: Role) -> bool:
    if piece.category in ("Exterior", "Vehicles", "Characters", "Staircases"):
        return False
    is_opening = piece.category == "Doors and windows"
    size = (piece.depth, piece.width, piece.height)
    if is_opening != (role.kind == OPENING) or any(a > b for a, b in zip(size, LARGEST, strict=True)):
        return False
    stands = piece.elevation < 0.02 and piece.height > 0.25
    return (is_opening or stands) and re.search(role.names, piece.name.lower()) is not None


def _order(piece: Furniture) -> bytes:
    return hashlib.sha256(f"{piece.archive.name}/{piece.model}".encode()).digest()
