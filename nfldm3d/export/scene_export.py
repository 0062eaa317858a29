"""A scene as one file of whatever kind its suffix names."""

from pathlib import Path

from nfldm3d._types import PathName
from nfldm3d.export.mesh_files import MESH_SUFFIXES, export_mesh
from nfldm3d.export.volumes import VOLUME_SUFFIXES, export_volume
from nfldm3d.scene import Scene


def export_scene(scene: Scene, path: PathName) -> None:
    """Writes a mesh or a volume with the options that are usual; .ply is a mesh, for points see ``export_points``.

    Raises:
        ValueError: if there is nothing to write, the suffix is unknown, or the path cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix in VOLUME_SUFFIXES:
        export_volume(scene, path)
    elif suffix in MESH_SUFFIXES:
        export_mesh(scene, path)
    else:
        known = " ".join((*MESH_SUFFIXES, *VOLUME_SUFFIXES))
        raise ValueError(
            f"cannot write {path}: unknown format {suffix!r}; use one of {known}, or save() for this library's own"
        )
