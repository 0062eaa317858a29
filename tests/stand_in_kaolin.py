"""As much of Kaolin as its adapters touch, so that their round trips run where the real one is not installed."""

import sys
import warnings
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor


@dataclass
class CameraExtrinsics:
    view_matrix: Tensor

    @classmethod
    def from_view_matrix(cls, view_matrix: Tensor, dtype: torch.dtype, device: torch.device) -> "CameraExtrinsics":
        return cls(view_matrix.detach().to(device, dtype))

    def inv_view_matrix(self) -> Tensor:
        return torch.linalg.inv(self.view_matrix)


@dataclass
class PinholeIntrinsics:
    width: int
    height: int
    params: Tensor
    near: float
    far: float
    lens_type = "pinhole"
    x0 = property(lambda self: self.params[:, 0])
    y0 = property(lambda self: self.params[:, 1])
    focal_x = property(lambda self: self.params[:, 2])
    focal_y = property(lambda self: self.params[:, 3])


@dataclass
class Camera:
    extrinsics: CameraExtrinsics
    intrinsics: PinholeIntrinsics


@dataclass
class Spc:
    octrees: Tensor
    lengths: Tensor
    max_level: int | None = None
    pyramids: Tensor | None = None
    point_hierarchies: Tensor | None = None
    features: Tensor | None = None


class SurfaceMesh(SimpleNamespace):
    def __init__(self, vertices: Tensor, faces: Tensor, **attributes: Any):
        given = {name: value for name, value in attributes.items() if value is not None}
        super().__init__(vertices=vertices, faces=faces, batching="NONE" if vertices.dim() == 2 else "FIXED", **given)

    def __len__(self) -> int:
        return len(self.vertices)

    def has_attribute(self, name: str) -> bool:
        return hasattr(self, name)

    def as_transformed(self) -> "SurfaceMesh":
        matrix = self.transform
        kept = {name: value for name, value in vars(self).items() if name not in ("vertices", "batching", "transform")}
        return SurfaceMesh(self.vertices @ matrix[:3, :3].T + matrix[:3, 3], **kept)


@dataclass
class PBRMaterial:
    diffuse_texture: Tensor | None = None
    diffuse_colorspace: str = "auto"
    material_name: str = ""


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes ``import kaolin`` find these classes until the test ends."""
    members = {
        "kaolin": (),
        "kaolin.render": (),
        "kaolin.render.camera": (Camera, CameraExtrinsics, PinholeIntrinsics),
        "kaolin.render.materials": (PBRMaterial,),
        "kaolin.rep": (Spc, SurfaceMesh),
    }
    for name, classes in members.items():
        module = ModuleType(name)
        for item in classes:
            setattr(module, item.__name__, item)
        monkeypatch.setitem(sys.modules, name, module)


def import_kaolin() -> ModuleType:
    """The real Kaolin; skips the test that asks for it where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("kaolin._C", exc_type=ImportError)
        return pytest.importorskip("kaolin")


def provide_kaolin(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the test run with the real Kaolin or beside the stand-in."""
    if kind == "kaolin":
        import_kaolin()
    else:
        stand_in(monkeypatch)


def same(first: Any, second: Any) -> bool:
    """Whether two cameras, fields or meshes hold equal tensors."""
    pairs = zip(vars(first).values(), vars(second).values(), strict=True)
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)
