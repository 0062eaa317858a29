"""Writes meshes and cameras to files: one call, the suffix names the format."""

from contextlib import ExitStack
from pathlib import Path

from nfldm3d._types import PathName
from nfldm3d.camera import Camera
from nfldm3d.export.gltf import encode_glb
from nfldm3d.export.mesh import Mesh
from nfldm3d.export.meshes import MeshOptions, extract_mesh
from nfldm3d.export.obj import encode_obj, name_companion
from nfldm3d.export.ply import encode_ply
from nfldm3d.export.usd import encode_usd
from nfldm3d.file_names import is_utf8
from nfldm3d.files import atomic_write
from nfldm3d.scene import Scene
from nfldm3d.written_files import note_written, require_free

USD_SUFFIXES = (".usd", ".usda", ".usdc", ".usdz")
MESH_SUFFIXES = (".glb", ".obj", ".ply", *USD_SUFFIXES)


def export_mesh(
    source: Scene | Mesh,
    path: PathName,
    *,
    options: MeshOptions | None = None,
    lit: bool = False,
    cameras: Camera | None = None,
) -> Mesh:
    """Writes a mesh, or the surface of a scene, and returns it; the suffix of ``path`` names the format.

    ======================= =======================================================================================
    .glb                    glTF 2.0: y up, vertex colours (linear, 16 bit) or texture; Blender shows them at once
    .obj                    y up; with .mtl and .png beside it if textured, else with vertex colours (sRGB)
    .ply                    z up, vertex colours (sRGB bytes) and normals; no texture
    .usd .usda .usdc .usdz  z up, metres, displayColor (linear) or texture; cameras if given
    ======================= =======================================================================================

    Args:
        options: as for ``extract_mesh``, for a scene.
        lit: whether lights should shade the mesh; captured colours have their light in them, so they are not lit.
        cameras: written into USD stages beside the mesh.

    Raises:
        ValueError: if there is no surface, the suffix is unknown, or the path cannot be written.
    """
    path, options = Path(path), options or MeshOptions()
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise ValueError(f"cannot write {path}: unknown mesh format {suffix!r}; use one of {' '.join(MESH_SUFFIXES)}")
    textured = source.texture is not None if isinstance(source, Mesh) else options.texture_size is not None
    if suffix == ".ply" and textured:
        raise ValueError(f"cannot write {path}: PLY holds no texture; use .glb, .obj or .usdz, or vertex colours")
    _require_usd_name(path)
    if cameras is not None and suffix not in USD_SUFFIXES:
        raise ValueError(f"cannot write {path}: cameras go into USD files only; use one of {' '.join(USD_SUFFIXES)}")
    for companion in name_companions(path, textured=textured):  # a photograph may have this name
        require_free(companion, overwrite=True)
    with atomic_write(path) as temporary:
        mesh = source if isinstance(source, Mesh) else extract_mesh(source, options=options)
        match suffix:
            case ".glb":
                files = {path.name: encode_glb(mesh, path.stem, lit=lit)}
            case ".obj":
                files = encode_obj(mesh, path.name)
            case ".ply":
                files = {path.name: encode_ply(mesh.vertices, mesh.normals, mesh.colors, mesh.faces)}
            case _:
                files = encode_usd(mesh, cameras, path.name, lit=lit)
        _write(path, temporary, files)
    return mesh


def export_cameras(cameras: Camera, path: PathName) -> None:
    """Writes cameras as a USD stage, one prim for each view; lens distortion has no place in USD and is left out.

    Raises:
        ValueError: if the suffix is not one of USD's, or the path cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in USD_SUFFIXES:
        raise ValueError(f"cannot write {path}: cameras are written as USD; use one of {' '.join(USD_SUFFIXES)}")
    _require_usd_name(path)
    with atomic_write(path) as temporary:
        _write(path, temporary, encode_usd(None, cameras, path.name))


def _require_usd_name(path: Path) -> None:
    if path.suffix.lower() in USD_SUFFIXES and not is_utf8(str(path.absolute())):
        raise ValueError(f"cannot write {path}: OpenUSD takes names in UTF-8 alone; choose another")


def name_companions(path: PathName, *, textured: bool) -> list[Path]:
    """The files that are written beside a mesh file of this name."""
    path = Path(path)
    suffixes = {".obj": (".png", ".mtl"), ".usd": (".png",), ".usda": (".png",), ".usdc": (".png",)}
    stem = name_companion(path) if path.suffix.lower() == ".obj" else path.stem
    return [path.with_name(stem + suffix) for suffix in suffixes.get(path.suffix.lower(), ())] if textured else []


def _write(path: Path, temporary: Path, files: dict[str, bytes]) -> None:
    """Writes all files under temporary names; the companions take theirs first, the main file last, by its caller."""
    with ExitStack() as stack:
        for name, data in files.items():
            target = temporary if name == path.name else stack.enter_context(atomic_write(path.with_name(name)))
            target.write_bytes(data)
    note_written(*(path.with_name(name) for name in files if name != path.name))
