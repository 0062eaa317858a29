"""3DiM's X-UNet (Watson et al., "Novel View Synthesis with Diffusion Models", ICLR 2023), and its Concat-UNet baseline.

Two frames of an object, one clean and one noisy, go through the same U-Net side by side; attention across frames lets
the noisy one ask the clean one, and every pixel is told its ray. Follows the authors' own listing, with its slips set
right. Ours are ``patch``, which folds pixels into channels so that small processors can train it, ``prediction``,
``relative`` and ``planes``.
"""

import itertools
from collections.abc import Callable
from typing import Literal, TypedDict

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from nfldm3d.camera import Camera
from nfldm3d.memory import require_bytes
from nfldm3d.models.views.conditions import Conditions, Places
from nfldm3d.models.views.log_snr import Prediction
from nfldm3d.models.views.ray_encoding import (
    DIRECTION_OCTAVES,
    ORIGIN_OCTAVES,
    count_encoded,
    encode_rays,
    turn_to_first,
)
from nfldm3d.models.views.sweep import Sweep, show_swept, sweep_points
from nfldm3d.models.views.xunet_blocks import FrameBlock, ModulatedBlock, make_norm, silence

MOST_PLANES, MOST_OCTAVES = 256, 32
"""More would be noise, or no numbers."""


class XUNetOptions(TypedDict, total=False):
    """The arguments of ``XUNet``."""

    size: int
    patch: int
    channels: int
    multiples: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    heads: int
    memory: int
    dropout: float
    prediction: Prediction
    relative: bool
    planes: int
    octaves: tuple[int, int]
    kind: Literal["xunet", "concat"]
    objective: Literal["diffusion", "regression"]


PUBLISHED_128: XUNetOptions = {
    "size": 128,
    "patch": 1,
    "channels": 256,
    "multiples": (1, 2, 2, 4),
    "blocks": 3,
    "attention": (8, 16, 32),
    "heads": 4,
    "memory": 1024,
    "dropout": 0.1,
    "prediction": "epsilon",
    "relative": False,
}
"""The network of the paper's tables; ``XUNet``'s own defaults are what processors can train."""


class XUNet(ModelMixin, ConfigMixin):
    """Says the noise (or v) of the second frame, given the first one."""

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        size: int = 64,
        patch: int = 2,
        channels: int = 32,
        multiples: tuple[int, ...] = (1, 2, 4),
        blocks: int = 1,
        attention: tuple[int, ...] = (8, 16),
        heads: int = 4,
        memory: int = 96,
        dropout: float = 0.0,
        prediction: Prediction = "v",
        relative: bool = True,
        planes: int = 0,
        octaves: tuple[int, int] = (ORIGIN_OCTAVES, DIRECTION_OCTAVES),
        kind: Literal["xunet", "concat"] = "xunet",
        objective: Literal["diffusion", "regression"] = "diffusion",
    ):
        """For square pictures of ``size`` pixels.

        Args:
            patch: pixels along each side that become the channels of one.
            channels: of the finest level; ``multiples`` of these at each level, from fine to coarse.
            blocks: at each level on the way down; one more on the way up.
            attention: sizes, in patches along a side, of the levels that have attention.
            memory: numbers in which noise and pose are told.
            relative: counts azimuths from the first frame's camera, so that a picture's own need not be known.
            planes: over which the given view is swept for the drawn frame (``Sweep``), which may show what is found
                there; 0 leaves it out.
            octaves: of the sines in which ray origins and directions are told, as published. The finest ones of
                origins are noise to whoever has not seen that camera.
            kind: ``concat`` puts both frames into the channels of one, the paper's baseline.
            objective: ``regression`` is a network that is shown no noise and says the picture at once: a baseline, too.
        """
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        if not 0 <= planes <= MOST_PLANES or (planes and ((patch % 2 and patch > 1) or prediction != "picture")):
            raise ValueError(
                f"{planes} planes cannot be swept in patches of {patch} by a network that says {prediction}; give 0 to "
                f"{MOST_PLANES}, even patches, and let it say the picture"
            )
        if len(octaves) != 2 or not all(1 <= each <= MOST_OCTAVES for each in octaves):
            raise ValueError(f"octaves are two numbers from 1 to {MOST_OCTAVES}, got {octaves}")
        _require_fitting(size, patch, channels, multiples, blocks, attention, heads, memory)
        self.frames = 2 if kind == "xunet" else 1
        together, fine = 2 // self.frames, size // patch  # pictures in a frame's channels; sides in patches
        widths = [channels * multiple for multiple in multiples]
        self.conditions = Conditions(together * count_encoded(*octaves), memory, fine, len(widths), self.frames)

        def block(inputs: int, level: int) -> FrameBlock:
            heads_here = heads if (fine >> level) in attention else 0
            return FrameBlock(inputs, widths[level], memory, dropout, heads=heads_here, frames=self.frames)

        def resample(level: int) -> ModulatedBlock:
            return ModulatedBlock(widths[level], widths[level], memory, dropout)

        self.sweep = Sweep(planes, patch, channels) if planes else None
        self.stem = nn.Conv2d(3 * together * patch**2, channels, 3, padding=1)
        self.down, kept = _make_way_down(channels, widths, blocks, block)
        self.shrink = nn.ModuleList(resample(level) for level in range(len(widths) - 1))
        self.middle = block(widths[-1], len(widths) - 1)
        self.up = _make_way_up(widths, blocks, kept, block)
        self.grow = nn.ModuleList(resample(level) for level in range(len(widths) - 1, 0, -1))
        said = 3 + (1 + planes if planes else 0)  # see show_swept
        self.norm, self.head = make_norm(channels), nn.Conv2d(channels, said * patch**2, 3, padding=1)
        silence(self.head)

    def forward(
        self,
        clean: Float[Tensor, "objects 3 height width"],
        noisy: Float[Tensor, "objects 3 height width"],
        log_snr: Float[Tensor, "objects 2"],
        camera: Camera | None = None,
        known: Bool[Tensor, " objects"] | None = None,
        *,
        places: Places | None = None,
    ) -> Float[Tensor, "objects 3 height width"]:
        """The noise of ``noisy`` or v, as ``prediction`` says.

        Args:
            clean: the view to go by, from -1 to 1; noise where it is not known.
            log_snr: of both; clean ones have 20.
            camera: (objects 2), of both.
            known: where False, poses are left out, for guidance without a classifier.
            places: what ``prepare`` makes of ``camera`` and ``known``, instead of these: a quarter of the work, which
                does not depend on pictures and noise.

        Raises:
            ValueError: neither cameras and what is known, nor places.
        """
        if places is None:
            if camera is None or known is None:
                raise ValueError("the network must be told where views are from: give camera and known, or places")
            places = self.prepare(camera, known)
        patch, objects = int(self.config["patch"]), len(noisy)
        pictures = torch.stack((clean, noisy), dim=1)  # objects 2 3 height width
        frames = functional.pixel_unshuffle(pictures.flatten(0, 1).to(self.dtype), patch)
        frames = frames.reshape(objects * self.frames, -1, *frames.shape[2:])
        told = self.conditions(places[: len(self.down)], log_snr)
        shown, swept = torch.sigmoid(log_snr[:, 0]).to(self.dtype), None
        if self.sweep is not None:
            swept = self.sweep(clean.to(self.dtype), places[-1]) * shown[:, None, None, None]
        hidden = self._through(frames, told, swept)
        said = self.head(functional.silu(self.norm(hidden)))
        said = said.unflatten(0, (objects, self.frames))[:, -1]
        picture = functional.pixel_shuffle(said, patch)
        if self.sweep is not None:
            picture = show_swept(picture, clean, places[-1], shown)
        return picture.to(noisy.dtype)

    def prepare(self, camera: Camera, known: Bool[Tensor, " objects"]) -> Places:
        """What every level is told of the rays of ``camera`` (objects 2), for ``forward``."""
        side = int(self.config["size"]) // int(self.config["patch"])
        camera = turn_to_first(camera) if self.config["relative"] else camera
        encoded = encode_rays(camera.resized(side, side), *self.config["octaves"]) * known[:, None, None, None, None]
        encoded = encoded.reshape(len(known), self.frames, -1, side, side)
        places = self.conditions.place_rays(encoded.to(self.dtype))
        if self.sweep is not None:
            places = (*places, sweep_points(camera, int(self.config["planes"])).to(self.dtype))
        return places

    def _to_drawn(
        self, frames: Float[Tensor, "frames channels height width"], more: Float[Tensor, "objects channels _ _"]
    ) -> Float[Tensor, "frames channels height width"]:
        """Adds to the frame that is drawn alone."""
        given, drawn = frames.unflatten(0, (-1, self.frames)).split((self.frames - 1, 1), dim=1)
        return torch.cat((given, drawn + more[:, None]), dim=1).flatten(0, 1)

    def _through(
        self,
        frames: Float[Tensor, "frames inputs height width"],
        told: list[Tensor],
        swept: Float[Tensor, "objects channels _ _"] | None,
    ) -> Float[Tensor, "frames channels height width"]:
        hidden, kept = self.stem(frames), []
        if swept is not None:
            hidden = self._to_drawn(hidden, swept)
        kept.append(hidden)
        for level, blocks in enumerate(self.down):
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues]
                hidden = block(hidden, told[level])
                kept.append(hidden)
            if level < len(self.shrink):
                hidden = functional.avg_pool2d(self.shrink[level](hidden, told[level]), 2)
                kept.append(hidden)
        hidden = self.middle(hidden, told[-1])
        for number, blocks in enumerate(self.up):
            level = len(self.up) - 1 - number
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues]
                hidden = block(torch.cat((hidden, kept.pop()), dim=1), told[level])
            if level:
                hidden = functional.interpolate(self.grow[number](hidden, told[level]), scale_factor=2.0)
        return hidden


def _make_way_down(
    channels: int, widths: list[int], blocks: int, block: Callable[[int, int], FrameBlock]
) -> tuple[nn.ModuleList, list[int]]:
    """The blocks of each level, and the widths of all that the way up is given."""
    kept, width, levels = [channels], channels, nn.ModuleList()
    for level, wide in enumerate(widths):
        inputs = [width, *itertools.repeat(wide, blocks - 1)]
        levels.append(nn.ModuleList(block(each, level) for each in inputs))
        kept += [wide] * (blocks + (level < len(widths) - 1))  # what is halved is kept, too
        width = wide
    return levels, kept


def _make_way_up(
    widths: list[int], blocks: int, kept: list[int], block: Callable[[int, int], FrameBlock]
) -> nn.ModuleList:
    """The blocks of each level from coarse to fine, one more than on the way down."""
    kept, width, levels = list(kept), widths[-1], nn.ModuleList()
    for level in reversed(range(len(widths))):
        inputs = [width, *itertools.repeat(widths[level], blocks)]
        levels.append(nn.ModuleList(block(each + kept.pop(), level) for each in inputs))
        width = widths[level]
    return levels


def _require_fitting(
    size: int,
    patch: int,
    channels: int,
    multiples: tuple[int, ...],
    blocks: int,
    attention: tuple[int, ...],
    heads: int,
    memory: int,
) -> None:
    """Raises a ValueError for numbers that no network can have."""
    if not multiples or min(size, patch, channels, blocks, heads, *multiples, *attention) < 1 or memory < 4:
        raise ValueError(
            "size, patch, channels, multiples, blocks, attention and heads must be at least 1 and memory 4, got "
            f"{size}, {patch}, {channels}, {multiples}, {blocks}, {attention}, {heads} and {memory}"
        )
    if size % (patch << (len(multiples) - 1)):
        raise ValueError(f"{size} pixels cannot be halved {len(multiples) - 1} times in patches of {patch}; change one")
    widest, levels = channels * max(multiples), len(multiples)
    least = 2 * memory**2 + 9 * count_encoded() * memory * levels + 18 * widest**2 + 2 * widest * memory  # weights
    what = f"a network of {widest} channels and memory of {memory} numbers"
    require_bytes(4 * least, what, "take fewer", torch.device("cpu"))
    if any((channels * multiple) % heads for multiple in multiples):
        raise ValueError(f"{channels} channels times {multiples} cannot be shared by {heads} heads; change one")
