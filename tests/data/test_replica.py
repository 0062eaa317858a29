"""Replica rooms in NICE-SLAM's layout, written by the test: 8x6 pixels a view."""

import json
import re
from pathlib import Path

import pytest
import torch
from small_captures import POSES, picture
from small_replicas import LENS, SCALE, TARGET, write_room

from nfldm3d.data import read_posed_images, read_replica
from nfldm3d.files import DataFormatError


def test_a_known_point_lands_on_its_pixel_at_its_depth(tmp_path: Path):
    views = read_replica(write_room(tmp_path / "office0"))
    pixels, depth = views.camera.project(TARGET.float().expand(4, 1, 3))
    images, metres = views.load_images(), views.load_depth()
    assert metres is not None and len(views) == 4 and views.metric
    for number in range(4):
        column, row = (int(value) for value in pixels[number, 0].floor())
        assert images[number, :, row, column].min() > 0.8
        assert metres[number, row, column] == pytest.approx(float(depth[number, 0]), abs=1 / SCALE)
        assert (metres[number] > 0).sum() == 1


def test_the_lens_moves_by_half_a_pixel_and_poses_become_ours(tmp_path: Path):
    camera = read_posed_images(write_room(tmp_path / "office0")).camera
    assert camera.principal[0].tolist() == [3.75, 3.25]
    assert torch.allclose(camera.world_from_camera, POSES[:4].float(), atol=1e-6)


def test_every_second_view(tmp_path: Path):
    views = read_replica(write_room(tmp_path / "office0"), every=2)
    assert views.names == ("results/frame000000.jpg", "results/frame000002.jpg")
    assert torch.equal(views.camera.world_from_camera, POSES[0:4:2].float())
    with pytest.raises(ValueError, match="every must be at least 1"):
        read_replica(tmp_path / "office0", every=0)


def test_lens_in_the_room_wins_and_depth_may_be_absent(tmp_path: Path):
    room = write_room(tmp_path / "office0")
    (room / "cam_params.json").write_text(json.dumps({"camera": {**LENS, "fx": 10}}))
    for file in room.glob("results/depth*"):
        file.unlink()
    views = read_replica(room)
    assert views.load_depth() is None and views.camera.focal[0, 0] == 10


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda room: (room / "results/frame000002.jpg").unlink(), "frame000002 is missing: 3 frame pictures for 4"),
        (lambda room: (room / "results/depth000001.png").unlink(), "depth000001 is missing: 3 depth pictures for 4"),
        (lambda room: picture(room / "results/frame000004.jpg"), "traj.txt: has 4 poses for 5 frame pictures"),
        (lambda room: change_line(room, "nan " * 16), "frame000001.jpg holds NaN or infinity"),
        (lambda room: change_line(room, "1 0 0"), "line 2 has 3 numbers"),
        (lambda room: change_line(room, "one " * 16), "line 2: could not convert string to float: 'one'"),
        (lambda room: change_line(room, "2 0 0 0 0 2 0 0 0 0 2 0 0 0 0 1"), "frame000001.jpg is not rigid"),
        (lambda room: (room / "traj.txt").write_text("\n"), "traj.txt: holds no poses"),
        (lambda room: (room / "traj.txt").write_bytes(b"\xff\xfe1"), "traj.txt: cannot be read as text"),
        (lambda room: (room.parent / "cam_params.json").unlink(), "cam_params.json: is missing"),
        (lambda room: (room.parent / "cam_params.json").write_text("{}"), "camera is None; write a JSON object"),
        (lambda room: picture(room / "results/frame000001.jpg", size=(6, 8)), "is 6x8 pixels but the intrinsics are"),
        (lambda room: (room / "results/depth000003.png").write_bytes(b"no png"), "is not a PNG, JPEG or WebP picture"),
    ],
)
def test_what_cannot_be_used_is_one_clear_error(tmp_path: Path, damage, message: str):
    room = write_room(tmp_path / "office0")
    damage(room)
    with pytest.raises(DataFormatError, match=re.escape(message)):
        read_replica(room)


def test_a_scale_of_zero_and_a_folder_without_room_are_refused(tmp_path: Path):
    room = write_room(tmp_path / "office0")
    (tmp_path / "cam_params.json").write_text(json.dumps({"camera": {**LENS, "scale": 0}}))
    with pytest.raises(DataFormatError, match=r"camera\.scale is 0; write how many units"):
        read_replica(room)
    with pytest.raises(DataFormatError, match="give the folder of one Replica room"):
        read_replica(tmp_path)


def change_line(room: Path, text: str) -> None:
    lines = (room / "traj.txt").read_text().splitlines()
    lines[1] = text
    (room / "traj.txt").write_text("\n".join(lines))
