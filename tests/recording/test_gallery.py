"""Batches of pictures: where things are, how their edges mix, what is seen through glass."""

import numpy as np
import pytest

from nfldm3d.recording.gallery import Gallery, Lens, Light
from nfldm3d.recording.meshes import Mesh, Patch, join_meshes, round_normals

pytest.importorskip("panda3d.core")

EVEN = Light((0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
LENS = Lens(90.0, 0.1, 20.0)


def square(height: float, low: tuple[float, float], high: tuple[float, float], color=(200, 100, 50, 255)) -> Mesh:
    (x, y), (u, v) = low, high
    corners = np.array(((x, y, height), (u, y, height), (u, v, height), (x, v, height)))
    return Mesh((Patch.of(corners, np.array(((0, 1, 2), (0, 2, 3))), color=color),))


def above(x: float, y: float, height: float) -> np.ndarray:
    """A camera that looks down, y up in its picture."""
    pose = np.eye(4)
    pose[:3, 3] = (x, y, height)
    return pose


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    try:
        return Gallery(12, 5)
    except OSError as error:
        pytest.skip(str(error))


def test_every_tile_holds_its_own_view_in_its_own_place(gallery: Gallery):
    gallery.show([(square(1.0, (0, 0), (50, 50)), 3), (square(0.0, (-50, -50), (50, 50)), 7)], EVEN)
    heights = [2.0, 3.0, 4.5, 5.0, 6.0, 7.0, 9.0]  # more than the gallery has tiles
    drawn = gallery.draw(np.stack([above(0, 0, height) for height in heights]), LENS)
    assert drawn.colors.shape == (7, 12, 12, 4) and drawn.normals.shape == (7, 12, 12, 3)
    assert (drawn.labels[:, :6, 6:] == 3).all() and (drawn.labels[:, 6:] == 7).all() and drawn.mask.all()
    assert np.allclose(drawn.depth[:, 2, 9], np.array(heights) - 1, atol=1e-3)
    assert np.allclose(drawn.depth[:, 9, 9], heights, atol=1e-3)
    assert np.abs(drawn.normals.astype(int) - (128, 128, 255)).max() <= 1
    assert np.abs(drawn.colors[..., :3].astype(int) - (200, 100, 50)).max() <= 1


def test_edges_are_covered_in_part_and_keep_their_colour(gallery: Gallery):
    gallery.show([(square(0.0, (-1, -1), (0.04, 9)), 1)], EVEN)  # pixels are 1/9 wide, column 6 begins at 0
    drawn = gallery.draw(above(0, 0, 2 / 3)[None], LENS)
    assert drawn.colors[0, 2, :, 3].tolist() == 6 * [255] + [85] + 5 * [0]
    assert (drawn.depth[0, 2, 6:] == 0).all() and (drawn.depth[0, 2, :6] > 0).all()
    seen = drawn.colors[..., 3] > 0
    assert np.abs(drawn.colors[seen][:, :3].astype(int) - (200, 100, 50)).max() <= 1


def test_glass_mixes_with_what_is_behind_and_depth_goes_through(gallery: Gallery):
    glass = square(1.0, (-9, -9), (9, 9), (0, 0, 255, 85))
    gallery.show([(glass, 1), (square(0.0, (-9, -9), (9, 9), (255, 0, 0, 255)), 2)], EVEN)
    drawn = gallery.draw(above(0, 0, 3.0)[None], LENS)
    assert np.abs(drawn.colors.astype(int) - (170, 0, 85, 255)).max() <= 1
    assert np.allclose(drawn.depth, 3.0, atol=1e-3) and (drawn.labels == 2).all()
    gallery.show([(glass, 1)], EVEN)
    alone = gallery.draw(above(0, 0, 3.0)[None], LENS)
    assert np.abs(alone.colors.astype(int) - (0, 0, 255, 85)).max() <= 1 and not alone.mask.any()


def test_light_falls_by_the_cosine_and_backs_are_lit_from_their_side(gallery: Gallery):
    slanted = Light((0.0, 0.6, 0.8, 0.0), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    gallery.show([(square(0.0, (-9, -9), (9, 9), (255, 255, 255, 255)), 1)], slanted)
    below = np.diag((1.0, -1.0, -1.0, 1.0))
    below[2, 3] = -2.0
    drawn = gallery.draw(np.stack((above(0, 0, 2.0), below)), LENS)
    assert np.abs(drawn.colors[0, ..., 0].astype(int) - 204).max() <= 1 and (drawn.colors[1, ..., :3] == 0).all()
    assert (drawn.normals[1, ..., 2] == 0).all()


def test_an_orthographic_lens_sees_metres(gallery: Gallery):
    gallery.show([(square(1.0, (0, 0), (2, 3)), 4)], EVEN)
    drawn = gallery.draw(above(0, 0, 5.0)[None], Lens(0.0, 0.0, 8.0, width=12.0))
    assert (drawn.labels[0, 3:6, 6:8] == 4).all() and drawn.mask.sum() == 6
    assert np.allclose(drawn.depth[drawn.mask], 4.0, atol=1e-4)


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="supersampling must be odd"):
        Gallery(8, 1, supersampling=2)


def test_normals_are_round_on_a_ball_and_flat_on_a_box():
    trimesh = pytest.importorskip("trimesh")
    ball = trimesh.creation.icosphere(3)
    corners = ball.vertices[ball.faces.ravel()]
    assert (np.linalg.norm(round_normals(corners) - corners, axis=1)).max() < 0.05
    box = trimesh.creation.box((1, 2, 3))
    flat = round_normals(box.vertices[box.faces.ravel()])
    assert np.allclose(flat, np.repeat(box.face_normals, 3, axis=0), atol=1e-9)


def test_signatures_tell_shapes_and_nothing_else():
    trimesh = pytest.importorskip("trimesh")

    def mesh(shape, color=(9, 9, 9, 255)) -> Mesh:
        return Mesh((Patch.of(shape.vertices, shape.faces, color=color),))

    ball = mesh(trimesh.creation.icosphere(2))
    stretched = ball.moved(np.diag((2.0, 5.0, 0.5, 1.0)))
    turned = Mesh((Patch.of(ball.patches[0].positions, ball.patches[0].triangles[::-1], color=(1, 2, 3, 255)),))
    assert ball.signature() == stretched.signature() == turned.signature()
    assert ball.signature() != mesh(trimesh.creation.icosphere(3)).signature()
    joined = join_meshes([ball, stretched])
    assert len(joined.patches) == 1 and joined.count_triangles() == 2 * ball.count_triangles()
    normals = stretched.patches[0].normals
    assert np.allclose(np.linalg.norm(normals, axis=1), 1)
