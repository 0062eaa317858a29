"""Single files that users hand over: paths, points, arrays, pictures, maps."""

import json
from pathlib import Path

import numpy as np
import torch

from campaign.formats import Format


def _make_note(folder: Path) -> None:
    from nfldm3d.written_files import note_written

    (folder / "a.glb").write_bytes(b"mine")
    note_written(folder / "a.glb")


def _read_note(folder: Path) -> None:
    from nfldm3d.files import DataFormatError
    from nfldm3d.written_files import require_free

    try:
        require_free(folder / "a.glb", overwrite=True)
    except DataFormatError:
        raise
    except ValueError as error:
        assert "was not written by nfldm3d" in str(error)


def _make_path(folder: Path) -> None:
    from small_captures import write_instant_ngp

    write_instant_ngp(folder)
    pose = [float(number == place) for number in range(4) for place in range(4)]
    frames = [{"camera_to_world": pose, "fov": 60.0, "aspect": 1.5}] * 2
    (folder / "flight.json").write_text(json.dumps({"camera_type": "perspective", "camera_path": frames, "fps": 24}))


def _read_path(folder: Path) -> None:
    from nfldm3d.rendering.paths import read_camera_path

    for path in sorted(folder.glob("*.json")):
        camera = read_camera_path(path, width=6, height=4)
        assert bool(torch.isfinite(camera.rays().directions).all())


def _make_points(folder: Path) -> None:
    from nfldm3d.data.point_files import write_points

    write_points(folder / "points.ply", torch.randn(5, 3, dtype=torch.float64))
    text = "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    (folder / "text.ply").write_text(text + "0 1 2\n3 4 5\n")


def _read_points(folder: Path) -> None:
    from nfldm3d.data.point_files import read_points

    for path in sorted(folder.glob("*.ply")):
        read_points(path)


def _make_arrays(folder: Path) -> None:
    np.save(folder / "a.npy", np.arange(12, dtype=np.float32).reshape(3, 4))
    np.save(folder / "b.npy", np.arange(6, dtype=np.uint16).reshape(2, 3))


def _read_arrays(folder: Path) -> None:
    from nfldm3d.data.array_files import map_array, parse_array

    for path in sorted(folder.glob("*.npy")):
        if path.is_file():
            parse_array(path.read_bytes()[:4096], path)
        np.array(map_array(path))


def _make_pictures(folder: Path) -> None:
    from PIL import Image

    from nfldm3d.data import image_files

    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    Image.fromarray(pixels[..., :3]).save(folder / "b.jpg")
    Image.fromarray(pixels[..., :3]).save(folder / "c.webp")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 99).save(folder / "depth.png")
    Image.fromarray(pixels[..., 1] > 99).save(folder / "mask.png")
    image_files.write_labels(
        folder / "labels.png", torch.from_numpy(pixels[..., 2] % 3), ((0, 0, 0), (200, 20, 10), (10, 20, 200))
    )


def _read_pictures(folder: Path) -> None:
    from nfldm3d.data import image_files

    for path in sorted(folder.glob("[abc].*")):
        image_files.probe(path)
        image_files.read_image(path, (1.0, 1.0, 1.0))
    for path in sorted(folder.glob("[dm]*.*")):
        image_files.read_depth(path, 0.001) if path.name[0] == "d" else image_files.read_mask(path)
    image_files.read_labels(folder / "labels.png")


def _make_embeddings(folder: Path) -> None:
    from nfldm3d.tensor_files import write_tensors

    write_tensors(folder / "a.safetensors", {"one": torch.randn(4), "two": torch.randn(4)})
    write_tensors(folder / "b.safetensors", {"one": torch.randn(3, 4)})
    torch.save({"one": torch.randn(2, 3)}, folder / "c.pth")


def _read_embeddings(folder: Path) -> None:
    from nfldm3d.data.encoded_scenes import read_embedding, read_embeddings
    from nfldm3d.tensor_files import read_state

    read_embeddings(folder / "a.safetensors")
    read_embedding(folder / "b.safetensors")
    read_state(folder / "c.pth")


def _make_bev(folder: Path) -> None:
    from PIL import Image

    Image.fromarray(np.array([[[0, 0, 0], [200, 20, 10]], [[10, 20, 200], [0, 0, 0]]], np.uint8)).save(
        folder / "map.png"
    )


def _read_bev(folder: Path) -> None:
    from nfldm3d.files import DataFormatError
    from nfldm3d.pipelines.bev_input import read_classes

    path = folder / "map.png"
    try:
        read_classes(path, ("void", "floor", "wall"), ((0, 0, 0), (200, 20, 10), (10, 20, 200)), 2)
    except DataFormatError:
        raise
    except ValueError as error:  # a map, but not of this world
        assert str(error).startswith(str(path))


FORMATS = {
    "note": Format(_make_note, _read_note, (".nfldm3d.json",)),
    "camera path": Format(_make_path, _read_path, ("*.json",), linked=True),
    "points.ply": Format(_make_points, _read_points, linked=True),
    "arrays.npy": Format(_make_arrays, _read_arrays, linked=True),
    "pictures": Format(_make_pictures, _read_pictures, linked=True),
    "map picture": Format(_make_bev, _read_bev, linked=True),
    "embeddings": Format(_make_embeddings, _read_embeddings, linked=True),
}
