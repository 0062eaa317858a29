"""``nfldm3d evaluate dreams``: whether objects look like the sentences that they were dreamt from."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from nfldm3d.cli.devices import open_device
from nfldm3d.models.weight_folders import OBJECTS

if TYPE_CHECKING:
    from nfldm3d.data.captioned_pictures import Subject


@runtime_checkable
class DreamJudgement(Protocol):
    """The options."""

    @property
    def prompts(self) -> Path | None: ...
    @property
    def dreams(self) -> Path | None: ...
    @property
    def data(self) -> Path | None: ...
    @property
    def retriever(self) -> str | None: ...
    @property
    def clip(self) -> Path | None: ...
    @property
    def device(self) -> str: ...


def judge_dreams(options: DreamJudgement) -> dict[str, object]:
    """The figures; a ValueError says which option is missing."""
    from nfldm3d.evaluation.dreams import ClipJudge, Judge, MatcherJudge, find_dreams, measure_dreams, read_prompts
    from nfldm3d.evaluation.published import published_retrieval
    from nfldm3d.scene import Scene

    if options.prompts is None or options.dreams is None:
        raise ValueError("dreams are judged among prompts: give --dreams FOLDER and --prompts FILE")
    device, prompts = open_device(options.device), read_prompts(options.prompts)
    found = find_dreams(options.dreams, prompts)
    judges: dict[str, Judge] = {"retriever": MatcherJudge.load(options.retriever or OBJECTS, device)}
    if options.clip is not None:
        judges["clip"] = ClipJudge.load(options.clip, device)
    scenes = {prompt: partial(Scene.load, path, device=device) for prompt, path in found.items()}
    figures = measure_dreams(prompts, scenes, judges, _read_subjects(options.data))
    return figures | {"published": published_retrieval()}


def _read_subjects(folder: Path | None) -> "list[Subject]":
    """Held-out objects."""
    from nfldm3d.data.captioned_pictures import read_objects

    return [] if folder is None else read_objects(folder, "test", with_relief=True)
