"""Reads COLMAP's sparse models, text or binary, with their pictures.

COLMAP leaves its world of unknown scale, and turned any way, usually with y downwards. Here it is turned so that z is
up, as far as the cameras tell (see ``placement``); the scale stays unknown.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d import placement
from nfldm3d._types import PathName, Vector
from nfldm3d.data import capture_files, colmap_model, image_files, moved_world
from nfldm3d.data.colmap_model import ColmapCamera, ColmapImage
from nfldm3d.data.frame import Frame, is_scaled
from nfldm3d.data.intrinsics import Intrinsics, build_camera, find_sizes
from nfldm3d.data.posed_images import WHITE, PosedImages
from nfldm3d.files import DataFormatError, resolve_inside, warn_of
from nfldm3d.geometry import flip_opencv, invert_pose
from nfldm3d.placement import Up

MODEL_FOLDERS = (".", "sparse/*", "sparse", "colmap/sparse/*", "colmap/sparse")
"""Where models are looked for below the folder of a capture; of several in its subfolders the largest is taken."""
LOOKED_IN = ", ".join(MODEL_FOLDERS).replace("*", "0")


def read_colmap(
    folder: PathName, *, images: PathName | None = None, background: Vector = WHITE, up: Up = "auto"
) -> PosedImages:
    """The registered pictures of a COLMAP model, sorted by name, with its points.

    Pictures that are the ones COLMAP saw in another size, as in ``images_4``, are taken with their cameras scaled.

    Args:
        folder: the capture's folder, which holds ``sparse/0`` and ``images``, or the model's own.
        images: the folder of the pictures; by default ``images`` in the capture's folder.
        background: the sRGB colour that pictures with transparent pixels are laid over.
        up: the direction of the model's world that points upwards; ``z`` leaves it as it is, ``auto`` asks the cameras.

    Raises:
        DataFormatError: what cannot be used, or more than half of the pictures are missing.
    """
    model = find_model(Path(folder))
    if model is None:
        raise DataFormatError(folder, f"holds no COLMAP model in {LOOKED_IN}; give the folder of cameras.bin")
    source = model / "images"
    cameras = colmap_model.read_cameras(model)
    registered = sorted(colmap_model.read_images(model), key=lambda image: capture_files.natural_key(image.name))
    if not registered:
        raise DataFormatError(source, "has no registered picture; run COLMAP's mapper again")
    root = _find_pictures(Path(folder), model, images, registered)
    paths = [resolve_inside(root, image.name, source=source) for image in registered]
    present = capture_files.find_present(source, paths)
    kept, paths = [registered[number] for number in present], [paths[number] for number in present]
    motion = placement.find_motion(torch.stack([_pose(source, image) for image in registered]), up=up, free=True)
    poses = motion @ torch.stack([_pose(source, image) for image in kept])
    lenses = _fit_to_pictures([_intrinsics(source, image, cameras) for image in kept], paths)
    frames = [
        Frame(image.name, (lens.width, lens.height), path)
        for image, lens, path in zip(kept, lenses, paths, strict=True)
    ]
    camera = build_camera(source, [image.name for image in kept], poses, lenses)
    has_alpha = capture_files.check_files(frames)
    return PosedImages(
        camera,
        tuple(frames),
        points=moved_world.move_points(colmap_model.read_points(model), motion),
        metric=False,
        background=background if has_alpha else None,
        metadata=moved_world.move_metadata({}, motion, source),
        sizes=find_sizes(lenses),
        scene_from_file=None if placement.is_identity(motion) else motion,
    )


def list_models(folder: Path) -> list[Path]:
    """The folder itself if it is a model's, else all models below it."""
    found = []
    for pattern in MODEL_FOLDERS:
        places = [folder] if pattern == "." else sorted(folder.glob(pattern), key=_number_first)
        found += [place for place in places if any((place / f"cameras{end}").is_file() for end in (".bin", ".txt"))]
        if found and pattern == ".":
            break
    return found


def find_model(folder: Path) -> Path | None:
    """The folder of the model in or below ``folder`` with most pictures, if there is one; warns of smaller ones."""
    models = list_models(folder)
    if len(models) < 2:
        return models[0] if models else None
    counts = {model: colmap_model.count_images(model) for model in models}
    largest = max(models, key=lambda model: counts[model])
    sizes = {m.relative_to(folder).as_posix(): f"{counts[m]} pictures" for m in (largest, *models)}
    (taken, size), *others = sizes.items()
    rest = ", ".join(f"{name} with {count}" for name, count in others)
    warn_of(folder, f"{taken} with {size} is read, not {rest}; to read another, give its folder", level=4)
    return largest


def _number_first(path: Path) -> list[str | int]:
    return capture_files.natural_key(path.name)


def _find_pictures(folder: Path, model: Path, images: PathName | None, registered: Sequence[ColmapImage]) -> Path:
    if images is not None:
        for candidate in (Path(images), folder / images):
            if candidate.is_dir():
                return candidate
        raise DataFormatError(images, f"is no folder, here or in {folder}; give the folder of the pictures")
    candidates = [folder / "images", *(parent / "images" for parent in list(model.resolve().parents)[:3])]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    held = {
        place: sum(capture_files.is_file(place / image.name) for image in registered)
        for place in sorted(folder.glob("*/"))
    }
    best = max(held, key=lambda place: held[place], default=folder)
    hint = f"; {best} holds {held[best]} of {len(registered)} of them" if held.get(best) else ""
    raise DataFormatError(
        folder, f"holds no folder 'images'; give the folder of the pictures with --images (images= in Python){hint}"
    )


def _fit_to_pictures(lenses: list[Intrinsics], paths: Sequence[Path]) -> list[Intrinsics]:
    """The lenses for pictures that were scaled after COLMAP had seen them."""

    def fit(number: int) -> Intrinsics:
        lens = lenses[number]
        width, height, _ = image_files.probe(paths[number])
        scaled = lens.find_problem() is None and is_scaled((width, height), (lens.width, lens.height))
        return lens.scaled(width, height) if scaled else lens

    if image_files.probe(paths[0])[:2] == (lenses[0].width, lenses[0].height):
        return lenses
    return image_files.map_parallel(fit, range(len(lenses)))


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
