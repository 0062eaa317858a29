"""Captures whose world is far away or turned: every reader puts it right, and every writer keeps where it was."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest
import small_rigs
import torch
from small_captures import NGP, POSES, alter, frames, picture, write, write_instant_ngp
from small_colmaps import WIDTH, write_text
from small_replicas import write_room
from small_rigs import write_rig

from nfldm3d import placement
from nfldm3d.data import BevMap, read_posed_images
from nfldm3d.data.moved_world import move_bev, move_metadata
from nfldm3d.files import DataFormatError
from nfldm3d.geometry import flip_opencv, invert_pose, transform_points
from nfldm3d.rendering.paths import read_camera_path

UTM = torch.tensor((431001.25, 5411998.75, 250.5), dtype=torch.float64)
COUNT = 6


def shifted() -> torch.Tensor:
    poses = POSES[:COUNT].clone()
    poses[:, :3, 3] += UTM
    return poses


def y_down() -> torch.Tensor:
    return invert_pose(placement.find_motion(POSES, up="-y")) @ POSES[:COUNT]


def write_transforms(folder: Path, poses: torch.Tensor, **top: object) -> Path:
    listed = frames(len(poses))
    for frame, pose in zip(listed, poses, strict=True):
        frame["transform_matrix"] = pose.tolist()
        picture(folder / frame["file_path"])
    (x, y, z), header = (poses[0, :3, 3] + 1).tolist(), "ply\nformat ascii 1.0\nelement vertex 1\n"
    header += "".join(f"property double {axis}\n" for axis in "xyz")
    (folder / "points.ply").write_text(f"{header}end_header\n{x!r} {y!r} {z!r}\n")
    return write(folder, {**NGP, **top, "ply_file_path": "points.ply", "frames": listed})


def write_colmap(folder: Path, poses: torch.Tensor) -> Path:
    """Text, as COLMAP writes it, without keypoints."""
    write_text(folder)
    lines = []
    for number, pose in enumerate(flip_opencv(poses)):
        quaternion = pycolmap.Rotation3d(pose[:3, :3].T.numpy()).quat
        rotation = pycolmap.Rotation3d(quaternion / np.linalg.norm(quaternion))
        x, y, z, w = rotation.quat.tolist()
        place = (-rotation.matrix() @ pose[:3, 3].numpy()).tolist()
        lines += [f"{number + 1} {' '.join(map(repr, (w, x, y, z, *place)))} 1 {number}.png", ""]
        picture(folder / f"images/{number}.png", size=(WIDTH, 6))
    sparse = folder / "sparse" / "0"
    (sparse / "images.txt").write_text("\n".join(lines))
    (sparse / "points3D.txt").write_text(f"1 {' '.join(map(repr, (poses[0, :3, 3] + 1).tolist()))} 1 2 3 0.5\n")
    return folder


@pytest.mark.parametrize("write_capture", [write_transforms, write_colmap])
def test_coordinates_far_away_are_kept_to_the_last_digit(tmp_path: Path, write_capture) -> None:
    near = read_posed_images(write_capture(tmp_path / "near", POSES[:COUNT]))
    far = read_posed_images(write_capture(tmp_path / "far", shifted()))
    assert near.scene_from_file is None and far.scene_from_file is not None
    world_from_scene = placement.world_from_scene(far.metadata)
    there = transform_points(world_from_scene, far.camera.centers.double())
    torch.testing.assert_close(there, shifted()[:, :3, 3], atol=1e-5, rtol=0)
    assert far.points is not None and near.points is not None
    pixels = [posed.camera.project(posed.points.expand(COUNT, 1, 3))[0] for posed in (near, far)]
    torch.testing.assert_close(pixels[0], pixels[1], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("write_capture", [write_transforms, write_colmap])
def test_worlds_with_y_down_stand_upright(tmp_path: Path, write_capture) -> None:
    upright = read_posed_images(write_capture(tmp_path / "z", POSES[:COUNT]))
    lying = read_posed_images(write_capture(tmp_path / "y", y_down()))
    torch.testing.assert_close(lying.camera.world_from_camera, upright.camera.world_from_camera)
    told = read_posed_images(tmp_path / "y", up="-y")
    torch.testing.assert_close(told.camera.world_from_camera, upright.camera.world_from_camera)
    kept = read_posed_images(tmp_path / "y", up="z")
    torch.testing.assert_close(kept.camera.world_from_camera, y_down().float(), atol=1e-5, rtol=0)
    assert kept.metadata == {} and lying.metadata.keys() == {placement.KEY}


def test_rooms_of_replica_too(tmp_path: Path) -> None:
    write_room(tmp_path / "room")
    file = tmp_path / "room/traj.txt"
    moved = torch.from_numpy(np.loadtxt(file)).unflatten(-1, (4, 4))
    moved[:, :3, 3] += UTM
    np.savetxt(file, moved.flatten(1).numpy(), fmt="%.17g")
    views = read_posed_images(tmp_path / "room")
    there = transform_points(placement.world_from_scene(views.metadata), views.camera.centers.double())
    torch.testing.assert_close(there, moved[:, :3, 3], atol=1e-5, rtol=0)


def test_a_file_may_say_what_is_up(tmp_path: Path) -> None:
    capture = write_transforms(tmp_path, POSES[:COUNT], up_axis="x")
    assert read_posed_images(capture).camera.centers[:, 2].tolist() == POSES[:COUNT, 0, 3].float().tolist()
    assert read_posed_images(capture, up="z").scene_from_file is None
    with pytest.raises(DataFormatError, match=r"up_axis is 'up'; write one of x, -x, y, -y, z, -z"):
        read_posed_images(alter(capture, {"up_axis": "up"}))


@pytest.mark.parametrize("poses", [shifted(), y_down()], ids=["far", "y down"])
def test_saving_keeps_the_world_and_reading_moves_it_no_further(tmp_path: Path, poses: torch.Tensor) -> None:
    first = read_posed_images(write_transforms(tmp_path / "a", poses, applied_scale=0.5))
    first.save(tmp_path / "b")
    again = read_posed_images(tmp_path / "b")
    torch.testing.assert_close(again.camera.world_from_camera, first.camera.world_from_camera)
    torch.testing.assert_close(again.points, first.points)
    assert again.metadata == first.metadata and again.scene_from_file is None
    there = placement.world_from_scene(again.metadata) @ again.camera.world_from_camera.double()
    torch.testing.assert_close(there, poses, atol=1e-5, rtol=0)


def test_every_split_lies_in_one_world(tmp_path: Path) -> None:
    lists = {"train_filenames": ["images/0000.png", "images/0003.png"], "val_filenames": ["images/0005.png"]}
    capture = write_transforms(tmp_path, shifted(), **lists)
    motions = [read_posed_images(capture, split=split).scene_from_file for split in (None, "train", "val")]
    assert all(torch.equal(motion, motions[0]) for motion in motions)


def test_all_else_moves_along() -> None:
    motion = torch.eye(4, dtype=torch.float64)
    motion[:3, 3] = -UTM
    box = {"lower": (UTM - 1).tolist(), "upper": (UTM + 2).tolist()}
    given = {"box": box, "trajectory": [[*(UTM + 0.5).tolist(), 1.0, 0.0]], "place": "here"}
    moved = move_metadata(given, motion, Path("a.json"))
    assert moved["box"] == {"lower": [-1, -1, -1], "upper": [2, 2, 2]} and moved["place"] == "here"
    assert moved["trajectory"] == [[0.5, 0.5, 0.5, 1, 0]] and given["box"] is box
    twice = move_metadata(moved, invert_pose(motion), Path("a.json"))
    assert placement.is_identity(placement.scene_from_world(twice))
    classes, height = torch.zeros(3, 2, dtype=torch.uint8), torch.ones(3, 2)
    bev = BevMap(classes, height, (431001.25, 5411999.75), 0.5, ("a",), ((0, 0, 0),))
    there = move_bev(bev, motion, Path("a.json"))
    assert there is not None and there.lower == (0, 1)
    assert there.height is not None and float(there.height[0, 0]) == -249.5
    turn = placement.find_motion(POSES, up="y")
    with pytest.raises(DataFormatError, match=r"a\.json: has a trajectory, which needs a world with z up"):
        move_metadata(given, turn, Path("a.json"))
    with pytest.raises(DataFormatError, match=r"a\.json: has a bev, which needs a world with z up"):
        move_bev(bev, turn, Path("a.json"))


def test_only_colmap_has_pictures_elsewhere_and_a_rig_knows_what_is_up(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is a transforms\.json capture, which names its pictures itself"):
        read_posed_images(write_instant_ngp(tmp_path / "a"), images="images")
    with pytest.raises(ValueError, match=r"is a driving rig, whose z is up by definition; leave up='y' out"):
        read_posed_images(write_rig(tmp_path / "b"), up="y")


def test_a_rig_far_away_comes_near(tmp_path: Path) -> None:
    near = read_posed_images(write_rig(tmp_path / "near"))

    def move(content: dict) -> None:
        for frame in content["frames"]:
            for row, far in zip(frame["world_from_vehicle"], UTM.tolist(), strict=False):
                row[3] += far

    far = read_posed_images(small_rigs.alter(write_rig(tmp_path / "far"), move))
    world_from_scene = placement.world_from_scene(far.metadata)
    there = transform_points(world_from_scene, far.camera.centers.double())
    torch.testing.assert_close(there, near.camera.centers.double() + UTM, atol=1e-4, rtol=0)
    path, before = (torch.tensor(v.metadata["trajectory"], dtype=torch.float64)[:, :3] for v in (far, near))
    torch.testing.assert_close(transform_points(world_from_scene, path), before + UTM)


def test_camera_paths_are_those_of_the_captures_world(tmp_path: Path) -> None:
    first = read_posed_images(write_transforms(tmp_path / "a", shifted()))
    first.save(tmp_path / "b")
    motion = placement.scene_from_world(first.metadata)
    for folder in ("a", "b"):
        cameras = read_camera_path(tmp_path / folder / "transforms.json", width=8, height=6, scene_from_world=motion)
        torch.testing.assert_close(cameras.world_from_camera, first.camera.world_from_camera, atol=1e-5, rtol=0)


def test_a_trajectory_of_other_rows_is_named() -> None:
    motion = torch.eye(4, dtype=torch.float64)
    motion[0, 3] = 5.0
    given = {"trajectory": [[0.0, 1.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0]]}
    with pytest.raises(DataFormatError, match=r"trajectory is .*; write poses \[x, y, z, cosine, "):
        move_metadata(given, motion, Path("transforms.json"))
