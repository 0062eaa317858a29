"""AC3D models: what is read, in which axes, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from nfldm3d.files import DataFormatError
from nfldm3d.recording.ac3d import read_ac3d

HEAD = 'AC3Db\nMATERIAL "" rgb 0.2 0.4 0.6 amb 1 1 1 emis 0 0 0 spec 0 0 0 shi 1 trans 0\n'
SQUARE = """OBJECT poly
name "ground"
texture "grass.rgb" base
texture empty_texture_no_mapping tiled
texture "shadow.rgb" skids
numvert 4
0 0 0
2 0 0
2 0 -3
0 0 -3
numsurf 1
SURF 0x30
mat 0
refs 4
0 0 0
1 1 0
2 1 1
3 0 1
kids 0
"""


def read(tmp_path: Path, text: str):
    path = tmp_path / "model.ac"
    path.write_text(text)
    return read_ac3d(path)


def area(corners: np.ndarray) -> float:
    return float(
        np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum() / 2
    )


def test_a_polygon_lies_level_with_z_up(tmp_path: Path):
    (part,) = read(tmp_path, HEAD + SQUARE)
    assert (part.name, part.textures, part.texture) == ("ground", ("grass.rgb", "shadow.rgb"), "grass.rgb")
    assert part.color == (0.2, 0.4, 0.6) and part.triangles.shape == (2, 3)
    assert np.allclose(part.positions, [(0, 0, 0), (2, 0, 0), (2, 3, 0), (0, 3, 0)])
    assert np.allclose(part.normals, (0, 0, 1)) and np.allclose(part.uv, [(0, 0), (1, 0), (1, 1), (0, 1)])
    assert np.isclose(area(part.corners()), 6.0)


def test_objects_stand_where_those_above_them_do(tmp_path: Path):
    quarter = "rot 0 0 -1 0 1 0 1 0 0\n"  # the columns of a turn about y, row by row
    child = SQUARE.replace("numvert", f"loc 0 0 5\n{quarter}numvert")
    (part,) = read(tmp_path, f"{HEAD}OBJECT world\nloc 10 1 0\nkids 1\n{child}")
    middle, spread = part.positions.mean(0), np.ptp(part.positions, axis=0)
    assert np.allclose(spread, (3, 2, 0)) and np.isclose(part.positions[0] @ (1, 0, 0), 10)
    assert np.allclose(part.positions[0], (10, -5, 1)) and not np.allclose(middle, part.positions[0])
    assert np.isclose(area(part.corners()), 6.0)


def test_strips_give_the_same_surface_as_polygons_with_normals_of_the_file(tmp_path: Path):
    strip = SQUARE.replace("0x30", "0x34").replace("2 1 1\n3 0 1", "3 0 1\n2 1 1")
    for corner in ("0 0 0", "2 0 0", "2 0 -3", "0 0 -3"):
        strip = strip.replace(f"\n{corner}\n", f"\n{corner} 0 0.6 0.8\n", 1)
    (part,) = read(tmp_path, HEAD + strip)
    (plain,) = read(tmp_path, HEAD + SQUARE)
    assert np.isclose(area(part.corners()), area(plain.corners()))
    assert np.allclose(part.normals, (0, -0.8, 0.6))
    turned = np.cross(*(part.corners()[:, k] - part.corners()[:, 0] for k in (1, 2)))[:, 2]
    assert (turned > 0).all()  # both triangles turn the same way


def test_lines_and_empty_triangles_are_left_out(tmp_path: Path):
    assert read(tmp_path, HEAD + SQUARE.replace("0x30", "0x32")) == []
    doubled = SQUARE.replace("0x30", "0x34").replace("refs 4\n0 0 0", "refs 5\n0 0 0\n0 0 0")
    assert len(read(tmp_path, HEAD + doubled)[0].triangles) == 2


def test_objects_that_were_announced_may_be_missing_at_the_end(tmp_path: Path):
    assert len(read(tmp_path, f"{HEAD}OBJECT world\nkids 7\n{SQUARE}{SQUARE}")) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("solid cube", "does not begin with AC3D"),
        (HEAD + SQUARE.replace("2 0 -3\n", "2 0\n", 1), "line 12: 4 lines of equally many numbers were announced"),
        (HEAD + SQUARE.replace("3 0 1", "4 0 1"), "refers to a vertex beyond 4"),
        (HEAD + SQUARE.replace("2 0 0\n", "2 zero 0\n", 1), "could not convert string to float"),
        (HEAD + SQUARE.replace("kids 0\n", ""), "the object 'ground' has no end"),
        (HEAD + SQUARE.replace("2 0 0\n", "2 1e300 0\n", 1), "a number is infinite, none, or beyond 1e\\+09"),
        (HEAD + SQUARE.replace("numvert", "loc nan 0 0\nnumvert"), "a number is infinite, none"),
        (HEAD.replace("0.2", "nan") + SQUARE, "a number is infinite, none"),
        (HEAD + SQUARE.replace("numvert 4", "numvert -4"), "-4 lines were announced"),
        (HEAD + "OBJECT group\nkids 1\n" * 9999, "recursion"),
        (f"{HEAD}OBJECT world\nkids 1\nloc 0 0 0\n{SQUARE}", "1 objects were announced within ''"),
    ],
)
def test_damaged_models_are_refused(tmp_path: Path, text: str, message: str):
    with pytest.raises(DataFormatError, match=message):
        read(tmp_path, text)


def test_a_missing_model_is_named(tmp_path: Path):
    with pytest.raises(DataFormatError, match="nowhere.acc: cannot be read"):
        read_ac3d(tmp_path / "nowhere.acc")
