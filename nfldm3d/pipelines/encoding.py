"""Encodes whole data sets: fields for stage 2, latents for denoisers, pairs for restorers; a stopped run goes on."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from tqdm.auto import tqdm

from nfldm3d._types import PathName
from nfldm3d.data.encoded_scenes import (
    EncodedScene,
    EncodedScenes,
    check_finite,
    has_encoding,
    read_encoding,
    start_folder,
    write_encoding,
)
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.data.scenes import Scenes
from nfldm3d.files import DataFormatError
from nfldm3d.geometry import Box
from nfldm3d.jobs import Share
from nfldm3d.models.nfldm.scene_voxels import (
    ORIENTATIONS,
    Voxels,
    orient_map,
    stack_voxels,
    tensors_from_voxels,
    voxels_from_tensors,
    voxels_of,
)
from nfldm3d.models.nfldm.trajectories import orient_path, pack_path, path_of
from nfldm3d.models.nfldm.views import cubic_box
from nfldm3d.pipelines.autoencoders import Autoencoders, views_of
from nfldm3d.pipelines.embeddings import embedding_of, embedding_size
from nfldm3d.pipelines.pairs import make_pairs

Kept = Literal["fields", "decoded", "latents", "pairs"]
MAX_BAD_SHARE = 0.05
"""A data set of which a larger share is broken is not encoded further."""


@dataclass(frozen=True)
class EncodingReport:
    """What became of a data set."""

    written: int
    present: int
    """Encodings that were there before."""
    problems: tuple[str, ...]
    """What was wrong with scenes that were left out."""


@torch.no_grad()
def encode_scenes(
    networks: Autoencoders,
    scenes: Scenes,
    folder: PathName,
    *,
    keep: Kept = "fields",
    turns: Sequence[int] | None = None,
    embeddings: Mapping[str, Float[Tensor, "..."]] | None = None,
    fields: EncodedScenes | None = None,
    share: Share | None = None,
    progress: bool = True,
) -> EncodingReport:
    """Encodes every scene from all its views, with depth, and keeps it in one or more orientations.

    Args:
        keep: fields as they are, fields after their way through the latents (as generated ones look), the latents, or
            ``pairs`` of renders and photographs, with weights of stage 1 alone or of both stages.
        turns: which of the eight ``ORIENTATIONS``; by default fields stay as they are, for training turns them itself,
            and latents are kept in all eight.
        embeddings: of a class or a text for each scene, by its key: a vector, or tokens of as many numbers. Kept with
            latents, as a condition for denoisers.
        fields: the same scenes' fields, kept before: pictures are not looked at again for what is made of fields.
        share: of the scenes, where several processes fill one folder; default: all.

    Raises:
        ValueError: the folder holds other encodings, weights of stage 2 are missing, too many scenes are broken, or a
            scene has no embedding; ``fields`` are of another network.
    """
    if fields is not None:
        _require_fields_of(networks, fields, keep)
    turns = _choose_turns(turns, keep)
    keys = getattr(scenes, "keys", ())  # a plain list tells none before it is read
    start_folder(folder, _header(networks, scenes, keep, embeddings), keys)
    written, present, problems = 0, 0, []
    for number in tqdm((share or Share()).of(len(scenes)), desc="encode", unit="scene", disable=not progress):
        if keys and all(has_encoding(folder, keys[number], turn) for turn in turns):
            present += len(turns)  # without a look at the scene
            continue
        sample = _read(scenes, number, problems, folder)
        if sample is None:
            continue
        missing = [turn for turn in turns if not has_encoding(folder, sample.key, turn)]
        present += len(turns) - len(missing)
        embedding = None if embeddings is None else embedding_of(embeddings, sample.key)
        for scene in _encode(networks, sample, missing, keep, embedding, fields) if missing else ():
            check_finite(scene.tensors, sample.key)
            write_encoding(folder, scene)
            written += 1
    return EncodingReport(written, present, tuple(problems))


def _choose_turns(turns: Sequence[int] | None, keep: Kept) -> tuple[int, ...]:
    if turns is None:
        return tuple(range(ORIENTATIONS)) if keep == "latents" else (0,)
    if wrong := [turn for turn in turns if not 0 <= turn < ORIENTATIONS]:
        raise ValueError(f"turns are numbers from 0 to {ORIENTATIONS - 1}, got {wrong[0]}")
    if keep == "pairs" and tuple(turns) != (0,):
        raise ValueError(f"pairs are of the world as it stands, turns=(0,), got {tuple(turns)}; leave turns out")
    return tuple(turns)


def _read(scenes: Scenes, number: int, problems: list[str], folder: PathName) -> SceneSample | None:
    """A scene; None if it is broken, which is added to ``problems`` until they are too many."""
    try:
        return scenes[number]
    except DataFormatError as error:
        problems.append(str(error))
        if len(problems) > max(1, MAX_BAD_SHARE * len(scenes)):
            raise DataFormatError(folder, f"{len(problems)} scenes are broken, e.g. {problems[0]}") from error
        return None


def _header(
    networks: Autoencoders, scenes: Scenes, keep: Kept, embeddings: Mapping[str, Tensor] | None
) -> dict[str, object]:
    """What tells the encodings of a folder from others; a ValueError says what does not go together."""
    if keep in ("decoded", "latents") and networks.latent is None:
        raise ValueError("latents need the weights of stage 2; give a folder that holds latent_autoencoder")
    if embeddings is not None and keep != "latents":
        raise ValueError("embeddings go with latents; leave them out, or keep latents")
    parts = [networks.scene] if keep == "fields" else [networks.scene, networks.latent]
    header: dict[str, object] = {"keep": keep, "weights": [fingerprint(part) for part in parts if part is not None]}
    if data := getattr(scenes, "fingerprint", None):
        header["data"] = data
    if keep == "latents":
        assert networks.latent is not None
        header |= describe_scenes(_first_whole(scenes), networks.scene.grid)
        if spread := networks.latent.panorama_spread:
            header["panorama_spread"] = spread
        if embeddings is not None:
            header |= {"embedding_size": embedding_size(embeddings), "embeddings": _hash_tensors(embeddings)}
    return header


def _first_whole(scenes: Scenes) -> SceneSample:
    """The first scene that can be read; the error of the last one if none can."""
    for number in range(len(scenes) - 1):
        with suppress(DataFormatError):
            return scenes[number]
    return scenes[len(scenes) - 1]


def describe_scenes(sample: SceneSample, grid: tuple[int, int, int]) -> dict[str, object]:
    """What all scenes of a data set have in common, which a generator has to know."""
    names, palette = ((), ()) if sample.bev is None else (sample.bev.class_names, sample.bev.palette)
    return {
        "box_size": list(cubic_box(sample.box, grid).size),
        "map_classes": list(names),
        "map_palette": [list(color) for color in palette],
        "map_size": 0 if sample.bev is None else len(sample.bev.classes),
    }


def fingerprint(network: nn.Module) -> str:
    """A sha256 of all weights, which tells networks apart."""
    return _hash_tensors(network.state_dict())


def _hash_tensors(tensors: Mapping[str, Shaped[Tensor, "..."]]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()


def _require_fields_of(networks: Autoencoders, fields: EncodedScenes, keep: Kept) -> None:
    if keep in ("fields", "pairs"):
        raise ValueError(
            f"{keep} are made of pictures; leave the folder of fields out, or keep latents or decoded fields"
        )
    header = fields.header
    if header.get("keep") != "fields" or header.get("weights") != [fingerprint(networks.scene)]:
        raise ValueError(
            f"{fields.folder} holds no fields of these weights of stage 1; write them with nfldm3d encode --keep fields"
        )


def _voxels(networks: Autoencoders, sample: SceneSample, box: Box, fields: EncodedScenes | None) -> Voxels:
    """The field of a scene: read, where it was kept upright, or else made."""
    if fields is not None and has_encoding(fields.folder, sample.key, 0):
        tensors = read_encoding(fields.folder, sample.key, 0).tensors
        try:
            return voxels_from_tensors(tensors).to(networks.scene.device)
        except ValueError as error:
            raise DataFormatError(fields.folder / sample.key, str(error)) from error
    encoding = networks.scene.encode(views_of(sample).to(networks.scene.device), box)
    return voxels_of(encoding.field, encoding.background)


def _encode(
    networks: Autoencoders,
    sample: SceneSample,
    turns: Sequence[int],
    keep: Kept,
    embedding: Tensor | None,
    fields: EncodedScenes | None,
) -> Iterator[EncodedScene]:
    if keep == "pairs":
        yield EncodedScene(sample.key, 0, make_pairs(networks, sample))
        return
    box = cubic_box(sample.box, networks.scene.grid)
    voxels = _voxels(networks, sample, box, fields)
    turned = stack_voxels([voxels.oriented(turn) for turn in turns])
    if keep == "fields":
        for number, turn in enumerate(turns):
            yield EncodedScene(sample.key, turn, tensors_from_voxels(turned[number : number + 1]))
        return
    assert networks.latent is not None
    latents = networks.latent.encode(turned).latents
    if keep == "decoded":
        decoded = networks.latent.decode(networks.latent.quantize(latents)[0])
        for number, turn in enumerate(turns):
            yield EncodedScene(sample.key, turn, tensors_from_voxels(decoded[number : number + 1]))
        return
    for number, turn in enumerate(turns):
        tensors = {name: getattr(latents, name)[number] for name in ("g", "c", "f")}
        tensors["path"] = orient_path(pack_path(path_of(sample), box), turn)
        if sample.bev is not None:
            tensors["bev"] = orient_map(sample.bev.classes, turn)
        if embedding is not None:
            tensors["embedding"] = embedding
        yield EncodedScene(sample.key, turn, tensors)
