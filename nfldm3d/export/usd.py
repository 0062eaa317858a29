"""Writes meshes and cameras as OpenUSD stages: z up, metres, linear colours.

Apertures and focal lengths of USD cameras are in tenths of a scene unit, so a 36 mm sensor in a stage of metres is
0.36 wide; only ratios matter to the picture.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.export.mesh import Mesh, linear_from_srgb
from nfldm3d.export.optional import import_optional
from nfldm3d.export.textures import encode_png
from nfldm3d.memory import require_address_space

NEEDED = 2**30
"""Bytes of address space that USD's libraries take; with less they end the process."""
SENSOR_WIDTH = 0.36
"""36 mm in tenths of a metre: the width of a full-frame sensor."""


def encode_usd(mesh: Mesh | None, cameras: Camera | None, file_name: str, *, lit: bool = False) -> dict[str, bytes]:
    """The files' contents by file name: the stage, and a picture beside it for a textured mesh (inside a .usdz)."""
    if "pxr.Usd" not in sys.modules:
        require_address_space(NEEDED, "OpenUSD", "write a .glb")
    usd = import_optional("pxr.Usd")
    geometry = import_optional("pxr.UsdGeom")
    stage = usd.Stage.CreateInMemory()
    geometry.SetStageUpAxis(stage, geometry.Tokens.z)
    geometry.SetStageMetersPerUnit(stage, 1.0)
    stage.SetDefaultPrim(geometry.Xform.Define(stage, "/scene").GetPrim())
    stem = Path(file_name).stem
    if mesh is not None:
        _add_mesh(stage, mesh, f"{stem}.png", lit)
    if cameras is not None:
        add_cameras(stage, cameras)
    pictures = {} if mesh is None or mesh.texture is None else {f"{stem}.png": encode_png(mesh.texture)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for picture, data in pictures.items():
            (folder / picture).write_bytes(data)
        zipped = Path(file_name).suffix.lower() == ".usdz"
        layer = folder / (f"{stem}.usdc" if zipped else file_name)
        _write(layer, lambda: stage.GetRootLayer().Export(str(layer)))
        if not zipped:
            return {**pictures, file_name: layer.read_bytes()}
        package = folder / file_name
        _write(package, lambda: import_optional("pxr.UsdUtils").CreateNewUsdzPackage(str(layer), str(package)))
        return {file_name: package.read_bytes()}


def _write(path: Path, action: Callable[[], bool]) -> None:
    """Lets OpenUSD write a file; an OSError if it could not, since it has an error of its own for that."""
    try:
        written, reason = action(), "the disk may be full"
    except RuntimeError as error:
        written, reason = False, (str(error).splitlines() or ["no reason given"])[0]
    if not written or not path.is_file():
        raise OSError(f"OpenUSD cannot write {path} ({reason}); make room in {tempfile.gettempdir()}")


def add_cameras(stage: Any, cameras: Camera) -> None:
    """Adds a prim ``/scene/cameras/view_0000`` for each view; lens distortion has no place in USD and is left out."""
    geometry = import_optional("pxr.UsdGeom")
    gf = import_optional("pxr.Gf")
    flat = cameras.reshape(-1)
    focal_scale = SENSOR_WIDTH / flat.width  # tenths of a metre for each pixel
    geometry.Scope.Define(stage, "/scene/cameras")
    poses, focals, centers = (t.detach().double().cpu() for t in (flat.world_from_camera, flat.focal, flat.principal))
    for number, (pose, focal, center) in enumerate(zip(poses, focals.tolist(), centers.tolist(), strict=True)):
        prim = geometry.Camera.Define(stage, f"/scene/cameras/view_{number:04d}")
        # row vectors: the transpose of ours; camera axes are the same
        prim.AddTransformOp().Set(gf.Matrix4d(*pose.T.reshape(-1).tolist()))
        squeeze = focal[0] / focal[1]  # USD has one focal length: other pixel shapes change the aperture
        prim.CreateFocalLengthAttr(focal[0] * focal_scale)
        prim.CreateHorizontalApertureAttr(flat.width * focal_scale)
        prim.CreateVerticalApertureAttr(flat.height * squeeze * focal_scale)
        prim.CreateHorizontalApertureOffsetAttr((flat.width / 2 - center[0]) * focal_scale)
        prim.CreateVerticalApertureOffsetAttr((center[1] - flat.height / 2) * squeeze * focal_scale)
        prim.CreateClippingRangeAttr(gf.Vec2f(0.01, 1e5))


def _add_mesh(stage: Any, mesh: Mesh, picture: str, lit: bool) -> None:
    geometry, vt = import_optional("pxr.UsdGeom"), import_optional("pxr.Vt")
    prim = geometry.Mesh.Define(stage, "/scene/mesh")
    points = _vectors(mesh.vertices)
    prim.CreatePointsAttr(points)
    prim.CreateExtentAttr(geometry.PointBased.ComputeExtent(points))
    prim.CreateFaceVertexCountsAttr(vt.IntArray.FromNumpy(np.full(len(mesh.faces), 3, dtype=np.int32)))
    prim.CreateFaceVertexIndicesAttr(vt.IntArray.FromNumpy(mesh.faces.cpu().numpy().astype(np.int32).reshape(-1)))
    prim.CreateNormalsAttr(_vectors(mesh.normals))
    prim.SetNormalsInterpolation(geometry.Tokens.vertex)
    prim.CreateSubdivisionSchemeAttr(geometry.Tokens.none)
    prim.CreateDoubleSidedAttr(not mesh.single_sided)
    if mesh.colors is not None:
        color = prim.CreateDisplayColorPrimvar(geometry.Tokens.vertex)
        color.Set(_vectors(linear_from_srgb(mesh.colors)))
    if mesh.uv is not None:
        types = import_optional("pxr.Sdf").ValueTypeNames
        uv = geometry.PrimvarsAPI(prim).CreatePrimvar("st", types.TexCoord2fArray, geometry.Tokens.vertex)
        uv.Set(vt.Vec2fArray.FromNumpy(np.ascontiguousarray(mesh.uv.cpu().numpy())))
    _add_material(stage, prim, None if mesh.texture is None else picture, lit)


def _add_material(stage: Any, prim: Any, picture: str | None, lit: bool) -> None:
    """A preview surface whose colour (emitted, or diffuse if lit) is the picture's or the displayColor primvar's."""
    shade = import_optional("pxr.UsdShade")
    types = import_optional("pxr.Sdf").ValueTypeNames
    material = shade.Material.Define(stage, "/scene/material")
    surface = shade.Shader.Define(stage, "/scene/material/surface")
    surface.CreateIdAttr("UsdPreviewSurface")
    surface.CreateInput("roughness", types.Float).Set(1.0)
    surface.CreateInput("metallic", types.Float).Set(0.0)
    surface.CreateInput("specularColor", types.Color3f).Set((0.0, 0.0, 0.0))
    surface.CreateInput("useSpecularWorkflow", types.Int).Set(1)
    if picture is None:
        color = _add_reader(stage, "color", "float3", "displayColor").CreateOutput("result", types.Float3)
    else:
        texture = shade.Shader.Define(stage, "/scene/material/texture")
        texture.CreateIdAttr("UsdUVTexture")
        texture.CreateInput("file", types.Asset).Set(f"./{picture}")
        texture.CreateInput("sourceColorSpace", types.Token).Set("sRGB")
        reader = _add_reader(stage, "uv", "float2", "st")
        texture.CreateInput("st", types.Float2).ConnectToSource(reader.CreateOutput("result", types.Float2))
        color = texture.CreateOutput("rgb", types.Float3)
    surface.CreateInput("diffuseColor" if lit else "emissiveColor", types.Color3f).ConnectToSource(color)
    if not lit:
        surface.CreateInput("diffuseColor", types.Color3f).Set((0.0, 0.0, 0.0))
    material.CreateSurfaceOutput().ConnectToSource(surface.ConnectableAPI(), "surface")
    shade.MaterialBindingAPI.Apply(prim.GetPrim()).Bind(material)


def _add_reader(stage: Any, name: str, kind: str, primvar: str) -> Any:
    reader = import_optional("pxr.UsdShade").Shader.Define(stage, f"/scene/material/{name}")
    reader.CreateIdAttr(f"UsdPrimvarReader_{kind}")
    reader.CreateInput("varname", import_optional("pxr.Sdf").ValueTypeNames.String).Set(primvar)
    return reader


def _vectors(values: Tensor) -> Any:
    array = np.ascontiguousarray(values.detach().to(torch.float32).cpu().numpy())
    return import_optional("pxr.Vt").Vec3fArray.FromNumpy(array)
