"""Scene: a field, what turns it into colour, what lies around it, and how it is kept on disk."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field as member, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d import placement, scene_file
from nfldm3d._types import PathName
from nfldm3d.appearance import Appearance, EnvironmentMap
from nfldm3d.camera import Camera
from nfldm3d.fields import Field, SparseField, StoredField, VoxelField, find_missing
from nfldm3d.geometry import Box, Rays

if TYPE_CHECKING:
    import nfldm3d.rendering.renderer
    import nfldm3d.viewer.inline

Background = EnvironmentMap | Float[Tensor, " channels"]
"""What is seen where nothing absorbs: an environment map, an sRGB colour, or a feature vector."""


@dataclass(frozen=True, eq=False)  # two scenes are equal if they are one: tensors do not compare as a whole
class Scene:
    """One explorable scene: what users load, render, edit and export."""

    field: Field
    """The part in focus: a ``VoxelField``, a ``SparseField``, or any other class with what ``Field`` asks for."""
    appearance: Appearance
    """Turns the field's features into colour."""
    background: Background | None = None
    """Seen behind everything; None leaves it transparent (black in pictures)."""
    surroundings: tuple[Field, ...] = ()
    """Coarser fields of the same channels over larger boxes, each around the one before; the inner field hides the
    part of the outer one that lies in its box."""
    cameras: Camera | None = None
    """The views the scene was made from, if any."""
    metric: bool = True
    """Whether lengths are metres; False where the capture's scale is unknown."""
    metadata: dict[str, object] = member(default_factory=dict)
    """Anything else worth keeping, as plain JSON values."""
    extras: dict[str, Tensor] = member(default_factory=dict)
    """Tensors worth keeping with the scene, such as the latents that it was made from."""

    def __post_init__(self):
        wanted = self.appearance.channels
        inner: Field | None = None
        for name, part in zip(("field", *["surroundings"] * len(self.surroundings)), self.levels, strict=True):
            if missing := find_missing(part):
                raise ValueError(f"{name} is a {type(part).__name__} without {', '.join(missing)}: see fields.Field")
            if isinstance(part, VoxelField) and part.density.dim() != 3:
                raise ValueError(f"a scene holds one scene, {name} holds {tuple(part.density.shape[:-3])}; index one")
            if part.channels != wanted:
                raise ValueError(
                    f"{name} has {part.channels} channels but {type(self.appearance).__name__} needs {wanted}; "
                    "choose another appearance or degree"
                )
            if inner is not None and not _encloses(part.box, inner.box):
                raise ValueError(f"surroundings over {part.box} do not enclose the box before, {inner.box}")
            inner = part
        self._check_background()
        self._check_devices()

    def _check_devices(self) -> None:
        places = {"surroundings": {part.device for part in self.surroundings}}
        if self.background is not None:
            places["background"] = {self._background_values().device}
        if self.cameras is not None:
            places["cameras"] = {self.cameras.device}
        if isinstance(self.appearance, torch.nn.Module):
            values = (*self.appearance.parameters(), *self.appearance.buffers())
            places["appearance"] = {value.device for value in values}
        for name, devices in places.items():
            if devices - {self.device}:
                where = ", ".join(sorted(str(device) for device in devices))
                raise ValueError(
                    f"a scene lives on one device, but the field is on {self.device} and the {name} on {where}; "
                    f"move either with .to({str(self.device)!r})"
                )

    def _check_background(self) -> None:
        if self.background is None:
            return
        values = self._background_values()
        if values.shape[-1] not in (3, self.appearance.channels) or (values is self.background and values.dim() != 1):
            raise ValueError(
                f"a background needs 3 colours or {self.appearance.channels} features, got shape {tuple(values.shape)}"
            )

    def _background_values(self) -> Tensor:
        assert self.background is not None
        return self.background.image if isinstance(self.background, EnvironmentMap) else self.background

    @property
    def levels(self) -> tuple[Field, ...]:
        """The field and its surroundings, from the inside out."""
        return (self.field, *self.surroundings)

    @property
    def box(self) -> Box:
        """The box of the field in focus."""
        return self.field.box

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        device = self.field.device
        return device if device != torch.device("cuda") else torch.device("cuda", torch.cuda.current_device())

    def __str__(self) -> str:
        lines = [f"Scene in {'metres' if self.metric else 'units of unknown size'}"]
        lines += [f"  field        {self.field}"]
        lines += [f"  surroundings {part}" for part in self.surroundings]
        lines += [f"  appearance   {self.appearance}"]
        lines += [f"  background   {_describe_background(self.background)}"]
        if self.cameras is not None:
            lines += [f"  cameras      {self.cameras}"]
        lower, upper = (" ".join(f"{v:.3g}" for v in corner) for corner in (self.box.lower, self.box.upper))
        lines += [f"  extent       from ({lower}) to ({upper})"]
        if moved := placement.describe(self.metadata):
            lines += [f"  placement    {moved}"]
        known = [part.nbytes for part in self.levels if isinstance(part, VoxelField | SparseField)]
        lines += [f"  memory       {sum(known) / 2**20:.1f} MiB"] if len(known) == len(self.levels) else []
        return "\n".join(lines)

    __repr__ = __str__

    def render(
        self, camera: Camera, *, with_normals: bool = False, with_features: bool = False
    ) -> "nfldm3d.rendering.renderer.Rendering":
        """What cameras see of it, as ``nfldm3d.render``; ``rendering.prepare`` it once for many pictures."""
        from nfldm3d.rendering.renderer import render

        return render(self, camera, with_normals=with_normals, with_features=with_features)

    def export(self, path: PathName) -> None:
        """Writes a mesh (.glb .obj .ply .usd ...) or a volume (.vdb .nvdb), as ``nfldm3d.export.export_scene``."""
        from nfldm3d.export.scene_export import export_scene

        export_scene(self, path)

    def show(self, *, height: int = 560) -> "nfldm3d.viewer.inline.InlineViewer":
        """The viewer in a notebook, ``height`` pixels high, until its ``close``: ``pip install 'nfldm3d[viewer]'``."""
        from nfldm3d.viewer.inline import show

        return show(self, height=height)

    def _repr_png_(self) -> bytes:
        """A small picture, which notebooks show."""
        from nfldm3d.viewer.inline import picture

        return picture(self)

    def to(self, target: torch.device | torch.dtype | str) -> "Scene":
        """The scene on another device, or its fields in another dtype.

        Halves of numbers are for fields: cameras and the background keep single precision, whose places they need.
        Networks and extras keep their dtype.
        """
        exact = target
        if isinstance(target, torch.dtype):
            if not target.is_floating_point:
                raise ValueError(f"a scene needs a floating-point dtype, got {target}")
            exact = torch.promote_types(target, torch.float32)
        return replace(
            self,
            field=_move_field(self.field, target),
            appearance=_move_appearance(self.appearance, target),
            surroundings=tuple(_move_field(part, target) for part in self.surroundings),
            background=None if self.background is None else self.background.to(exact),
            cameras=None if self.cameras is None else self.cameras.to(exact),
            extras=self.extras
            if isinstance(target, torch.dtype)
            else {name: value.to(target) for name, value in self.extras.items()},
        )

    def background_color(self, rays: Rays) -> Float[Tensor, "*batch channels"]:
        """What the rays see where nothing is in the way; black without a background."""
        if self.background is None:
            return torch.zeros_like(rays.directions)
        if isinstance(self.background, EnvironmentMap):
            return self.background.query(rays.directions)
        return self.background.expand(*rays.shape, -1)

    def save(self, path: PathName) -> None:
        """Writes a single file if the name ends in ``.nfld``, else a folder; never leaves a half-written one.

        Raises:
            ValueError: if a field holds NaN or negative densities or does not say what to keep of it (``StoredField``),
                or the path cannot be written.
        """
        tensors: dict[str, Tensor] = {}
        config: dict[str, object] = {
            "levels": [scene_file.pack_field(part, f"level{n}", tensors) for n, part in enumerate(self.levels)],
            "appearance": scene_file.pack_appearance(self.appearance, tensors),
            "background": None,
            "cameras": None,
            "metric": self.metric,
            "metadata": self.metadata,
        }
        if self.background is not None:
            is_map = isinstance(self.background, EnvironmentMap)
            config["background"] = "environment_map" if is_map else "constant"
            tensors["background"] = self._background_values().clone()
        if self.cameras is not None:
            config["cameras"] = scene_file.pack_camera(self.cameras, tensors)
        tensors.update({f"{scene_file.EXTRA}{name}": value.clone() for name, value in self.extras.items()})
        scene_file.write(path, config, tensors)

    @classmethod
    def load(
        cls,
        path: PathName,
        *,
        appearance: Appearance | None = None,
        device: torch.device | str = "cpu",
        field_types: Sequence[type[StoredField]] = (),
    ) -> "Scene":
        """Reads what ``save`` wrote.

        Args:
            appearance: takes the place of the one in the file.
            field_types: classes of your own that fields in the file may have; it names them, and holds no code.

        Raises:
            DataFormatError: if the file is missing, truncated, altered, foreign, or of a newer version.
        """
        config, tensors = scene_file.read(path)
        return scene_file.rebuild(path, lambda: _from_file(config, tensors, appearance, field_types)).to(device)


def _from_file(
    config: dict, tensors: dict[str, Tensor], appearance: Appearance | None, field_types: Sequence[type[StoredField]]
) -> Scene:
    levels = [
        scene_file.unpack_field(level, f"level{number}", tensors, field_types)
        for number, level in enumerate(config["levels"])
    ]
    return Scene(
        levels[0],
        scene_file.unpack_appearance(config["appearance"], tensors, appearance),
        scene_file.unpack_background(config["background"], tensors),
        tuple(levels[1:]),
        None if config["cameras"] is None else scene_file.unpack_camera(config["cameras"], tensors),
        bool(config["metric"]),
        dict(config["metadata"]),
        {
            name.removeprefix(scene_file.EXTRA): value
            for name, value in tensors.items()
            if name.startswith(scene_file.EXTRA)
        },
    )


def _move_field(field: Field, target: torch.device | torch.dtype | str) -> Field:
    """A module moves itself; the scene's own stays."""
    return (copy.deepcopy(field) if isinstance(field, torch.nn.Module) else field).to(target)


def _move_appearance(appearance: Appearance, target: torch.device | torch.dtype | str) -> Appearance:
    """A learned appearance on another device; its dtype is its own."""
    if isinstance(appearance, torch.nn.Module) and not isinstance(target, torch.dtype):
        return copy.deepcopy(appearance).to(target)
    return appearance


def _encloses(outer: Box, inner: Box) -> bool:
    slack = 1e-5 * max(outer.size)
    return all(a <= b + slack for a, b in zip(outer.lower, inner.lower, strict=True)) and all(
        a >= b - slack for a, b in zip(outer.upper, inner.upper, strict=True)
    )


def _describe_background(background: Background | None) -> str:
    if background is None:
        return "none"
    if isinstance(background, EnvironmentMap):
        height, width, channels = background.image.shape
        return f"environment map, {width}x{height} x {channels} channels"
    return f"constant ({', '.join(f'{value:.3g}' for value in background.tolist())})"
