"""``nfldm3d export``: meshes, point clouds, splats, volumes and cameras for other programs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from nfldm3d._types import Vector
from nfldm3d.cli.values import require_at_least, require_at_most
from nfldm3d.export import MeshOptions, export_cameras, export_mesh, export_points, export_splats, export_volume
from nfldm3d.export.mesh_files import MESH_SUFFIXES, USD_SUFFIXES, name_companions
from nfldm3d.export.points import POINT_SUFFIXES
from nfldm3d.export.splats import MAX_DETAIL, SPLAT_SUFFIXES
from nfldm3d.export.volumes import VOLUME_SUFFIXES
from nfldm3d.files import check_output
from nfldm3d.geometry import Box
from nfldm3d.scene import Scene
from nfldm3d.written_files import writing


@dataclass(frozen=True)
class Export:
    """Writes what is asked for; the formats follow the suffixes.

    Meshes and points show what the scene's cameras, or somebody who walks where they are, can see: faces look into
    rooms, and the outer hull and ceilings are left out, so that one looks into the rooms from above.
    """

    scene: Annotated[Path, tyro.conf.Positional]
    """A .nfld file or a scene folder."""
    mesh: Path | None = None
    """.glb, .obj, .ply, .usd, .usda, .usdc or .usdz."""
    points: Path | None = None
    """.ply, with colours and normals."""
    splats: Path | None = None
    """.ply of 3-D Gaussian splatting, one Gaussian for each voxel that can be seen."""
    splat_detail: int = 1
    """How often voxels are divided along each axis for splats: 2 looks sharper, and takes eight times as many."""
    volume: Path | None = None
    """.nvdb or .vdb, densities in 1/metre."""
    cameras: Path | None = None
    """.usd, .usda, .usdc or .usdz with the scene's own cameras."""
    box: tuple[Vector, Vector] | None = None
    """Only what lies between these lower and upper corners, in metres."""
    level: float | None = None
    """Density of the surface in 1/metre; by default where one voxel absorbs half of the light."""
    max_faces: int | None = None
    """Decimate the mesh to so many faces."""
    texture: int | None = None
    """Bake a texture of about so many pixels along each edge, in place of colours at the vertices."""
    surroundings: bool = False
    """Mesh the coarser fields around the field in focus, too."""
    closed: bool = False
    """Keep also what nobody can see, ceilings, and walls where the box cuts through matter: rooms are then hidden."""
    ceilings: bool = False
    """Keep ceilings."""
    lit: bool = False
    """Let other programs shade the mesh; by default it shows the colours as they were photographed."""

    def run(self) -> None:
        """Writes the files."""
        if not (self.mesh or self.points or self.splats or self.volume or self.cameras):
            raise ValueError("nothing to export; give --mesh, --points, --splats, --volume or --cameras a file name")
        require_at_least(self, splat_detail=1)
        require_at_most(self, splat_detail=MAX_DETAIL)
        self._check()
        beside = [] if self.mesh is None else name_companions(self.mesh, textured=self.texture is not None)
        written = (self.mesh, self.points, self.splats, self.volume, self.cameras)
        with writing(*written, *beside, overwrite=True):
            self._write(Scene.load(self.scene))

    def _write(self, scene: Scene) -> None:
        if self.cameras is not None and scene.cameras is None:
            raise ValueError(f"{self.scene} holds no cameras; leave --cameras out")
        box = None if self.box is None else Box(*self.box)
        options = MeshOptions(
            box=box,
            level=self.level,
            max_faces=self.max_faces,
            texture_size=self.texture,
            surroundings=self.surroundings,
            closed=self.closed,
            ceilings=self.ceilings,
        )
        if self.mesh is not None:
            export_mesh(scene, self.mesh, options=options, lit=self.lit)
        if self.points is not None:
            export_points(scene, self.points, options=options)
        if self.splats is not None:
            export_splats(scene, self.splats, box=box, detail=self.splat_detail)
        if self.volume is not None:
            export_volume(scene, self.volume, box=box)
        if self.cameras is not None and scene.cameras is not None:
            export_cameras(scene.cameras, self.cameras)

    def _check(self) -> None:
        """Refuses names that cannot be written before the first file is."""
        kinds = (
            (self.mesh, MESH_SUFFIXES),
            (self.points, POINT_SUFFIXES),
            (self.splats, SPLAT_SUFFIXES),
            (self.volume, VOLUME_SUFFIXES),
            (self.cameras, USD_SUFFIXES),
        )
        for path, suffixes in kinds:
            if path is not None:
                check_output(path, suffixes=suffixes)
