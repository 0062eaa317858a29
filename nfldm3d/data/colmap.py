"""Reads COLMAP's sparse models, text or binary, with their pictures.

The world stays as COLMAP left it: of unknown scale, and turned any way, usually with y downwards.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d._types import PathName, Vector
from nfldm3d.data import capture_files, colmap_model
from nfldm3d.data.colmap_model import ColmapCamera, ColmapImage
from nfldm3d.data.frame import Frame
from nfldm3d.data.intrinsics import Intrinsics, build_camera, find_sizes
from nfldm3d.data.posed_images import WHITE, PosedImages
from nfldm3d.files import DataFormatError, resolve_inside
from nfldm3d.geometry import flip_opencv, invert_pose

MODEL_FOLDERS = (".", "sparse/0", "sparse", "colmap/sparse/0")
"""Where a model is looked for below the folder of a capture."""


def read_colmap(folder: PathName, *, images: PathName | None = None, background: Vector = WHITE) -> PosedImages:
    """The registered pictures of a COLMAP model, sorted by name, with its points.

    Args:
        folder: the capture's folder, which holds ``sparse/0`` and ``images``, or the model's own.
        images: the folder of the pictures; by default ``images`` in the capture's folder.
        background: the sRGB colour that pictures with an alpha channel are laid over.

    Raises:
        DataFormatError: what cannot be used, or more than half of the pictures are missing.
    """
    model = find_model(Path(folder))
    if model is None:
        raise DataFormatError(
            folder, f"holds no COLMAP model in {', '.join(MODEL_FOLDERS)}; give the folder of cameras.bin"
        )
    root = Path(images) if images is not None else _find_pictures(Path(folder), model)
    source = model / "images"
    cameras = colmap_model.read_cameras(model)
    registered = sorted(colmap_model.read_images(model), key=lambda image: capture_files.natural_key(image.name))
    if not registered:
        raise DataFormatError(source, "has no registered picture; run COLMAP's mapper again")
    paths = [resolve_inside(root, image.name, source=source) for image in registered]
    present = capture_files.find_present(source, paths)
    kept = [registered[number] for number in present]
    lenses = [_intrinsics(source, image, cameras) for image in kept]
    poses = torch.stack([_pose(source, image) for image in kept])
    camera = build_camera(source, [image.name for image in kept], poses, lenses)
    frames = [
        Frame(image.name, (lens.width, lens.height), paths[number])
        for number, image, lens in zip(present, kept, lenses, strict=True)
    ]
    has_alpha = capture_files.check_files(frames)
    return PosedImages(
        camera,
        tuple(frames),
        points=colmap_model.read_points(model),
        metric=False,
        background=background if has_alpha else None,
        sizes=find_sizes(lenses),
    )


def find_model(folder: Path) -> Path | None:
    """The folder of the model in or below ``folder``, if there is one."""
    for name in MODEL_FOLDERS:
        if any((folder / name / f"cameras{suffix}").is_file() for suffix in (".bin", ".txt")):
            return folder / name
    return None


def _find_pictures(folder: Path, model: Path) -> Path:
    candidates = [folder / "images", *(parent / "images" for parent in list(model.resolve().parents)[:3])]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise DataFormatError(folder, "holds no folder 'images'; name the folder of the pictures with images=")


def _pose(source: Path, image: ColmapImage) -> Float[Tensor, "4 4"]:
    quaternion = torch.tensor(image.quaternion, dtype=torch.float64)
    length = quaternion.norm()
    if not abs(float(length) - 1) < 1e-3:
        problem = f"{image.name} has quaternion {image.quaternion}, not of length 1"
        raise DataFormatError(source, f"{problem}; export the model again")
    w, x, y, z = (quaternion / length).tolist()
    camera_from_world = torch.eye(4, dtype=torch.float64)
    camera_from_world[:3, :3] = torch.tensor(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ],
        dtype=torch.float64,
    )
    camera_from_world[:3, 3] = torch.tensor(image.translation, dtype=torch.float64)
    return flip_opencv(invert_pose(camera_from_world))


def _intrinsics(source: Path, image: ColmapImage, cameras: dict[int, ColmapCamera]) -> Intrinsics:
    camera = cameras.get(image.camera)
    if camera is None:
        raise DataFormatError(
            source, f"{image.name} has camera {image.camera}, which is not in the model; export it again"
        )
    values = camera.parameters
    if camera.model in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL"):
        focal, center, terms = (values[0], values[0]), (values[1], values[2]), values[3:]
    else:
        focal, center, terms = (values[0], values[1]), (values[2], values[3]), values[4:]
    if camera.model == "OPENCV_FISHEYE":
        k1, k2, k3, k4 = terms
        terms = (k1, k2, 0.0, 0.0, k3, k4)
    lens = "fisheye" if camera.model == "OPENCV_FISHEYE" else "perspective"
    return Intrinsics(camera.width, camera.height, focal, center, (*terms, *(0.0,) * 8)[:8], lens)
