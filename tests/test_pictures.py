"""Pictures on disk, depth in colours, and sheets."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nfldm3d.pictures import CELL_WIDTH, color_depth, contact_sheet, save_contact_sheet, save_image, to_bytes


def test_every_byte_survives_a_png(tmp_path: Path) -> None:
    levels = torch.arange(3 * 16 * 32).remainder(256).reshape(3, 16, 32)
    save_image(levels / 255, tmp_path / "new" / "a.png")
    with Image.open(tmp_path / "new" / "a.png") as image:
        read = np.array(image)
    assert (torch.from_numpy(read).permute(2, 0, 1) == levels).all()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_out_of_range_colours_are_clamped_and_rounded() -> None:
    image = torch.tensor([-1.0, 0.5, 2.0]).reshape(3, 1, 1)
    assert to_bytes(image).tolist() == [[[0, 128, 255]]]
    assert to_bytes(image.expand(2, 4, 3, 5, 6).requires_grad_()).shape == (2, 4, 5, 6, 3)


def test_lossy_formats_and_unknown_ones(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.webp", "A.PNG"):
        save_image(torch.full((3, 9, 16), 0.5), tmp_path / name)
        with Image.open(tmp_path / name) as image:
            assert image.size == (16, 9)
    with pytest.raises(ValueError, match=r"unknown suffix '\.bmp'; choose \.png"):
        save_image(torch.zeros(3, 2, 2), tmp_path / "a.bmp")


def test_depth_runs_from_blue_to_red_and_unknown_is_black() -> None:
    depth = torch.tensor([[0.0, 1.0, 1.3, 2.0, 3.0]])
    color = color_depth(depth)
    assert color.shape == (3, 1, 5)
    assert (color[:, 0, 0] == 0).all()
    red, _, blue = color[:, 0].unbind(0)
    assert blue[2] > 3 * red[2] and red[4] > 3 * blue[4]
    assert torch.allclose(color_depth(depth, near=1.0, far=3.0), color)
    assert torch.allclose(color_depth(depth[None], near=3.0, far=5.0)[0, :, 0, 4], color[:, 0, 1])


def test_depth_without_anything_known_is_black() -> None:
    assert (color_depth(torch.zeros(2, 4, 5)) == 0).all()


def test_a_constant_depth_is_finite() -> None:
    assert torch.isfinite(color_depth(torch.full((4, 5), 2.0))).all()


def test_a_sheet_shows_every_picture(tmp_path: Path) -> None:
    red, blue = (torch.eye(3)[index][:, None, None].expand(3, 12, 20) for index in (0, 2))
    sheet = contact_sheet({"photograph": torch.stack([red, red, red]), "render": blue[None]})
    pixels = sheet.flatten(1).T
    assert ((pixels - torch.eye(3)[0]).abs().amax(-1) < 1e-6).sum() == 3 * 12 * 20
    assert ((pixels - torch.eye(3)[2]).abs().amax(-1) < 1e-6).sum() == 12 * 20
    assert (pixels.amax(-1) < 0.5).any(), "labels are dark"
    save_contact_sheet({"only": red[None]}, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").is_file()


def test_wide_pictures_are_scaled_down_on_a_sheet() -> None:
    assert contact_sheet({"wide": torch.ones(1, 3, 100, 2000)}).shape[-1] < CELL_WIDTH + 20


@pytest.mark.parametrize("rows", [{}, {"empty": torch.zeros(0, 3, 4, 4)}])
def test_an_empty_sheet_is_refused(rows: dict) -> None:
    with pytest.raises(ValueError, match="pictures in every row"):
        contact_sheet(rows)
