"""Pairs that cost nothing: what an encoded scene shows from a camera, beside the photograph that was taken there.

A restorer learns from them what photographs look like where scenes are blurred (``training.restorer_stage``).
"""

import hashlib
from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.models.nfldm.views import cubic_box
from nfldm3d.models.priors.restorer import look_at
from nfldm3d.pipelines.autoencoders import Autoencoders, views_of
from nfldm3d.scene import Scene

PAIRS = 16
"""Of each scene."""
INPUTS = 16
"""Views that a scene is encoded from, at most: the same as evaluation takes."""
FEWEST = 2


@torch.no_grad()
def make_pairs(networks: Autoencoders, sample: SceneSample, count: int = PAIRS) -> dict[str, Tensor]:
    """Renders of a scene that was encoded from some of its views, and compressed if there is a stage 2.

    A third of the views are among those that were encoded; chance is seeded by the scene's name.

    Returns:
        Bytes by name, 0 to 255 for 0 to 1: ``render`` and ``photograph`` (views 3 height width), ``opacity`` and
        ``nearness`` (views height width).

    Raises:
        ValueError: the scene has fewer than two views.
    """
    total = len(sample.images)
    if total < FEWEST:
        raise ValueError(f"{sample.key} has {total} view, but pairs need one to encode and one to compare with")
    seed = int.from_bytes(hashlib.sha256(sample.key.encode()).digest()[:4], "big")
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed)).tolist()
    inputs = order[: min(INPUTS, total - 1)]
    fresh = order[len(inputs) :][: count - count // 3]
    chosen = sorted(fresh + inputs[: count - len(fresh)])
    seen = look_at(encode_as_generated(networks, sample, inputs), sample.camera[chosen])
    return {name: to_bytes(value) for name, value in seen.items()} | {"photograph": sample.images[chosen]}


def encode_as_generated(networks: Autoencoders, sample: SceneSample, inputs: list[int]) -> Scene:
    """A scene from some views; with stage 2, as its latents hold it: generated scenes look like that."""
    box = cubic_box(sample.box, networks.scene.grid)
    scene = networks.encode(views_of(sample, inputs), box)
    scene = scene if networks.latent is None else networks.decompress(networks.compress(scene), box)
    return replace(scene, cameras=sample.camera[inputs].to(scene.device), metric=sample.metric)


def to_bytes(values: Float[Tensor, "views ..."]) -> UInt8[Tensor, "views ..."]:
    """0 to 255 for 0 to 1."""
    return (values.clamp(0, 1) * 255).round().byte().cpu()
