"""A folder like TORCS's with one small track and two cars, of a few triangles each."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

TRACK = "wheel-1"
"""A test track by its name, so that only two bodies are needed."""
HEADING, START, GRADE = 0.5, (100.0, 60.0, 12.0), 0.03
"""The road is straight: its direction in radians, one of its ends in metres, and its rise over a metre."""
LENGTH, HALF_WIDTH, VERGE = 240.0, 6.0, 20.0
KERB_WIDTH, WALL_SIDE, WALL_HEIGHT = 1.0, 10.0, 1.5
"""The kerb lies along the right edge, the wall stands on the left verge, 10 m from the middle."""
TREE_SIDE, TREE_STEP, TREE_SIZE = -9.0, 24.0, 4.0
"""Trees stand across the right verge, one every 24 metres."""
TOP_HEADER = 'AC3Db\nMATERIAL "" rgb 0.8 0.7 0.6 amb 1 1 1 emis 0 0 0 spec 0 0 0 shi 1 trans 0\n'


def place(along: float, left: float, up: float = 0.0) -> tuple[float, float, float]:
    """A point of the world beside the road."""
    cosine, sine = math.cos(HEADING), math.sin(HEADING)
    return (
        START[0] + along * cosine - left * sine,
        START[1] + along * sine + left * cosine,
        START[2] + GRADE * along + up,
    )


def to_file(point: tuple[float, ...]) -> str:
    """A point as AC3D has it, y up."""
    x, y, z = point
    return f"{x:.6f} {z:.6f} {-y:.6f}"


def polygons(name: str, texture: str | None, faces: list[list[tuple[float, ...]]], layer: str | None = None) -> str:
    """An object of quadrilaterals whose texture fills each once."""
    uv = ((0, 0), (1, 0), (1, 1), (0, 1))
    lines = ["OBJECT poly", f'name "{name}"']
    lines += [f'texture "{texture}" base'] if texture else []
    lines += [f'texture "{layer}" skids'] if layer else []
    points = [point for face in faces for point in face]
    lines += [f"numvert {len(points)}", *(to_file(point) for point in points), f"numsurf {len(faces)}"]
    for number in range(len(faces)):
        corners = [f"{4 * number + corner} {u} {v}" for corner, (u, v) in enumerate(uv)]
        lines += ["SURF 0x30", "mat 0", "refs 4", *corners]
    return "\n".join([*lines, "kids 0\n"])


def strip_of(name: str, texture: str, low: float, high: float, layer: str | None = None) -> str:
    """A part of the ground between two distances from the middle, in pieces of 12 metres."""
    cuts = np.arange(0, LENGTH + 1, 12.0).tolist()
    faces = [[place(a, low), place(b, low), place(b, high), place(a, high)] for a, b in pairwise(cuts)]
    return polygons(name, texture, faces, layer)


def stand(begin: tuple[float, float], end: tuple[float, float], height: float) -> list[tuple[float, ...]]:
    """An upright face on the line between two places beside the road."""
    return [place(*begin), place(*end), place(*end, height), place(*begin, height)]


def write_model(path: Path, objects: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{TOP_HEADER}OBJECT world\nkids {len(objects)}\n{''.join(objects)}", encoding="latin-1")
    return path


def paint(path: Path, color: tuple[int, int, int], *, hole: bool = False, line: bool = False) -> None:
    """A texture of one colour; a hole leaves its upper half out, a line is white along its lower edge."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((16, 16, 4), (*color, 255), np.uint8)
    if hole:
        pixels[:8, :, 3] = 0
    if line:
        pixels[12:] = 255
    Image.fromarray(pixels).save(path)


def write_track(root: Path, extra: list[str] | None = None) -> Path:
    """The track's model; ``extra`` objects are added."""
    folder = root / "tracks" / "road" / TRACK
    cuts = np.arange(0, LENGTH, 12.0).tolist()
    wall = [stand((a, WALL_SIDE), (a + 12, WALL_SIDE), WALL_HEIGHT) for a in cuts]
    steps, far = np.arange(6.0, LENGTH, TREE_STEP).tolist(), TREE_SIDE - TREE_SIZE
    trees = [stand((a, TREE_SIDE), (a, far), TREE_SIZE) for a in steps]
    objects = [
        strip_of("TKMN1", "asphalt.png", -HALF_WIDTH, HALF_WIDTH, "raceline.png"),
        strip_of("T1RB1", "curb.png", -HALF_WIDTH - KERB_WIDTH, -HALF_WIDTH),
        strip_of("TKRS1", "grass.png", -VERGE, -HALF_WIDTH - KERB_WIDTH),
        strip_of("TKLS1", "grass.png", HALF_WIDTH, VERGE),
        polygons("B0LT1", "tr-barrier.png", wall),
        polygons("TREEP1", "tree_n.png", trees),
        *(extra or []),
    ]
    colors = {"curb.png": (200, 40, 40), "grass.png": (60, 140, 50), "tr-barrier.png": (180, 170, 160)}
    for name, color in colors.items():
        paint(folder / name, color)
    paint(folder / "asphalt.png", (100, 100, 100), line=True)
    paint(root / "data" / "textures" / "tree_n.png", (20, 90, 30), hole=True)
    return write_model(folder / f"{TRACK}.acc", objects)


CAR_SIZE = (4.4, 1.8, 1.2)
"""Length, width and height without the clearance below it."""
CLEARANCE = 0.1


def write_car(root: Path, body: str) -> None:
    """A box on four wheels."""
    folder = root / "cars" / body
    x, y, z = CAR_SIZE[0] / 2, CAR_SIZE[1] / 2, CAR_SIZE[2]
    low, high = [(-x, -y), (x, -y), (x, y), (-x, y)], range(4)
    sides = [[(*low[i], 0.0), (*low[(i + 1) % 4], 0.0), (*low[(i + 1) % 4], z), (*low[i], z)] for i in high]
    write_model(folder / f"{body}.acc", [polygons("BODY", f"{body}.png", [*sides, [(*corner, z) for corner in low]])])
    paint(folder / f"{body}.png", (230, 20, 20))
    numbers = {
        "Front Axle": {"xpos": 1.3},
        "Rear Axle": {"xpos": -1.2},
        "Front Right Wheel": {
            **{"ypos": -0.75, "rim diameter": 16.0, "tire width": 200.0},
            **{"tire height-width ratio": 0.5, "ride height": 1000 * CLEARANCE},
        },
    }
    sections = ""
    for name, values in numbers.items():
        entries = "".join(f'<attnum name="{key}" val="{value}"/>' for key, value in values.items())
        sections += f'<section name="{name}">{entries}</section>'
    (folder / f"{body}.xml").write_text(f"<params>{sections}</params>")


def write_data(root: Path) -> Path:
    """The folder, with the track and the two bodies of test tracks."""
    write_track(root)
    for body in ("acura-nsx-sz", "p406"):
        write_car(root, body)
    return root
