"""Triangle meshes to and from ``kaolin.rep.SurfaceMesh``."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nfldm3d.export.mesh import Mesh, vertex_normals
from nfldm3d.interop.kaolin.optional import import_kaolin

Indexed = tuple[Tensor, Tensor]
"""Values, and which of them each corner of each face takes."""


def to_kaolin_mesh(mesh: Mesh) -> Any:
    """An unbatched ``kaolin.rep.SurfaceMesh``; a texture becomes the diffuse texture of its one material."""
    surface_mesh = import_kaolin("kaolin.rep").SurfaceMesh
    faces = mesh.faces.long()
    if mesh.texture is None:
        return surface_mesh(mesh.vertices, faces, vertex_normals=mesh.normals, vertex_colors=mesh.colors)
    material = import_kaolin("kaolin.render.materials").PBRMaterial(
        diffuse_texture=mesh.texture, diffuse_colorspace="sRGB", material_name="surface"
    )
    return surface_mesh(
        mesh.vertices,
        faces,
        uvs=mesh.uv,
        face_uvs_idx=faces,
        materials=[material],
        material_assignments=torch.zeros(len(faces), dtype=torch.int16, device=faces.device),
        vertex_normals=mesh.normals,
        vertex_colors=mesh.colors,
    )


def from_kaolin_mesh(surface_mesh: Any) -> Mesh:
    """Our mesh of an unbatched triangle mesh ``kaolin.rep.SurfaceMesh``, in the place where its transform puts it.

    Vertices where faces disagree on texture coordinates, normals or colours are split. Normals that are missing, or
    that only faces have, are computed smooth. Of a material the diffuse texture alone is kept.
    """
    batching = getattr(surface_mesh.batching, "value", surface_mesh.batching)
    if batching != "NONE":
        raise ValueError(f"needs a single mesh, got {len(surface_mesh)} with batching {batching}; pick one: meshes[0]")
    if surface_mesh.faces.dim() != 2 or surface_mesh.faces.shape[1] != 3:
        raise ValueError(f"needs triangles, got faces of shape {tuple(surface_mesh.faces.shape)}; triangulate the mesh")
    if getattr(surface_mesh, "transform", None) is not None:
        surface_mesh = surface_mesh.as_transformed()
    vertices, faces = surface_mesh.vertices, surface_mesh.faces.long()
    texture = _diffuse_texture(surface_mesh)
    normals = _indexed(surface_mesh, "vertex_normals", "normals", "face_normals_idx")
    attributes = {
        "normals": normals or (vertex_normals(vertices, faces), faces),
        "colors": _indexed(surface_mesh, "vertex_colors") or _from_corners(surface_mesh, "face_colors"),
    }
    if texture is not None:
        uv = _indexed(surface_mesh, None, "uvs", "face_uvs_idx") or _from_corners(surface_mesh, "face_uvs")
        if uv is None:
            raise ValueError("the mesh has a diffuse texture but no texture coordinates; set uvs and face_uvs_idx")
        attributes["uv"] = uv
    present = {name: pair for name, pair in attributes.items() if pair is not None}
    return Mesh(**_split_vertices(vertices, faces, present), texture=texture)  # pyright: ignore[reportArgumentType]


def _indexed(mesh: Any, at_vertices: str | None, values: str = "", index: str = "") -> Indexed | None:
    """Values given at the vertices, or those that corners of faces choose; -1 stands for no value."""
    if at_vertices and mesh.has_attribute(at_vertices):
        return getattr(mesh, at_vertices), mesh.faces.long()
    if values and mesh.has_attribute(values) and mesh.has_attribute(index):
        chosen = getattr(mesh, index).long()
        return (getattr(mesh, values), chosen) if bool((chosen >= 0).all()) else None
    return None


def _from_corners(mesh: Any, name: str) -> Indexed | None:
    if not mesh.has_attribute(name):
        return None
    values = getattr(mesh, name)
    distinct, index = torch.unique(values.flatten(0, 1), dim=0, return_inverse=True)
    return distinct, index.view(values.shape[:2])


def _split_vertices(
    vertices: Float[Tensor, "vertices 3"], faces: Int[Tensor, "faces 3"], attributes: dict[str, Indexed]
) -> dict[str, Tensor]:
    """Vertices, faces and attributes under one numbering: a vertex for each distinct choice that corners make."""
    choices = [index for _, index in attributes.values() if not torch.equal(index, faces)]
    if not choices:
        return {"vertices": vertices, "faces": faces, **{name: values for name, (values, _) in attributes.items()}}
    keys = torch.stack([index.flatten() for index in (faces, *choices)], dim=-1)
    distinct, corner = torch.unique(keys, dim=0, return_inverse=True)
    # any corner that makes the choice can speak for it
    speaker = torch.zeros_like(distinct[:, 0]).scatter_(0, corner, torch.arange(len(corner), device=corner.device))
    split = {name: values[index.flatten()[speaker]] for name, (values, index) in attributes.items()}
    return {"vertices": vertices[distinct[:, 0]], "faces": corner.view_as(faces), **split}


def _diffuse_texture(mesh: Any) -> Float[Tensor, "3 height width"] | None:
    materials = mesh.materials if mesh.has_attribute("materials") else ()
    textures = [getattr(material, "diffuse_texture", None) for material in materials]
    textured = [texture for texture in textures if texture is not None]
    if not textured:
        return None
    if len(textures) > 1:
        raise ValueError(f"needs a mesh with one material, got {len(textures)}, some with textures; split the mesh")
    return textured[0][:3]
